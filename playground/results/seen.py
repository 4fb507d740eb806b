"""What a verdict rests on: a run's mean step, its work, its profile and the device's ceilings, in one place.

Pure. Example::

    seen(trace, values).step_s   # seconds of the mean decode step, None where there was none
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from playground.core.events import Ceilings
from playground.measure import efficiency
from playground.measure.roofline import Work
from playground.measure.timing import SCHEDULED
from playground.measure.trace import Trace
from playground.measure.values import Missing, Value


@dataclass(frozen=True)
class Seen:
    """What a verdict rests on. `token`: the inter-token latency with its interval; `step_s`: of a mean step, which gives each row
    `row_tokens` tokens: more than one where it checks proposed tokens; `busy`: share of a step in which a kernel runs, None without kernels
    or profile; `kernels`: of a step; `decode`, `prefill`: work of the mean step and prefill, None where the config does not tell; `reason`:
    what a verdict lacks; `away_bytes`, `link_s`: weights that a pass fetches from off the device, and their time at the link's rate;
    `kv_away`: it fetches its KV cache as well."""

    name: str
    device: str
    rows: int
    token: Value
    step_s: float | None
    ttft_s: float | None
    prefill_tokens: int
    decode: Work | None
    prefill: Work | None
    busy: float | None
    kernels: float | None
    ceilings: Ceilings | None
    reason: str
    row_tokens: float = 1.0
    away_bytes: float = 0.0
    link_s: float = 0.0
    kv_away: bool = False


def seen(trace: Trace, values: Mapping[str, Value]) -> Seen:
    """From a run's trace and its metrics."""
    found, first = efficiency.decode_step(trace), efficiency.prefill(trace)
    seconds = efficiency.step_s(trace.timed)
    largest = max((batch for item in trace.timed for batch in item.batches), key=lambda batch: len(batch.rows), default=None)
    device = str(trace.model.get("device") or (trace.profile.device if trace.profile else ""))
    return Seen(
        name=trace.spec.label or "This run",
        device=device,
        rows=len(largest.rows) if largest else 0,
        token=values["itl_s"],
        step_s=None if isinstance(seconds, Missing) else seconds,
        ttft_s=values["ttft_s"].value,
        prefill_tokens=max(row.prompt_tokens for row in largest.rows) * len(largest.rows) if largest else 0,
        decode=None if isinstance(found, Missing) else found[0],
        prefill=None if isinstance(first, Missing) else first[0],
        busy=values["gpu_busy"].value,
        kernels=trace.profile.kernels if trace.profile else None,
        ceilings=trace.ceilings,
        reason=SCHEDULED.reason if seconds is SCHEDULED else _lacks(trace, values, found),
        row_tokens=efficiency.tokens_a_step(trace),
        away_bytes=values["offloaded_bytes"].value or 0.0,
        link_s=values["predicted_offload_s"].value or 0.0,
        kv_away=bool(trace.footprint and trace.footprint.kv_offloaded),
    )


def _lacks(trace: Trace, values: Mapping[str, Value], found: object) -> str:
    no_profile = values["gpu_busy"].reason or "" if trace.profile is None or trace.profile.reason else ""
    if trace.ceilings is None:
        return " and ".join(filter(None, (no_profile, "the device's ceilings were not measured")))
    return found.reason if isinstance(found, Missing) else no_profile
