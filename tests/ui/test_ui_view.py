"""The fold from events to what the page shows."""

from __future__ import annotations

import statistics
import tracemalloc

from playground.core import events as ev
from playground.ui.series import MAX_POINTS, Growing, Series
from playground.ui.view import LATENCY, LOAD, MEMORY, THROUGHPUT, View, departure, fold, row_departure, start

MS = 1_000_000


def folded(*events: ev.Event, variant: int = 0, view: View | None = None) -> View:
    view = view or start(["A", "B"])
    for event in events:
        view = fold(view, (variant, event))
    return view


def test_a_variant_goes_from_waiting_to_running_to_its_ending() -> None:
    view = start(["A", "B"])
    assert [v.status for v in view.variants] == ["waiting", "waiting"]
    view = folded(ev.Phase(1, "load", "reading weights"), view=view)
    assert [v.status for v in view.variants] == ["running", "waiting"]
    assert (view.variants[0].phase, view.variants[0].detail) == ("load", "reading weights")
    assert folded(ev.Done(2), view=view).variants[0].status == "done"
    assert folded(ev.Cancelled(2), view=view).variants[0].status == "cancelled"
    failed = folded(ev.Failed(2, "oom", "No memory"), view=view).variants[0]
    assert (failed.status, failed.failure.message if failed.failure else "") == ("failed", "No memory")


def test_folding_leaves_the_earlier_view_as_it_was() -> None:
    one = folded(ev.Text(1, 0, ("a",)))
    two = folded(ev.Text(2, 0, ("b",)), view=one)
    other = folded(ev.Text(2, 0, ("c",)), view=one)
    assert [list(v.variants[0].rows[0].pieces) for v in (one, two, other)] == [["a"], ["a", "b"], ["a", "c"]]


def test_latency_and_throughput_leave_the_prefill_and_the_time_between_batches_out() -> None:
    view = folded(
        ev.BatchStart(0, "timed", 0, (0, 1), (3, 3)),
        ev.Tick(500 * MS, ((1,), (1,))),
        ev.Tick(520 * MS, ((2,), (2,))),
        ev.Tick(560 * MS, ((3,), ())),
        ev.BatchEnd(560 * MS),
        ev.BatchStart(9000 * MS, "timed", 1, (0, 1), (3, 3)),
        ev.Tick(9400 * MS, ((1,), (1,))),
        ev.Tick(9410 * MS, ((2,), (2,))),
    )
    series = view.variants[0].series
    assert series[LATENCY].points == ((0.52, 0.02), (0.56, 0.04), (9.41, 0.01))
    assert [rate and round(rate) for _, rate in series[THROUGHPUT].points] == [100, 25, 200]
    assert view.variants[0].tokens == 2 + 2 + 1 + 2 + 2


def test_the_lines_break_between_two_passes_and_not_within_one() -> None:
    view = start(["A"])
    for index, began in enumerate((0, 5000)):
        view = folded(ev.BatchStart(began * MS, "timed", index, (0,), (3,)), view=view)
        view = folded(*(ev.Tick((began + t) * MS, ((1,),)) for t in (10, 20, 30)), ev.BatchEnd((began + 30) * MS), view=view)
    series = view.variants[0].series
    for line in (series[LATENCY], series[THROUGHPUT]):
        assert [(x, y is None) for x, y in line.points] == [(0.02, False), (0.03, False), (5.02, True), (5.02, False), (5.03, False)]


def test_breaks_survive_down_sampling_within_300_points_and_leave_no_point_alone() -> None:
    for length in (1, 2, 3, 7, 40, 700):
        line = Series()
        for i in range(3000):
            line = line.plus(float(i), 1.0, after_pause=i % length == 0)
            if i % 97 == 0:
                assert len(line.points) <= MAX_POINTS
        drawn = [y is not None for _, y in line.points]
        pieces = "".join("x" if there else " " for there in drawn).split(" ")
        assert min(len(piece) for piece in pieces) >= 2
        assert len(drawn) <= MAX_POINTS
    assert len(pieces) == 5  # 3000 samples in passes of 700


def test_the_output_replaces_what_was_streamed_and_later_text_does_not_change_it() -> None:
    view = folded(ev.Text(1, 0, ("x", "y")), ev.Output(2, 0, "prompt", (4, 5), ("Hi", " there")), ev.Text(3, 0, ("!",)))
    row = view.variants[0].rows[0]
    assert ("".join(row.pieces), row.token_ids, row.prompt) == ("Hi there", (4, 5), "prompt")


