"""The engine that plays a recorded run at its real pace, so that a visitor without a GPU sees real GPU charts.

The model is `recording:NAME_OR_PATH#VARIANT`, counted from 0 (the baseline), with `?speed=100` at the end to play it faster. Stamps are the
recorded ones, moved to now by one constant, so every difference, and with it every metric, is exactly the recorded one at every speed.
Long waits outside of the passes (downloads, loading) are shortened while playing; their stamps are not. Example::

    specs = specs_of(read(find("h100-precision")))      # run these to see what was recorded
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterable, Iterator
from typing import ClassVar

from playground.core.engine import Engine
from playground.core.events import BatchEnd, BatchStart, Event
from playground.core.plan import Plan, complete, parse_knobs, relevant
from playground.core.problem import Problem
from playground.core.spec import RunSpec, Workload
from playground.models.recording import Recording, find, read
from playground.techniques import techniques

_RUN_IT = "To run it with other settings, choose another engine and model."
LONGEST_WAIT_S = 0.5  # outside of a pass
_MODEL = re.compile(r"recording:(?P<name>.+?)(?:#(?P<variant>\d+))?(?:\?speed=(?P<speed>\d+(?:\.\d+)?))?")


class ReplayEngine(Engine):
    """Gives recorded events; it loads and computes nothing."""

    name: ClassVar[str] = "replay"
    title: ClassVar[str] = "Recording"
    about: ClassVar[str] = "Plays a recorded run at its real pace. Nothing is computed on this machine; every number is the recorded one."
    any_technique: ClassVar[bool] = True

    @classmethod
    def adopt(cls, spec: RunSpec) -> RunSpec:
        """The recorded knobs, workload and protocol; Problem("user") where `spec` asks for others."""
        known = techniques()
        recorded = _without_idle(recorded_spec(spec))
        knobs = complete(recorded, known).knobs
        for knob, value in relevant(parse_knobs(spec.knobs, known), known, knobs).items():  # beside what was recorded
            if knobs[knob] != value:
                raise Problem("user", f"This was recorded with {knob}={knobs[knob]}, which cannot be changed. {_RUN_IT}")
        if spec.workload not in (recorded.workload, Workload()):
            raise Problem("user", f"A recording keeps its prompts and lengths. {_RUN_IT}")
        return spec.replace(
            knobs=recorded.knobs, workload=recorded.workload, protocol=recorded.protocol, label=spec.label or recorded.label
        )

    def replay(self, plan: Plan) -> Iterable[Event]:
        """The recorded events of the variant, each when it is due; raises Problem("model") where there is no such recording."""
        name, variant, speed = _parsed(plan.spec.model)
        recording = read(find(name))
        _variant(recording, variant)
        return _paced(recording.events[variant], speed)


def specs_of(recording: Recording, speed: float = 1.0) -> list[RunSpec]:
    """Specs that play each variant of the recording, with the original labels, knobs, workload and protocol."""
    ending = "" if speed == 1 else f"?speed={speed:g}"
    return [
        _without_idle(spec).replace(model=f"recording:{recording.name}#{number}{ending}", engine=ReplayEngine.name, device="auto")
        for number, spec in enumerate(recording.specs)
    ]


def _without_idle(spec: RunSpec) -> RunSpec:
    """Without the knobs that had no effect: they stand at the defaults of the engine that ran, which are not those of this one."""
    return spec.replace(knobs=relevant(spec.knobs, techniques()))


def recorded_spec(spec: RunSpec) -> RunSpec:
    """What was run in truth where `spec` plays a recording, else `spec`; raises Problem where there is no such recording."""
    if spec.engine != ReplayEngine.name:
        return spec
    name, variant, _ = _parsed(spec.model)
    return _variant(read(find(name), events_too=False), variant)


def truly_run(spec: RunSpec) -> RunSpec:
    """As `recorded_spec`, but the spec itself where its recording has gone: only its engine and model are not known then."""
    try:
        return recorded_spec(spec)
    except Problem:
        return spec


def _variant(recording: Recording, variant: int) -> RunSpec:
    if variant >= len(recording.specs):
        raise Problem("model", f"The recording {recording.name} has the variants 0 to {len(recording.specs) - 1}, and no {variant}.")
    return recording.specs[variant]


def _parsed(model: str) -> tuple[str, int, float]:
    match = _MODEL.fullmatch(model)
    if not match:
        raise Problem("user", f"The engine replay plays recordings: choose recording:NAME#VARIANT as the model, not {model!r}.")
    speed = float(match["speed"] or 1)
    if speed <= 0:
        raise Problem("user", "The speed of a recording must be greater than 0.")
    return match["name"], int(match["variant"] or 0), speed


def _paced(events: Iterable[Event], speed: float) -> Iterator[Event]:
    begun = due = time.perf_counter_ns()
    first = previous = None
    in_pass = False
    for event in events:
        if first is None or previous is None:
            first = previous = event.t_ns
        gap_ns = max(0.0, event.t_ns - previous)
        due += int((gap_ns if in_pass else min(gap_ns, LONGEST_WAIT_S * 1e9)) / speed)
        previous = max(previous, event.t_ns)
        while (wait_ns := due - time.perf_counter_ns()) > 0:
            time.sleep(wait_ns / 1e9)
        in_pass = isinstance(event, BatchStart) or (in_pass and not isinstance(event, BatchEnd))
        yield dataclasses.replace(event, t_ns=event.t_ns - first + begun)


ENGINE = ReplayEngine
