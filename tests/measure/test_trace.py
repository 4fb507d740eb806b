"""From events to passes, batches and rows."""

from scripted_runs import MS, batch, run

from playground.core.events import BatchEnd, BatchStart, Cancelled, Done, Evidence, Failed, Phase, Text, Tick, Warned
from playground.core.spec import RunSpec
from playground.measure.trace import Trace


def trace(events):
    return Trace.of(RunSpec(), events)


def test_a_pass_of_two_batches_is_one_pass_and_its_stamps_are_kept():
    found = trace(run(batch("timed", 0, 0, [30, 10]) + batch("timed", 0, 100, [40, 20], rows=(1,), prompts=(7,))))
    assert [len(item.batches) for item in found.timed] == [2]
    first, second = found.timed[0].batches
    assert (first.ttft_s, second.ttft_s) == (0.030, 0.040)
    row = second.rows[0]
    assert (row.request, row.prompt_tokens, row.token_ids, row.gaps_s) == (1, 7, (100, 101), (0.020,))
    assert second.e2e_s(row) == 0.060


def test_warm_up_and_timed_passes_are_kept_apart_also_with_the_same_index():
    found = trace(run(batch("warmup", 0, 0, [50]), batch("timed", 0, 100, [30]), batch("timed", 1, 200, [31])))
    assert [item.batches[0].ttft_s for item in found.warmups] == [0.050]
    assert [item.batches[0].ttft_s for item in found.timed] == [0.030, 0.031]


def test_a_row_that_finished_early_has_fewer_tokens():
    events = [
        BatchStart(0, "timed", 0, (0, 1), (3, 3)),
        Tick(10 * MS, ((5,), (6,))),
        Tick(15 * MS, ((7,), ())),
        BatchEnd(16 * MS),
        Done(0),
    ]
    rows = trace(events).timed[0].batches[0].rows
    assert [row.token_ids for row in rows] == [(5, 7), (6,)]
    assert [row.gaps_s for row in rows] == [(0.005,), ()]


def test_several_tokens_of_one_step_share_its_stamp():
    events = [BatchStart(0, "timed", 0, (0,), (3,)), Tick(10 * MS, ((5, 6, 7),)), Tick(30 * MS, ((8,),)), BatchEnd(31 * MS), Done(0)]
    assert trace(events).timed[0].batches[0].rows[0].gaps_s == (0.0, 0.0, 0.020)


def test_a_pass_without_its_end_is_left_out():
    cut = batch("timed", 1, 100, [30, 10])[:-1]
    found = trace([*batch("timed", 0, 0, [30, 10]), Phase(0, "timed"), *cut, Cancelled(0)])
    assert [item.index for item in found.timed] == [0]
    assert isinstance(found.ending, Cancelled)


def test_a_pass_that_was_cut_off_between_two_batches_is_left_out():
    events = [*batch("timed", 0, 0, [30]), *batch("timed", 0, 100, [30], rows=(1,)), Phase(0, "timed"), *batch("timed", 1, 200, [30])]
    assert [item.index for item in trace([*events, Cancelled(0)]).timed] == [0]
    assert [item.index for item in trace(events).timed] == [0]


def test_streamed_text_inside_a_batch_does_not_end_it():
    first, *rest = batch("timed", 0, 0, [30, 10])
    found = trace([first, rest[0], Text(1, 0, ("a",)), *rest[1:], Done(0)])
    assert len(found.timed[0].batches[0].ticks_ns) == 2


def test_what_else_the_run_said_is_there():
    found = trace([Evidence(0, "precision", True, "all bf16"), Warned(0, "slow disk"), Failed(0, "oom", "no memory left")])
    assert found.evidence["precision"].text == "all bf16"
    assert found.warnings == ("slow disk",)
    assert found.ending == Failed(0, "oom", "no memory left")
    assert trace([]).ending is None
