"""The result document of one run: what the CLI prints with `--json`, the API returns and the store keeps. Derived from raw events alone.

Pure. The schema is fixed: spec, label, fingerprint, status, error, provenance, evidence, metrics, outputs, requests (where they arrive over
time), quality_about, and what `explain` adds: verdict, prediction, prediction_reason, roofline, profile, profile_reason, departures,
expectations. Example::

    result(spec, events, baseline=(other_spec, other_events))["metrics"]["itl_s"]["value"]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from playground.core.events import Cancelled, Done, Event, Failed, Loaded
from playground.core.plan import Techniques, footprint_of
from playground.core.spec import RunSpec
from playground.measure.metrics import derive
from playground.measure.trace import Trace
from playground.results.explain import Measured, explain
from playground.results.timeline_chart import requests_of
from playground.techniques import techniques

INTERRUPTED = {"kind": "crash", "message": "The program ended in the middle of this run; these are the events that it had.", "detail": ""}


def result(spec: RunSpec, events: Sequence[Event], baseline: tuple[RunSpec, Sequence[Event]] | None = None) -> dict[str, Any]:
    """Plain JSON values. `status`: done, failed, cancelled, or interrupted where the events stop without an ending; `baseline`: spec and
    events to compare with, None for the baseline itself and for a single run."""
    known = techniques()
    against = None if baseline is None else _trace(*baseline, known)
    trace = _trace(spec, events, known)
    values = derive(trace, against)
    theirs = None if against is None else Measured(against, derive(against, None))
    return {
        "spec": spec.to_dict(),
        "label": spec.label,
        "fingerprint": spec.fingerprint(),
        "status": status(trace),
        "error": _error(trace),
        "provenance": _provenance(trace),
        "evidence": {name: found.text for name, found in trace.evidence.items()},
        "metrics": {name: value.to_dict() for name, value in values.items()},
        "outputs": [
            {"prompt": output.prompt, "text": "".join(output.pieces), "token_ids": list(output.token_ids)} for output in trace.outputs
        ],
        "requests": requests_of(trace),
        "quality_about": trace.score.about if trace.score else "",
        **explain(Measured(trace, values), theirs, known),
    }


def _trace(spec: RunSpec, events: Sequence[Event], known: Techniques) -> Trace:
    footprint = footprint_of(spec, known)
    model = next((event.model for event in events if isinstance(event, Loaded)), {})
    engines_own = {name: value for name, value in model.get("footprint", {}).items() if hasattr(footprint, name)}
    return Trace.of(spec, events, replace(footprint, **engines_own))


def status(trace: Trace) -> str:
    """How a run ended; a run without an ending was interrupted."""
    return {Done: "done", Failed: "failed", Cancelled: "cancelled"}.get(type(trace.ending), "interrupted")


def _error(trace: Trace) -> dict[str, str] | None:
    if isinstance(trace.ending, Failed):
        return {"kind": trace.ending.kind, "message": trace.ending.message, "detail": trace.ending.detail}
    return dict(INTERRUPTED) if trace.ending is None else None


def _provenance(trace: Trace) -> dict[str, Any]:
    """Where the run was made and where its model came from; empty for a run that never got so far."""
    if trace.loaded is None:
        return {}
    model = trace.loaded.model
    return {**trace.loaded.provenance, "device": model.get("device", ""), "model_source": model.get("source", "")}
