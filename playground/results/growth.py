"""What texts claim of how a cost grows along the axis of a sweep, held against what was measured, as `results.claims` does for one change.

Pure. A claim is judged in every sweep along its axis, on each line: the exponent of the metric between the two largest values, so 1 where
it grows in proportion. Example::

    claims = growths_from([{"sentence": "…", "source": "…", "metric": "ttft_s", "exponent_above": 1}], "prompt_tokens")
    judge_growth(claims, plan, cells)[0]["outcome"]       # "supported"
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from playground.core.problem import Problem, did_you_mean
from playground.core.sweep import GROWING, SweepSpec
from playground.measure.metrics import METRICS
from playground.results.claims import CONTRADICTED, OPEN, SUPPORTED, check_texts, ratio, tables, value_with_interval
from playground.results.numbers import digits
from playground.results.sweep_facts import flat_until
from playground.results.sweep_lines import Line, Point, lines_of
from playground.results.sweeps import StoredCell

TEXTS = ("sentence", "source", "metric")
FIELDS = (*TEXTS, "exponent_above", "why")
SHORT = " The shorter of these prompts decides little."


@dataclass(frozen=True)
class Growth:
    """`axis`: of the sweep; `exponent_above`: what the exponent between the two largest values is claimed to exceed; `why`: a known reason
    where it does not."""

    sentence: str
    source: str
    metric: str
    axis: str
    exponent_above: float
    why: str = ""


def growths_from(given: object, axis: str) -> tuple[Growth, ...]:
    """The [[claim]] tables on growth of a sweep's file whose first axis that is; those on a change, as an experiment has, are left out.
    Raises Problem("user") for what cannot be."""
    growing = [item for item in tables(given) if "direction" not in item]
    if growing and axis not in GROWING:
        raise Problem(
            "user", f"a claim of a sweep is about growth along its first axis, and {axis} is none that grows: {', '.join(GROWING)}."
        )
    return tuple(_parsed(item, axis) for item in growing)


def _parsed(item: Mapping[str, Any], axis: str) -> Growth:
    for name in item:
        if name not in FIELDS:
            raise Problem("user", did_you_mean("a claim of a sweep has no setting", name, FIELDS))
    check_texts(item, (*TEXTS, *(["why"] if "why" in item else [])))
    above = item.get("exponent_above")
    if isinstance(above, bool) or not isinstance(above, int | float) or not math.isfinite(above):
        raise Problem("user", f"a claim of a sweep needs a number as its exponent_above, got {above!r}.")
    texts = {name: " ".join(str(item[name]).split()) for name in (*TEXTS, "why") if name in item}
    return Growth(**texts, axis=axis, exponent_above=float(above))


def judge_growth(claims: Iterable[Growth], plan: SweepSpec, cells: Sequence[StoredCell]) -> list[dict[str, Any]]:
    """Each claim about the plan's first axis on each line with two values, in the form that `results.claims.judge` gives."""
    return [
        _judged(claim, line)
        for claim in claims
        if claim.axis == plan.axes[0].name
        for line in lines_of(plan, cells, claim.metric)
        if len(line.measured) > 1
    ]


def _judged(claim: Growth, line: Line) -> dict[str, Any]:
    before, last = sorted(line.measured, key=lambda point: float(point.x))[-2:]
    step = math.log(float(last.x) / float(before.x))
    new, old = (value_with_interval(point.cell.result or {}, claim.metric) for point in (last, before))
    ends = ratio(new, old) if new.ci95 and old.ci95 else None
    powers = [math.log(end) / step for end in ends] if ends and ends[0] > 0 else []
    short = claim.metric == "ttft_s" and claim.axis == "prompt_tokens" and float(before.x) <= flat_until(line)
    outcome = OPEN if short else _outcome(claim, powers)
    return {
        "sentence": claim.sentence,
        "source": claim.source,
        "variant": line.name,
        "number": line.number,
        "metric": claim.metric,
        "outcome": outcome,
        "text": _text(claim, (before, last), powers) + (SHORT if short else ""),
        "why": claim.why if outcome == CONTRADICTED else "",
    }


def _outcome(claim: Growth, powers: Sequence[float]) -> str:
    if not powers or powers[0] <= claim.exponent_above <= powers[1]:
        return OPEN
    return SUPPORTED if powers[0] > claim.exponent_above else CONTRADICTED


def _text(claim: Growth, pair: tuple[Point, Point], powers: Sequence[float]) -> str:
    before, last = pair
    power = math.log((last.y or 1.0) / (before.y or 1.0)) / math.log(float(last.x) / float(before.x))
    where = f"between {float(before.x):,.0f} and {float(last.x):,.0f}"
    spread = (
        f"95 % interval {digits(powers[0])} to {digits(powers[1])}" if powers else "without an interval, which needs repeats that agree"
    )
    claimed = f"{METRICS[claim.metric].title} claimed to grow by a power above {claim.exponent_above:g}"
    return f"{claimed}; measured {digits(power)} {where} ({spread})."
