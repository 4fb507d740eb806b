"""A sweep as one recording: the same numbers in another installation, called recorded; and what of it is not let in."""

from __future__ import annotations

import gzip
import json
import threading
from pathlib import Path

import pytest

from playground import presets
from playground.core.places import ASSETS
from playground.core.problem import Problem
from playground.core.spec import Protocol, RunSpec, Workload
from playground.core.sweep import Axis, SweepSpec
from playground.engines import engines
from playground.models.recording import SUFFIX, find, read
from playground.presets import growths
from playground.results.growth import judge_growth
from playground.results.store import Store
from playground.results.sweep_facts import facts
from playground.results.sweeps import Sweeps
from playground.results.techniques_table import table
from playground.run.exchange import give_out_sweep, take_in
from playground.run.recorded_sweep import PREFIX, load_recorded
from playground.run.runner import Runner
from playground.run.sweep import Sweep, create
from playground.techniques import techniques

QUICK = Protocol(0, 2, energy=False, quality=False, profile=False)
BASE = RunSpec("script:step_ms=1,prefill_ms=1", "fake", workload=Workload(max_new_tokens=4), protocol=QUICK)
SPECS = (
    BASE.replace(protocol=Protocol(0, 2, energy=False, profile=False), label="a"),  # its later runs are compared with its first
    BASE.replace(model="script:step_ms=1,fail=oom,at=9", label="b"),  # the first cell takes eight steps of its worker
    BASE.replace(model="shape:tiny", engine="transformers", knobs={"weight_only": "int8"}, label="c"),  # that engine has no such thing
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store and a finished sweep in it, with every kind of cell."""
    store = Store(tmp_path_factory.mktemp("here") / "results.sqlite")
    plan = SweepSpec(SPECS, (Axis("batch_size", (1, 2, 4)),), "Sizes", "Look at the step.").checked(techniques())
    sweep, runner = create(store, plan), Runner()
    list(Sweep(store, sweep, runner, threading.Event()))
    runner.close()
    yield store, Sweeps(store).load(sweep)
    store.close()


@pytest.fixture
def file(made, tmp_path, monkeypatch):
    """The sweep as a file, and an installation that is empty."""
    monkeypatch.setenv("PLAYGROUND_HOME", str(tmp_path / "home"))
    store, stored = made
    give_out_sweep(stored, store, tmp_path / "Sizes.jsonl.gz")
    return tmp_path / "Sizes.jsonl.gz"


def test_another_installation_has_every_cell_with_the_same_numbers_as_recorded_ones(made, file):
    name, own = take_in(file), made[1]
    found = load_recorded(PREFIX + name)
    assert [cell.status for cell in own.cells] == ["done", "done", "done", "done", "oom", "skipped", "failed", "failed", "failed"]
    assert (found.id, found.status, found.plan, found.missing) == (PREFIX + name, "recorded", own.plan, [])
    assert found.title.startswith("Sizes · ")
    for theirs, mine in zip(found.cells, own.cells, strict=True):
        assert (theirs.cell, theirs.status, theirs.reason, theirs.seconds) == (mine.cell, mine.status, mine.reason, mine.seconds)
        metrics = (theirs.result or {}).get("metrics", {})
        assert {name: item["value"] for name, item in metrics.items()} == {
            name: item["value"] for name, item in ((mine.result or {}).get("metrics", {})).items()
        }
        assert {item["kind"] for item in metrics.values()} <= {"recorded", "estimated", "not_available"}
    assert found.cells[0].result["metrics"]["itl_s"]["kind"] == "recorded"
    assert [cell.result["metrics"]["matching_tokens"]["value"] for cell in found.cells[:3]] == [None, 4, 4], "against the first cell"
    assert facts(found.plan, found.cells) == facts(own.plan, own.cells)


def test_a_recorded_sweep_is_offered_as_a_sweep_and_nowhere_else(file):
    before = {item.name for item in presets.recorded_sweeps()}
    name = take_in(file)
    assert take_in(file) == name
    assert {item.name for item in presets.recorded_sweeps()} - before == {name}
    assert name not in {preset.name for preset in presets.offered()}
    assert table(techniques(), engines(), [read(find(name))]) == table(techniques(), engines(), [])
    with pytest.raises(Problem, match=f"{name} is a recorded sweep"):
        presets.experiment(Path(name))
    with pytest.raises(Problem, match="is not of a sweep"):
        load_recorded(PREFIX + presets.recorded()[0].name)


def test_a_sweep_that_was_stopped_is_given_out_as_far_as_it_went_and_one_that_goes_on_is_not(made, tmp_path):
    store = made[0]
    plan = SweepSpec((BASE,), (Axis("batch_size", (1, 2)),), "Half").checked(techniques())
    sweep, runner, pause = create(store, plan), Runner(), threading.Event()
    with pytest.raises(Problem, match="is not over yet"):
        give_out_sweep(Sweeps(store).load(sweep), store, tmp_path / "x.jsonl.gz")
    for _ in Sweep(store, sweep, runner, threading.Event(), pause):
        pause.set()
    runner.close()
    give_out_sweep(Sweeps(store).load(sweep), store, tmp_path / "x.jsonl.gz")
    found = load_recorded(PREFIX + str(tmp_path / "x.jsonl.gz"))
    assert [(cell.status, cell.reason) for cell in found.cells] == [("done", ""), ("skipped", "It was not run to its end.")]


def test_a_file_whose_cells_are_not_those_of_its_plan_is_not_let_in(file, tmp_path):
    lines, before = gzip.decompress(file.read_bytes()).decode().splitlines(), presets.recorded_sweeps()

    def refused(change, sentence):
        head = json.loads(lines[0])
        change(head["sweep"])
        path = tmp_path / "bad.jsonl.gz"
        path.write_bytes(gzip.compress("\n".join([json.dumps(head), *lines[1:]]).encode()))
        with pytest.raises(Problem, match=sentence) as found:
            take_in(path)
        assert found.value.kind == "model"

    def cell(number, **fields):
        return lambda sweep: sweep["cells"][number].update(fields)

    damaged = "is not a recording, or it is damaged"
    refused(cell(0, point=[8]), damaged)
    refused(cell(0, point=[[1]]), damaged)
    refused(cell(0, line=1), damaged)
    refused(cell(0, variant=1), damaged)
    refused(cell(0, seconds="nan"), damaged)
    refused(lambda sweep: sweep["cells"].pop(5), damaged)
    refused(lambda sweep: sweep["cells"].extend([{**sweep["cells"][5]}] * 192), "holds 201 runs; 1 to 200")
    refused(lambda sweep: sweep["plan"]["axes"][0].update(name="warp"), "another version: There is no axis 'warp'")
    assert presets.recorded_sweeps() == before


@pytest.mark.parametrize("name", sorted(path.name.removesuffix(SUFFIX) for path in (ASSETS / "recordings").glob(f"*-sweep{SUFFIX}")))
def test_each_shipped_sweep_is_whole_and_says_something_of_each_line(name):
    found = load_recorded(PREFIX + name)
    assert len(found.plan.about) > 150
    assert {cell.status for cell in found.cells} == {"done"}
    assert {cell.result["metrics"]["itl_s"]["kind"] for cell in found.cells} == {"recorded"}
    told = facts(found.plan, found.cells)
    assert {fact.line for fact in told} == {cell.cell.line for cell in found.cells}
    if found.plan.axes[0].name == "prompt_tokens":
        assert {one["outcome"] for one in judge_growth(growths(), found.plan, found.cells)} == {"supported"}, "attention's square"
    if "attention-length" in name:
        fused = dict.fromkeys((2, 3, 4, 5), 2048) if name.startswith("h200") else {2: 1024}  # all but eager and math, on each machine
        assert {fact.line: fact.values["pays_from"] for fact in told if "pays_from" in fact.values} == fused
        return
    steps = {(cell.cell.point, cell.cell.line): cell.result["metrics"]["itl_s"]["value"] for cell in found.cells}
    assert all(5 * steps[point, 0] < steps[point, 1] for point, _ in steps), "what a captured step is for"
    if found.plan.axes[0].name == "prompt_tokens":
        grows = [fact.values for fact in told if "last_exponent" in fact.values]
        assert len(grows) == 2
        assert all(values["last_exponent"] > 1.2 and values["square_share"] > 0.3 for values in grows), "attention's square shows"
