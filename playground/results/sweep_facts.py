"""What the curves of a sweep say, as numbers and in a sentence each: where batching stops being free, how the prefill grows with the
prompt, how much slower it is without a KV cache.

Pure. Example::

    facts(plan, cells)[0].sentence   # "A step takes more than 1.1 times that of batch size 1 from 11 rows on; ..."
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from playground.core.sweep import SweepSpec
from playground.measure.fits import exponent, leaves, parabola
from playground.results.numbers import digits, shown
from playground.results.sweep_lines import Line, lines_of, slowdowns
from playground.results.sweeps import StoredCell

FREE = 1.1  # times the step of the smallest batch: up to here a larger one is called free


@dataclass(frozen=True)
class Fact:
    """chart: the metric on whose chart it is told; line: whose number it is; values: its numbers by name."""

    chart: str
    line: int
    sentence: str
    values: Mapping[str, float] = field(default_factory=dict)


def facts(plan: SweepSpec, cells: Sequence[StoredCell]) -> list[Fact]:
    """Of each line with enough points along the first axis."""
    axis = plan.axes[0].name
    if axis == "batch_size":
        return [fact for line in lines_of(plan, cells, "itl_s") for fact in _free(line)]
    if axis == "prompt_tokens":
        return [fact for line in lines_of(plan, cells, "ttft_s") for fact in _prefill(line)]
    if axis == "max_new_tokens":
        return [fact for line in slowdowns(plan, cells) for fact in _slowdown(line)]
    return []


def _free(line: Line) -> list[Fact]:
    rows, steps = _numbers(line)
    if len(rows) < 2:
        return []
    end = leaves(rows, steps, FREE)
    times = f"{FREE} times that of batch size {rows[0]:g}"
    values = {"factor": FREE, "longest": rows[-1], "step_ratio": steps[-1] / steps[0]}
    if end is None:
        return [Fact("itl_s", line.number, f"{_of(line)}up to {rows[-1]:g} rows no step takes more than {times}.", values)]
    ratio = f"at {rows[-1]:g} it takes {digits(steps[-1] / steps[0])} times as long"
    sentence = f"{_of(line)}a step takes more than {times} from about {digits(end, 2)} rows on; {ratio}."
    return [Fact("itl_s", line.number, sentence, {**values, "free_until": end})]


def _prefill(line: Line) -> list[Fact]:
    lengths, times = _numbers(line)
    power = exponent(lengths, times) if len(lengths) > 1 else None
    if power is None:
        return []
    last = exponent(lengths[-2:], times[-2:]) or 0.0
    sentence = f"{_of(line)}the time to the first token grows as the length to the power of {digits(power, 2)}"
    values = {"exponent": power, "last_exponent": last}
    if len(lengths) > 2:
        sentence += f" ({digits(last, 2)} between the two longest)"
    if found := parabola(lengths, times):
        values |= {"constant_s": found.constant, "linear_s": found.linear, "quadratic_s": found.quadratic, "square_share": found.square}
        share = f"{found.square * 100:.0f} % of the {shown(found(lengths[-1]), 's')} at {lengths[-1]:,.0f} tokens"
        sentence += f"; the part that grows with its square, as attention does, is {share}, as fitted"
    return [Fact("ttft_s", line.number, sentence + ".", values)]


def _slowdown(line: Line) -> list[Fact]:
    lengths, ratios = _numbers(line)
    if not lengths:
        return []
    first = f"{digits(ratios[0])} times as long at {lengths[0]:g} tokens of output"
    rest = f" and {digits(ratios[-1])} times at {lengths[-1]:g}" if len(lengths) > 1 else ""
    return [Fact("slowdown", line.number, f"{_of(line)}without a KV cache a request takes {first}{rest}.", {"last": ratios[-1]})]


def _numbers(line: Line) -> tuple[list[float], list[float]]:
    points = [(float(point.x), point.y) for point in line.points if point.y]
    return [x for x, _ in points], [y for _, y in points]


def _of(line: Line) -> str:
    return f"{line.name}: "
