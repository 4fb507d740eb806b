"""The history: found by filters and words, described, pinned, deleted and brought back; the same for experiments of an older file."""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.results.history import Filters
from playground.results.migrations import MIGRATIONS, notes_and_filters
from playground.results.store import Store, open_store

TINY = RunSpec(model="shape:tiny", knobs={"precision": "fp32", "quantization": "none"}, label="fp32")
LLAMA = RunSpec(model="meta/Llama-3.2-1B", device="cuda", knobs={"kv_cache": "off", "precision": "bf16"}, label="no cache")


def ended(store: Store, title: str, specs: list[RunSpec], statuses: list[str], gpu: str = "") -> str:
    """An experiment whose runs ended so, on that GPU or on a CPU called "Zen"."""
    experiment = store.create(title, specs)
    for index, status in enumerate(statuses):
        provenance = {"cpu": "Zen", "gpu": gpu, "device": "cuda" if gpu else "cpu"}
        metrics = {"itl_s": {"value": 0.5, "ci95": [0.4, 0.6], "kind": "measured"}}
        store.finish(experiment, index, {"status": status, "provenance": provenance, "metrics": metrics})
    return experiment


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.sqlite"


@pytest.fixture
def three(path: Path) -> Any:
    """A store with three experiments, oldest first: Grüße (tiny, done, Zen), Cache (llama, failed, H200), Mixed (both, one cancelled)."""
    store = Store(path)
    ids = [
        ended(store, "Grüße", [TINY], ["done"]),
        ended(store, "Cache", [LLAMA, LLAMA], ["done", "failed"], "H200"),
        ended(store, "Mixed", [TINY, LLAMA], ["cancelled", "done"], "H200"),
    ]
    for day, experiment in zip((1, 2, 3), ids, strict=True):
        with sqlite3.connect(path) as raw:
            raw.execute("UPDATE experiments SET created_at = ? WHERE id = ?", (f"2026-11-0{day}T23:30:00+00:00", experiment))
    yield store, ids
    store.close()


def titles(store: Store, **wanted: str) -> list[str]:
    """What these filters leave."""
    page = store.earlier.page(Filters(**wanted))
    found = [line["title"] for line in page["experiments"]]
    assert page["total"] == len(found)
    return found


@pytest.mark.parametrize(
    ("wanted", "left"),
    [
        ({}, ["Mixed", "Cache", "Grüße"]),
        ({"model": "shape:tiny"}, ["Mixed", "Grüße"]),
        ({"technique": "kv_cache"}, ["Mixed", "Cache"]),
        ({"technique": "precision"}, ["Mixed", "Grüße"]),
        ({"technique": "quantization"}, []),
        ({"device": "Zen"}, ["Grüße"]),
        ({"device": "H200", "model": "shape:tiny"}, ["Mixed"]),
        ({"status": "done"}, ["Grüße"]),
        ({"status": "failed"}, ["Cache"]),
        ({"since": "2026-11-02"}, ["Mixed", "Cache"]),
        ({"until": "2026-11-02"}, ["Cache", "Grüße"]),
        ({"text": "LLAMA cac"}, ["Cache"]),
        ({"text": "grÜSSE"}, ["Grüße"]),
        ({"text": "100%"}, []),
        ({"text": "\ud800"}, []),
    ],
)
def test_each_filter_leaves_what_it_names(three: Any, wanted: dict[str, str], left: list[str]) -> None:
    assert titles(three[0], **wanted) == left


def test_facets_say_what_there_is_and_how_often_whatever_is_filtered(three: Any) -> None:
    facets = three[0].earlier.page(Filters(status="done"))["facets"]
    assert facets == {
        "model": {"meta/Llama-3.2-1B": 2, "shape:tiny": 2},
        "technique": {"kv_cache": 2, "precision": 2},
        "device": {"H200": 2, "Zen": 1},
        "status": {"cancelled": 1, "done": 1, "failed": 1},
        "kind": {"experiment": 3},
    }


def test_the_runs_of_a_sweep_can_be_left_out_or_alone(three: Any) -> None:
    store = three[0]
    store.create("Sizes: batch size 2", [RunSpec("shape:tiny")], source="sweep abcd1234")
    assert titles(store, kind="sweep") == ["Sizes: batch size 2"]
    assert "Sizes: batch size 2" not in titles(store, kind="experiment")
    assert store.earlier.page()["facets"]["kind"] == {"experiment": 3, "sweep": 1}
    with pytest.raises(Problem, match="kind: there is no kind 'sweeps'"):
        Filters(kind="sweeps")


def test_a_line_has_its_runs_with_their_headlines(three: Any) -> None:
    line = three[0].earlier.page(Filters(text="mixed"))["experiments"][0]
    assert (line["status"], line["statuses"], line["devices"], line["techniques"]) == (
        "cancelled",
        ["cancelled", "done"],
        ["H200"],
        ["precision", "kv_cache"],
    )
    assert [(run["label"], run["model"]) for run in line["runs"]] == [("fp32", "shape:tiny"), ("no cache", "meta/Llama-3.2-1B")]
    assert line["runs"][1]["metrics"] == {"itl_s": {"value": 0.5, "low": 0.4, "high": 0.6, "kind": "measured"}}


