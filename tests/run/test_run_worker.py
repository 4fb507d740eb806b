"""A run in a real worker process: what comes, what is reused, and what a crash, a hang, garbage, Stop or a dead parent does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from playground.core.events import ENDINGS, Cancelled, Done, Failed, Gauge, Loaded, Phase, Text, Tick
from playground.core.places import ROOT
from playground.run import runner as runner_module
from playground.run.runner import Runner


def ending(events):
    """The one ending, which is the last event."""
    assert [isinstance(event, ENDINGS) for event in events].count(True) == 1
    assert isinstance(events[-1], ENDINGS)
    return events[-1]


def gone(pid: int, within_s: float = 50.0) -> bool:
    """Whether the process disappears in that time."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_a_run_brings_its_events_with_the_gauges_of_its_process_and_ends_done(runner, script, play):
    events = play(runner, script("step_ms=60", repeats=1, max_new_tokens=8))
    assert isinstance(ending(events), Done)
    ticks = [event for event in events if isinstance(event, Tick)]
    assert len(ticks) == 16  # a warm-up and a timed pass of 8 tokens
    stamps = [tick.t_ns for tick in ticks]
    assert stamps == sorted(stamps)
    assert time.perf_counter_ns() - stamps[-1] < 60e9  # the parent's clock is the worker's
    assert any(event.values.get("rss_bytes", 0) > 1e6 for event in events if isinstance(event, Gauge))


def test_the_same_load_time_settings_reuse_the_worker_and_others_start_another(runner, script, play):
    first = play(runner, script())
    pid = runner.pid
    second = play(runner, script(knobs={"batch_size": 3}, max_new_tokens=3))
    assert runner.pid == pid
    assert [event.reused for event in (*first, *second) if isinstance(event, Loaded)] == [False, True]
    play(runner, script("load_ms=1"))
    assert runner.pid not in (pid, None)
    assert gone(pid)


def test_a_thing_made_anew_under_its_old_name_is_loaded_anew(runner, script, play, tmp_path, monkeypatch):
    monkeypatch.setenv("PLAYGROUND_HOME", str(tmp_path))
    spec = script(knobs={"adapter": "made:song"})
    pids = []
    for made_ns in (10**18, 10**18, 2 * 10**18):
        provenance = tmp_path / "made" / "song" / "provenance.json"
        provenance.parent.mkdir(parents=True, exist_ok=True)
        provenance.write_text('{"kind": "adapter"}')
        os.utime(provenance, ns=(made_ns, made_ns))
        assert isinstance(ending(play(runner, spec)), Done)
        pids.append(runner.pid)
    assert (pids[0] == pids[1], pids[1] == pids[2]) == (True, False)


def test_a_worker_loads_nothing_that_the_page_or_torch_needs():
    heavy = "{'torch', 'transformers', 'gradio', 'plotly', 'pandas', 'huggingface_hub'}"
    code = f"import sys, playground.run.worker; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("failure", "kind", "says"),
    [
        ("oom", "oom", "another 20.00 GiB, and 1.50 GiB of 8.00 GiB were free"),
        ("crash", "crash", "SIGKILL"),
        ("segfault", "crash", "SIGSEGV"),
        ("error", "crash", "ValueError: the script asked for an error"),
    ],
)
@pytest.mark.parametrize("at", ["3", "load"])
def test_each_failure_is_one_ending_with_a_sentence_and_the_next_run_works(runner, script, play, failure, kind, says, at):
    failed = ending(play(runner, script(f"fail={failure},at={at}")))
    assert isinstance(failed, Failed)
    assert failed.kind == kind
    assert says in failed.message
    assert isinstance(ending(play(runner, script())), Done)


def test_a_segfault_has_the_stack_in_its_detail(runner, script, play):
    assert "generate" in ending(play(runner, script("fail=segfault"))).detail


def test_garbage_on_stdout_breaks_nothing_and_lands_in_the_log(runner, script, play, playground_home):
    events = play(runner, script("fail=garbage"))
    assert isinstance(ending(events), Done)
    assert len([event for event in events if isinstance(event, Tick)]) == 15
    newest = max((playground_home / "logs").glob("worker-*.log"), key=lambda path: path.stat().st_mtime)
    assert "{not json}" in newest.read_text(errors="replace")


