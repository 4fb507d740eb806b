"""What each technique promised against the baseline, and what was measured: as expected, the opposite, no difference, not measured.

Pure. A difference counts where the intervals separate; the reason for a surprise in time is the verdict's. Example::

    expectations(spec, baseline_spec, values, baseline_values, techniques(), "int8 moves ...")[0]["outcome"]   # "opposite"
"""

from __future__ import annotations

from collections.abc import Mapping

from playground.core.knobs import KnobValue
from playground.core.plan import Techniques, knob_index, ordered
from playground.core.spec import RunSpec
from playground.core.technique import Effect
from playground.measure.metrics import METRICS
from playground.measure.values import Value
from playground.results.numbers import NO_DIFFERENCE, shown
from playground.results.trend import CLOSE, TIMES, trend

# What the baseline has against itself, where its noise floor was not measured.
AGAINST_ITSELF = {"kld_mean": 0.0, "kld_p99": 0.0, "top1_agreement": 1.0}
EXPECTED = {"up": "to rise", "down": "to fall", "same": "to stay the same"}


def expectations(
    spec: RunSpec,
    baseline: RunSpec,
    values: Mapping[str, Value],
    baseline_values: Mapping[str, Value],
    techniques: Techniques,
    why: Mapping[str, str],
) -> list[dict[str, str]]:
    """One entry a technique and metric that it speaks of: technique, metric, expected, outcome, text. `why`: reasons
    for a time that surprises, by metric, and under "" for all others; each is told once."""
    knobs, before = _full(spec, techniques), _full(baseline, techniques)
    promises = {technique: effects for technique in ordered(techniques) if (effects := technique.expect(knobs, before))}
    found, told = [], {""}
    for technique, effects in promises.items():
        others = [other for other in promises if other is not technique]
        for metric, expected in effects.items():
            if expected == "same" and any(promises[other].get(metric, "same") != "same" for other in others):
                continue  # another technique is there to change it
            outcome, text = _compared(metric, expected, values, baseline_values)
            reason = why.get(metric, why.get("", ""))
            if METRICS[metric].unit in TIMES and outcome in ("opposite", "no difference") and reason not in told:
                text += f" {reason}"
                told.add(reason)
            if others and outcome != "not measured":
                text += f" Also changed: {', '.join(other.title for other in others)}."
            found.append({"technique": technique.name, "metric": metric, "expected": expected, "outcome": outcome, "text": text})
    return found


def _compared(metric: str, expected: Effect, values: Mapping[str, Value], baseline_values: Mapping[str, Value]) -> tuple[str, str]:
    """Outcome and text of one metric."""
    about = METRICS[metric]
    value, before = values[metric], _before(metric, values[metric], baseline_values)
    promised = f"{about.title}: expected {EXPECTED[expected]}"
    went = trend(value, before)
    if went is None or value.value is None or before.value is None:
        reason = value.reason if value.value is None else before.reason
        return "not measured", f"{promised}, but " + (f"not available: {reason}." if reason else "one repeat cannot tell a difference.")
    worse = "up" if about.direction == "lower" else "down"
    if metric in AGAINST_ITSELF and went != worse:
        floor = f"{shown(value.value, about.unit)} is within the noise floor of {shown(before.value, about.unit)}"
        return "as expected" if expected == "same" else "no difference", f"{promised}, and {floor}."
    did = _did(went, shown(before.value, about.unit), shown(value.value, about.unit))
    if went == expected == "same" and abs(value.value - before.value) > CLOSE * abs(before.value):
        return "no difference", f"{promised}, and {did}: the intervals are too wide to confirm it."
    if went == expected:
        return "as expected", f"{promised}, and {did}."
    outcome = "no difference" if went == "same" else "opposite"
    return outcome, f"{promised}, but {did}."


def _did(went: Effect, old: str, new: str) -> str:
    if went == "same":
        return f"stayed at {new}" if old == new else f"there is {NO_DIFFERENCE} (from {old} to {new})"
    return f"{'rose' if went == 'up' else 'fell'} from {old} to {new}"


def _before(metric: str, value: Value, baseline_values: Mapping[str, Value]) -> Value:
    """The baseline's value; of a metric that compares with the baseline, its noise floor."""
    if metric not in AGAINST_ITSELF:
        return baseline_values[metric]
    floor = baseline_values.get(f"{metric}_floor")
    return floor if floor is not None and floor.value is not None else Value(AGAINST_ITSELF[metric], value.unit)


def _full(spec: RunSpec, techniques: Techniques) -> dict[str, KnobValue]:
    return {name: spec.knobs.get(name, knob.default) for name, (_, knob) in knob_index(techniques).items()}
