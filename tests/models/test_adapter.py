"""Adapters of the hub, with the real client against a hub on this machine."""

from __future__ import annotations

import pytest
from fake_hub import COMMIT
from whole_files import safetensors_bytes

from playground.core.problem import Problem
from playground.models.adapter import adapter_numbers, resolve_adapter
from playground.models.hub import Unreachable

WHOLE = {"adapter_config.json": b"{}", "adapter_model.safetensors": safetensors_bytes(6)}


def test_an_adapter_of_the_hub_is_fetched_without_what_else_lies_there_and_never_asked_for_again(hub):
    hub.add("someone/adapter", {**WHOLE, "adapter_model.bin": b"pickle", "README.md": b"hello", "checkpoint-1/adapter_config.json": b"{}"})
    assert adapter_numbers("someone/adapter") is None
    events = []
    folder = resolve_adapter("someone/adapter", events.append)
    assert {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()} == WHOLE
    assert [(event.name, event.done, event.total) for event in events] == [("fetching the adapter someone/adapter", 0, None)]
    assert adapter_numbers("someone/adapter") == 6
    hub.asked.clear()
    assert resolve_adapter("someone/adapter", events.append) == folder
    assert (hub.asked, len(events)) == ([], 1)


def test_an_adapter_of_which_another_program_fetched_half_is_fetched_to_its_end(hub, tmp_path):
    repo = tmp_path / "hub" / "models--someone--adapter"
    snapshot = repo / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    (snapshot / "adapter_config.json").write_bytes(b"{}")
    hub.add("someone/adapter", WHOLE)
    assert resolve_adapter("someone/adapter", lambda event: None) == snapshot
    assert (snapshot / "adapter_model.safetensors").read_bytes() == WHOLE["adapter_model.safetensors"]


def test_an_unknown_adapter_and_one_that_is_cut_short_are_said(hub):
    hub.add("someone/cut", {**WHOLE, "adapter_model.safetensors": safetensors_bytes(6)[:-1]})
    for name, says in (
        ("someone/nothing", "The hub has no model 'someone/nothing'"),
        ("someone/cut", "adapter_model.safetensors is cut short"),
    ):
        with pytest.raises(Problem, match=says) as caught:
            resolve_adapter(name, lambda event: None)
        assert caught.value.kind == "model"
        assert not isinstance(caught.value, Unreachable)


def test_an_adapter_without_a_network_says_that_no_hub_answers_and_one_that_is_here_needs_none(hub, monkeypatch):
    from huggingface_hub import constants

    hub.add("someone/adapter", WHOLE)
    folder = resolve_adapter("someone/adapter", lambda event: None)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    says = "someone/other is not on this machine and cannot be fetched: the model hub does not answer"
    with pytest.raises(Unreachable, match=says) as caught:
        resolve_adapter("someone/other", lambda event: None)
    assert caught.value.kind == "model"
    assert resolve_adapter("someone/adapter", lambda event: None) == folder


def test_an_adapter_in_offline_mode_names_the_mode(home):
    with pytest.raises(Unreachable, match="HF_HUB_OFFLINE is set"):
        resolve_adapter("someone/adapter", lambda event: None)
