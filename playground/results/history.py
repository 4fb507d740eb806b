"""Earlier experiments: find them by filters and words, label, note, pin, delete with undo. No events are read here.

Deleting marks: the experiment is gone from everywhere at once, `restore` brings it back, and `tidy` (at the opening of the store) removes
for good what was marked for more than a day. A page of the history costs the same few queries, however long it is. Example::

    history = History(database)
    history.page(Filters(text="llama", technique="kv_cache", status="done"), limit=20)["total"]
    history.delete(["k3x9abcd"]); history.restore(["k3x9abcd"])
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from sqlite3 import Connection
from typing import Any

from playground.core.plan import ordered
from playground.core.problem import Problem, did_you_mean
from playground.core.spec import RunSpec
from playground.results.database import Database
from playground.results.listing import KIND, KINDS, STATUSES, SUMMARY, Line, Page, facets, lines
from playground.results.owner import alive
from playground.techniques import techniques

KEPT_AFTER_DELETE = timedelta(days=1)
LONGEST = {"label": 80, "note": 10_000}  # characters
_WITH = {"model": "runs WHERE model = ?", "device": "runs WHERE device = ?", "status": f"runs GROUP BY experiment HAVING {SUMMARY} = ?"}


@dataclass(frozen=True)
class Filters:
    """What to look for; what is empty leaves nothing out. text: words that all stand in title, label, note or a model's name, in any case;
    technique: by its name, in the sense of `used`; device: of a run, as in a line's `devices`; status: the experiment's; since, until:
    days as 2026-11-27, both included, in UTC; kind: experiment, or sweep for the runs of sweeps."""

    text: str = ""
    model: str = ""
    technique: str = ""
    device: str = ""
    status: str = ""
    since: str = ""
    until: str = ""
    kind: str = ""

    def __post_init__(self) -> None:
        for field, known in (("status", STATUSES), ("kind", KINDS)):
            if (wanted := getattr(self, field)) and wanted not in known:
                raise Problem("user", f"{field}: " + did_you_mean(f"there is no {field}", wanted, known))
        for name in ("since", "until"):
            try:
                date.fromisoformat(getattr(self, name) or "2000-01-01")
            except ValueError:
                raise Problem("user", f"{name} must be a day such as 2026-11-27, got {getattr(self, name)!r}.") from None


def used(specs: Sequence[RunSpec]) -> list[str]:
    """Names of the techniques of which a setting differs from its default in at least one of the specs, in their order."""
    return [technique.name for technique in ordered(techniques()) if any(technique.active(spec.knobs) for spec in specs)]


def ran_on(asked: str, provenance: Mapping[str, Any]) -> str:
    """The name of the processor or GPU that a run was made on; what its spec `asked` for (auto, cpu or cuda) where that is not known."""
    on_cpu = (provenance.get("device") or asked) == "cpu"
    return str((not on_cpu and provenance.get("gpu")) or provenance.get("cpu") or asked)


class History:
    """The experiments of a database that are not deleted. Every method may raise Problem("user"), also for ids that do not exist."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, filters: Filters = Filters(), limit: int = 50, offset: int = 0) -> Page:
        """The experiments that the filters leave, at most MOST_LINES of them, and what can be filtered by."""
        where, values = _condition(filters)
        with self._database.reading() as connection:
            connection.create_function("holds", 2, _holds, deterministic=True)
            total = connection.execute(f"SELECT COUNT(*) FROM experiments WHERE {where}", values).fetchone()[0]
            return {"total": total, "experiments": lines(connection, where, values, limit, offset), "facets": facets(connection)}

    def lines(self, limit: int = 50, offset: int = 0) -> list[Line]:
        """The experiments of a page alone."""
        with self._database.reading() as connection:
            return lines(connection, *_condition(Filters()), limit, offset)

    def line(self, experiment: str) -> Line:
        """One experiment; raises Problem("user") for an unknown id."""
        with self._database.reading() as connection:
            found = lines(connection, "deleted_at IS NULL AND id = ?", [experiment], 1, 0)
        if not found:
            raise Problem("user", f"There is no stored experiment {experiment!r}.")
        return found[0]

    def describe(self, experiment: str, *, label: str | None = None, note: str | None = None) -> None:
        """Give an experiment a short label, a note, or both; "" takes one away, None leaves it as it is."""
        given = {name: _storable(text).strip() for name, text in (("label", label), ("note", note)) if text is not None}
        for name, text in given.items():
            if len(text) > LONGEST[name]:
                raise Problem("user", f"The {name} is {len(text):,} characters long; {LONGEST[name]:,} is the most.")
        self._set([experiment], {**given, **({"label": " ".join(given["label"].split())} if "label" in given else {})})

    def pin(self, experiment: str, pinned: bool = True) -> None:
        """Keep an experiment on top of the list, or no longer."""
        self._set([experiment], {"pinned": pinned})

    def delete(self, experiments: Sequence[str]) -> None:
        """Take experiments out of sight, all or none; `restore` brings them back for a day. One that still runs is refused."""
        with self._database.reading() as connection:
            going = [row for name in experiments for row in connection.execute(_GOING, (name,))]
        if any(alive(row["owner_pid"], row["owner_started"]) for row in going):
            raise Problem("user", "This experiment still runs or waits for its turn. Stop it, then delete it.")
        self._set(experiments, {"deleted_at": _now()})

    def restore(self, experiments: Sequence[str]) -> None:
        """Undo `delete`."""
        self._set(experiments, {"deleted_at": None}, deleted=True)

    def tidy(self, kept: timedelta = KEPT_AFTER_DELETE) -> None:
        """Remove for good what was deleted longer ago than `kept`, and look up the techniques of experiments from before they were
        noted."""
        with self._database.reading() as connection:
            unknown = [row["id"] for row in connection.execute("SELECT id FROM experiments WHERE techniques IS NULL")]
            old = connection.execute("SELECT id FROM experiments WHERE deleted_at <= ?", (_now(-kept),)).fetchall()
        if unknown or old:
            with self._database.writing() as connection:
                connection.executemany("DELETE FROM experiments WHERE id = ?", [(row["id"],) for row in old])
                connection.executemany("UPDATE experiments SET techniques = ? WHERE id = ?", [(_read(connection, e), e) for e in unknown])

    def _set(self, experiments: Sequence[str], values: Mapping[str, Any], *, deleted: bool = False) -> None:
        if not values:
            return
        assignments = ", ".join(f"{name} = ?" for name in values)
        state = "NOT NULL" if deleted else "NULL"
        with self._database.writing() as connection:
            for name in experiments:
                changed = connection.execute(
                    f"UPDATE experiments SET {assignments} WHERE id = ? AND deleted_at IS {state}", (*values.values(), name)
                )
                if not changed.rowcount:
                    raise Problem("user", f"There is no {'deleted' if deleted else 'stored'} experiment {name!r}.")


