"""Hub models, with the real client against a hub on this machine."""

from __future__ import annotations

import json
import shutil
import time

import pytest
from whole_files import safetensors_bytes

from playground.core.problem import Problem
from playground.models.hub import Unreachable
from playground.models.resolve import peek, resolve

CONFIG = json.dumps({"model_type": "llama", "num_hidden_layers": 3, "max_position_embeddings": 64}).encode()


def refuse(event):
    raise AssertionError(f"nothing is fetched, yet there was {event}")


def test_a_hub_model_is_fetched_with_its_bytes_counted_and_never_asked_for_again(hub):
    weights = safetensors_bytes(300_000)
    files = {"config.json": CONFIG, "model.safetensors": weights, "pytorch_model.bin": b"pickle", "original/params.json": b"{}"}
    hub.add("someone/model", files)
    events = []
    model = resolve("someone/model", events.append)
    assert (model.kind, model.source, model.config["num_hidden_layers"]) == ("hub", "someone/model @ 0123456", 3)
    assert sorted(path.name for path in model.folder.iterdir()) == ["config.json", "model.safetensors"]
    assert (events[-1].done, events[-1].total, events[-1].unit) == (len(CONFIG) + len(weights), len(CONFIG) + len(weights), "B")
    assert not any("pytorch_model.bin" in path for path in hub.asked)
    hub.asked.clear()
    assert resolve("someone/model", refuse) == model
    assert hub.asked == []


def test_bytes_grow_while_a_file_arrives(hub, monkeypatch):
    import fake_hub

    def slowly(request, status, headers, data, body):
        request.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            request.send_header(name, value)
        request.end_headers()
        for start in range(0, len(data) if body else 0, 1 << 24):
            request.wfile.write(data[start : start + (1 << 24)])
            time.sleep(0.3)

    monkeypatch.setattr(fake_hub.FakeHub, "send", staticmethod(slowly))
    hub.add("someone/big", {"config.json": CONFIG, "model.safetensors": safetensors_bytes(1 << 24)})
    events = []
    resolve("someone/big", events.append)
    assert len({event.done for event in events if event.unit == "B" and 0 < event.done < event.total}) >= 2


def test_an_unknown_id_a_gated_model_and_a_silent_hub_are_three_sentences(hub, monkeypatch):
    from huggingface_hub import constants

    hub.add("someone/gated", {"config.json": CONFIG, "model.safetensors": safetensors_bytes()}, gated=True)
    with pytest.raises(Problem, match="The hub has no model 'someone/nothing'") as unknown:
        resolve("someone/nothing", lambda event: None)
    with pytest.raises(Problem, match=r"someone/gated is gated: accept its licence on http.*/someone/gated") as gated:
        resolve("someone/gated", lambda event: None)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(Unreachable, match=r"does not answer.*smollm2-135m-instruct.*shape:") as silent:
        resolve("someone/else", lambda event: None)
    assert time.monotonic() - start < 60  # and not after minutes of trying again
    assert {problem.value.kind for problem in (unknown, gated, silent)} == {"model"}


def test_offline_mode_is_named_as_the_reason(home):
    with pytest.raises(Unreachable, match="HF_HUB_OFFLINE is set"):
        resolve("someone/model", lambda event: None)


def test_a_hub_model_with_pickles_only_is_refused_before_anything_is_fetched(hub):
    hub.add("someone/old", {"config.json": CONFIG, "pytorch_model.bin": b"pickle"})
    with pytest.raises(Problem, match=r"only as a pickle \(pytorch_model.bin\).*run any code"):
        resolve("someone/old", lambda event: None)
    assert not any("/resolve/" in path for path in hub.asked)


def test_a_hub_model_with_gguf_files_says_what_to_do(hub):
    hub.add("someone/quants", {"model-Q4_K_M.gguf": b"GGUF"})
    with pytest.raises(Problem, match=r"model-Q4_K_M.gguf, and give its path"):
        resolve("someone/quants", lambda event: None)


def test_a_truncated_file_from_the_hub_is_found_before_it_is_loaded(hub):
    hub.add("someone/cut", {"config.json": CONFIG, "model.safetensors": safetensors_bytes()[:-1]})
    with pytest.raises(Problem, match=r"model.safetensors is cut short"):
        resolve("someone/cut", lambda event: None)


def test_peek_fetches_the_small_config_and_no_weights(hub):
    hub.add("someone/model", {"config.json": CONFIG, "model.safetensors": safetensors_bytes()})
    facts = peek("someone/model")
    assert (facts.kind, facts.config["max_position_embeddings"]) == ("hub", 64)
    assert not any("safetensors" in path for path in hub.asked)
    assert peek("someone/nothing") is None


def test_a_peek_that_must_answer_at_once_asks_no_hub_and_knows_what_was_fetched(hub):
    hub.add("someone/model", {"config.json": CONFIG, "model.safetensors": safetensors_bytes()})
    assert peek("someone/model", ask_hub=False) is None
    assert hub.asked == []
    peek("someone/model")
    before = list(hub.asked)
    assert peek("someone/model", ask_hub=False).config["max_position_embeddings"] == 64
    assert hub.asked == before


