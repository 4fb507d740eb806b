"""What a sweep has found as one document of plain JSON values: what `sweep --json` writes and the API answers. Pure.

Example::

    sweep_document(Sweeps(store).load("k3x9mfq2"), claims=[])["facts"][0]["sentence"]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, cast

from playground.results.sweep_facts import facts
from playground.results.sweeps import StoredSweep


class SweepAxis(TypedDict):
    """A setting and the values that it took."""

    name: str
    values: list[str | bool | int | float]


class SweepCell(TypedDict):
    """One run. `line`: of the lines in a chart; `point`: its value on each axis; `status`: waiting, running, done, oom, failed, cancelled,
    interrupted or skipped; `experiment`: its id in the history; `reason`: why it has no numbers, or ""; `seconds`: that it took."""

    index: int
    line: int
    point: list[str | bool | int | float]
    label: str
    status: str
    experiment: str | None
    reason: str
    seconds: float | None


class SweepFact(TypedDict):
    """What a line's curve says, with its numbers; `chart`: the metric."""

    chart: str
    line: int
    sentence: str
    values: dict[str, float]


class SweepDocument(TypedDict):
    """A sweep. `status`: waiting, running, pausing, paused, stopped, interrupted or done; `finished`: how many runs have ended; `left_s`:
    seconds that the others will take, as far as can be told; `results`: of each cell the result document, None where it has none."""

    id: str
    title: str
    created_at: str
    status: str
    axes: list[SweepAxis]
    finished: int
    left_s: float | None
    cells: list[SweepCell]
    facts: list[SweepFact]
    claims: list[dict[str, Any]]
    results: list[dict[str, Any] | None]


def sweep_document(stored: StoredSweep, claims: Sequence[Mapping[str, Any]]) -> SweepDocument:
    """The sweep with its cells, what their curves say, what `results.growth.judge_growth` found, and their results."""
    told = [{**vars(fact), "values": dict(fact.values)} for fact in facts(stored.plan, stored.cells)]
    return cast(
        SweepDocument,
        {**stored.to_dict(), "facts": told, "claims": [dict(claim) for claim in claims], "results": [cell.result for cell in stored.cells]},
    )