@pytest.mark.parametrize("at", ["3", "load"])
def test_a_hang_is_found_and_the_worker_is_gone(runner, script, play, monkeypatch, at):
    monkeypatch.setenv("PLAYGROUND_HANG_S", "3")
    events, pids = [], set()
    for event in runner.run(script(f"fail=hang,at={at}"), cancel=threading.Event()):
        pids.add(runner.pid)
        if event is not None:
            events.append(event)
    failed = ending(events)
    assert isinstance(failed, Failed)
    assert failed.kind == "hang"
    assert "for 3 seconds" in failed.message
    assert "_fail" in failed.detail  # where it hung
    assert all(gone(pid) for pid in pids)
    assert isinstance(ending(play(runner, script())), Done)


SILENT = """
import pathlib, sys, time
sys.stdin.readline()
print('{"type":"Phase","t_ns":1,"name":"timed"}', flush=True)
time.sleep(float(sys.argv[1]))
if sys.argv[2] == "stops":
    pathlib.Path(sys.argv[3]).touch()
    time.sleep(60)
print('{"type":"Done","t_ns":2}', flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("busy_s", "then", "limit_s", "expected"),
    [(2.5, "ends", 0.6, Done), (60, "ends", 0.3, "though it computes"), (2, "stops", 0.6, "does not answer")],
)
def test_a_silent_worker_that_computes_is_given_more_time_but_not_for_ever(
    script, play, monkeypatch, tmp_path, busy_s, then, limit_s, expected
):
    """What it has spent is told by this test, since on a busy machine a worker may compute and get nothing."""
    idle, spent_s = tmp_path / "idle", [0.0]

    def spent(pid: int) -> float:
        if not idle.exists():
            spent_s[0] = time.monotonic()
        return spent_s[0]

    monkeypatch.setattr(runner_module, "_cpu_s", spent)
    monkeypatch.setenv("PLAYGROUND_HANG_S", str(limit_s))
    runner = Runner(command=(sys.executable, "-c", SILENT, str(busy_s), then, str(idle)))
    last = ending(play(runner, script()))
    runner.close()
    if expected is Done:
        assert isinstance(last, Done)
    else:
        assert last.kind == "hang"
        assert expected in last.message
        silent_s = int(re.search(r"for (\d+) seconds", last.message)[1])
        assert silent_s >= min(busy_s, 12 * limit_s) - 1


def test_what_a_process_and_those_it_started_have_computed_is_read():
    code = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    inner = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {code!r}])"
    with subprocess.Popen([sys.executable, "-c", inner], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as outer:
        outer.stdout.readline()
        assert 0.3 <= runner_module._cpu_s(outer.pid) < 30
        outer.communicate(b"\n")


def test_stop_while_decoding_is_quick_and_keeps_the_loaded_worker(runner, script, play):
    cancel, seen = threading.Event(), []
    for event in runner.run(script("step_ms=20", max_new_tokens=1000), cancel=cancel):
        if event is not None:
            seen.append(event)
        if isinstance(event, Tick):
            cancel.set()
    assert isinstance(ending(seen), Cancelled)
    pid = runner.pid
    assert pid is not None
    assert isinstance(ending(play(runner, script("step_ms=20"))), Done)
    assert runner.pid == pid


@pytest.mark.parametrize(("text", "trigger"), [("load_ms=600000", Phase), ("fail=hang,at=2", Tick)])
def test_stop_ends_a_worker_that_does_not_listen_and_the_next_run_works(runner, script, play, text, trigger):
    cancel, events, stopped = threading.Event(), [], 0.0
    for event in runner.run(script(text), cancel=cancel):
        if event is not None:
            events.append(event)
        if isinstance(event, trigger):
            stopped = time.monotonic()
            threading.Timer(0.3, cancel.set).start()
    assert isinstance(ending(events), Cancelled)
    assert time.monotonic() - stopped < 60  # and not after minutes
    assert runner.pid is None
    assert isinstance(ending(play(runner, script())), Done)


def test_an_iterator_closed_in_the_middle_ends_the_worker(runner, script):
    events = runner.run(script("step_ms=50", max_new_tokens=1000), cancel=threading.Event())
    next(event for event in events if isinstance(event, Tick))
    pid = runner.pid
    events.close()
    assert runner.pid is None
    assert gone(pid)


def test_control_returns_while_nothing_happens(runner, script):
    returns = []
    for event in runner.run(script("load_ms=1500", repeats=1), cancel=threading.Event()):
        returns.append(event)
        if isinstance(event, Loaded):
            break
    assert len([event for event in returns if event is None or isinstance(event, Gauge)]) >= 4


@pytest.mark.parametrize(
    ("changes", "kind", "says"),
    [
        ({"engine": "fakee"}, "user", "did you mean 'fake'"),
        ({"model": "script:stepms=5"}, "user", "did you mean 'step_ms'"),
        ({"model": "script:fail=ooom"}, "user", "did you mean 'oom'"),
        ({"knobs": {"batch_sise": 2}}, "user", "did you mean 'batch_size'"),
        ({"knobs": {"batch_size": 0}}, "user", "batch_size"),
    ],
)
def test_what_cannot_run_is_refused_with_the_nearest_name(runner, script, play, changes, kind, says):
    failed = ending(play(runner, script().replace(**changes)))
    assert (failed.kind, says in failed.message) == (kind, True)


def test_a_refused_spec_starts_no_worker(runner, script, play):
    play(runner, script(knobs={"batch_sise": 2}))
    assert runner.pid is None


def test_a_prompt_longer_than_the_context_says_both_numbers(runner, script, play):
    failed = ending(play(runner, script("context=20", prompts=("a b", "word " * 18), max_new_tokens=5)))
    assert failed.kind == "user"
    assert "Prompt 2" in failed.message
    assert "23" in failed.message
    assert "20" in failed.message


def test_the_text_streams_while_the_first_pass_runs(runner, script):
    seen = []
    for event in runner.run(script("step_ms=40", max_new_tokens=20, repeats=1), cancel=threading.Event()):
        seen.append((time.perf_counter_ns(), event))
    texts = [(at, event) for at, event in seen if isinstance(event, Text)]
    assert len(texts) == 20  # of the warm-up pass alone
    assert texts[0][0] < texts[-1][1].t_ns  # the first piece was here before the last token was made


@pytest.fixture
def imposter(tmp_path: Path) -> Iterator[Runner]:
    """A runner whose worker answers each run with broken lines between real events."""
    lines = [
        "half an ev",
        "",
        "[1, 2]",
        '{"type":"Nothing"}',
        "\x00",
        '{"type":"Phase","t_ns":1,"name":"load"}',
        '{"beat":1}',
        '{"type":"Ti',
    ]
    code = f"import sys\nsys.stdin.readline()\nfor line in {lines!r}: print(line, flush=True)\nsys.exit(3)\n"
    script = tmp_path / "imposter.py"
    script.write_text(code)
    runner = Runner(command=(sys.executable, str(script)))
    yield runner
    runner.close()


def test_broken_lines_on_the_event_pipe_are_ignored_but_told(imposter, script, play):
    events = play(imposter, script())
    failed = ending(events)
    assert (failed.kind, "exit status 3" in failed.message) == ("crash", True)
    assert "half an ev" in failed.detail
    assert [type(event).__name__ for event in events if not isinstance(event, Gauge)] == ["Phase", "Failed"]


PARENT = """
import sys, threading
from playground.core.spec import RunSpec, Workload
from playground.run import runner as runner_module
from playground.run.runner import Runner
runner = Runner()
spec = RunSpec(model=sys.argv[1], engine="fake", workload=Workload(max_new_tokens=1000))
for event in runner.run(spec, cancel=threading.Event()):
    print(runner.pid, type(event).__name__, flush=True)
