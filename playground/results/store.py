"""Every run, kept: specs, raw events, results and metrics in one SQLite file, safe against a kill in the middle of a run.

Several threads of a process may share a Store, and several processes a file. Whatever cannot be stored is a Problem("user"), so that the
caller can warn and go on. Example::

    store = open_store(home() / "results.sqlite")
    experiment = store.create("Precision ladder", [baseline, variant])
    store.begin(experiment, 0); store.append(experiment, 0, events); store.finish(experiment, 0, result(baseline, events))
"""

from __future__ import annotations

import gzip
import json
import secrets
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from playground.core.events import Ceilings, Event, from_json, to_json
from playground.core.places import home
from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.results.database import Database
from playground.results.history import History, ran_on, used
from playground.results.listing import Line
from playground.results.owner import alive, owner
from playground.results.result import result as derive_result

_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
_MINE = "experiment = ? AND position = ?"


@dataclass(frozen=True)
class StoredRun:
    """One run. `status`: waiting, running, done, failed, cancelled or interrupted; `result`: None until it ended; `events` are read on
    first use."""

    index: int
    spec: RunSpec
    status: str
    result: dict[str, Any] | None
    _read: Callable[[], tuple[Event, ...]] = field(repr=False, compare=False)

    @cached_property
    def events(self) -> tuple[Event, ...]:
        """Raw events in order; raises Problem("user") where they cannot be read."""
        return self._read()


@dataclass(frozen=True)
class StoredExperiment:
    """An experiment and its runs in order; the first is the baseline. `created_at`: ISO, UTC."""

    id: str
    title: str
    created_at: str
    runs: list[StoredRun]
    source: str = ""
    label: str = ""
    note: str = ""
    pinned: bool = False


def open_store(path: Path | None = None) -> Store:
    """The store at `path` (by default `results.sqlite` in the user's folder), where runs that a vanished process left are interrupted.

    It never raises for a disk that is full or read-only, nor for a file that this version cannot open: it is then a store in memory, gone
    with this process, or one that can only be read. `warning` says so.
    """
    try:
        store = Store(path or home() / "results.sqlite")
    except (Problem, OSError) as error:
        why = error.message if isinstance(error, Problem) else f"The folder of results cannot be used: {error}."
        store = Store(Path(":memory:"))
        store.warning = f"{why} Meanwhile results are kept in memory only: they are gone when this program ends."
        return store
    try:
        store.mark_interrupted()
        store.earlier.tidy()
    except Problem as problem:
        store.warning = " ".join(filter(None, (store.warning, problem.message)))
    return store


