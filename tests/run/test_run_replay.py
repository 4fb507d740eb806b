"""Recordings: what is written is read again, and a replayed run has exactly the metrics of the recorded one."""

from __future__ import annotations

import gzip
import os
import stat
import threading
import time

import pytest

from playground.core.events import BatchEnd, BatchStart, Cancelled, Done, Failed, Gauge, Progress, Tick
from playground.core.problem import Problem
from playground.core.spec import RunSpec, Workload
from playground.engines.replay import ReplayEngine, specs_of
from playground.models import recording as recording_module
from playground.models.recording import find, read, recordings, write
from playground.results.result import result

HEADER = {"title": "Two sizes", "machine": "a laptop", "date": "2026-11-22", "about": "Look at the steps."}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, playground_home):
    """Specs, events and file of an experiment that was really run, with gauges: two variants of the scripted engine."""
    from playground.run.runner import Runner

    runner = Runner()
    work = Workload(prompts=("one two", "three"), max_new_tokens=6)
    specs = [
        RunSpec(model="script:step_ms=20,prefill_ms=50,weights_mb=7", engine="fake", label="slow", workload=work, knobs={"batch_size": 1}),
        RunSpec(model="script:step_ms=4", engine="fake", label="batched", workload=work, knobs={"batch_size": 2}),
    ]
    events = [[event for event in runner.run(spec, cancel=threading.Event()) if event is not None] for spec in specs]
    runner.close()
    path = tmp_path_factory.mktemp("recordings") / "two.jsonl.gz"
    write(path, {**HEADER, "specs": specs}, events)
    return specs, events, path


def test_a_recording_reads_back_as_it_was_written(recorded):
    specs, events, path = recorded
    back = read(path)
    assert (back.title, back.machine, back.date, back.about) == tuple(HEADER.values())
    assert list(back.specs) == specs
    assert [list(item) for item in back.events] == events
    assert [item.name for item in path.parent.iterdir()] == ["two.jsonl.gz"]


@pytest.mark.parametrize("speed", [1, 100])
def test_replayed_metrics_are_exactly_the_recorded_ones_at_any_speed(runner, play, recorded, speed):
    specs, events, path = recorded
    baseline = variant = None
    for number, spec in enumerate(specs_of(read(path), speed)):
        played = play(runner, spec)
        assert len(played) == len(events[number])
        compare = (specs[0], events[0]) if number else None
        expected = result(specs[number], events[number], compare)
        variant = result(spec, played, (specs_of(read(path))[0], baseline) if number else None)
        baseline = baseline or played
        for name, value in expected["metrics"].items():
            assert variant["metrics"][name]["value"] == value["value"], name
            assert variant["metrics"][name]["ci95"] == value["ci95"], name
        assert variant["outputs"] == expected["outputs"]
        assert variant["provenance"] == expected["provenance"]
    assert expected["metrics"]["itl_s"]["value"] > 0.004


def test_stamps_are_moved_to_now_by_one_constant(runner, play, recorded):
    _, events, path = recorded
    now = time.perf_counter_ns()
    played = play(runner, specs_of(read(path), speed=1000)[1])
    offsets = {new.t_ns - old.t_ns for new, old in zip(played, events[1], strict=True)}
    assert len(offsets) == 1
    assert 0 < played[0].t_ns - now < 10e9


def test_a_recording_plays_at_its_real_pace_and_faster_where_asked(runner, recorded):
    _, events, path = recorded
    passes = [event for event in events[0] if isinstance(event, BatchStart | BatchEnd)]
    real_s = (passes[-1].t_ns - passes[0].t_ns) / 1e9
    assert real_s > 0.5

    def took_s(speed):
        events = runner.run(specs_of(read(path), speed)[0], cancel=threading.Event())
        seen = [time.monotonic() for event in events if isinstance(event, BatchStart | BatchEnd)]
        return seen[-1] - seen[0]

    assert took_s(1) > 0.7 * real_s
    assert any(took_s(20) < 0.5 * real_s for _ in range(5))  # a busy machine may hold one up


def test_the_gauges_of_a_replay_are_the_recorded_ones_alone(runner, play, recorded):
    _, events, path = recorded
    recorded_gauges = [event.values for event in events[0] if isinstance(event, Gauge)]
    played = play(runner, specs_of(read(path), speed=5)[0])
    assert recorded_gauges
    assert [event.values for event in played if isinstance(event, Gauge)] == recorded_gauges


def test_replay_specs_show_what_was_recorded(recorded):
    specs, _, path = recorded
    replayed = specs_of(read(path), speed=2)
    assert [spec.label for spec in replayed] == ["slow", "batched"]
    assert [spec.knobs for spec in replayed] == [spec.knobs for spec in specs]
    assert [spec.workload for spec in replayed] == [spec.workload for spec in specs]
    assert replayed[1].model == f"recording:{path}#1?speed=2"


