"""Sweeps in the file of results: the plan, and for each cell which stored experiment it became, or why it was skipped.

A cell's status is that of its run, so that nothing is said twice: waiting, running, done, oom, failed, cancelled, interrupted, or skipped.
Example::

    sweeps = Sweeps(open_store())
    sweep = sweeps.create(plan, cells(plan, techniques()))
    sweeps.load(sweep).missing        # the cells that have no result yet
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from playground.core.problem import Problem
from playground.core.sweep import Cell, SweepSpec
from playground.measure.fits import growth
from playground.results.owner import alive, owner
from playground.results.store import Store, new_id

FINISHED = ("done", "oom", "failed", "skipped")  # these are never run again
_MINE = "sweep = ? AND position = ?"
_CELLS = (
    "SELECT sweep_cells.*, runs.status, runs.result FROM sweep_cells LEFT JOIN runs ON runs.experiment = sweep_cells.experiment"
    " AND runs.position = 0 WHERE sweep = ? ORDER BY sweep_cells.position"
)
_HISTORY = (
    "SELECT sweeps.*, COUNT(*) AS cells, SUM(skipped != '' OR COALESCE(runs.status, '') IN ('done', 'failed')) AS finished FROM sweeps"
    " JOIN sweep_cells ON sweep_cells.sweep = sweeps.id"
    " LEFT JOIN runs ON runs.experiment = sweep_cells.experiment AND runs.position = 0"
    " GROUP BY sweeps.number ORDER BY sweeps.number DESC LIMIT ?"
)


@dataclass(frozen=True)
class StoredCell:
    """A cell and what became of it. experiment: the store's id of its run, None before it began; result: its result document, None before
    it ended; reason: why it has no numbers, "" where it has; seconds: that it took, None before it ended."""

    cell: Cell
    status: str = "waiting"
    experiment: str | None = None
    result: Mapping[str, Any] | None = None
    reason: str = ""
    seconds: float | None = None

    @property
    def finished(self) -> bool:
        """Whether it has a result, be it a failure, or is left out for good."""
        return self.status in FINISHED


@dataclass(frozen=True)
class StoredSweep:
    """A sweep with its cells in order. status: waiting, running, paused, stopped, interrupted (its process has gone) or done."""

    id: str
    title: str
    created_at: str
    status: str
    plan: SweepSpec
    cells: tuple[StoredCell, ...]

    @property
    def missing(self) -> list[StoredCell]:
        """The cells that have no result yet."""
        return [cell for cell in self.cells if not cell.finished]

    @property
    def left_s(self) -> float | None:
        """Seconds that the missing cells will take if those before them go on as they did: a part that each takes, and one in proportion to
        what grows along the axes. None before the first has ended."""
        known = [(self._size(cell), cell.seconds) for cell in self.cells if cell.seconds and cell.finished]
        if not known:
            return None
        each, by_size = growth(*zip(*known, strict=True))
        return sum(each + by_size * self._size(cell) for cell in self.missing)

    def _size(self, cell: StoredCell) -> float:
        return math.prod(float(at) for axis, at in zip(self.plan.axes, cell.cell.point, strict=True) if axis.grows)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: how it goes, and each cell's place and state without its result."""
        names = ("status", "experiment", "reason", "seconds")
        cells = [
            {"index": held.cell.index, "line": held.cell.line, "point": list(held.cell.point), "label": held.cell.label}
            | {name: getattr(held, name) for name in names}
            for held in self.cells
        ]
        finished = len(self.cells) - len(self.missing)
        head = {"id": self.id, "title": self.title, "created_at": self.created_at, "status": self.status}
        axes = [{"name": axis.name, "values": list(axis.values)} for axis in self.plan.axes]
        return {**head, "axes": axes, "finished": finished, "left_s": self.left_s, "cells": cells}


def ended(document: Mapping[str, Any]) -> dict[str, Any]:
    """Status, result and reason of a cell whose run ended with this document."""
    error = document["error"] or {}
    status = "oom" if error.get("kind") == "oom" else str(document["status"])
    return {"status": status, "result": document, "reason": str(error.get("message", ""))}


def reference_of(cell: Cell, cells: Sequence[Cell]) -> Cell | None:
    """The first cell of the same model, which quality is compared with, be it the cell itself; None where no two can be compared."""
    same = [item for item in cells if item.spec.model == cell.spec.model and item.spec.protocol.quality]
    return same[0] if cell.spec.protocol.quality and len(same) > 1 else None


