"""Why a run is as fast as it is: its verdict, what was predicted for it, its points on the roofline, its profile, and what was expected.

Pure. Example::

    explain(trace, values, baseline=None)["verdict"]["sentence"]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from playground.core.plan import Techniques
from playground.core.problem import Problem
from playground.measure import efficiency
from playground.measure.estimate import estimate
from playground.measure.roofline import Work, predict_run
from playground.measure.step_profile import NO_PARTS
from playground.measure.timing import SCHEDULED
from playground.measure.trace import Trace
from playground.measure.values import Missing, Value
from playground.results.expectations import expectations
from playground.results.seen import seen
from playground.results.verdict import prefill_reason, verdict

# What is predicted, the metric that measures it, and the unit.
PREDICTED = {
    "step_s": ("itl_s", "s"),
    "ttft_s": ("ttft_s", "s"),
    "output_tokens_per_s": ("output_tokens_per_s", "tokens/s"),
    "weights_bytes": ("weights_bytes", "B"),
    "kv_cache_bytes": ("kv_cache_bytes", "B"),
}
DEPARTURE = ("row", "position", "ours_text", "theirs_text", "p_ours", "p_theirs", "baseline_p_ours", "baseline_p_theirs")


@dataclass(frozen=True)
class Measured:
    """A run's trace and its metrics."""

    trace: Trace
    values: Mapping[str, Value]


def explain(run: Measured, baseline: Measured | None, techniques: Techniques) -> dict[str, Any]:
    """The parts of a result document that explain: verdict, prediction, prediction_reason, roofline, profile, profile_reason (why there is
    none, or none of its parts), departures, expectations."""
    ours, theirs = seen(run.trace, run.values), None if baseline is None else seen(baseline.trace, baseline.values)
    found = verdict(ours, theirs)
    why = {"": found["sentence"] if found["bottleneck"] != "unknown" else "", "ttft_s": prefill_reason(ours, theirs) if theirs else ""}
    prediction, reason = _prediction(run)
    profile, spec = run.trace.profile, run.trace.spec
    expected = [] if baseline is None else expectations(spec, baseline.trace.spec, run.values, baseline.values, techniques, why)
    return {
        "verdict": found,
        "prediction": prediction,
        "prediction_reason": reason,
        "roofline": _roofline(run.trace),
        "profile": None if profile is None or profile.reason else _without(asdict(profile), "t_ns", "reason"),
        "profile_reason": "" if profile is None or profile.parts else profile.reason or NO_PARTS,
        "departures": [{name: getattr(departure, name) for name in DEPARTURE} for departure in run.trace.departures],
        "expectations": expected,
    }


def _prediction(run: Measured) -> tuple[dict[str, dict[str, Any]], str]:
    """What the roofline and the estimate say of the run's largest batch, beside what was measured, and why something is not predicted."""
    trace = run.trace
    config, footprint = trace.model.get("config"), trace.footprint
    batch = max((batch for item in trace.timed for batch in item.batches), key=lambda batch: len(batch.rows), default=None)
    if not config or footprint is None:
        return {}, "the model's config is not known"
    if batch is None:
        return {}, "no timed pass was completed"
    if footprint.speculated:
        return {}, efficiency.SPECULATED.reason
    if footprint.scheduled:
        return {}, SCHEDULED.reason
    size = max(row.prompt_tokens for row in batch.rows), len(batch.ticks_ns)
    predicted: Any
    reason = ""
    try:
        if trace.ceilings is None:
            predicted, reason = estimate(config, footprint, *size), "times are not predicted: the device's ceilings were not measured"
        else:
            predicted = predict_run(config, footprint, trace.ceilings, *size, link_s=run.values["predicted_offload_s"].value or 0.0)
    except Problem as problem:
        return {}, problem.message
    pairs = {name: (getattr(predicted, name, None), run.values[metric].value) for name, (metric, _) in PREDICTED.items()}
    return {
        name: _beside(predicted, measured, PREDICTED[name][1]) for name, (predicted, measured) in pairs.items() if predicted is not None
    }, reason


def _beside(predicted: float, measured: float | None, unit: str) -> dict[str, Any]:
    error = predicted / measured - 1 if measured else 0.0 if measured == predicted else None
    return {"predicted": predicted, "measured": measured, "unit": unit, "error": error}


def _roofline(trace: Trace) -> dict[str, Any] | None:
    """Intensity and achieved rate of decode and prefill beside the ceilings; None where there are no ceilings or the work is not known."""
    decode, prefill = efficiency.decode_step(trace), efficiency.prefill(trace)
    if trace.ceilings is None or isinstance(decode, Missing) or isinstance(prefill, Missing):
        return None
    return {
        "decode": _point(*decode),
        "prefill": _point(*prefill),
        "ceilings": _without(asdict(trace.ceilings), "t_ns", "key", "measured_at", "fresh"),
    }


def _point(work: Work, seconds: float) -> dict[str, float]:
    return {"intensity": work.operations / work.bytes, "flops_per_s": work.operations / seconds}


def _without(data: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name not in names}