class Store:
    """The file of results at `path`, made if it is missing; Path(":memory:") for none. `warning`: what a person should know about the
    opening, such as a damaged file that was moved aside; "" for nothing. `earlier`: to find, describe and delete its experiments."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path)
        self.warning = self._database.warning
        self.earlier = History(self._database)

    @property
    def database(self) -> Database:
        """The file, for what is kept beside experiments."""
        return self._database

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def create(self, title: str, specs: Sequence[RunSpec], source: str = "") -> str:
        """A new experiment with one waiting run a spec; returns its id, eight letters and digits. `source`: preset, page or CLI."""
        experiment, now = new_id(), datetime.now(UTC).isoformat(timespec="seconds")
        mine = owner()
        rows = [
            (experiment, index, _json(spec.to_dict()), spec.fingerprint(), spec.label, spec.model, *mine, spec.device)
            for index, spec in enumerate(specs)
        ]
        with self._database.writing() as connection:
            connection.execute(
                "INSERT INTO experiments (id, title, source, created_at, techniques) VALUES (?, ?, ?, ?, ?)",
                (experiment, title, source, now, json.dumps(used(specs))),
            )
            connection.executemany(
                "INSERT INTO runs (experiment, position, spec, fingerprint, label, model, status, owner_pid, owner_started, device)"
                " VALUES (?, ?, ?, ?, ?, ?, 'waiting', ?, ?, ?)",
                rows,
            )
        return experiment

    def begin(self, experiment: str, index: int) -> None:
        """The run is running in this process; events of an earlier attempt are dropped."""
        with self._database.writing() as connection:
            changed = connection.execute(
                f"UPDATE runs SET status = 'running', result = NULL, owner_pid = ?, owner_started = ? WHERE {_MINE}",
                (*owner(), experiment, index),
            )
            _require(changed.rowcount, experiment, index)
            connection.execute(f"DELETE FROM chunks WHERE {_MINE}", (experiment, index))
            connection.execute(f"DELETE FROM metrics WHERE {_MINE}", (experiment, index))

    def append(self, experiment: str, index: int, events: Sequence[Event]) -> None:
        """Keep more events of the run; they are safe against a kill of this process when the call returns."""
        if not events:
            return
        data = gzip.compress("\n".join(to_json(event) for event in events).encode(), compresslevel=5)
        with self._database.writing() as connection:
            _require(connection.execute(f"SELECT 1 FROM runs WHERE {_MINE}", (experiment, index)).fetchone(), experiment, index)
            connection.execute(
                f"INSERT INTO chunks SELECT ?, ?, COALESCE(MAX(seq), 0) + 1, ? FROM chunks WHERE {_MINE}",
                (experiment, index, data, experiment, index),
            )

    def finish(self, experiment: str, index: int, result: Mapping[str, Any]) -> None:
        """The run ended with this result document, which may replace an earlier one."""
        with self._database.writing() as connection:
            _finish(connection, experiment, index, result)

    def load(self, experiment: str) -> StoredExperiment:
        """One experiment; raises Problem("user") for an unknown id and for one that was deleted."""
        with self._database.reading() as connection:
            head = connection.execute(
                "SELECT id, title, created_at, source, label, note, pinned FROM experiments WHERE id = ? AND deleted_at IS NULL",
                (experiment,),
            ).fetchone()
        if head is None:
            raise Problem("user", f"There is no stored experiment {experiment!r}.")
        return StoredExperiment(**{**dict(head), "pinned": bool(head["pinned"])}, runs=self._runs(experiment))

    def history(self, limit: int = 50, offset: int = 0) -> list[Line]:
        """Experiments, pinned ones first, then the newest, as plain JSON values; `earlier.page` filters them."""
        return self.earlier.lines(limit, offset)

    def mark_interrupted(self, over: Collection[str] = ()) -> int:
        """Runs left waiting or running by a vanished process, or in an experiment of `over`, on which nothing works any more, become
        interrupted, with a result from the events that they had; returns how many."""
        with self._database.reading() as connection:
            left = connection.execute("SELECT * FROM runs WHERE status IN ('waiting', 'running') ORDER BY experiment, position").fetchall()
        gone = [row for row in left if row["experiment"] in over or not alive(row["owner_pid"], row["owner_started"])]
        for row in gone:
            self._interrupt(row["experiment"], row["position"])
        return len(gone)

    def ceilings(self) -> dict[str, dict[str, Any]]:
        """What devices can do at best, as it was measured: fields of core.events.Ceilings by their key."""
        with self._database.reading() as connection:
            return {row["key"]: json.loads(row["event"]) for row in connection.execute("SELECT key, event FROM ceilings")}

    def keep_ceilings(self, found: Ceilings) -> None:
        """Remember what was measured."""
        with self._database.writing() as connection:
            connection.execute("INSERT OR REPLACE INTO ceilings VALUES (?, ?)", (found.key, _json(asdict(found))))

    def forget_ceilings(self) -> None:
        """Let the next run on each device measure again."""
        with self._database.writing() as connection:
            connection.execute("DELETE FROM ceilings")

    def _interrupt(self, experiment: str, index: int) -> None:
        try:
            runs = self._runs(experiment)
            baseline = (runs[0].spec, runs[0].events) if index else None
            document = derive_result(runs[index].spec, runs[index].events, baseline)
        except Problem:  # written by another version: no result, but the run must not look alive for ever
            with self._database.writing() as connection:
                connection.execute(f"UPDATE runs SET status = 'interrupted' WHERE {_MINE}", (experiment, index))
        else:
            self.finish(experiment, index, {**document, "status": "interrupted"})

    def _runs(self, experiment: str) -> list[StoredRun]:
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT position, spec, status, result FROM runs WHERE experiment = ? ORDER BY position", (experiment,)
            ).fetchall()
        return [self._run(experiment, row) for row in rows]

    def _run(self, experiment: str, row: sqlite3.Row) -> StoredRun:
        index = row["position"]
        document = json.loads(row["result"]) if row["result"] else None
        return StoredRun(
            index, RunSpec.from_dict(json.loads(row["spec"])), row["status"], document, lambda: self._events(experiment, index)
        )

    def _events(self, experiment: str, index: int) -> tuple[Event, ...]:
        with self._database.reading() as connection:
            chunks = connection.execute(f"SELECT data FROM chunks WHERE {_MINE} ORDER BY seq", (experiment, index)).fetchall()
        try:
            return tuple(from_json(line) for chunk in chunks for line in gzip.decompress(chunk["data"]).decode().split("\n"))
        except (ValueError, OSError, EOFError) as error:
            sentence = "The events of this run cannot be read: they are damaged, or another version of this program wrote them."
            raise Problem("user", sentence, f"{experiment}, run {index}: {error}") from error


def _finish(connection: sqlite3.Connection, experiment: str, index: int, result: Mapping[str, Any]) -> None:
    found = connection.execute(f"SELECT spec FROM runs WHERE {_MINE}", (experiment, index)).fetchone()
    _require(found, experiment, index)
    device = ran_on(json.loads(found["spec"])["device"], result.get("provenance") or {})
    connection.execute(
        f"UPDATE runs SET status = ?, result = ?, device = ? WHERE {_MINE}",
        (result["status"], _json(result), device, experiment, index),
    )
    connection.execute(f"DELETE FROM metrics WHERE {_MINE}", (experiment, index))
    rows = []
    for name, value in result.get("metrics", {}).items():
        low, high = value.get("ci95") or (None, None)
        rows.append((experiment, index, name, value["value"], low, high, value["kind"]))
    connection.executemany("INSERT INTO metrics (experiment, position, name, value, low, high, kind) VALUES (?, ?, ?, ?, ?, ?, ?)", rows)


def _json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False)


def _require(found: object, experiment: str, index: int) -> None:
    if not found:
        raise Problem("user", f"There is no stored run {index} of an experiment {experiment!r}; it may have been deleted.")


def new_id() -> str:
    """Eight letters and digits that are not easily taken for one another."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(8))