def test_pages_follow_each_other_with_the_pinned_on_top(three: Any) -> None:
    store, (first, second, third) = three
    store.earlier.pin(first)
    pages = [store.earlier.page(limit=2, offset=offset) for offset in (0, 2, 4)]
    assert [[line["id"] for line in page["experiments"]] for page in pages] == [[first, third], [second], []]
    assert {page["total"] for page in pages} == {3}
    store.earlier.pin(first, False)
    assert [line["id"] for line in store.history()] == [third, second, first]


def test_a_label_and_a_note_are_kept_found_and_taken_away(three: Any) -> None:
    store, (first, *_) = three
    store.earlier.describe(first, label=" for the\ntalk ", note="Line one\nÜBER alles")
    kept = store.load(first)
    assert (kept.label, kept.note) == ("for the talk", "Line one\nÜBER alles")
    assert titles(store, text="talk über") == ["Grüße"]
    store.earlier.describe(first, label="half \ud800")
    assert store.load(first).label == "half ?"
    store.earlier.describe(first, label="")
    assert (store.load(first).label, store.load(first).note) == ("", "Line one\nÜBER alles")
    with pytest.raises(Problem, match="The label is 81 characters long; 80 is the most"):
        store.earlier.describe(first, label="x" * 81)


def test_what_is_deleted_is_nowhere_until_it_is_restored(three: Any) -> None:
    store, (first, second, _) = three
    store.earlier.delete([first, second])
    assert titles(store) == ["Mixed"]
    assert [line["title"] for line in store.history()] == ["Mixed"]
    assert store.earlier.page()["facets"]["device"] == {"H200": 1}
    for call in (store.load, store.earlier.pin, lambda name: store.earlier.delete([name])):
        with pytest.raises(Problem, match="no stored experiment"):
            call(first)
    store.earlier.restore([first, second])
    assert titles(store) == ["Mixed", "Cache", "Grüße"]
    with pytest.raises(Problem, match="no deleted experiment"):
        store.earlier.restore([first])


def test_deleting_several_is_all_or_none_and_never_one_that_still_runs(three: Any) -> None:
    store, (first, *_) = three
    with pytest.raises(Problem, match="nothere1"):
        store.earlier.delete([first, "nothere1"])
    going = store.create("going", [TINY])
    with pytest.raises(Problem, match="still runs"):
        store.earlier.delete([first, going])
    assert titles(store) == ["going", "Mixed", "Cache", "Grüße"]


def test_a_day_later_it_is_gone_with_everything_in_it(three: Any, path: Path) -> None:
    store, (first, second, _) = three
    store.earlier.delete([first])
    open_store(path).close()
    store.earlier.restore([first])
    store.earlier.delete([second])
    store.earlier.tidy(timedelta(0))
    with pytest.raises(Problem):
        store.earlier.restore([second])
    with sqlite3.connect(path) as raw:
        for table in ("runs", "chunks", "metrics"):
            assert raw.execute(f"SELECT COUNT(*) FROM {table} WHERE experiment = ?", (second,)).fetchone() == (0,)
    assert titles(store) == ["Mixed", "Grüße"]


@pytest.mark.parametrize("wrong", [{"status": "don"}, {"since": "yesterday"}, {"until": "2026-13-01"}])
def test_a_filter_that_cannot_be_is_a_sentence(wrong: dict[str, str]) -> None:
    with pytest.raises(Problem, match=next(iter(wrong))):
        Filters(**wrong)


def test_a_page_asks_the_same_few_questions_however_long_it_is(three: Any) -> None:
    store, _ = three
    asked: list[int] = []
    for number in range(2):
        statements: list[str] = []
        with store._database.reading() as connection:
            connection.set_trace_callback(statements.append)
        assert len(store.earlier.page(limit=50)["experiments"]) == 3 + 20 * number
        asked.append(len(statements))
        for _ in range(20):
            store.create("more", [TINY, LLAMA])
    assert asked[0] == asked[1] <= 10


def test_experiments_of_an_older_file_are_found_by_the_same_filters(three: Any, path: Path) -> None:
    store, _ = three
    store.create("odd", [RunSpec(label="lost")])
    before = store.earlier.page()
    store.close()
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE runs SET spec = 'not json' WHERE label = 'lost'")
        for name in ("experiments_by_day", "runs_by_model", "runs_by_device", "runs_by_experiment"):
            raw.execute(f"DROP INDEX {name}")
        for column in ("label", "note", "pinned", "deleted_at", "techniques"):
            raw.execute(f"ALTER TABLE experiments DROP COLUMN {column}")
        raw.execute("ALTER TABLE runs DROP COLUMN device")
        for table in ("sweep_cells", "sweeps"):
            raw.execute(f"DROP TABLE {table}")
        raw.execute(f"PRAGMA user_version = {MIGRATIONS.index(notes_and_filters)}")
    again = open_store(path)
    assert again.warning == ""
    assert again.earlier.page() == before
    again.close()