_GOING = "SELECT owner_pid, owner_started FROM runs WHERE experiment = ? AND status IN ('waiting', 'running')"


def _now(plus: timedelta = timedelta()) -> str:
    return (datetime.now(UTC) + plus).isoformat(timespec="seconds")


def _holds(text: str, word: str) -> bool:
    return word in text.casefold()


def _condition(filters: Filters) -> tuple[str, list[str | int]]:
    """The WHERE of a query of experiments, and its values."""
    parts: list[str] = ["deleted_at IS NULL"]
    values: list[str | int] = []
    for name, wanted in asdict(filters).items():
        if wanted and name in _WITH:
            parts.append(f"id IN (SELECT experiment FROM {_WITH[name]})")
            values.append(STATUSES.index(wanted) if name == "status" else wanted)
    if filters.technique:
        parts.append("EXISTS (SELECT 1 FROM json_each(techniques) WHERE value = ?)")
        values.append(filters.technique)
    if filters.kind:
        parts.append(f"{KIND} = ?")
        values.append(filters.kind)
    if filters.since:
        parts.append("created_at >= ?")
        values.append(date.fromisoformat(filters.since).isoformat())
    if filters.until:
        parts.append("created_at < ?")
        values.append((date.fromisoformat(filters.until) + timedelta(days=1)).isoformat())
    for word in filters.text.casefold().split():
        named = "SELECT experiment FROM runs WHERE model IN (SELECT DISTINCT model FROM runs WHERE holds(model, ?))"
        parts.append(f"(holds(title, ?) OR holds(label, ?) OR holds(note, ?) OR id IN ({named}))")
        values += [word] * 4
    return " AND ".join(parts), [_storable(value) if isinstance(value, str) else value for value in values]


def _storable(text: str) -> str:
    """The text with a mark in place of each half of a pair of UTF-16, which SQLite cannot take."""
    return text.encode("utf-8", "replace").decode()


def _read(connection: Connection, experiment: str) -> str:
    """The techniques of an experiment from its specs; none where another version wrote them."""
    rows = connection.execute("SELECT spec FROM runs WHERE experiment = ?", (experiment,)).fetchall()
    try:
        return json.dumps(used([RunSpec.from_dict(json.loads(row["spec"])) for row in rows]))
    except (Problem, ValueError):
        return "[]"
