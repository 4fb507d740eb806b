"""What only a CUDA device can show of the graph engine: captured steps and kernels against the transformers engine, memory, stamps, Stop.

The model is small and random, of a real one's proportions, with weights half as large again as a shape has them: so each token of
a prompt matters for all that follows, and 16 bits round no more than they do in a trained model.
"""

from __future__ import annotations

import itertools
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from playground.core.engine import Batch
from playground.core.events import Compiled, Done, Event, Failed
from playground.core.plan import Plan, plan_for
from playground.core.spec import Protocol, RunSpec, Workload
from playground.engines import engine_class
from playground.measure.ceilings import device_key
from playground.measure.machine import probe
from playground.techniques import techniques

MACHINE = probe()
CONFIG = {
    "model_type": "llama", "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 6, "num_attention_heads": 16,
    "num_key_value_heads": 4, "head_dim": 64, "vocab_size": 2048, "max_position_embeddings": 65536,
}  # fmt: skip
TEXT = tuple((7 * place) % 2000 + 1 for place in range(300))
PADDED = (TEXT[:100], (5,), TEXT[200:237])
UNFUSED = {"fusion": "off", "attention": "split_kv"}
WORK = Workload(("Hello",), max_new_tokens=8)
MIB = 1 << 20
Make = Callable[..., Any]


def plan(engine: str = "graph", *, work: Workload = WORK, **knobs: Any) -> Plan:
    protocol = Protocol(warmups=1, repeats=1, energy=False, quality=False, profile=False)
    spec = RunSpec("test", engine, "cuda", {"precision": "bf16", **knobs}, work, protocol)
    return plan_for(spec, techniques(), engine_class(engine), MACHINE)


def strengthened(build: Callable[..., Any]) -> Callable[..., Any]:
    """`build`, whose normal(0, 0.02) weights then are half as large again, and whose norms are no ones."""
    import torch

    def made(*arguments: Any, **options: Any) -> Any:
        model = build(*arguments, **options)
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.mul_(1.5)
            else:
                seed = torch.Generator().manual_seed(zlib.crc32(name.encode()))
                parameter.add_(torch.randn(parameter.shape, generator=seed).mul_(0.3).to(parameter.device))
        return model

    return made


@pytest.fixture(scope="module")
def make() -> Iterator[Make]:
    """make("graph", **knobs): that engine with the random model, ready to run; what a spec leaves out has the engine's default."""
    from playground.models import resolve, weights
    from playground.models.model import ResolvedModel

    def engine(kind: str, **knobs: Any) -> Any:
        loaded, its_plan = engine_class(kind)(), plan(kind, **knobs)
        loaded.facts = loaded.load(its_plan, lambda event: None)
        loaded.setup(its_plan)
        return loaded

    with pytest.MonkeyPatch.context() as patch:
        found = ResolvedModel("test", CONFIG, "shape", "a test", CONFIG, random_weights=True)  # type: ignore[arg-type]
        patch.setattr(resolve, "resolve", lambda name, emit: found)
        patch.setattr(weights, "build_random", strengthened(weights.build_random))
        yield engine


@pytest.fixture(scope="module")
def plain(make: Make) -> Any:
    return make("transformers")


@pytest.fixture(scope="module")
def exact(make: Make) -> Any:
    """In float32."""
    return make("transformers", precision="fp32")


@pytest.fixture(scope="module")
def graph(make: Make) -> Any:
    """With all that is default on CUDA: compiled, with our attention."""
    return make("graph")


@pytest.fixture(scope="module")
def unfused(make: Make) -> Any:
    """Captured and not compiled, so that another shape of batch takes no time to get ready."""
    return make("graph", **UNFUSED)


def ticks(engine: Any, rows: tuple[tuple[int, ...], ...], tokens: int, **settings: Any) -> list[tuple[tuple[int, ...], ...]]:
    return [tick.tokens for tick in engine.generate(Batch(rows, tokens, **settings))]


def divergence(of: Any, reference: Any) -> float:
    """Mean KL of log-probabilities [tokens, vocabulary] from the reference's."""
    return float((reference.exp() * (reference - of)).sum(dim=-1).mean())


