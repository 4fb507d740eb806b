"""What was made here and is a model: found, listed and resolved by its name, and never in the way of anything else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from playground.core.problem import Problem
from playground.models.adapter import resolve_adapter
from playground.models.catalogue import catalogue, find
from playground.models.made import find_made, made
from playground.models.resolve import peek, require_made, resolve

SOURCE = "layer-pruned and distilled from big in 9 steps"
Keep = Callable[..., Path]


@pytest.fixture
def keep(home: Path, folder: Path) -> Keep:
    """keep("pocket", kind="model"): a made thing with the files of a small model and this provenance."""

    def make(name: str, **facts: Any) -> Path:
        target = home / "made" / name
        shutil.copytree(folder, target)
        (target / "provenance.json").write_text(json.dumps({"source": SOURCE, "parameters": 7, **facts, "name": name}))
        return target

    return make


def refused(name: str, lookup: Callable[[str], object]) -> str:
    with pytest.raises(Problem) as caught:
        lookup(name)
    assert caught.value.kind == "user"
    return caught.value.message


def resolved(name: str) -> object:
    return resolve(name, lambda event: None)


def test_a_made_model_is_offered_with_its_source_and_resolves_to_its_folder(keep: Keep) -> None:
    folder = keep("pocket", kind="model", licence="MIT")
    entry = find("made:pocket")
    assert entry in catalogue()
    assert (entry.kind, entry.parameters, entry.licence, entry.config["num_hidden_layers"]) == ("made", 7, "MIT", 2)
    assert SOURCE in entry.note
    model = resolve("made:pocket", lambda event: None)
    assert (model.folder, model.kind, model.source, model.random_weights) == (folder, "made", SOURCE, False)
    assert peek("made:pocket").config == model.config
    assert require_made("made:pocket") is None
    assert not [entry for entry in catalogue(Path("presets/models.toml")) if entry.kind == "made"]


def test_an_adapter_is_no_model_and_a_model_no_adapter(keep: Keep) -> None:
    keep("style", kind="adapter")
    keep("pocket", kind="model")
    assert {entry.name for entry in catalogue() if entry.kind == "made"} == {"made:pocket"}
    assert find("made:style") is None
    assert refused("made:style", resolved) == "made:style is of the kind adapter, and here one of the kind model is needed."
    assert "made:pocket is of the kind model" in refused("made:pocket", lambda name: resolve_adapter(name, lambda event: None))


def test_an_unknown_name_gets_the_nearest_model_and_how_to_make_one(keep: Keep) -> None:
    keep("pocket", kind="model")
    keep("pockets", kind="adapter")
    for lookup in (resolved, require_made):
        message = refused("made:pocke", lookup)
        assert "did you mean 'pocket'?" in message
        assert "python -m playground distil --name pocke" in message
        assert "tab Make" in message
    assert require_made("someone/model") is None


@pytest.mark.parametrize("text", ["{", "[]", "\udcff"])
def test_one_provenance_that_cannot_be_read_disturbs_no_other_name(keep: Keep, text: str) -> None:
    keep("pocket", kind="model")
    broken = keep("broken", kind="model")
    (broken / "provenance.json").write_text(text, encoding="utf-8", errors="surrogateescape")
    assert {"pocket", "broken"} & made().keys() == {"pocket"}
    assert {entry.name for entry in catalogue() if entry.kind == "made"} == {"made:pocket"}
    assert find_made("made:pocket", "model").name == "pocket"
    assert "did you mean 'pocket'" in refused("made:pocet", find_made)
    assert f"Delete the folder {broken}" in refused("made:broken", resolved)


def test_a_made_model_whose_files_are_damaged_is_a_sentence_and_not_in_the_way(keep: Keep) -> None:
    keep("pocket", kind="model", parameters="many", source=None)
    (keep("bare", kind="model") / "config.json").unlink()
    (keep("short", kind="model") / "model.safetensors").write_bytes(b"")
    assert find("made:pocket").parameters == 0
    assert find("made:bare") is None
    for name in ("made:bare", "made:short"):
        with pytest.raises(Problem, match=r"has no config\.json|cut short"):
            resolved(name)
