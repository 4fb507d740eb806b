"""The graph engine against the transformers engine, on the CPU: the same tokens and scores, and nothing made twice.

Models are small and random, with weights so large that each token of a prompt matters for all that follows.
"""

from __future__ import annotations

import gc
import os
import weakref
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from playground.core.engine import Batch
from playground.core.events import Compiled, Done, Event, Evidence
from playground.core.plan import Plan, plan_for
from playground.core.problem import Problem
from playground.core.spec import DEFAULT_MODEL, Protocol, RunSpec, Workload
from playground.engines import engine_class
from playground.measure.ceilings import device_key
from playground.measure.machine import probe
from playground.models import resolve, weights
from playground.models.model import ResolvedModel
from playground.results.result import result
from playground.run.execute import execute
from playground.techniques import techniques

ROOT = Path(__file__).resolve().parents[2]
MACHINE = probe()
WORK = Workload()
SIZES = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    "vocab_size": 300, "max_position_embeddings": 1024,
}  # fmt: skip
LLAMA = {"model_type": "llama", **SIZES}
FAMILIES = {
    "llama": LLAMA,
    "llama-biases": {**LLAMA, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    "qwen2": {**SIZES, "model_type": "qwen2"},
    "qwen3": {**SIZES, "model_type": "qwen3", "head_dim": 32},
    "mistral": {**SIZES, "model_type": "mistral", "sliding_window": None},
    "smollm3": {**SIZES, "model_type": "smollm3", "no_rope_layers": [1, 0, 1, 0], "pad_token_id": 0},
}
WIDE = {**LLAMA, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2}  # int4's groups have 128 columns
LONG = tuple((7 * place) % 290 + 1 for place in range(130))
PADDED = (LONG[:40], (5,), (9, 8, 7, 6, 5, 4, 3))
Make = Callable[..., Any]


def plan(engine: str = "graph", model: str = "test", *, work: Workload = WORK, **knobs: Any) -> Plan:
    protocol = Protocol(warmups=1, repeats=1, energy=False, quality=False)
    spec = RunSpec(model, engine, "cpu", {"precision": "fp32", **knobs}, work, protocol)
    return plan_for(spec, techniques(), engine_class(engine), MACHINE)


def strengthened(build: Callable[..., Any]) -> Callable[..., Any]:
    """`build`, whose normal(0, 0.02) weights then are ten times as large, and whose norms and biases are no ones and zeros."""

    def made(*arguments: Any, **options: Any) -> Any:
        model = build(*arguments, **options)
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and parameter.is_floating_point():
                parameter.mul_(10)
            elif parameter.is_floating_point():
                seed = torch.Generator().manual_seed(zlib.crc32(name.encode()))
                parameter.add_(torch.randn(parameter.shape, generator=seed).mul_(0.3))
        return model

    return made


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Of tensors this small, more threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def make() -> Iterator[Make]:
    """make("graph", config, **knobs): that engine with a random model of that config, ready to run."""
    real = resolve.resolve
    configs: list[dict[str, Any]] = [LLAMA]

    def small(name: str, emit: Any) -> ResolvedModel:
        config = configs[-1]
        return ResolvedModel(name, config, "shape", "a test", config, random_weights=True) if name == "test" else real(name, emit)  # type: ignore[arg-type]

    def engine(kind: str, config: dict[str, Any] = LLAMA, **knobs: Any) -> Any:
        configs.append(config)
        loaded, its_plan = engine_class(kind)(), plan(kind, **knobs)
        loaded.facts = loaded.load(its_plan, lambda event: None)
        loaded.setup(its_plan)
        return loaded

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resolve, "resolve", small)
        patch.setattr(weights, "build_random", strengthened(weights.build_random))
        yield engine


@pytest.fixture(scope="module")
def plain(make: Make) -> Any:
    return make("transformers")


@pytest.fixture(scope="module")
def graph(make: Make) -> Any:
    return make("graph")


