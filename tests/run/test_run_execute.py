"""The measurement protocol of one run: order, batches, streaming, evidence, memory and failures, in this process."""

from __future__ import annotations

import dataclasses
import mmap
import time
import weakref
from pathlib import Path

import pytest

from playground.core.engine import Batch
from playground.core.events import (
    BatchStart,
    Cancelled,
    Ceilings,
    Departure,
    Done,
    Energy,
    Evidence,
    Failed,
    Loaded,
    Memory,
    Output,
    Phase,
    Prepared,
    Profile,
    Score,
    Text,
    Tick,
)
from playground.core.plan import plan_for
from playground.core.technique import Finding
from playground.engines.fake import FakeEngine
from playground.measure.machine import probe
from playground.measure.quality import QUALITY_METRICS
from playground.run.execute import execute
from playground.run.failures import from_death, from_exception
from playground.run.resident import give_back, reset_peak, resident
from playground.techniques import techniques

MACHINE = probe()


def run(spec, engine=None, cancelled=lambda: False, loaded=False, **paths):
    """Events of one run in this process."""
    events = []
    engine = engine or FakeEngine()
    plan = plan_for(spec, techniques(), type(engine), MACHINE)
    execute(plan, engine, events.append, cancelled, machine=MACHINE, loaded=loaded, **paths)
    return events


def of(kind, events):
    """The events of one type."""
    return [event for event in events if isinstance(event, kind)]


def test_the_stages_come_in_the_order_of_the_protocol(script):
    events = run(script(warmups=2, repeats=2))
    assert [(event.name, event.detail) for event in of(Phase, events)] == [
        ("load", script().model),
        ("prepare", ""),
        ("evidence", "load"),
        ("warmup", "warm-up pass 1 of 2"),
        ("warmup", "warm-up pass 2 of 2"),
        ("timed", "timed pass 1 of 2"),
        ("timed", "timed pass 2 of 2"),
        ("quality", ""),
        ("profile", ""),
    ]
    assert [event.stage for event in of(Memory, events)] == ["start", "load", "timed"]
    assert isinstance(events[0], Memory)
    assert isinstance(events[-1], Done)
    assert of(Loaded, events)[0].provenance["host"] == MACHINE.host


def test_without_quality_nothing_is_scored(script):
    assert not of(Score, run(script(quality=False)))


@pytest.mark.parametrize(
    ("prompts", "batch_size", "batches"),
    [
        (("a b", "c", "d e f"), 1, [((0,), (2,)), ((1,), (1,)), ((2,), (3,))]),
        (("a b", "c", "d e f"), 2, [((0, 1), (2, 1)), ((2,), (3,))]),
        (("a b", "c", "d e f"), 5, [((0, 1, 2, 3, 4), (2, 1, 3, 2, 1))]),
        (("a b",), 3, [((0, 1, 2), (2, 2, 2))]),
    ],
)
def test_prompts_become_batches_and_are_repeated_until_one_is_full(script, prompts, batch_size, batches):
    events = run(script(prompts=prompts, knobs={"batch_size": batch_size}, warmups=0, repeats=2))
    starts = of(BatchStart, events)
    assert [(start.rows, start.prompt_tokens) for start in starts if start.index == 0] == batches
    assert [start.index for start in starts] == [0] * len(batches) + [1] * len(batches)
    rows = [row for batch, _ in batches for row in batch]
    assert [output.row for output in of(Output, events)] == rows
    assert [output.prompt for output in of(Output, events)] == [prompts[row % len(prompts)] for row in rows]


def test_outputs_are_the_tokens_of_the_first_timed_pass_and_their_text(script):
    events = run(script(prompts=("one two", "three"), knobs={"batch_size": 2}, warmups=1, repeats=3, max_new_tokens=4))
    ticks = of(Tick, events)
    assert len(ticks) == 16
    for position, output in enumerate(of(Output, events)):
        assert output.token_ids == tuple(tick.tokens[position][0] for tick in ticks[4:8])
        assert len(output.pieces) == 4


@pytest.mark.parametrize(("warmups", "streaming"), [(0, "timed"), (2, "warmup")])
def test_only_the_first_pass_streams_text_and_only_of_its_first_eight_rows(script, warmups, streaming):
    events = run(script(warmups=warmups, repeats=2, knobs={"batch_size": 10}, max_new_tokens=3))
    first = next(index for index, event in enumerate(events) if isinstance(event, BatchStart))
    second = next(index for index, event in enumerate(events) if isinstance(event, BatchStart) and index > first)
    texts = of(Text, events)
    assert of(Text, events[first:second]) == texts
    assert events[first].kind == streaming
    assert {text.row for text in texts} == set(range(8))
    assert len(texts) == 24


