"""What the curves of a sweep say, as numbers and in a sentence each: where batching stops being free, how the prefill grows with the
prompt, from which length a line's first token comes sooner than the first line's, how much slower it is without a KV cache.

Pure. Example::

    facts(plan, cells)[0].sentence   # "A step takes more than 1.1 times that of batch size 1 from 11 rows on; ..."
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from playground.core.sweep import SweepSpec, line_names
from playground.measure.fits import exponent, leaves, parabola
from playground.results.numbers import change, digits, shown
from playground.results.sweep_lines import Line, Point, lines_of, slowdowns
from playground.results.sweeps import StoredCell
from playground.techniques import techniques

FREE = 1.1  # times the step of the smallest batch: up to here a larger one is called free
LIKE_A_STEP = 1.5  # times a step: up to here the prefill is what a step is, launches or the reading of weights, and no work on the prompt


@dataclass(frozen=True)
class Fact:
    """chart: the metric on whose chart it is told; line: whose number it is; values: its numbers by name."""

    chart: str
    line: int
    sentence: str
    values: Mapping[str, float] = field(default_factory=dict)


def facts(plan: SweepSpec, cells: Sequence[StoredCell]) -> list[Fact]:
    """Of each line with enough points along the first axis."""
    found = ABOUT.get(plan.axes[0].name)
    if found is None:
        return []
    metric, tell = found
    several = len(line_names(plan, techniques())) > 1
    told = tell(plan, cells)
    return [replace(fact, sentence=_sentence(fact, lines[0].name if several else "", _careful(lines, metric))) for lines, fact in told]


def _sentence(fact: Fact, name: str, ending: str) -> str:
    words = f"{name}: {fact.sentence}" if name else fact.sentence[0].upper() + fact.sentence[1:]
    return words + ending


def _careful(lines: Sequence[Line], metric: str) -> str:
    """How the sentence ends: with a warning where the repeats of some points vary so much that their mean says little."""
    found = [_metric(point, metric) for line in lines for point in line.measured]
    unsteady = sum(item.get("grade") == "unstable" for item in found)
    return f". Careful: the repeats of {unsteady} of {len(found)} points vary by more than 20 %." if unsteady else "."


def _metric(point: Point, name: str) -> Mapping[str, Any]:
    return (point.cell.result or {}).get("metrics", {}).get(name) or {}


Told = list[tuple[tuple[Line, ...], Fact]]  # the lines that a fact stands on, its own first


def _batches(plan: SweepSpec, cells: Sequence[StoredCell]) -> Told:
    return _of_each(lines_of(plan, cells, "itl_s"), _free)


def _prompts(plan: SweepSpec, cells: Sequence[StoredCell]) -> Told:
    lines = lines_of(plan, cells, "ttft_s")
    return _of_each(lines, _prefill) + [((line, lines[0]), fact) for line in lines[1:] if (fact := _sooner(line, lines[0]))]


def _outputs(plan: SweepSpec, cells: Sequence[StoredCell]) -> Told:
    return _of_each(slowdowns(plan, cells), _slowdown)


def _of_each(lines: Sequence[Line], tell: Callable[[Line], Fact | None]) -> Told:
    return [((line,), fact) for line in lines if (fact := tell(line))]


def _free(line: Line) -> Fact | None:
    rows, steps = _numbers(line)
    if len(rows) < 2:
        return None
    end = leaves(rows, steps, FREE)
    times = f"{FREE} times that of batch size {rows[0]:g}"
    values = {"factor": FREE, "longest": rows[-1], "step_ratio": steps[-1] / steps[0]}
    ratio = f"at {rows[-1]:g} it takes {digits(steps[-1] / steps[0])} times as long"
    if end is None and max(steps) > FREE * steps[0]:
        return Fact("itl_s", line.number, f"a step takes more than {times} at some sizes, and not at the largest: {ratio}", values)
    if end is None:
        return Fact("itl_s", line.number, f"up to {rows[-1]:g} rows no step takes more than {times}", values)
    sentence = f"a step takes more than {times} from about {digits(end, 2)} rows on; {ratio}"
    return Fact("itl_s", line.number, sentence, {**values, "free_until": end})


def _prefill(line: Line) -> Fact | None:
    lengths, times = _numbers(line)
    power = exponent(lengths, times) if len(lengths) > 1 else None
    if power is None:
        return None
    last = exponent(lengths[-2:], times[-2:]) or 0.0
    sentence = f"the time to the first token grows as the length to the power of {digits(power, 2)}"
    values = {"exponent": power, "last_exponent": last}
    if len(lengths) > 2:
        sentence += f" ({digits(last, 2)} between the two longest)"
    if found := parabola(lengths, times):
        values |= {"constant_s": found.constant, "linear_s": found.linear, "quadratic_s": found.quadratic, "square_share": found.square}
        share = f"{found.square * 100:.0f} % of the {shown(found(lengths[-1]), 's')} at {lengths[-1]:,.0f} tokens"
        sentence += f"; the part that grows with its square, as attention does, is {share}, as fitted"
    if flat := flat_until(line):
        sentence += (
            f"; up to {flat:,.0f} tokens the first takes at most {LIKE_A_STEP} times as long as a later one: the prompt decides little"
        )
        values["flat_until"] = flat
    return Fact("ttft_s", line.number, sentence, values)


def flat_until(line: Line) -> float:
    """The longest prompt up to which the first token of a line of ttft_s takes hardly longer than a later one; 0 where there is none, and
    without a KV cache, where each token costs what the prompt does."""
    flat = 0.0
    for point in line.measured:
        step = _metric(point, "itl_s").get("value")
        if not step or (point.y or 0.0) > LIKE_A_STEP * step or point.cell.cell.spec.knobs.get("kv_cache") == "off":
            break
        flat = float(point.x)
    return flat


def _sooner(line: Line, first: Line) -> Fact | None:
    """The length from which the time to the first token is shorter than the first line's, at each length and by more than the intervals.
    Lengths at which the first line's prompt does not decide are not compared: they are measured one after another, and a host whose
    launches vary would be taken for a gain."""
    flat, theirs = flat_until(first), {point.x: point for point in first.measured}
    pairs = [(float(point.x), point, theirs[point.x]) for point in line.measured if point.x in theirs and float(point.x) > flat]
    if len(pairs) < 2:
        return None
    shown_at = [_below(ours, other) for _, ours, other in pairs]
    holds = next((place for place in range(len(pairs)) if all(shown_at[place:])), None)
    longest, ours, other = pairs[-1]
    ratio = (ours.y or 0.0) / (other.y or 1.0)
    end = f"× {digits(ratio)} at {longest:,.0f}"
    if holds is None:
        sentence = f"at the longest prompt of both no sooner first token than with {first.name} is shown, {end}"
        return Fact("ttft_s", line.number, sentence, {"ratio": ratio})
    since = f"from {pairs[holds][0]:,.0f} tokens on" if holds or flat else f"at each length, from {pairs[0][0]:,.0f} tokens"
    sentence = f"the first token comes sooner than with {first.name} {since}, {end}" + (f"; not compared up to {flat:,.0f}" if flat else "")
    return Fact("ttft_s", line.number, sentence, {"pays_from": pairs[holds][0], "ratio": ratio})


def _below(ours: Point, theirs: Point) -> bool:
    """Whether the time to the first token is shorter, and by more than the intervals where both have one."""
    differs = change(_metric(ours, "ttft_s"), _metric(theirs, "ttft_s"))
    return differs is not None and differs.shown is not False and (ours.y or 0.0) < (theirs.y or 0.0)


def _slowdown(line: Line) -> Fact | None:
    lengths, ratios = _numbers(line)
    if not lengths:
        return None
    first = f"{digits(ratios[0])} times as long at {lengths[0]:g} tokens of output"
    rest = f" and {digits(ratios[-1])} times at {lengths[-1]:g}" if len(lengths) > 1 else ""
    return Fact("slowdown", line.number, f"without a KV cache a request takes {first}{rest}", {"last": ratios[-1]})


def _numbers(line: Line) -> tuple[list[float], list[float]]:
    points = [(float(point.x), point.y) for point in line.points if point.y]
    return [x for x, _ in points], [y for _, y in points]


# Of an axis: the metric whose repeats the facts stand on, and what tells them.
ABOUT: Mapping[str, tuple[str, Callable[[SweepSpec, Sequence[StoredCell]], Told]]] = {
    "batch_size": ("itl_s", _batches),
    "prompt_tokens": ("ttft_s", _prompts),
    "max_new_tokens": ("e2e_s", _outputs),
}