def findings(engine: Any, **knobs: Any) -> dict[str, Any]:
    asked = plan(**knobs)
    return {technique.name: engine.evidence(technique, asked) for technique in asked.techniques if technique.name != "batching"}


# The same output


def test_captured_steps_score_as_the_transformers_engine_does(plain: Any, graph: Any) -> None:
    graph.setup(plan())
    text = TEXT[:160]
    reference = plain.score(text)
    assert divergence(plain.score((1999, *text[1:])), reference) > 0.1, "a single other token must show for this test to say anything"
    floor = divergence(plain.score(text, stepwise=True), reference)  # the plain engine against itself
    print(f"floor {floor:.2g}, at once {divergence(graph.score(text), reference):.2g}, ", end="")
    print(f"stepwise {divergence(graph.score(text, stepwise=True), reference):.2g}")
    assert divergence(graph.score(text), reference) < max(1e-3, 1.25 * floor)
    assert divergence(graph.score(text, stepwise=True), reference) < max(1e-3, 1.25 * floor)
    list(graph.generate(Batch(PADDED[:1], 2)))
    found = findings(graph)
    assert all(finding.ok for finding in found.values()), found


@pytest.mark.parametrize("attention", ["sdpa", "split_kv"])
def test_float32_tokens_are_those_of_the_transformers_engine(make: Make, exact: Any, attention: str) -> None:
    captured = make("graph", precision="fp32", fusion="off", attention=attention)
    expected = ticks(exact, PADDED, 200)
    assert len(set(expected)) > 100
    assert ticks(captured, PADDED, 200) == expected
    assert ticks(captured, PADDED[2:], 30) == [(row[2],) for row in expected[:30]], "a row alone, in another size of cache"