def test_the_engine_is_told_how_to_draw(script):
    class Listening(FakeEngine):
        def generate(self, batch):
            told.add((batch.temperature, batch.seed, batch.top_k, batch.top_p))
            return super().generate(batch)

    told = set()
    run(script(temperature=0.8, seed=3, top_k=40, top_p=0.9, repeats=1), Listening())
    assert told == {(0.8, 3, 40, 0.9)}


def test_every_pass_repeats_the_same_tokens_and_another_seed_gives_others(script):
    def tokens(seed):
        ticks = of(Tick, run(script(temperature=1.0, seed=seed, warmups=1, repeats=1, max_new_tokens=12)))
        return [tick.tokens for tick in ticks[:12]], [tick.tokens for tick in ticks[12:]]

    first, second = tokens(0)
    assert first == second
    assert tokens(1)[0] != first


def test_a_prompt_gives_the_same_text_in_any_batch(script):
    alone = of(Output, run(script(prompts=("one two",))))[0]
    beside = of(Output, run(script(prompts=("zero", "one two"), knobs={"batch_size": 2})))[1]
    assert alone.token_ids == beside.token_ids


def test_the_end_of_text_ends_a_row_only_where_it_is_not_ignored(script):
    long = of(Output, run(script("step_ms=0,prefill_ms=0", max_new_tokens=500, ignore_eos=True, repeats=1)))[0]
    short = of(Output, run(script("step_ms=0,prefill_ms=0", max_new_tokens=500, ignore_eos=False, repeats=1)))[0]
    assert len(long.token_ids) == 500
    assert len(short.token_ids) < 500
    assert long.token_ids[: len(short.token_ids)] == short.token_ids


class Proving(FakeEngine):
    """Gives findings: precision (load phase) and batching (run phase)."""

    ok = True
    seen = ()

    def generate(self, batch: Batch):
        self.seen = batch.token_ids
        yield from super().generate(batch)

    def evidence(self, technique, plan):
        if technique.name == "precision":
            return Finding(True, "all of 3 weights are float32")
        if technique.name == "batching":
            return Finding(self.ok and bool(self.seen), f"{len(self.seen)} rows")
        return None


@pytest.mark.parametrize("warmups", [0, 1])
def test_load_evidence_comes_before_the_first_pass_and_run_evidence_after_it(script, warmups):
    events = run(script(warmups=warmups), Proving())
    kinds = [event.technique if isinstance(event, Evidence) else type(event).__name__ for event in events]
    first_start, first_end = kinds.index("BatchStart"), kinds.index("BatchEnd")
    assert kinds.index("precision") < first_start < first_end < kinds.index("batching")
    assert kinds.count("BatchEnd") > 1
    assert kinds.index("batching") < len(kinds) - 1 - kinds[::-1].index("BatchStart")
    assert kinds.count("precision") == kinds.count("batching") == 1


def test_a_proof_that_fails_ends_the_run_as_unsupported(script):
    engine = Proving()
    engine.ok = False
    events = run(script(), engine)
    assert of(Evidence, events)[-1].ok is False
    assert events[-1] == Failed(events[-1].t_ns, "unsupported", "Batching: 1 rows")


class Unwilling(FakeEngine):
    """Has random weights, or runs out of memory when it is scored."""

    random = False

    def load(self, plan, emit):
        return {**super().load(plan, emit), "random_weights": self.random}

    def score(self, token_ids):
        raise RuntimeError("CUDA out of memory. Tried to allocate 3.00 GiB.")


def test_random_weights_have_no_quality_and_the_reason_says_so(script):
    engine = Unwilling()
    engine.random = True
    score = of(Score, run(script(), engine))[0]
    assert score.missing == dict.fromkeys(QUALITY_METRICS, "random weights, so quality has no meaning")


def test_too_little_memory_for_the_scoring_does_not_cost_the_measured_run(script):
    events = run(script(), Unwilling())
    assert isinstance(events[-1], Done)
    assert "another 3.00 GiB" in of(Score, events)[0].missing["ppl"]


def test_the_passes_that_were_not_asked_for_are_not_made(script):
    events = run(script(energy=False, quality=False, profile=False))
    assert not of(Energy, events) + of(Score, events) + of(Profile, events)