def test_a_gpu_gauge_replaces_the_line_of_a_lesser_source() -> None:
    view = folded(
        ev.Phase(0, "load"),
        ev.Gauge(1000 * MS, "parent", {"rss_bytes": 5.0, "cpu_percent": 50.0}),
        ev.Gauge(2000 * MS, "parent", {"rss_bytes": 6.0, "process_bytes": 9.0, "gpu_util": 0.25}),
        ev.Gauge(3000 * MS, "parent", {"rss_bytes": 7.0}),
    )
    assert view.variants[0].series[MEMORY].points == ((2.0, 9.0),)
    assert view.variants[0].series[LOAD].points == ((2.0, 0.25),)
    cpu = folded(ev.Phase(0, "load"), ev.Gauge(1000 * MS, "parent", {"cpu_percent": 50.0}))
    assert cpu.variants[0].series[LOAD].points == ((1.0, 0.5),)


def test_evidence_and_warnings_are_kept_once_each() -> None:
    found = ev.Evidence(1, "precision", False, "1 of 2")
    view = folded(found, ev.Evidence(2, "precision", True, "2 of 2"), ev.Warned(3, "hot"), ev.Warned(4, "hot"))
    assert [(e.ok, e.text) for e in view.variants[0].evidence] == [(True, "2 of 2")]
    assert view.variants[0].warnings == ("hot",)


def test_an_event_of_an_unknown_variant_changes_nothing() -> None:
    view = start(["A"])
    assert fold(view, (7, ev.Done(1))) is view


def test_a_line_never_has_more_than_300_points_and_keeps_its_mean_and_its_last_x() -> None:
    line = Series()
    for i in range(10_000):
        line = line.plus(float(i), float(i % 10))
    points = line.points
    assert 150 <= len(points) <= MAX_POINTS
    assert points[-1][0] == 9999.0
    assert abs(sum(y for _, y in points if y is not None) / len(points) - 4.5) < 0.2


def test_merged_rates_are_weighted_with_their_duration() -> None:
    line = Series(stride=2).plus(1.0, 10.0, weight=1.0).plus(4.0, 2.0, weight=3.0)
    assert line.points == ((4.0, 4.0),)  # (10 tokens + 6 tokens) / 4 seconds


def test_growing_versions_do_not_see_each_other() -> None:
    base = Growing[int]().plus([1])
    left, right = base.plus([2]), base.plus([3])
    assert (list(base), list(left), list(right), len(left)) == ([1], [1, 2], [1, 3], 2)


def test_the_cost_of_an_event_does_not_grow_with_their_number() -> None:
    """In bytes that are allocated, which no busy machine changes."""
    view = folded(ev.BatchStart(0, "timed", 0, (0,), (1,)))

    def bytes_an_event(view: View, first: int, count: int, watched: int) -> tuple[View, float]:
        for i in range(first, first + count):
            view = fold(fold(view, (0, ev.Tick(i * MS, ((i,),)))), (0, ev.Text(i * MS, 0, ("x",))))
        taken = []
        tracemalloc.start()
        for i in range(first + count, first + count + watched):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            view = fold(fold(view, (0, ev.Tick(i * MS, ((i,),)))), (0, ev.Text(i * MS, 0, ("x",))))
            taken.append(tracemalloc.get_traced_memory()[1] - before)
        tracemalloc.stop()
        return view, statistics.median(taken)

    view, early = bytes_an_event(view, 1, 500, 100)
    _, late = bytes_an_event(view, 601, 10_000, 100)
    assert 0 < late < 5 * early


def test_the_first_departing_token_is_found_by_ids_and_while_streaming_by_pieces() -> None:
    assert departure((1, 2, 3), (1, 2, 3)) is None
    assert departure((1, 2, 3), (1, 2)) is None
    assert departure((1, 2, 3), (1, 9, 3)) == 1
    view = folded(ev.Text(1, 0, ("a", "b")))
    view = folded(ev.Text(1, 0, ("a", "c")), variant=1, view=view)
    assert row_departure(view.variants[0].rows[0], view.variants[1].rows[0]) == 1
    view = folded(ev.Output(2, 0, "p", (7, 8), ("a", "b")), view=view)
    view = folded(ev.Output(2, 0, "p", (7, 8), ("a", "b")), variant=1, view=view)
    assert row_departure(view.variants[0].rows[0], view.variants[1].rows[0]) is None