class Sweeps:
    """The sweeps of a store; every method may raise Problem("user"), as the store's own do."""

    def __init__(self, store: Store) -> None:
        self._database = store.database

    def create(self, plan: SweepSpec, cells: Sequence[Cell]) -> str:
        """A new sweep, waiting; returns its id."""
        sweep, now = new_id(), datetime.now(UTC).isoformat(timespec="seconds")
        with self._database.writing() as connection:
            connection.execute(
                "INSERT INTO sweeps (id, title, plan, status, created_at, owner_pid, owner_started) VALUES (?, ?, ?, 'waiting', ?, ?, ?)",
                (sweep, plan.title, _json(plan.to_dict()), now, *owner()),
            )
            connection.executemany(
                "INSERT INTO sweep_cells (sweep, position, cell) VALUES (?, ?, ?)",
                [(sweep, cell.index, _json(cell.to_dict())) for cell in cells],
            )
        return sweep

    def load(self, sweep: str) -> StoredSweep:
        """One sweep; raises Problem("user") for an unknown id."""
        with self._database.reading() as connection:
            head = connection.execute("SELECT * FROM sweeps WHERE id = ?", (sweep,)).fetchone()
            rows = connection.execute(_CELLS, (sweep,)).fetchall()
        if head is None:
            raise _unknown(sweep)
        plan = SweepSpec.from_dict(json.loads(head["plan"]))
        return StoredSweep(sweep, head["title"], head["created_at"], _status(head), plan, tuple(_cell(row) for row in rows))

    def history(self, limit: int = 50) -> list[dict[str, Any]]:
        """Sweeps, newest first, as plain JSON values: id, title, created_at, status, cells, and finished: how many of them are."""
        with self._database.reading() as connection:
            heads = connection.execute(_HISTORY, (limit,)).fetchall()
        names = ("id", "title", "created_at", "cells", "finished")
        return [{**{name: head[name] for name in names}, "status": _status(head)} for head in heads]

    def claim(self, sweep: str) -> None:
        """It runs in this process now; raises Problem("user") where it runs in another one, or is unknown."""
        with self._database.writing() as connection:
            head = connection.execute("SELECT * FROM sweeps WHERE id = ?", (sweep,)).fetchone()
            if head is None:
                raise _unknown(sweep)
            if _status(head) == "running" and (head["owner_pid"], head["owner_started"]) != owner():
                raise Problem("user", f"The sweep {sweep} is running in another process (number {head['owner_pid']}).")
            connection.execute("UPDATE sweeps SET status = 'running', owner_pid = ?, owner_started = ? WHERE id = ?", (*owner(), sweep))

    def release(self, sweep: str, status: str) -> None:
        """It runs no more: done, paused or stopped."""
        with self._database.writing() as connection:
            connection.execute("UPDATE sweeps SET status = ? WHERE id = ?", (status, sweep))

    def begin(self, sweep: str, index: int, experiment: str) -> None:
        """The cell is that stored experiment from now on."""
        with self._database.writing() as connection:
            connection.execute(f"UPDATE sweep_cells SET experiment = ? WHERE {_MINE}", (experiment, sweep, index))

    def finish(self, sweep: str, index: int, seconds: float) -> None:
        """The cell's run has ended and took so long."""
        with self._database.writing() as connection:
            connection.execute(f"UPDATE sweep_cells SET seconds = ? WHERE {_MINE}", (seconds, sweep, index))

    def skip(self, sweep: str, index: int, reason: str) -> None:
        """The cell is not run."""
        with self._database.writing() as connection:
            connection.execute(f"UPDATE sweep_cells SET skipped = ? WHERE {_MINE}", (reason, sweep, index))

    def delete(self, sweep: str) -> None:
        """Forget a sweep and the experiments that its cells became."""
        with self._database.writing() as connection:
            connection.execute(
                "DELETE FROM experiments WHERE id IN (SELECT experiment FROM sweep_cells WHERE sweep = ? AND experiment IS NOT NULL)",
                (sweep,),
            )
            if not connection.execute("DELETE FROM sweeps WHERE id = ?", (sweep,)).rowcount:
                raise _unknown(sweep)


def _cell(row: sqlite3.Row) -> StoredCell:
    document = json.loads(row["result"]) if row["result"] else None
    error = (document or {}).get("error") or {}
    status = row["status"] or "waiting"  # nor has a cell a run whose experiment was deleted
    if row["skipped"]:
        status = "skipped"
    elif status == "failed" and error.get("kind") == "oom":
        status = "oom"
    reason = row["skipped"] or str(error.get("message", ""))
    return StoredCell(Cell.from_dict(json.loads(row["cell"])), status, row["experiment"], document, reason, row["seconds"])


def _status(head: sqlite3.Row) -> str:
    gone = head["status"] in ("waiting", "running") and not alive(head["owner_pid"], head["owner_started"])
    return "interrupted" if gone else str(head["status"])


def _unknown(sweep: str) -> Problem:
    return Problem("user", f"There is no stored sweep {sweep!r}.")


def _json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False)