def test_a_recording_from_before_top_k_and_top_p_is_one_that_leaves_nothing_out(tmp_path):
    old = RunSpec(workload=Workload(("one",), temperature=0.5)).to_dict()
    del old["workload"]["top_k"], old["workload"]["top_p"]
    write(tmp_path / "old.jsonl.gz", {**HEADER, "specs": [old]}, [[]])
    spec = specs_of(read(tmp_path / "old.jsonl.gz"))[0]
    assert spec.workload == Workload(("one",), temperature=0.5, top_k=0, top_p=1.0)
    assert ReplayEngine.adopt(spec).workload == spec.workload
    with pytest.raises(Problem, match="A recording keeps its prompts and lengths"):
        ReplayEngine.adopt(spec.replace(workload=Workload(("one",), temperature=0.5, top_k=5)))


def made(tmp_path, events):
    """A recording of one variant with these events."""
    path = tmp_path / "made.jsonl.gz"
    write(path, {**HEADER, "specs": [RunSpec(knobs={"quantization": "nf4"}, device="cuda")]}, [events])
    return specs_of(read(path))[0]


def test_a_recorded_failure_is_replayed_as_that_failure(runner, play, tmp_path):
    failed = Failed(5, "oom", "Out of memory: the GPU was full.", "trace")
    played = play(runner, made(tmp_path, [failed]))
    assert [(event.kind, event.message, event.detail) for event in played] == [("oom", failed.message, "trace")]


def test_settings_of_hardware_that_is_not_here_can_be_replayed_and_waits_are_short(runner, play, tmp_path):
    hour = 3600 * 10**9
    started = time.monotonic()
    played = play(runner, made(tmp_path, [Progress(0, "weights", 1, 2), Progress(hour, "weights", 2, 2), Done(2 * hour)]))
    assert isinstance(played[-1], Done)
    assert played[-1].t_ns - played[0].t_ns == 2 * hour
    assert time.monotonic() - started < 60  # and not after hours


def test_a_replay_can_be_stopped(runner, tmp_path):
    start = BatchStart(0, "timed", 0, (0,), (3,))
    spec = made(tmp_path, [start, *(Tick(number * 100_000_000, ((1,),)) for number in range(600)), Done(10**12)])
    cancel, seen = threading.Event(), []
    for event in runner.run(spec, cancel=cancel):
        seen.append(event)
        if isinstance(event, Tick):
            cancel.set()
    assert isinstance(seen[-1], Cancelled)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("recording:twoo", "did you mean 'two'"),
        ("recording:two#7", "variants 0 to 1"),
        ("script:", "recording:NAME#VARIANT"),
        ("recording:two?speed=0", "greater than 0"),
    ],
)
def test_an_unknown_recording_or_variant_is_refused_with_a_sentence(recorded, monkeypatch, model, says):
    from playground.engines.replay import ReplayEngine

    monkeypatch.setattr(recording_module.find, "__defaults__", (recorded[2].parent,))
    plan = type("Plan", (), {"spec": RunSpec(model=model, engine="replay")})
    with pytest.raises(Problem, match=says.replace("?", r"\?")):
        ReplayEngine().replay(plan)


def test_recordings_are_found_by_name_and_by_path(recorded):
    folder = recorded[2].parent
    assert recordings(folder) == {"two": recorded[2]}
    assert find("two", folder) == recorded[2]
    assert find(str(recorded[2])) == recorded[2]


@pytest.mark.parametrize("damage", ["cut", "text", "no header", "not gzip", "other variant"])
def test_a_damaged_recording_is_a_problem_and_no_traceback(recorded, tmp_path, damage):
    data = recorded[2].read_bytes()
    lines = gzip.decompress(data).splitlines(keepends=True)
    broken = {
        "cut": data[: len(data) // 2],
        "text": gzip.compress(lines[0] + b"no event\n"),
        "no header": gzip.compress(lines[1]),
        "not gzip": b"hello",
        "other variant": gzip.compress(lines[0] + lines[1].replace(b'{"v":0', b'{"v":9')),
    }[damage]
    path = tmp_path / "broken.jsonl.gz"
    path.write_bytes(broken)
    with pytest.raises(Problem, match=r"broken\.jsonl\.gz is not a recording") as caught:
        read(path)
    assert caught.value.kind == "model"


def test_a_recording_that_cannot_be_written_leaves_nothing_behind(tmp_path, recorded):
    with pytest.raises(TypeError):
        write(tmp_path / "bad.jsonl.gz", {**HEADER, "specs": [recorded[0][0]]}, [[Gauge(1, "parent", {"x": object()})]])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Problem, match="2 variants"):
        write(tmp_path / "bad.jsonl.gz", {**HEADER, "specs": recorded[0]}, [[]])


def test_a_recording_takes_the_place_of_a_file_and_of_nothing_else(tmp_path, recorded):
    pipe, folder, linked, old = (tmp_path / f"{name}.jsonl.gz" for name in ("pipe", "folder", "linked", "old"))
    os.mkfifo(pipe)
    folder.mkdir()
    linked.symlink_to(pipe)
    old.write_bytes(b"what was there")
    before = {path.name: path.lstat().st_ino for path in tmp_path.iterdir()}
    header = {**HEADER, "specs": recorded[0]}
    for target in (pipe, folder, linked):
        with pytest.raises(Problem) as caught:
            write(target, header, recorded[1])
        assert (caught.value.kind, caught.value.message) == ("user", f"{target} is there already and is not a file: choose another name.")
    assert {path.name: path.lstat().st_ino for path in tmp_path.iterdir()} == before
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    write(old, header, recorded[1])
    assert list(read(old).specs) == recorded[0]
