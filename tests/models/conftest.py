"""What the tests of models share: an empty home, the real default model, a tiny GGUF file and a hub on this machine."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from fake_hub import FakeHub
from whole_files import safetensors_bytes

from playground.models.model import ResolvedModel


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty home of the playground and an empty hub cache, with no hub to ask."""
    from huggingface_hub import constants

    folder = tmp_path / "home"
    monkeypatch.setenv("PLAYGROUND_HOME", str(folder))
    monkeypatch.delenv("PLAYGROUND_DEFAULT_GGUF", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return folder


@pytest.fixture
def hub(home, monkeypatch):
    """A hub that answers on this machine; `hub.add(id, {file: bytes})` fills it."""
    from huggingface_hub import constants

    with FakeHub() as server:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}")
        yield server


@pytest.fixture(scope="session")
def default_model() -> ResolvedModel:
    """The real default model, in the persistent cache of the tests."""
    from playground.models.resolve import resolve

    if not os.environ.get("PLAYGROUND_HOME"):
        pytest.skip("PLAYGROUND_HOME is not set: no place for the default model")
    return resolve("smollm2-135m-instruct", lambda event: None)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder that looks like a model: config.json and one whole safetensors file."""
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"model_type": "llama", "num_hidden_layers": 2, "max_position_embeddings": 128}))
    (path / "model.safetensors").write_bytes(safetensors_bytes())
    return path


@pytest.fixture
def tiny_gguf(tmp_path) -> Path:
    """A whole GGUF file: a Llama of one layer with 8-bit blocks and a byte-level tokenizer, weights drawn with seed 7."""
    import tiny_gguf as tiny

    return tiny.write(tmp_path / "tiny.gguf")