"""


@pytest.mark.parametrize(
    ("model", "until"), [("script:step_ms=50", "Tick"), ("script:load_ms=60000", "Phase"), ("script:fail=hang", "Phase")]
)
def test_the_worker_dies_with_its_parent(model, until):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, model], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert parent.stdout is not None
    pid = next(int(line.split()[0]) for line in parent.stdout if line.split()[1] == until)
    time.sleep(0.2)
    assert psutil.pid_exists(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone(pid)


def test_the_worker_speaks_its_protocol_on_its_own(tmp_path, script):
    log = tmp_path / "worker.log"
    worker = subprocess.Popen(
        [sys.executable, "-m", "playground.run.worker", str(log)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(json.dumps({"cmd": "run", "spec": script(repeats=1).to_dict()}) + "\n")
    worker.stdin.flush()
    seen = []
    for line in worker.stdout:
        seen.append(json.loads(line))
        if seen[-1].get("type") == "Done":
            break
    assert seen[0]["type"] == "Memory"
    assert next(item for item in map(json.loads, worker.stdout) if "beat" in item)
    worker.stdin.write('{"cmd": "exit"}\n')
    worker.stdin.close()
    assert worker.wait(60) == 0
    worker.stdout.close()


def test_a_worker_whose_gpu_kernels_were_traced_is_not_used_again(runner, play, script):
    def reused(spec):
        return next(event.reused for event in play(runner, spec) if isinstance(event, Loaded))

    traced = script("kernels=50,kernel_ms=1")
    assert [reused(traced), reused(traced)] == [False, False]
    plain = script()
    assert [reused(plain), reused(plain)] == [False, True]