def test_on_a_cpu_the_energy_is_not_available_and_says_why(script):
    found = of(Energy, run(script()))[0]
    assert (found.joules, found.reason) == (None, "no energy counter is read on a CPU")


def test_the_noise_floor_of_matching_tokens_is_of_the_baseline_at_another_batch_shape(script, tmp_path: Path):
    torch = pytest.importorskip("torch")

    class OtherBatchOtherText(FakeEngine):
        """From the third token on, what a row gives depends on how many rows there are."""

        def generate(self, batch):
            for step, tick in enumerate(super().generate(batch)):
                shift = len(batch.token_ids) if step >= 2 else 0
                yield dataclasses.replace(tick, tokens=tuple(tuple(token + shift for token in row) for row in tick.tokens))

        def score(self, token_ids, stepwise=False):
            return torch.log_softmax(torch.zeros(len(token_ids) - 1, 2000), dim=-1)

    score = of(Score, run(script(), OtherBatchOtherText()))[0]
    assert score.values["matching_tokens_floor"] == 2
    variant = of(Score, run(script(), OtherBatchOtherText(), reference=tmp_path))[0]
    assert "measured on the baseline" in variant.missing["matching_tokens_floor"]
    drawn = of(Score, run(script(temperature=0.5), OtherBatchOtherText()))[0]
    assert "temperature" in drawn.missing["matching_tokens_floor"]


def test_the_first_departure_comes_with_the_probabilities_of_both_models(script, tmp_path: Path):
    torch = pytest.importorskip("torch")

    class Favours(FakeEngine):
        """Always gives `token` from the second one on, with the probability 0.7; the rest is shared by the others."""

        token = 5

        def generate(self, batch):
            for step, tick in enumerate(super().generate(batch)):
                yield dataclasses.replace(tick, tokens=tuple((self.token if step else 9,) for _ in tick.tokens))

        def score(self, token_ids, stepwise=False):
            row = torch.full((2000,), 0.3 / 1999)
            row[self.token] = 0.7
            return row.log().repeat(len(token_ids) - 1, 1)

    run(script(), Favours(), save_reference=tmp_path)
    other = Favours()
    other.token = 6
    found = of(Departure, run(script(), other, reference=tmp_path))
    assert [(item.row, item.position, item.ours, item.theirs) for item in found] == [(0, 1, 6, 5)]
    chances = (found[0].p_ours, found[0].p_theirs, found[0].baseline_p_ours, found[0].baseline_p_theirs)
    assert chances == pytest.approx((0.7, 0.3 / 1999, 0.3 / 1999, 0.7), rel=1e-4)
    assert not of(Departure, run(script(), Favours(), reference=tmp_path))


class Torch(FakeEngine):
    """Scripted, and computing in torch as far as it says."""

    def load(self, plan, emit):
        return {**super().load(plan, emit), "dtype": "float32"}


def test_known_ceilings_are_told_again_and_unknown_ones_are_measured(script):
    fresh = of(Ceilings, run(script(), Torch()))[0]
    assert fresh.fresh
    assert fresh.copy_bytes_per_s > 0
    known = {fresh.key: {**dataclasses.asdict(fresh), "copy_bytes_per_s": 123.0}}
    again = of(Ceilings, run(script(), Torch(), ceilings=known))[0]
    assert (again.copy_bytes_per_s, again.fresh) == (123.0, False)
    assert not of(Ceilings, run(script()))  # the scripted engine computes nothing


@pytest.mark.parametrize(
    "knobs",
    [
        {"precision": "fp32", "autocast": "bf16"},
        {"precision": "fp32", "quantization": "nf4", "compute_dtype": "bf16"},
        {"precision": "bf16"},
    ],
)
def test_arithmetic_is_held_against_the_format_that_products_are_in(script, knobs):
    assert of(Ceilings, run(script(knobs=knobs), Torch()))[0].dtype == "bfloat16"


def test_stop_between_two_steps_ends_the_pass_there(script):
    count = iter(range(1000))
    events = run(script(max_new_tokens=100), cancelled=lambda: next(count) > 20)
    assert isinstance(events[-1], Cancelled)
    assert 1 < len(of(Tick, events)) < 25


def test_stop_during_a_download_ends_at_its_next_progress(script):
    class Fetching(FakeEngine):
        def load(self, plan, emit):
            for done in range(1000):
                emit(Phase(time.perf_counter_ns(), "load", str(done)))
            raise AssertionError("was not stopped")

    count = iter(range(10000))
    assert isinstance(run(script(), Fetching(), cancelled=lambda: next(count) > 5)[-1], Cancelled)


