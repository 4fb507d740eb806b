"""Names of every kind, and the sentence for each bad one."""

from __future__ import annotations

import subprocess
import sys

import pytest
from whole_files import safetensors_bytes

from playground.core.problem import Problem
from playground.models.resolve import peek, resolve


def refused(name) -> str:
    with pytest.raises(Problem) as caught:
        resolve(str(name), lambda event: None)
    assert caught.value.kind == "model"
    return caught.value.message


def test_importing_and_peeking_need_neither_torch_nor_transformers(home):
    code = (
        "import sys\n"
        "from playground.models.resolve import resolve, peek\n"
        "assert peek('shape:tiny').config['hidden_size'] == 64\n"
        "assert peek('smollm2-135m-instruct').config['num_hidden_layers'] == 30\n"
        "resolve('shape:llama-3.1-8b', print)\n"
        "heavy = {'torch', 'transformers', 'bitsandbytes', 'gradio'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_shape_resolves_without_network_and_says_that_it_is_noise(home):
    model = resolve("shape:llama-3.1-8b", lambda event: None)
    assert (model.kind, model.random_weights, model.config["num_hidden_layers"]) == ("shape", True, 32)
    assert "noise" in model.source
    assert (model.folder / "config.json").is_file()


def test_an_unknown_shape_or_name_gets_the_nearest_one(home):
    assert "did you mean 'shape:llama-3.1-8b'" in refused("shape:llama-3.1-8B")
    assert "did you mean 'smollm2-135m-instruct'" in refused("smolm2-135m-instruct")


def test_a_path_that_does_not_exist_is_no_hub_id(home):
    assert refused("/nowhere/model") == "There is no file or folder /nowhere/model."
    assert refused("some/model.gguf") == "There is no file or folder some/model.gguf."


def test_a_folder_resolves_to_itself(home, folder):
    model = resolve(str(folder), lambda event: None)
    assert (model.folder, model.kind, model.config["num_hidden_layers"]) == (folder, "folder", 2)
    assert peek(str(folder)).config["max_position_embeddings"] == 128


def test_a_folder_without_weights_says_what_is_there(home, folder):
    (folder / "model.safetensors").unlink()
    assert "no weights: it needs config.json and *.safetensors, and has config.json." in refused(folder)


def test_a_folder_without_config_says_so(home, folder):
    (folder / "config.json").unlink()
    assert "has no config.json" in refused(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt"])
def test_a_pickle_is_refused_with_the_reason_and_what_to_do(home, folder, name):
    (folder / "model.safetensors").rename(folder / name)
    message = refused(folder)
    assert name in message
    assert "can run any code" in message
    assert "convert" in message


def test_a_pickle_beside_safetensors_is_not_in_the_way(home, folder):
    (folder / "pytorch_model.bin").write_bytes(b"x")
    assert resolve(str(folder), lambda event: None).kind == "folder"


def test_a_truncated_safetensors_file_is_found_with_the_bytes_expected_and_found(home, folder):
    whole = safetensors_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-3])
    assert f"model.safetensors is cut short: {len(whole)} bytes expected by its header, {len(whole) - 3} found" in refused(folder)
    (folder / "model.safetensors").write_bytes(whole[:20])
    assert "its header needs" in refused(folder)
    (folder / "model.safetensors").write_bytes(b"")
    assert "cut short" in refused(folder)
    (folder / "model.safetensors").write_bytes(whole + b"more")
    assert "has bytes after its end" in refused(folder)
    (folder / "model.safetensors").write_bytes(b"\x04" + bytes(7) + b"nope")
    assert "is not a safetensors file" in refused(folder)


def test_a_missing_shard_is_named(home, folder):
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}')
    assert "1 of 2 weight files are missing, first model-2.safetensors" in refused(folder)


def test_a_file_of_another_kind_is_no_model(home, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    assert "is not a model: give a .gguf file, or a folder" in refused(tmp_path / "notes.txt")


def test_peek_knows_nothing_of_what_is_not_there(home):
    assert peek("shape:nothing") is None
    assert peek("/nowhere") is None
    assert peek("someone/model") is None
    assert peek("nothing") is None


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("foo/bar--baz", "The hub has no model 'foo/bar--baz'"),
        ("foo/..bar", "The hub has no model 'foo/..bar'"),
        ("é/ü", "There is no model|The hub has no model"),
        ("x" * 300, "There is no model 'xxx"),
        ("/" + "x" * 300, "There is no file or folder /xxx"),
        ("org/" + "x" * 300, "The hub has no model 'org/xxx"),
        ("~nosuchuser/x", "There is no file or folder ~nosuchuser/x"),
        ("a\0b", "There is no model"),
        ("a\udcffb", "There is no model"),
        ("\ud800", "There is no model"),
    ],
)
def test_a_name_that_cannot_be_is_refused_with_a_sentence_and_nothing_is_known_of_it(home, name, sentence):
    import re

    assert re.search(sentence, refused(name))
    assert peek(name) is None


def test_a_config_that_is_no_configuration_gives_no_facts(home, folder):
    for text in ("[" * 100_000, "[]", "{}", "\udcff"):
        (folder / "config.json").write_text(text, encoding="utf-8", errors="surrogateescape")
        assert peek(str(folder)) is None
        assert str(folder) in refused(folder)


def test_what_this_user_may_not_read_is_said(home, folder, monkeypatch):
    from pathlib import Path

    def forbidden(self, *arguments):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", forbidden)
    assert refused(folder) == f"{folder} cannot be read: Permission denied."
    monkeypatch.setattr(Path, "is_dir", forbidden)
    assert refused(folder) == f"{folder} cannot be read: Permission denied."
    assert peek(str(folder)) is None
