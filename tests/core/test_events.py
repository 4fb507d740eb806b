"""Events travel as lines of JSON and come back equal."""

from __future__ import annotations

import pytest

from playground.core import events as ev
from playground.core.making import Made, TrainStep

EXAMPLES: list[ev.Event] = [
    ev.Phase(1, "load", "x"),
    ev.Progress(1, "download", 5, 10),
    ev.Loaded(1, 0.5, {"config": {"layers": 2}}, {"versions": {"torch": "2"}}, True),
    ev.Compiled(1, 12.5),
    ev.Compiled(1, None),
    ev.Evidence(1, "precision", True, "272 of 272"),
    ev.Prepared(1, ("a\nb",), (3,), True),
    ev.BatchStart(1, "timed", 0, (0, 1), (3, 4)),
    ev.Tick(2, ((5,), ())),
    ev.BatchEnd(3),
    ev.Text(1, 0, ("é", "", "中")),
    ev.Output(1, 0, "p", (1, 2), ("a", "b")),
    ev.Gauge(1, "parent", {"power_w": 1.5}),
    ev.Memory(1, "timed", {"weights_bytes": 8.0}),
    ev.Score(1, {"ppl": 2.0}, {"kld_mean": "this is the baseline"}, "512 tokens"),
    ev.Departure(1, 0, 7, 5, 6, " a", " b", 0.4, 0.3, 0.2, None),
    ev.Energy(1, 700.0, 2.1, 640, 5),
    ev.Ceilings(1, "a gpu, bfloat16", "cuda", "bfloat16", 4e12, 8e14, 5e-6, "2026-01-01T00:00:00+00:00", False),
    ev.Profile(1, "cuda", 0.006, 1462, {"attention": 0.002}, 1, 130),
    ev.Counts(1, {"target_passes": 12.0}),
    TrainStep(1, 3, 60, 2.9, 57.0),
    Made(1, "made:logbook", {"steps": 60}),
    ev.Warned(1, "disk full"),
    ev.Done(1),
    ev.Cancelled(1),
    ev.Failed(1, "oom", "m", "d"),
]


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda e: type(e).__name__)
def test_an_event_survives_its_line(event: ev.Event) -> None:
    line = ev.to_json(event)
    assert "\n" not in line
    assert ev.from_json(line) == event


def test_the_examples_cover_every_event() -> None:
    assert {type(event) for event in EXAMPLES} == set(ev.Event.__args__)


@pytest.mark.parametrize("line", ["", "garbage", "{}", '{"type":"Nope"}', '{"type":"Tick"}', "[1]", '{"type":"Done","t_ns":1,"x":2}', "3"])
def test_a_line_that_is_no_event_is_a_value_error(line: str) -> None:
    with pytest.raises(ValueError):
        ev.from_json(line)