def test_the_default_model_comes_from_the_hub_where_one_answers(hub):
    hub.add("HuggingFaceTB/SmolLM2-135M-Instruct", {"config.json": CONFIG, "model.safetensors": safetensors_bytes()})
    model = resolve("smollm2-135m-instruct", lambda event: None)
    assert (model.kind, model.source) == ("default", "HuggingFaceTB/SmolLM2-135M-Instruct @ 0123456")
    assert resolve("smollm2-135m-instruct", refuse) == model


WHOLE = {"config.json": CONFIG, "model.safetensors": safetensors_bytes(), "tokenizer.json": b"{}", "tokenizer_config.json": b"{}"}


def in_the_hubs_cache(tmp_path, files, commit="f" * 40):
    """A snapshot that another program put there: no list of the playground, none of the hub's client."""
    repo = tmp_path / "hub" / "models--someone--model"
    snapshot = repo / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    for name, data in files.items():
        (snapshot / name).write_bytes(data)
    return snapshot


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_download_that_stopped_early_is_finished_when_the_hub_answers_and_named_when_it_does_not(hub, tmp_path, monkeypatch, name):
    from huggingface_hub import constants

    hub.add("someone/model", WHOLE)
    first = resolve("someone/model", lambda event: None).folder
    # Older clients of the hub keep no list of their own; the new one keeps it on the disk and, by path, in memory.
    (tmp_path / "hub").rename(tmp_path / "moved")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "moved"))
    folder = tmp_path / "moved" / first.relative_to(tmp_path / "hub")
    shutil.rmtree(folder.parents[1] / "trees", ignore_errors=True)
    (folder / name).unlink()
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(Unreachable, match=rf"someone/model is on this machine only in part \(1 of 4 files are missing, first {name}\)"):
        resolve("someone/model", lambda event: None)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    assert resolve("someone/model", lambda event: None).folder == folder
    assert (folder / name).read_bytes() == b"{}"


def test_a_whole_snapshot_of_another_program_works_without_network(home, tmp_path):
    snapshot = in_the_hubs_cache(tmp_path, WHOLE)
    model = resolve("someone/model", refuse)
    assert (model.folder, model.source) == (snapshot, "someone/model @ fffffff")


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"config.json": CONFIG, "model.safetensors": safetensors_bytes()}, "its tokenizer is missing"),
        (
            {"config.json": CONFIG, "model-00001-of-00002.safetensors": safetensors_bytes(), "tokenizer.json": b"{}"},
            "model.safetensors.index.json is missing",
        ),
    ],
)
def test_half_a_snapshot_of_another_program_is_not_taken_for_a_model(home, tmp_path, files, sentence):
    in_the_hubs_cache(tmp_path, files)
    with pytest.raises(Unreachable, match=rf"only in part \({sentence}\), and the rest cannot be fetched: HF_HUB_OFFLINE is set"):
        resolve("someone/model", lambda event: None)


def test_half_a_snapshot_of_another_program_is_completed_from_the_hub(hub, tmp_path):
    import fake_hub

    snapshot = in_the_hubs_cache(tmp_path, {"config.json": CONFIG, "model.safetensors": safetensors_bytes()}, fake_hub.COMMIT)
    hub.add("someone/model", WHOLE)
    assert resolve("someone/model", lambda event: None).folder == snapshot
    assert (snapshot / "tokenizer.json").read_bytes() == b"{}"


def test_a_folder_that_cannot_be_written_and_a_full_disk_are_not_a_silent_hub(hub, tmp_path, monkeypatch):
    import errno

    import huggingface_hub
    from huggingface_hub import constants

    hub.add("someone/model", WHOLE)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    with pytest.raises(Problem, match=r"someone/model cannot be stored in .*file/hub: Not a directory") as blocked:
        resolve("someone/model", lambda event: None)
    assert not isinstance(blocked.value, Unreachable)
    faults = [
        (PermissionError(errno.EACCES, "Permission denied", "/a/b"), r"cannot be stored in .*: Permission denied \(/a/b\)", Problem),
        (OSError(errno.ENOSPC, "No space left on device"), "The disk is full: someone/model does not fit", Problem),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), "the model hub does not answer", Unreachable),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset"), "the model hub does not answer", Unreachable),
    ]
    for error, sentence, kind in faults:

        def fail(*arguments, error=error, **options):
            raise error

        monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
        with pytest.raises(Problem, match=sentence) as caught:
            resolve("someone/model", lambda event: None)
        assert type(caught.value) is kind


def test_an_error_of_the_one_who_watches_is_not_blamed_on_the_hub(hub):
    def broken(event):
        raise BrokenPipeError("the watcher is gone")

    hub.add("someone/model", WHOLE)
    with pytest.raises(BrokenPipeError):
        resolve("someone/model", broken)