def ticks(engine: Any, rows: tuple[tuple[int, ...], ...], tokens: int, **settings: Any) -> list[tuple[tuple[int, ...], ...]]:
    return [tick.tokens for tick in engine.generate(Batch(rows, tokens, **settings))]


def divergence(of: torch.Tensor, reference: torch.Tensor) -> float:
    """Mean KL of log-probabilities [tokens, vocabulary] from the reference's."""
    return float((reference.exp() * (reference - of)).sum(dim=-1).mean())


# Tokens


@pytest.mark.parametrize(
    ("rows", "tokens"),
    [
        pytest.param((LONG[:9],), 40, id="one row"),
        pytest.param(PADDED, 40, id="padded rows"),
        pytest.param(((5,),), 1, id="one token from one token"),
        pytest.param(PADDED, 1, id="one token"),
        pytest.param(PADDED, 2, id="two tokens"),
        pytest.param((LONG[:100],), 29, id="a cache of 128 to its last place"),
        pytest.param((LONG[:100],), 30, id="one token more than 128"),
        pytest.param((LONG[:100], LONG[:60]), 94, id="one token more than 192, padded"),
        pytest.param((LONG,), 8, id="a prompt longer than the smallest cache"),
    ],
)
def test_greedy_tokens_are_those_of_the_transformers_engine(plain: Any, graph: Any, rows: Any, tokens: int) -> None:
    graph.setup(plan())
    expected = ticks(plain, rows, tokens)
    assert len(expected) == tokens
    assert ticks(graph, rows, tokens) == expected


def test_the_first_token_of_these_prompts_changes_all_that_follows(graph: Any) -> None:
    """Else equal tokens would say nothing about positions, masks and caches."""
    graph.setup(plan())
    one, other = (ticks(graph, ((first, *LONG[1:100]),), 40) for first in (11, 12))
    assert sum(a == b for a, b in zip(one, other, strict=True)) < 10
    assert len(set(one)) > 15


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_the_tokens_of_the_transformers_engine_joined_or_not(
    make: Make, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)  # compiling is tested once, joining with each family
    expected = ticks(make("transformers", FAMILIES[family]), PADDED, 40)
    assert len(set(expected)) > 15
    assert ticks(make("graph", FAMILIES[family]), PADDED, 40) == expected
    joined = make("graph", FAMILIES[family], fusion="compile")
    assert [type(module).__name__ for module in joined.model.modules()].count("Joined") == 2 * 4
    assert ticks(joined, PADDED, 40) == expected


@pytest.mark.parametrize("steps", [(4, 9, 20), (0, 9, 5)], ids=str)
def test_a_row_ends_with_its_end_of_text_token_and_the_batch_with_the_last_row(
    plain: Any, graph: Any, monkeypatch: pytest.MonkeyPatch, steps: tuple[int, ...]
) -> None:
    graph.setup(plan())
    free = ticks(plain, PADDED, 40)
    ends = frozenset(free[step][row][0] for row, step in enumerate(steps))
    for engine in (plain, graph):
        monkeypatch.setattr(engine.tokenizer, "eos_ids", ends, raising=False)
    expected = ticks(plain, PADDED, 40, ignore_eos=False)
    found = ticks(graph, PADDED, 40, ignore_eos=False)
    assert found == expected
    lengths = [sum(len(tokens[row]) for tokens in found) for row in range(3)]
    assert len(set(lengths)) == 3, "the rows must end at different steps for this test to say anything"
    assert len(found) == max(lengths) < 40
    assert ticks(graph, PADDED, 40) == free, "where it is ignored nothing ends"


