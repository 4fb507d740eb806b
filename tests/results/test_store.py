"""The store: round trip, kill in the middle, full disk, damage, several processes, migrations."""

import gzip
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from playground.core.events import BatchEnd, BatchStart, Done, Gauge, Loaded, Output, Text, Tick
from playground.core.problem import Problem
from playground.core.spec import RunSpec, Workload
from playground.results.database import Database
from playground.results.migrations import MIGRATIONS
from playground.results.result import result
from playground.results.store import Store, open_store

ROOT = Path(__file__).parents[2]
MS = 1_000_000
BASE = RunSpec(knobs={"precision": "fp32"}, workload=Workload(prompts=("Grüße\n\u2028 aus 東京",)), label="fp32")
OTHER = BASE.replace(knobs={"precision": "bf16"}, label="bf16")
EVENTS = [
    Loaded(1, 1.0, {"source": "a folder", "config": {"vocab_size": 9}}, {"host": "here"}),
    BatchStart(0, "timed", 0, (0,), (4,)),
    Tick(10 * MS, ((5,),)),
    Text(10 * MS, 0, ("line\nbreak",)),
    Tick(15 * MS, ((6,),)),
    BatchEnd(16 * MS),
    Gauge(17 * MS, "parent", {"cpu_percent": 12.5}),
    Output(18 * MS, 0, "Grüße\n\u2028 aus 東京", (5, 6), ("a", "東")),
    Done(20 * MS),
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "home" / "results.sqlite"


@pytest.fixture
def store(path):
    opened = Store(path)
    yield opened
    opened.close()


def finished(store, title="Ladder"):
    """An experiment of two finished runs."""
    experiment = store.create(title, [BASE, OTHER], source="preset")
    for index, spec in enumerate((BASE, OTHER)):
        store.begin(experiment, index)
        store.append(experiment, index, EVENTS[:4])
        store.append(experiment, index, EVENTS[4:])
        store.finish(experiment, index, result(spec, EVENTS, (BASE, EVENTS) if index else None))
    return experiment


def test_everything_comes_back_after_a_restart(path, store):
    experiment = finished(store)
    store.close()
    again = Store(path)
    found = again.load(experiment)
    assert (found.id, found.title, found.source) == (experiment, "Ladder", "preset")
    assert found.created_at.endswith("+00:00")
    assert [run.spec for run in found.runs] == [BASE, OTHER]
    assert [run.status for run in found.runs] == ["done", "done"]
    assert list(found.runs[0].events) == EVENTS
    assert found.runs[1].result == result(OTHER, EVENTS, (BASE, EVENTS))
    assert result(found.runs[0].spec, found.runs[0].events) == found.runs[0].result
    again.close()


def test_a_run_goes_from_waiting_to_running_to_done(store):
    experiment = store.create("One", [BASE])
    assert store.load(experiment).runs[0].status == "waiting"
    store.begin(experiment, 0)
    running = store.load(experiment).runs[0]
    assert (running.status, running.result, running.events) == ("running", None, ())
    store.append(experiment, 0, [])
    store.finish(experiment, 0, result(BASE, EVENTS))
    assert store.load(experiment).runs[0].status == "done"


def test_beginning_again_drops_the_earlier_attempt(store):
    experiment = finished(store)
    store.begin(experiment, 1)
    assert store.load(experiment).runs[1].events == ()
    assert store.load(experiment).runs[0].events != ()
    assert store.history()[0]["runs"][1]["metrics"] == {}


def test_ids_are_short_and_safe_in_a_link(store):
    ids = {store.create("x", [BASE]) for _ in range(50)}
    assert len(ids) == 50
    assert all(len(name) == 8 and name.isalnum() and name.isascii() for name in ids)


def test_history_is_newest_first_with_headlines_and_pages(store):
    first, second = finished(store, "first"), finished(store, "second")
    lines = store.history()
    assert [line["id"] for line in lines] == [second, first]
    line = lines[0]
    assert (line["title"], line["model"], line["statuses"]) == ("second", BASE.model, ["done", "done"])
    run = line["runs"][1]
    assert (run["label"], run["fingerprint"]) == ("bf16", OTHER.fingerprint())
    assert run["metrics"]["ttft_s"] == {"value": 0.010, "low": None, "high": None, "kind": "measured"}
    assert run["metrics"]["kld_mean"]["value"] is None
    assert [line["id"] for line in store.history(limit=1, offset=1)] == [first]
    assert store.history(limit=1, offset=2) == []


def test_an_interval_is_kept_beside_its_value(store, path):
    experiment = store.create("x", [BASE])
    document = result(BASE, EVENTS)
    document["metrics"]["itl_s"] = {"value": 2.0, "ci95": [1.5, 2.5], "kind": "measured"}
    store.finish(experiment, 0, document)
    assert store.history()[0]["runs"][0]["metrics"]["itl_s"] == {"value": 2.0, "low": 1.5, "high": 2.5, "kind": "measured"}


def test_unknown_ids_are_named(store):
    for call in (
        lambda: store.load("nothere1"),
        lambda: store.earlier.delete(["nothere1"]),
        lambda: store.begin("nothere1", 0),
        lambda: store.append("nothere1", 0, EVENTS),
        lambda: store.finish("nothere1", 0, result(BASE, EVENTS)),
    ):
        with pytest.raises(Problem, match="nothere1") as caught:
            call()
        assert caught.value.kind == "user"


CHILD = """
import sys, time
from pathlib import Path
from playground.core.events import BatchEnd, BatchStart, Loaded, Tick
from playground.core.spec import RunSpec
from playground.results.store import Store
store = Store(Path(sys.argv[1]))
experiment = store.create("killed", [RunSpec(label="a"), RunSpec(label="b")])
store.begin(experiment, 0)
store.append(experiment, 0, [Loaded(1, 1.0, {"source": "a folder"}, {"host": "here"})])
store.append(experiment, 0, [BatchStart(0, "warmup", 0, (0,), (4,)), Tick(10, ((5,),))])
print(experiment, flush=True)
time.sleep(60)
"""


def child(path, code=CHILD, *more):
    return subprocess.Popen([sys.executable, "-c", code, str(path), *more], stdout=subprocess.PIPE, text=True, cwd=ROOT)


def test_a_run_of_a_killed_process_becomes_interrupted_with_the_events_that_it_had(path):
    process = child(path)
    experiment = process.stdout.readline().strip()
    store = Store(path)
    assert store.mark_interrupted() == 0, "its process lives"
    assert store.load(experiment).runs[0].status == "running"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert store.mark_interrupted() == 2
    first, second = store.load(experiment).runs
    assert (first.status, second.status) == ("interrupted", "interrupted")
    assert [type(event).__name__ for event in first.events] == ["Loaded", "BatchStart", "Tick"]
    assert first.result["status"] == "interrupted"
    assert first.result["provenance"]["host"] == "here"
    assert first.result["metrics"]["ttft_s"]["kind"] == "not_available"
    assert second.result["error"]["kind"] == "crash"
    assert store.mark_interrupted() == 0
    store.close()


def test_own_and_finished_runs_are_not_interrupted(store):
    done = finished(store)
    mine = store.create("mine", [BASE])
    store.begin(mine, 0)
    assert store.mark_interrupted() == 0
    assert store.load(done).runs[0].status == "done"
    assert store.load(mine).runs[0].status == "running"
    assert store.mark_interrupted([done, mine]) == 1, "nothing works on it any more"
    assert store.load(done).runs[0].status == "done"
    assert store.load(mine).runs[0].status == "interrupted"


def test_a_process_number_that_was_given_out_again_does_not_count_as_alive(store, path):
    experiment = store.create("old", [BASE])
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE runs SET owner_started = owner_started - 1000")
    assert store.mark_interrupted() == 1
    assert store.load(experiment).runs[0].status == "interrupted"


def test_a_run_that_another_version_wrote_is_still_marked_and_its_events_are_a_sentence(store, path):
    experiment = store.create("old", [BASE])
    store.append(experiment, 0, EVENTS[:2])
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE runs SET owner_started = 0")
        raw.execute("UPDATE chunks SET data = ?", (gzip.compress(b'{"type": "Newfangled", "t_ns": 1}'),))
    assert store.mark_interrupted() == 1
    run = store.load(experiment).runs[0]
    assert (run.status, run.result) == ("interrupted", None)
    with pytest.raises(Problem, match="another version"):
        _ = run.events


def test_a_full_disk_is_a_sentence_and_what_was_stored_stays(store):
    experiment = finished(store)
    with store._database.reading() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
    noise = [Text(0, 0, (os.urandom(20_000).hex(),))]
    with pytest.raises(Problem, match="could not be stored: the disk is full") as caught:  # noqa: PT012
        for _ in range(100):
            store.append(experiment, 0, noise)
    assert caught.value.kind == "user"
    assert store.load(experiment).runs[1].result["status"] == "done"
    with store._database.reading() as connection:
        connection.execute("PRAGMA max_page_count = 1000000")
    store.append(experiment, 0, noise)
    assert store.load(experiment).runs[0].events[-1] == noise[0]


def test_a_read_only_folder_is_a_sentence(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(Problem, match="could not be opened"):
        Store(tmp_path / "results.sqlite")


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(Problem, match="could not be opened"):
        Store(tmp_path / "file" / "results.sqlite")


def test_where_the_file_cannot_be_opened_results_are_kept_in_memory_with_a_warning(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    store = open_store(tmp_path / "file" / "results.sqlite")
    assert "could not be opened" in store.warning
    assert "in memory" in store.warning
    assert store.history() == []
    experiment = finished(store)
    assert [run.status for run in store.load(experiment).runs] == ["done", "done"]
    with ThreadPoolExecutor(4) as threads:
        assert len(set(threads.map(lambda number: store.create(str(number), [BASE]), range(8)))) == 8
    assert len(store.history()) == 9
    store.close()


def test_a_home_that_cannot_be_made_is_a_warning_too(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("PLAYGROUND_HOME", str(tmp_path / "file" / "home"))
    assert "in memory" in open_store().warning


def test_a_disk_that_is_full_leaves_the_earlier_results_readable(path, monkeypatch):
    first = open_store(path)
    experiment = finished(first)
    first.close()

    def full(store):
        raise Problem("user", "The result could not be stored: the disk is full.")

    monkeypatch.setattr(Store, "mark_interrupted", full)
    store = open_store(path)
    assert store.warning == "The result could not be stored: the disk is full."
    assert store.load(experiment).runs[0].status == "done"
    store.close()


def test_a_lock_that_another_program_holds_is_a_sentence(store, path, monkeypatch):
    with store._database.reading() as connection:
        connection.execute("PRAGMA busy_timeout = 50")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Problem, match="another program keeps the file locked"):
        store.create("x", [BASE])
    other.execute("ROLLBACK")
    other.close()
    assert store.create("x", [BASE])


@pytest.mark.parametrize("damage", ["text", "page"])
def test_a_damaged_file_is_moved_aside_and_said(path, damage):
    store = Store(path)
    finished(store)
    store.close()
    content = path.read_bytes()
    broken = b"this is no database " * 500 if damage == "text" else content[:4096] + b"\xff" * (len(content) - 4096)
    path.write_bytes(broken)
    again = Store(path)
    aside = [file for file in path.parent.iterdir() if "damaged" in file.name]
    assert len(aside) == 1
    assert aside[0].read_bytes() == broken
    assert str(aside[0]) in again.warning
    assert again.history() == []
    finished(again)
    again.close()
    third = Store(path)
    assert third.warning == ""
    assert len(third.history()) == 1
    third.close()


def test_damage_that_is_met_while_reading_is_said_and_moved_aside_at_the_next_opening(path):
    store = Store(path)
    experiment = finished(store)
    store.append(experiment, 0, [Text(0, 0, (os.urandom(30_000).hex(),))])
    with store._database.reading() as connection:
        root = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'chunks'").fetchone()[0]
        size = connection.execute("PRAGMA page_size").fetchone()[0]
    store.close()
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * size)
    second = Store(path)
    assert second.warning == ""
    assert len(second.history()) == 1
    with pytest.raises(Problem, match="damaged; after a restart it will be moved aside"):
        _ = second.load(experiment).runs[0].events
    second.close()
    third = Store(path)
    assert "was moved to" in third.warning
    finished(third)
    third.close()
    assert [file.name for file in path.parent.iterdir() if "suspect" in file.name] == []


def test_a_file_that_was_cut_off_is_moved_aside(path):
    store = Store(path)
    finished(store)
    store.close()
    path.write_bytes(path.read_bytes()[:-8192])
    assert "was moved to" in Store(path).warning


WRITER = """
import sys
from pathlib import Path
from playground.core.events import Text
from playground.core.spec import RunSpec
from playground.results.store import Store
store = Store(Path(sys.argv[1]))
experiment = store.create(sys.argv[2], [RunSpec()])
store.begin(experiment, 0)
for number in range(40):
    store.append(experiment, 0, [Text(number, 0, (str(number),))])
print(experiment)
"""


def test_two_processes_open_migrate_and_write_at_once(path):
    writers = [child(path, WRITER, name) for name in ("one", "two")]
    ids = [process.communicate(timeout=60)[0].strip() for process in writers]
    assert [process.returncode for process in writers] == [0, 0]
    store = Store(path)
    for experiment in ids:
        assert [event.t_ns for event in store.load(experiment).runs[0].events] == list(range(40))
    store.close()


def test_threads_of_one_process_share_a_store(store):
    experiment = store.create("threads", [BASE, OTHER, BASE, OTHER])
    failures = []

    def write(index):
        try:
            store.begin(experiment, index)
            for number in range(25):
                store.append(experiment, index, [Text(number, index, ("x",))])
                store.history()
            store.finish(experiment, index, result(BASE, EVENTS))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [len(run.events) for run in store.load(experiment).runs] == [25] * 4


def test_an_empty_file_of_version_0_is_migrated(path):
    path.parent.mkdir()
    sqlite3.connect(path).close()
    store = Store(path)
    finished(store)
    store.close()
    with sqlite3.connect(path) as raw:
        assert raw.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)


def test_migrations_run_once_each_in_order_and_keep_the_data(path):
    store = Store(path)
    experiment = finished(store)
    store.close()
    ran = []

    def add_remark(connection):
        ran.append("remark")
        connection.execute("ALTER TABLE experiments ADD COLUMN remark TEXT NOT NULL DEFAULT ''")

    def add_star(connection):
        ran.append("star")
        connection.execute("ALTER TABLE experiments ADD COLUMN star INTEGER NOT NULL DEFAULT 0")

    Database(path, [*MIGRATIONS, add_remark]).close()
    Database(path, [*MIGRATIONS, add_remark, add_star]).close()
    assert ran == ["remark", "star"]
    with sqlite3.connect(path) as raw:
        assert raw.execute("SELECT id, remark, star FROM experiments").fetchall() == [(experiment, "", 0)]


def test_a_migration_that_fails_leaves_the_file_as_it_was(path):
    Store(path).close()

    def half(connection):
        connection.execute("ALTER TABLE experiments ADD COLUMN half TEXT")
        raise sqlite3.OperationalError("broken")

    with pytest.raises(Problem):
        Database(path, [*MIGRATIONS, half])
    with sqlite3.connect(path) as raw:
        assert raw.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        assert "half" not in [row[1] for row in raw.execute("PRAGMA table_info(experiments)")]


def test_a_file_of_a_newer_version_is_refused_and_left_alone(path):
    Store(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute("PRAGMA user_version = 99")
    with pytest.raises(Problem, match="newer version"):
        Store(path)
    assert [file.name for file in path.parent.iterdir() if "damaged" in file.name] == []
