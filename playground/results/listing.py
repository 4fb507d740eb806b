"""Lines of the history: experiments with their runs and headline metrics as plain values, and what there is to filter by.

A page takes three queries, the facets take five, however long it is; no events and no result documents are read. Example::

    with database.reading() as connection:
        lines(connection, "deleted_at IS NULL", [], limit=50, offset=0)
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import TypedDict

HEADLINES = (
    "ttft_s",
    "itl_s",
    "output_tokens_per_s",
    "weights_bytes",
    "kv_cache_bytes",
    "peak_allocated_bytes",
    "peak_rss_bytes",
    "kld_mean",
)
STATUSES = ("interrupted", "failed", "cancelled", "running", "waiting", "done")  # the first that a run has is the experiment's
SUMMARY = f"MIN(CASE status {' '.join(f'WHEN {name!r} THEN {rank}' for rank, name in enumerate(STATUSES))} END)"
KINDS = ("experiment", "sweep")
KIND = "CASE WHEN source LIKE 'sweep %' THEN 'sweep' ELSE 'experiment' END"
MOST_LINES = 1000  # of a page


class Figure(TypedDict):
    """A metric with its 95 % interval; `kind`: measured, estimated, recorded or not_available."""

    value: float | None
    low: float | None
    high: float | None
    kind: str


class RunLine(TypedDict):
    """One variant: `metrics` are its headlines by name."""

    index: int
    label: str
    model: str
    status: str
    fingerprint: str
    device: str
    metrics: dict[str, Figure]


class Line(TypedDict):
    """One experiment. `created_at`: ISO, UTC; `model`: the baseline's; `status`: all in one; `techniques`: names, as in `used`."""

    id: str
    title: str
    source: str
    created_at: str
    label: str
    note: str
    pinned: bool
    model: str
    status: str
    statuses: list[str]
    techniques: list[str]
    devices: list[str]
    runs: list[RunLine]


class Page(TypedDict):
    """`experiments`: pinned ones first, then the newest; `total`: how many the filters leave; `facets`: for model, technique, device,
    status and kind what exists in the whole history, with the number of experiments.
    """

    total: int
    experiments: list[Line]
    facets: dict[str, dict[str, int]]


def lines(connection: sqlite3.Connection, where: str, values: Sequence[str | int], limit: int, offset: int) -> list[Line]:
    """The experiments of a condition and its values: pinned ones first, then the newest, at most MOST_LINES."""
    columns = "id, title, source, created_at, label, note, pinned, techniques"
    heads = connection.execute(
        f"SELECT {columns} FROM experiments WHERE {where} ORDER BY pinned DESC, number DESC LIMIT ? OFFSET ?",
        (*values, max(0, min(limit, MOST_LINES)), max(0, offset)),
    ).fetchall()
    ids = [head["id"] for head in heads]
    runs: dict[str, list[RunLine]] = {name: [] for name in ids}
    found: dict[tuple[str, int], dict[str, Figure]] = {}
    for row in connection.execute(
        f"SELECT * FROM metrics WHERE name IN ({_marks(HEADLINES)}) AND experiment IN ({_marks(ids)})", (*HEADLINES, *ids)
    ):
        figure = Figure(value=row["value"], low=row["low"], high=row["high"], kind=row["kind"])
        found.setdefault((row["experiment"], row["position"]), {})[row["name"]] = figure
    for row in connection.execute(
        "SELECT experiment, position, label, model, status, fingerprint, device FROM runs"
        f" WHERE experiment IN ({_marks(ids)}) ORDER BY experiment, position",
        ids,
    ):
        line = RunLine(
            index=row["position"],
            label=row["label"],
            model=row["model"],
            status=row["status"],
            fingerprint=row["fingerprint"],
            device=row["device"],
            metrics=found.get((row["experiment"], row["position"]), {}),
        )
        runs[row["experiment"]].append(line)
    return [_line(head, runs[head["id"]]) for head in heads]


def _line(head: sqlite3.Row, runs: list[RunLine]) -> Line:
    statuses = [run["status"] for run in runs]
    return Line(
        id=head["id"],
        title=head["title"],
        source=head["source"],
        created_at=head["created_at"],
        label=head["label"],
        note=head["note"],
        pinned=bool(head["pinned"]),
        techniques=json.loads(head["techniques"] or "[]"),
        model=runs[0]["model"] if runs else "",
        status=min(statuses, key=STATUSES.index, default=""),
        statuses=statuses,
        devices=list(dict.fromkeys(run["device"] for run in runs)),
        runs=runs,
    )


def facets(connection: sqlite3.Connection) -> dict[str, dict[str, int]]:
    """What experiments that are not deleted have, each with their number, the most frequent first."""
    live = "JOIN experiments ON id = experiment AND deleted_at IS NULL"
    queries = {
        "model": f"SELECT model, COUNT(DISTINCT experiment) AS n FROM runs {live} GROUP BY model",
        "technique": "SELECT value, COUNT(*) AS n FROM experiments, json_each(techniques) WHERE deleted_at IS NULL GROUP BY value",
        "device": f"SELECT device, COUNT(DISTINCT experiment) AS n FROM runs {live} GROUP BY device",
        "status": f"SELECT rank, COUNT(*) AS n FROM (SELECT {SUMMARY} AS rank FROM runs {live} GROUP BY experiment) GROUP BY rank",
        "kind": f"SELECT {KIND} AS kind, COUNT(*) AS n FROM experiments WHERE deleted_at IS NULL GROUP BY kind",
    }
    counts = {name: dict(map(tuple, connection.execute(f"{query} ORDER BY n DESC, 1"))) for name, query in queries.items()}
    return {**counts, "status": {STATUSES[rank]: number for rank, number in counts["status"].items()}}


def _marks(values: Sequence[str]) -> str:
    return ", ".join("?" * len(values))