def test_a_batch_whose_first_tokens_end_all_rows_has_one_tick(graph: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    graph.setup(plan())
    first = ticks(graph, PADDED, 1)
    monkeypatch.setattr(graph.tokenizer, "eos_ids", frozenset(row[0] for row in first[0]), raising=False)
    assert ticks(graph, PADDED, 40, ignore_eos=False) == first


@pytest.mark.parametrize("settings", [{"temperature": 1.0}, {"temperature": 0.7, "top_k": 20, "top_p": 0.9}], ids=str)
def test_drawn_tokens_repeat_with_their_seed_and_are_those_of_the_transformers_engine(plain: Any, graph: Any, settings: Any) -> None:
    graph.setup(plan())
    drawn = ticks(graph, PADDED, 30, seed=3, **settings)
    assert drawn == ticks(graph, PADDED, 30, seed=3, **settings)
    assert drawn == ticks(plain, PADDED, 30, seed=3, **settings)
    assert drawn != ticks(graph, PADDED, 30, seed=4, **settings)
    assert drawn != ticks(graph, PADDED, 30)


def test_one_step_serves_every_temperature_of_its_kind(plain: Any, graph: Any) -> None:
    graph.setup(plan())
    for settings in ({"temperature": 0.5, "top_k": 3}, {"temperature": 2.0, "top_p": 0.5}, {"temperature": 0.5, "top_k": 50}):
        assert ticks(graph, PADDED, 10, **settings) == ticks(plain, PADDED, 10, **settings)
        kept = graph.steps
    assert len([key for key in kept if "narrowed" in key]) == 1


@pytest.mark.parametrize("ignore_eos", [True, False])
def test_without_a_cache_the_tokens_are_the_same(plain: Any, graph: Any, ignore_eos: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = ticks(plain, PADDED, 20)
    for engine in (plain, graph):
        monkeypatch.setattr(engine.tokenizer, "eos_ids", frozenset({expected[5][0][0]}), raising=False)
    graph.setup(plan(kv_cache="off"))
    assert not graph.compiles(plan(kv_cache="off"))
    assert ticks(graph, PADDED, 20, ignore_eos=ignore_eos) == ticks(plain, PADDED, 20, ignore_eos=ignore_eos)
    assert graph.cache is None
    assert graph.memory()["kv_cache_bytes"] == 0


def test_without_a_cache_draws_are_the_same_too(plain: Any, graph: Any) -> None:
    graph.setup(plan(kv_cache="off"))
    assert ticks(graph, PADDED, 12, temperature=1.0, seed=3) == ticks(plain, PADDED, 12, temperature=1.0, seed=3)


# Fusing and packing


@pytest.fixture(scope="module")
def compiled(make: Make) -> Any:
    return make("graph", fusion="compile")


def graphs_compiled() -> int:
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


needs_a_compiler = pytest.mark.skipif(
    (why := next(t for t in techniques().values() if t.name == "fusion").requires({"fusion": "compile"}, MACHINE, "cpu")) is not None,
    reason=str(why),
)


@needs_a_compiler
def test_compiled_steps_give_the_same_tokens_and_one_compilation_serves_all_layers_and_sizes(plain: Any, compiled: Any) -> None:
    compiled.setup(plan(fusion="compile"))
    before = graphs_compiled()
    for tokens in (40, 100, 160):  # caches of 128, 192 and 256
        assert ticks(compiled, PADDED, tokens) == ticks(plain, PADDED, tokens)
        assert graphs_compiled() == before + 1
    assert {key[1] for key in compiled.steps} == {128, 192, 256}
    assert ticks(compiled, PADDED, 40, temperature=1.0, seed=1) == ticks(plain, PADDED, 40, temperature=1.0, seed=1)
    assert graphs_compiled() == before + 1
    assert compiled.compiled


@pytest.mark.parametrize("kind", ["none", "int8"])
def test_joined_and_packed_weights_are_not_kept_twice(make: Make, kind: str) -> None:
    from playground.engines.decode.linear import install

    engine = make("transformers", precision="bf16")
    before = engine.memory()["weights_bytes"]
    first = engine.model.get_decoder().layers[0]
    linears = (first.self_attn.q_proj, first.self_attn.k_proj, first.mlp.gate_proj, first.mlp.up_proj)
    old = [weakref.ref(linear.weight) for linear in linears]
    del linears
    with torch.inference_mode():
        install(engine.model, join=True, kind=kind)
    gc.collect()
    assert [weight() for weight in old] == [None] * 4
    names = [type(module).__name__ for module in engine.model.modules()]
    assert (names.count("Joined"), names.count("Part"), names.count("PackedLinear")) == (2 * 4, 3 * 4, 4 * 4 + 1 if kind == "int8" else 0)
    after = engine.memory()["weights_bytes"]
    assert after == before if kind == "none" else after < before


@needs_a_compiler
def test_without_a_cache_a_fused_run_proves_what_it_can(make: Make) -> None:
    """Fusing is the engine's default on CUDA, so that KV cache off must not fail for it."""
    engine, off = make("graph", fusion="compile", kv_cache="off"), plan(fusion="compile", kv_cache="off")
    ticks(engine, PADDED[:1], 3)
    findings = {technique.name: engine.evidence(technique, off) for technique in off.techniques}
    assert all(finding.ok for finding in findings.values()), findings


@needs_a_compiler
def test_layers_of_bitsandbytes_are_left_alone_and_can_be_compiled(make: Make) -> None:
    pytest.importorskip("bitsandbytes")
    knobs = {"precision": "fp16", "quantization": "int8"}
    eight_bits = make("transformers", WIDE, **knobs)
    fused = make("graph", WIDE, fusion="compile", **knobs)
    assert [type(module).__name__ for module in fused.model.modules()].count("Linear8bitLt") == 7 * 2
    assert not [module for module in fused.model.modules() if type(module).__name__ in ("Joined", "Part", "PackedLinear")]
    ticks(fused, PADDED[:1], 8)
    assert fused.compiled
    assert divergence(fused.score(LONG[:40], stepwise=True), eight_bits.score(LONG[:40], stepwise=True)) < 1e-2
    assert fused.memory()["weights_bytes"] == eight_bits.memory()["weights_bytes"]


@pytest.mark.parametrize(("quantization", "precision"), [("nf4", "bf16"), ("int8", "fp16")])
def test_layers_of_bitsandbytes_score_as_in_the_transformers_engine(make: Make, quantization: str, precision: str) -> None:
    pytest.importorskip("bitsandbytes")
    knobs = {"precision": precision, "quantization": quantization}
    # Stepwise both: int8 looks for outliers in all tokens at once.
    expected, found = (make(engine, WIDE, **knobs).score(LONG[:40], stepwise=True) for engine in ("transformers", "graph"))
    assert divergence(found, expected) < 1e-2


def rounded(weight: torch.Tensor, kind: str) -> torch.Tensor:
    """A weight as it comes back from 8 bits with a scale a row (written out here), or from 4 bits (tested with the packing)."""
    from playground.engines.decode.packing import pack, unpack

    if kind == "int4":
        return unpack(*pack(weight, kind), kind, weight.dtype)
    scale = weight.float().abs().amax(dim=1, keepdim=True) / 127
    return ((weight.float() / scale).round() * scale).to(weight.dtype)


@pytest.mark.parametrize(("kind", "most"), [("int8", 0.1), ("int4", 3.0)])
def test_packed_weights_score_as_rounded_ones_do(make: Make, kind: str, most: float) -> None:
    plain, reference = (make("transformers", WIDE, precision="bf16") for _ in range(2))
    packed = make("graph", WIDE, precision="bf16", weight_only=kind)
    linears = [module for module in reference.model.get_decoder().layers.modules() if isinstance(module, torch.nn.Linear)]
    for linear in linears:
        linear.weight.data = rounded(linear.weight.data, kind)
    head = reference.model.get_output_embeddings()
    head.weight.data = rounded(head.weight.data, "int8")
    for stepwise in (False, True):
        found = packed.score(LONG[:60], stepwise=stepwise)
        assert divergence(found, reference.score(LONG[:60])) < 5e-3
        assert 1e-3 < divergence(found, plain.score(LONG[:60])) < most
    asked = plan(precision="bf16", weight_only=kind)
    packed.setup(asked)
    ticks(packed, PADDED[:1], 2)
    findings = {technique.name: packed.evidence(technique, asked) for technique in asked.techniques}
    layers = f"{len(linears)} of {len(linears)} linear layers are packed as {kind}, the output head as int8"
    assert findings["weight_only"].text == layers
    assert all(finding.ok for finding in findings.values()), findings
    # Bits a weight as the page says them: 8 and 32 a row of 128 or 256, or 4 and 16 for each 128; the head 8; the rest is what it was.
    numbers = sum(linear.weight.numel() for linear in linears)
    taken = {"int8": numbers + 4 * sum(linear.out_features for linear in linears), "int4": numbers // 2 + numbers // 128 * 2}
    saved = 2 * numbers - taken[kind] + head.weight.numel() - 4 * head.out_features
    assert plain.memory()["weights_bytes"] - packed.memory()["weights_bytes"] == saved


def test_columns_that_the_groups_of_int4_do_not_divide_are_a_problem_with_a_way_out(make: Make) -> None:
    with pytest.raises(Problem, match=r"128, 64 or 32.*Choose int8") as caught:
        make("graph", {**LLAMA, "intermediate_size": 80}, precision="bf16", weight_only="int4")
    assert caught.value.kind == "unsupported"


# Scores


def test_scores_at_once_and_stepwise_are_those_of_the_transformers_engine(plain: Any, graph: Any) -> None:
    graph.setup(plan())
    expected = plain.score(LONG)
    assert torch.allclose(graph.score(LONG), expected, atol=1e-4)
    stepwise = graph.score(LONG, stepwise=True)
    assert stepwise.shape == expected.shape == (len(LONG) - 1, 300)
    assert (stepwise.dtype, stepwise.device.type) == (torch.float32, "cpu")
    assert torch.allclose(stepwise, expected, atol=1e-4)


def test_scores_are_the_same_without_a_cache_and_after_other_work(plain: Any, graph: Any) -> None:
    expected = plain.score(LONG[:50])
    graph.setup(plan(kv_cache="off"))
    assert torch.allclose(graph.score(LONG[:50], stepwise=True), expected, atol=1e-4)
    graph.setup(plan())
    batch = Batch((LONG[:50],), 40)
    list(graph.generate(batch))
    graph.profile(batch)
    assert torch.allclose(graph.score(LONG[:50], stepwise=True), expected, atol=1e-4)


# What cannot be run


@pytest.mark.parametrize(
    ("config", "says"),
    [
        pytest.param({**SIZES, "model_type": "gemma2"}, "not gemma2", id="another family"),
        pytest.param({**SIZES, "model_type": "mistral", "sliding_window": 32}, "sliding window", id="mistral"),
        pytest.param({**LLAMA, "quantization_config": {"quant_method": "fp8"}}, "come quantized", id="a checkpoint with packed weights"),
        pytest.param({**LLAMA, "rope_parameters": {"rope_type": "longrope"}}, "rotary positions", id="positions that depend on length"),
        pytest.param({**SIZES, "model_type": "mistral"}, "sliding window", id="mistral, whose config leaves its default out"),
        pytest.param(
            {**SIZES, "model_type": "qwen2", "use_sliding_window": True, "sliding_window": 32, "max_window_layers": 2},
            "sliding window",
            id="qwen2, whose config leaves its layer types out",
        ),
        pytest.param(
            {**SIZES, "model_type": "qwen3", "use_sliding_window": True, "layer_types": ["full_attention", "sliding_attention"] * 2},
            "sliding window",
            id="qwen3",
        ),
    ],
)
def test_a_model_that_it_cannot_run_is_refused_before_it_is_loaded(
    make: Make, config: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "build_random", lambda *_, **__: pytest.fail("the weights were made"))
    with pytest.raises(Problem, match=f"{says}.*Choose the engine transformers") as caught:
        make("graph", config)
    assert caught.value.kind == "unsupported"


# Steps are kept


def test_an_abandoned_generation_leaves_the_engine_usable(graph: Any) -> None:
    graph.setup(plan())
    whole = ticks(graph, PADDED, 12)
    with closing(graph.generate(Batch(PADDED, 12))) as half:
        next(half)
        next(half)
    assert ticks(graph, PADDED, 12) == whole


def test_two_rows_of_one_token_have_ticks_whose_stamps_increase(graph: Any) -> None:
    graph.setup(plan())
    stamps = [tick.t_ns for tick in graph.generate(Batch(((1,), (2,)), 20))]
    assert stamps == sorted(set(stamps))


def run(engine: Any, *, loaded: bool = True, model: str = "test", **settings: Any) -> list[Event]:
    """Events of a run in this process; settings of the workload, and knobs."""
    work = {name: settings.pop(name) for name in list(settings) if name in Workload.__dataclass_fields__}
    asked = plan(model=model, work=Workload(**{"prompts": ("Hello",), "max_new_tokens": 6, **work}), **settings)
    key = device_key(MACHINE, "cpu", "float32")
    known = {
        "t_ns": 0, "key": key, "device": "cpu", "dtype": "float32", "copy_bytes_per_s": 1e10, "matmul_flops": 1e11, "launch_s": 1e-6,
        "measured_at": "2026-01-01", "fresh": True, "matvec_bytes_per_s": 1e10, "graph_kernel_s": None,
    }  # fmt: skip
    engine.settle_s = 0
    events: list[Event] = []
    execute(asked, engine, events.append, lambda: False, machine=MACHINE, loaded=loaded, ceilings={key: known})
    assert isinstance(events[-1], Done), events[-1]
    return events


def compile_s(events: list[Event]) -> float | None:
    (event,) = (event for event in events if isinstance(event, Compiled))
    return event.seconds


def test_a_step_is_made_once_for_runs_of_one_shape_and_dropped_for_another(make: Make) -> None:
    engine = make("graph")
    first = compile_s(run(engine))
    assert first is not None
    assert first > 0
    cache = engine.cache
    assert compile_s(run(engine)) is None
    assert compile_s(run(engine, max_new_tokens=90)) is None, "97 tokens fit the cache of 128 too"
    assert engine.cache is cache
    assert compile_s(run(engine, max_new_tokens=150)) is not None
    assert [cache.layers[0].keys.shape[2] for cache in caches(engine)] == [192]
    assert compile_s(run(engine)) is not None
    assert compile_s(run(engine, temperature=0.5)) is not None, "another way of sampling"


def test_two_shapes_of_batch_in_one_run_are_both_kept(make: Make) -> None:
    engine = make("graph")
    run(engine, prompts=("one", "two"), batch_size=2)
    shapes = {"prompts": ("one", "two", "three"), "batch_size": 2}
    (first,) = caches(engine)
    assert compile_s(run(engine, **shapes)) is not None
    assert first in caches(engine), "what the run uses again is not dropped for what it lacks"
    assert sorted(cache.rows for cache in caches(engine)) == [1, 2]
    assert compile_s(run(engine, **shapes)) is None
    kept = caches(engine)
    run(engine, max_new_tokens=150)
    assert len(kept) == 2
    assert sorted((cache.rows, cache.capacity) for cache in caches(engine)) == [(1, 192)]


def test_without_a_cache_those_of_earlier_runs_are_not_kept(make: Make) -> None:
    engine = make("graph")
    run(engine)
    assert len(caches(engine)) == 1
    events = run(engine, kv_cache="off")
    assert not [event for event in events if isinstance(event, Compiled)]
    assert caches(engine) == []


def caches(engine: Any) -> list[Any]:
    return [step.cache for step in engine.steps.values()]


def test_memory_does_not_grow_from_run_to_run(make: Make) -> None:
    from playground.engines.decode.cache import FixedCache

    engine = make("graph")
    gc.collect()
    others = {id(thing) for thing in gc.get_objects() if type(thing) is FixedCache}
    found = []
    for number in range(8):
        engine.setup(plan())
        ticks(engine, PADDED, (12, 150)[number % 2])
        engine.score(LONG[:40], stepwise=True)
        found.append(engine.memory())
    assert found[6:] == found[:2]
    assert found[0] != found[1]
    alive = [thing for thing in gc.get_objects() if type(thing) is FixedCache and id(thing) not in others]
    assert len(alive) == len(caches(engine)) == 2, "the batch's and the score's, and none of earlier runs"


# Whole runs


def test_a_whole_run_is_done_with_proof_of_every_technique_and_its_compile_time() -> None:
    engine = engine_class("graph")()
    events = run(engine, loaded=False, model="shape:tiny", prompts=("Hello", "A longer prompt"), batch_size=2)
    spec = plan(model="shape:tiny", work=Workload(("Hello", "A longer prompt"), max_new_tokens=6), batch_size=2).spec
    found = result(spec, events)
    assert found["status"] == "done"
    proved = {event.technique: event.ok for event in events if isinstance(event, Evidence)}
    assert proved == {technique.name: True for technique in techniques().values() if engine.supports(technique)}
    assert found["metrics"]["compile_s"]["value"] == compile_s(events) > 0
    assert found["metrics"]["kv_cache_bytes"]["value"] == 2 * 2 * 2 * 128 * 16 * 4 * 2  # keys and values, layers, heads, places, size
    assert [len(output["token_ids"]) for output in found["outputs"]] == [6, 6]
    again = run(engine, model="shape:tiny", prompts=("Hello", "A longer prompt"), batch_size=2)
    assert "used again" in result(spec, again)["metrics"]["compile_s"]["reason"]


# The default model

PROMPTS = ("What is the capital of France?", "Write one sentence about the sea, the moon and an old lighthouse.", "Count to ten.")


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[Any, Any]]:
    """The transformers engine and this one, with the default model."""
    before = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    loaded = []
    for kind in ("transformers", "graph"):
        engine, its_plan = engine_class(kind)(), plan(kind, DEFAULT_MODEL)
        engine.load(its_plan, lambda event: None)
        engine.setup(its_plan)
        loaded.append(engine)
    yield loaded[0], loaded[1]
    for engine in loaded:
        engine.close()
    torch.set_num_threads(before)


@pytest.mark.slow
def test_each_of_512_tokens_is_the_one_that_the_transformers_engine_finds_most_likely_after_those_before(both: tuple[Any, Any]) -> None:
    """So that engine's own greedy text is the same: its first token, hence its second, and so on."""
    plain, graph = both
    prompt = plain.prepare(PROMPTS[1], True)[1]
    written = [token for (row,) in ticks(graph, (prompt,), 512) for token in row]
    assert len(set(written)) > 50
    most_likely = plain.score((*prompt, *written)).argmax(dim=-1).tolist()
    assert most_likely[len(prompt) - 1 :] == written


@pytest.mark.slow
def test_the_default_model_writes_the_same_in_padded_rows(both: tuple[Any, Any]) -> None:
    plain, graph = both
    rows = tuple(plain.prepare(prompt, True)[1] for prompt in PROMPTS)
    assert len({len(row) for row in rows}) > 1, "the rows must differ in length"
    assert ticks(graph, rows, 48) == ticks(plain, rows, 48)


@pytest.mark.slow
def test_the_default_model_ends_its_rows_at_the_same_tokens(both: tuple[Any, Any]) -> None:
    plain, graph = both
    rows = tuple(plain.prepare(prompt, True)[1] for prompt in PROMPTS)
    expected = ticks(plain, rows, 24, ignore_eos=False)
    assert any(tokens == () for tokens in expected[-1]), "one row must end early for this test to say anything"
    assert ticks(graph, rows, 24, ignore_eos=False) == expected