def test_a_failed_run_keeps_nothing_of_what_it_held(script):
    class Big:
        pass

    class Leaking(FakeEngine):
        held = None

        def generate(self, batch):
            tensor = Big()
            type(self).held = weakref.ref(tensor)
            try:
                raise ValueError("inner")
            except ValueError as error:
                raise MemoryError from error
            yield

    events = run(script(), Leaking())
    assert events[-1].kind == "oom"
    assert Leaking.held() is None


def test_a_reused_engine_is_not_loaded_again_and_tells_the_same_facts(script):
    engine = FakeEngine()
    first = run(script(), engine)
    engine.load = None  # would fail if it were called
    second = run(script(), engine, loaded=True)
    assert isinstance(second[-1], Done)
    assert [event.reused for event in of(Loaded, first + second)] == [False, True]
    assert of(Loaded, first)[0].model == of(Loaded, second)[0].model
    before = [event.values["rss_bytes"] for event in of(Memory, first + second) if event.stage == "start"]
    assert before[0] == before[1]  # from before the load, so that growth means the same in both


def test_prepared_says_what_each_prompt_became(script):
    prepared = of(Prepared, run(script(prompts=("a b c", "d"))))[0]
    assert (prepared.texts, prepared.token_counts, prepared.templated) == (("a b c", "d"), (3, 1), False)


def test_paths_for_quality_reach_the_engine_that_can_be_scored(script, tmp_path: Path):
    torch = pytest.importorskip("torch")

    class Scoring(FakeEngine):
        shift = 0.0

        def score(self, token_ids, stepwise=False):
            logits = torch.arange(67.0).repeat(len(token_ids) - 1, 1) * (1 + self.shift)
            return torch.log_softmax(logits, dim=-1)

    file = tmp_path / "logprobs"
    baseline = of(Score, run(script(), Scoring(), save_reference=file))[0]
    same = of(Score, run(script(), Scoring(), reference=file))[0]
    engine = Scoring()
    engine.shift = 0.5
    other = of(Score, run(script(), engine, reference=file))[0]
    assert "kld_mean" in baseline.missing
    assert same.values["kld_mean"] == pytest.approx(0, abs=1e-6)
    assert other.values["kld_mean"] > 0.01
    assert same.values["ppl"] == pytest.approx(baseline.values["ppl"])


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (MemoryError(), "oom", "more memory than there is"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 3221225472 bytes."),
            "oom",
            "3.00 GiB",
        ),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), "oom", "Out of memory"),
        (RuntimeError("shapes do not match"), "crash", "RuntimeError: shapes do not match"),
        (ValueError("the file says: out of memory"), "crash", "ValueError"),
    ],
)
def test_an_exception_becomes_the_failure_that_it_means(error, kind, says):
    failed = from_exception(error)
    assert (failed.kind, says in failed.message) == (kind, True)


@pytest.mark.parametrize(
    ("status", "oom", "kind", "says"),
    [
        (-9, True, "oom", "memory"),
        (-9, False, "crash", "SIGKILL"),
        (-11, True, "crash", "SIGSEGV"),
        (-6, False, "crash", "SIGABRT"),
        (3, False, "crash", "3"),
    ],
)
def test_a_kill_is_out_of_memory_only_with_evidence(status, oom, kind, says):
    failed = from_death(status, "log", oom=oom)
    assert (failed.kind, failed.detail, says in failed.message) == (kind, "log", True)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux can forget a peak")
def test_the_resident_peak_sees_a_short_use_and_can_be_forgotten():
    assert reset_peak()
    before = resident()["peak_rss_bytes"]
    block = mmap.mmap(-1, 60_000_000)  # straight from the system and back to it, whatever the allocator keeps
    block.write(b"x" * len(block))
    block.close()
    seen = resident()["peak_rss_bytes"]
    assert seen > before + 50_000_000
    give_back()
    assert reset_peak()
    assert resident()["peak_rss_bytes"] < seen - 50_000_000


def test_what_the_engine_changes_of_the_footprint_is_kept_with_the_run(script):
    class Packed(FakeEngine):
        @classmethod
        def footprint(cls, knobs, device, footprint):
            return dataclasses.replace(footprint, kv_bits=8.0, captured=device == "cuda", rows=footprint.rows)

    def kept(engine):
        return of(Loaded, run(script(device="cpu", knobs={"batch_size": 2}), engine))[0].model["footprint"]

    assert kept(Packed()) == {"kv_bits": 8.0}
    assert kept(FakeEngine()) == {}