def test_a_row_that_ended_is_silent_and_the_others_go_on(make: Make, exact: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    captured = make("graph", precision="fp32", **UNFUSED)
    free = ticks(exact, PADDED, 30)
    ends = frozenset(free[step][row][0] for row, step in ((0, 0), (1, 9), (2, 20)))
    for engine in (exact, captured):
        monkeypatch.setattr(engine.tokenizer, "eos_ids", ends, raising=False)
    found = ticks(captured, PADDED, 30, ignore_eos=False)
    assert found == ticks(exact, PADDED, 30, ignore_eos=False)
    assert len(found) < 30


def test_drawn_tokens_repeat_with_their_seed_alone(graph: Any) -> None:
    graph.setup(plan())
    for settings in ({"temperature": 1.0}, {"temperature": 1.0, "top_k": 50, "top_p": 0.9}):
        first = ticks(graph, PADDED, 24, seed=1, **settings)
        assert ticks(graph, PADDED, 24, seed=1, **settings) == first
        assert ticks(graph, PADDED, 24, seed=2, **settings) != first
    assert ticks(graph, PADDED, 24, temperature=1.0, top_k=1) == ticks(graph, PADDED, 24)


@pytest.mark.parametrize(("kind", "fusion"), [("int8", "off"), ("int4", "compile"), ("fp8", "off")])
def test_kernels_of_packed_weights_score_as_the_same_weights_unpacked(make: Make, plain: Any, kind: str, fusion: str) -> None:
    import torch

    from playground.engines.decode.packing import pack, unpack

    if kind == "fp8" and MACHINE.gpus[0].capability < (8, 9):
        pytest.skip("fp8 needs CUDA compute capability 8.9")
    packed = make("graph", weight_only=kind, fusion=fusion)
    at_once, stepwise = (packed.score(TEXT, stepwise=stepwise) for stepwise in (False, True))  # 300 tokens at once are unpacked first
    rounding = max(1e-3, 1.5 * divergence(plain.score(TEXT, stepwise=True), plain.score(TEXT)))  # of 16 bits in another order of sums
    assert divergence(stepwise, at_once) < rounding
    unpacked = make("transformers")
    unpacked.model.float()
    for module in unpacked.model.get_decoder().layers.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data = unpack(*pack(module.weight.data.bfloat16(), kind), kind, torch.float32)
    reference = unpacked.score(TEXT)
    assert divergence(stepwise, reference) < rounding
    assert divergence(plain.score(TEXT), reference) > 2 * divergence(stepwise, reference), "packing must show for this test to say anything"
    list(packed.generate(Batch(PADDED[:1], 2)))
    found = findings(packed, weight_only=kind, fusion=fusion)
    assert all(finding.ok for finding in found.values()), found


# Time


def test_stamps_increase_and_none_lies_in_the_future(graph: Any) -> None:
    graph.setup(plan())
    batch = Batch(PADDED[:1], 100)
    list(graph.generate(batch))
    started = time.perf_counter_ns()
    seen = [(tick.t_ns, time.perf_counter_ns()) for tick in graph.generate(batch)]
    assert all(stamp <= now for stamp, now in seen)
    assert all(before < after for before, after in itertools.pairwise([started, *(stamp for stamp, _ in seen)]))
    assert all(now - stamp < 50e6 for stamp, now in seen), "a token waits for at most the step after it"


def test_a_slow_reader_does_not_change_the_stamp_of_the_step_that_ran_meanwhile(graph: Any) -> None:
    graph.setup(plan())
    stamps, returned = [], []
    for tick in graph.generate(Batch(PADDED[:1], 12)):
        stamps.append(tick.t_ns)
        time.sleep(0.05)
        returned.append(time.perf_counter_ns())
    # From the second step on, the next one is on the GPU before its reader goes to sleep.
    early = sum(stamp < back for stamp, back in zip(stamps[2:], returned[1:], strict=False))
    assert early >= 9


def test_closing_the_generator_returns_at_once_and_leaves_the_engine_usable(unfused: Any) -> None:
    unfused.setup(plan(**UNFUSED))
    rows = tuple(TEXT[number : number + 50] for number in range(16))
    whole = ticks(unfused, rows, 40)
    for after in (1, 2, 20):
        with closing(unfused.generate(Batch(rows, 40))) as steps:
            for _ in range(after):
                next(steps)
            started = time.perf_counter()
        assert time.perf_counter() - started < 0.3
    assert ticks(unfused, rows, 40) == whole


def test_a_profile_names_parts_and_leaves_the_captured_step_as_it_was(graph: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    graph.setup(plan())
    scores = graph.score(TEXT[:60], stepwise=True)
    batch = Batch((TEXT[:60],), 32)
    stamps = [tick.t_ns for tick in graph.generate(batch)]
    wall_s = min(after - before for before, after in itertools.pairwise(stamps)) / 1e9
    found = graph.profile(batch)
    assert (found.device, found.rows, found.cached_tokens) == ("cuda", 1, 60 + 16 - 1)
    assert found.kernel_s is not None
    assert 0 < found.kernel_s < 1.2 * wall_s
    assert 6 * 5 <= found.kernels < 6 * 20 + 40, "six layers of few kernels"
    named = sorted((name for name in found.parts if name != "everything else"), key=lambda name: -found.parts[name])
    assert set(named[:2]) == {"attention", "MLP"}, found.parts
    assert found.parts["everything else"] < sum(found.parts.values()) / 2, found.parts
    assert divergence(graph.score(TEXT[:60], stepwise=True), scores) < 1e-6
    assert ticks(graph, batch.token_ids, 32) == ticks(graph, batch.token_ids, 32)
    monkeypatch.setattr(graph.tokenizer, "eos_ids", frozenset({7}), raising=False)
    ending = graph.profile(Batch((TEXT[:60],), 32, ignore_eos=False))
    assert ending.parts["MLP"] > 0, "the parts of a run that ends at a token are known too"


# Memory


def test_memory_after_fifty_runs_is_that_after_five(unfused: Any) -> None:
    import torch

    seen = []
    for number in range(1, 51):
        unfused.setup(plan(**UNFUSED))
        ticks(unfused, PADDED, 150 if number % 5 == 3 else 20)  # another size of cache now and then
        if number % 5 == 0:
            seen.append((torch.cuda.memory_allocated(), torch.cuda.memory_reserved()))
    assert seen[-1][0] <= seen[0][0]
    assert seen[-1][1] <= seen[0][1]


def drawn(engine: Any, rows: int) -> tuple[float, int, int]:
    """Of a step with draws from few tokens, whose sort needs much room: bytes reported beyond the allocator's own peak; the peak reported;
    the bytes reserved."""
    import torch

    engine.setup(plan(batch_size=rows, **UNFUSED))
    batch = Batch(tuple((number + 1,) for number in range(rows)), 6, temperature=1.0, top_k=50)
    engine.compile(batch)
    engine.reset_peaks()
    list(engine.generate(batch))
    torch.cuda.reset_peak_memory_stats()  # the prompt's pass draws as well, where the allocator sees it
    (step,) = engine.steps.values()
    with torch.inference_mode():
        step.launch().land()
    values = engine.memory()
    return values["peak_allocated_bytes"] - torch.cuda.max_memory_allocated(), values["peak_allocated_bytes"], values["peak_reserved_bytes"]


def test_the_peak_holds_the_graphs_own_memory_and_not_that_of_an_earlier_runs(unfused: Any) -> None:
    import torch

    small = drawn(unfused, 1)[0]
    own, peak, reserved = drawn(unfused, 64)
    assert peak <= reserved
    (step,) = unfused.steps.values()
    step.graph = None
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    with torch.inference_mode():
        step.begin(torch.ones_like(step.tokens), torch.ones_like(step.positions))
        step.launch().land()
    uncaptured = torch.cuda.max_memory_allocated() - before  # what the same step needs where the allocator sees it
    assert uncaptured > 2 * MIB
    assert 0.5 * uncaptured <= own <= 2 * uncaptured + 2 * MIB
    unfused.steps.clear()
    assert drawn(unfused, 1)[0] <= small + MIB < own


def test_without_a_cache_no_earlier_cache_takes_memory(unfused: Any) -> None:
    import torch

    unfused.setup(plan(**UNFUSED))
    unfused.compile(Batch(PADDED, 4000))
    with_cache = torch.cuda.memory_allocated()
    cache_bytes = unfused.memory()["kv_cache_bytes"]
    unfused.setup(plan(kv_cache="off", **UNFUSED))
    assert with_cache - torch.cuda.memory_allocated() >= cache_bytes > 50 * MIB
    assert ticks(unfused, PADDED, 8)
    assert unfused.memory()["kv_cache_bytes"] == 0


def run(engine: Any, work: Workload, **knobs: Any) -> list[Event]:
    """Events of a run in this process, with the engine as it is loaded."""
    key = device_key(MACHINE, "cuda", "bfloat16")
    known = {
        "t_ns": 0, "key": key, "device": "cuda", "dtype": "bfloat16", "copy_bytes_per_s": 4e12, "matmul_flops": 7e14, "launch_s": 5e-6,
        "measured_at": "2026-01-01", "fresh": True, "matvec_bytes_per_s": 3e12, "graph_kernel_s": 1.5e-6,
    }  # fmt: skip
    engine.facts = {**engine.facts, "rss_before_load_bytes": 1}
    from playground.run.execute import execute

    events: list[Event] = []
    asked = plan(work=work, **UNFUSED, **knobs)
    execute(asked, engine, events.append, lambda: False, machine=MACHINE, loaded=True, ceilings={key: known})
    return events


def test_a_batch_that_does_not_fit_is_out_of_memory_and_the_next_run_works(unfused: Any) -> None:
    import torch

    torch.cuda.empty_cache()
    allowed = (torch.cuda.memory_reserved() + 2000 * MIB) / torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(allowed)
    try:
        failed = run(unfused, Workload(("Hello",), max_new_tokens=30_000), batch_size=256)[-1]
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert isinstance(failed, Failed)
    assert failed.kind == "oom", failed
    assert isinstance(run(unfused, WORK)[-1], Done)


def test_memory_that_runs_out_within_a_capture_is_out_of_memory_and_the_next_run_works(
    unfused: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from playground.engines import sampling

    def greedy(logits: Any) -> Any:
        if torch.cuda.is_current_stream_capturing():
            torch.empty(1 << 44, dtype=torch.uint8, device="cuda")
        return logits.argmax(dim=-1)

    assert isinstance(run(unfused, WORK)[-1], Done)
    unfused.steps.clear()
    with monkeypatch.context() as patch:
        patch.setattr(sampling, "greedy", greedy)
        failed = run(unfused, WORK)[-1]
    assert isinstance(failed, Failed)
    assert failed.kind == "oom", failed
    events = run(unfused, WORK)
    assert isinstance(events[-1], Done)
    assert [event.seconds for event in events if isinstance(event, Compiled)] != [None], "nothing of the failed one was kept"
