"""KV caches that give back something else than was put in, or lie elsewhere: against masks, bytes and rounding worked out here."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

from playground.core.engine import Batch
from playground.core.plan import Plan, complete, footprint_of, plan_for
from playground.core.problem import Problem
from playground.core.spec import Protocol, RunSpec, Workload
from playground.engines import engine_class
from playground.measure.estimate import estimate, together
from playground.measure.machine import probe
from playground.measure.roofline import decode_work
from playground.measure.torch_memory import cache_bytes, cache_facts
from playground.results.result import result
from playground.run.execute import execute
from playground.techniques import caches, techniques
from playground.techniques.caches import RESIDUAL

torch = pytest.importorskip("torch")
MACHINE = probe()
TEXT = tuple((7 * place) % 250 for place in range(1, 121))
needs_hqq = pytest.mark.skipif("hqq" not in MACHINE.packages, reason="needs the package hqq")
QUANTIZED = [
    pytest.param({"kv_backend": "fp8"}, 1.0, id="fp8"),
    # with a scale and a zero point of 4 bytes each for the 16 numbers of a head
    pytest.param({"kv_bits": "4"}, 0.5 + 0.5, id="hqq-4", marks=needs_hqq),
    pytest.param({"kv_bits": "2"}, 0.25 + 0.5, id="hqq-2", marks=needs_hqq),
]


def plan(**knobs: Any) -> Plan:
    spec = RunSpec(model="shape:tiny", device="cpu", knobs={"precision": "fp32", **knobs})
    return plan_for(spec, techniques(), engine_class("transformers"), MACHINE)


def loaded(**knobs: Any) -> Any:
    engine, made = engine_class("transformers")(), plan(**knobs)
    engine.load(made, lambda event: None)
    with torch.no_grad():  # weights that are as small as a fresh model's make each token attend to all alike
        for weight in engine.model.parameters():
            weight.mul_(4)
    engine.setup(made)
    return engine


@pytest.fixture(scope="module")
def engine() -> Any:
    return loaded()


def with_knobs(engine: Any, **knobs: Any) -> Any:
    engine.setup(plan(**knobs))
    return engine


def finding(engine: Any, **knobs: Any) -> Any:
    return engine.evidence(techniques()["kv_cache"], plan(**knobs))


def tokens_of(engine: Any, rows: tuple[tuple[int, ...], ...], count: int) -> list[list[int]]:
    ticks = list(engine.generate(Batch(rows, count)))
    return [[tick.tokens[row][0] for tick in ticks] for row in range(len(rows))]


def banded_logits(engine: Any, ids: tuple[int, ...], window: int) -> Any:
    """Logits of one pass without a cache under a mask that is written out: place q sees places q - window + 1 ... q."""
    ago = torch.arange(len(ids))[:, None] - torch.arange(len(ids))[None]
    mask = torch.where((ago >= 0) & (ago < window), 0.0, float("-inf"))[None, None]
    with torch.inference_mode():
        return engine.model(input_ids=torch.tensor([ids]), attention_mask=mask, use_cache=False).logits[0]


def divergence(ours: Any, theirs: Any) -> float:
    return float((theirs.exp() * (theirs - ours)).sum(dim=-1).mean())


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("window", [4, 20, 100])
def test_a_window_scores_a_text_as_an_explicit_band_mask_does(attention: str, window: int) -> None:
    engine = loaded(attention=attention, kv_cache="window", kv_window=window)
    expected = torch.log_softmax(banded_logits(engine, TEXT, window)[:-1], dim=-1)
    for stepwise in (False, True):
        torch.testing.assert_close(engine.score(TEXT, stepwise), expected, atol=2e-4, rtol=0)
    whole = torch.log_softmax(banded_logits(engine, TEXT, len(TEXT))[:-1], dim=-1)
    assert divergence(expected, whole) > 1e-3, "the window must make a difference for this test to say anything"


def test_every_token_generated_in_a_window_is_what_the_band_says_of_the_text_so_far(engine: Any) -> None:
    row, window = TEXT[:30], 9
    text = [*row]
    for _ in range(20):
        text.append(int(banded_logits(engine, tuple(text), window)[-1].argmax()))
    assert tokens_of(with_knobs(engine, kv_cache="window", kv_window=window), (row,), 20)[0] == text[30:]
    assert tokens_of(with_knobs(engine), (row,), 20)[0] != text[30:]


def test_rows_of_different_length_see_the_same_window_as_alone(engine: Any) -> None:
    rows = (TEXT[:30], TEXT[40:47], TEXT[50:52])
    knobs = {"kv_cache": "window", "kv_window": 6}
    alone = [tokens_of(with_knobs(engine, **knobs), (row,), 15)[0] for row in rows]
    assert tokens_of(with_knobs(engine, batch_size=3, **knobs), rows, 15) == alone


def test_a_window_longer_than_the_text_changes_nothing(engine: Any) -> None:
    plain = with_knobs(engine).score(TEXT)
    wide = with_knobs(engine, kv_cache="window", kv_window=len(TEXT))
    assert divergence(wide.score(TEXT), plain) < 1e-9
    assert tokens_of(wide, (TEXT[:30],), 20) == tokens_of(with_knobs(engine), (TEXT[:30],), 20)


def test_a_window_keeps_as_many_tokens_as_the_next_step_reads(engine: Any) -> None:
    tokens_of(with_knobs(engine, kv_cache="window", kv_window=16), (TEXT,), 8)
    assert [layer.keys.shape[-2] for layer in engine.cache.layers] == [15, 15]
    assert "2 of 2 keep at most 15 tokens for the next, of 127 so far" in finding(engine, kv_cache="window", kv_window=16).text
    numbers = 2 * 2 * 2 * 16  # keys and values, layers, heads, head size
    assert numbers * 15 * 4 <= engine.memory()["kv_cache_bytes"] <= numbers * 16 * 4 + 2 * 8  # its tensor has room for the new one


def test_a_window_whose_mask_is_gone_is_found_out(engine: Any) -> None:
    tokens_of(with_knobs(engine, kv_cache="window", kv_window=16), (TEXT,), 3)
    assert finding(engine, kv_cache="window", kv_window=16).ok
    assert not finding(engine, kv_cache="window", kv_window=15).ok
    engine.options.run.contexts.clear()
    found = finding(engine, kv_cache="window", kv_window=16)
    assert not found.ok
    assert "the mask shows the last token 24" in found.text


def test_the_mask_of_a_window_ends_with_its_pass(engine: Any) -> None:
    plain = with_knobs(engine).score(TEXT)
    with_knobs(engine, kv_cache="window", kv_window=5).score(TEXT)
    assert torch.equal(with_knobs(engine).score(TEXT), plain)


@pytest.mark.parametrize(("knobs", "bytes_a_number"), QUANTIZED)
def test_a_quantized_cache_takes_the_bytes_of_the_formula(
    knobs: dict[str, Any], bytes_a_number: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_ceilings(*given: Any) -> None:
        raise Problem("unsupported", "Seconds are not wanted here.")

    prompt, steps = 8, 38  # 8 tokens at once and 32 later are packed, 6 wait; an even number, so that nothing is filled up
    spec = RunSpec(
        model="shape:tiny",
        device="cpu",
        knobs={"precision": "fp32", "kv_cache": "quantized", **knobs},
        workload=Workload(("abcdefgh",), max_new_tokens=steps + 1, chat=False),
        protocol=Protocol(warmups=0, repeats=1, energy=False, quality=False, profile=False),
    )
    made, events = plan(kv_cache="quantized", **knobs), []
    engine = engine_class("transformers")()
    engine.prepare = lambda text, chat: (text, tuple(range(1, prompt + 1)))  # the shape's tokenizer depends on the machine
    execute(
        dataclasses.replace(made, spec=complete(spec, techniques())), engine, events.append, lambda: False, machine=MACHINE, loaded=False
    )
    metrics = result(spec, events)["metrics"]
    waiting = 0 if knobs.get("kv_backend") == "fp8" else steps - RESIDUAL
    numbers = 2 * 2 * 2 * 16  # a token: keys and values, layers, heads, head size
    expected = numbers * (waiting * 4 + (prompt + steps - waiting) * bytes_a_number)
    assert metrics["kv_cache_formula_bytes"]["value"] == expected
    scales = 2 * 2 * 4 if knobs.get("kv_backend") == "fp8" else 0  # one for a layer's keys, one for its values
    assert metrics["kv_cache_bytes"]["value"] == expected + scales
    assert metrics["kv_cache_bytes"]["value"] < 0.5 * numbers * (prompt + steps) * 4


@pytest.mark.parametrize(("knobs", "bytes_a_number"), QUANTIZED)
def test_a_quantized_cache_departs_when_it_is_read_back_and_the_dynamic_one_does_not(
    engine: Any, knobs: dict[str, Any], bytes_a_number: float
) -> None:
    plain = with_knobs(engine).score(TEXT)
    assert divergence(with_knobs(engine).score(TEXT), plain) == 0
    ours = with_knobs(engine, kv_cache="quantized", **knobs).score(TEXT)
    torch.testing.assert_close(ours[:RESIDUAL], plain[:RESIDUAL], atol=1e-4, rtol=0)  # the first pass reads nothing back
    assert divergence(ours[RESIDUAL:], plain[RESIDUAL:]) > 1e-6


def test_what_is_too_large_for_the_scale_of_an_fp8_cache_becomes_its_largest_number(engine: Any) -> None:
    layer = caches.quantized("fp8", 8, engine.model, 1, 8).layers[0]
    first, later = torch.full((1, 2, 4, 16), 0.5), torch.tensor([0.5, -0.25, 1.0, -7.0]).view(1, 1, 4, 1).expand(1, 2, 4, 16)
    layer.update(first, -first)
    keys, values = layer.update(later, -later)
    expected = torch.tensor([0.5, 0.5, 0.5, 0.5, 0.5, -0.25, 0.5, -0.5]).view(1, 1, 8, 1).expand(1, 2, 8, 16)
    torch.testing.assert_close(keys, expected)
    torch.testing.assert_close(values, -expected)


@needs_hqq
def test_two_bits_depart_more_than_four(engine: Any) -> None:
    plain = with_knobs(engine).score(TEXT)
    two, four = (divergence(with_knobs(engine, kv_cache="quantized", kv_bits=bits).score(TEXT), plain) for bits in ("2", "4"))
    assert two > 3 * four > 0


@needs_hqq
def test_a_text_is_scored_as_decoding_would_read_the_cache(engine: Any) -> None:
    """Scoring takes as many tokens at once as wait to be packed: each sees just what it would see if it came alone."""
    scored = with_knobs(engine, kv_cache="quantized").score(TEXT)
    make, ids = engine.options.run.make_cache, torch.tensor([TEXT[:-1]])
    with torch.inference_mode():
        cache = make(engine.model, 1, len(TEXT))
        parts = [ids[:, :RESIDUAL], *ids[:, RESIDUAL:].split(1, dim=1)]
        logits = torch.cat([engine.model(input_ids=part, past_key_values=cache).logits[0] for part in parts])
    alone, plain = torch.log_softmax(logits, dim=-1), with_knobs(engine).score(TEXT)
    assert divergence(scored, alone) < 1e-3 * divergence(scored, plain)  # a number at the edge may still be rounded the other way


@pytest.mark.parametrize(("knobs", "bytes_a_number"), QUANTIZED)
def test_prompts_of_any_length_are_quantized_and_rows_beside_longer_ones_say_the_same(
    engine: Any, knobs: dict[str, Any], bytes_a_number: float
) -> None:
    rows = tuple(TEXT[10 * length : 11 * length] for length in (1, 2, 3, 5))
    alone = []
    for row in rows:
        with_knobs(engine, kv_cache="quantized", **knobs)
        alone.append(tokens_of(engine, (row,), 6)[0])
        assert finding(engine, kv_cache="quantized", **knobs).ok
    together = tokens_of(with_knobs(engine, kv_cache="quantized", batch_size=4, **knobs), rows, 6)
    assert [row[0] for row in together] == [row[0] for row in alone]


@needs_hqq
@pytest.mark.parametrize("bits", [4, 2])
@pytest.mark.parametrize("tokens", [1, 5, 6])
def test_padding_takes_no_part_in_the_scales_of_other_tokens(engine: Any, bits: int, tokens: int) -> None:
    torch.manual_seed(bits)
    keys, values = torch.randn(2, 2, 2, tokens, 16)
    keys[1, :, : tokens - 1] *= 1e4  # the second row begins with padding
    cache = caches.quantized("hqq", bits, engine.model, 2, tokens)
    cache.update(keys, values, 0)
    back = cache.layers[0]._dequantize(cache.layers[0]._quantized_keys)
    ranges = keys.amax(dim=-1, keepdim=True) - keys.amin(dim=-1, keepdim=True)
    steps = (back - keys).abs() * (2**bits - 1) / ranges
    assert steps.max() < 1.2  # each token within about a step of its own scale
    assert (back != keys).any()


@needs_hqq
def test_a_cache_that_is_not_packed_is_found_out(engine: Any) -> None:
    tokens_of(with_knobs(engine, kv_cache="quantized"), (TEXT[:9],), 3)
    assert "2 of 2 are hqq with 4 bits a number, 9 of 11 tokens a row packed" in finding(engine, kv_cache="quantized").text
    assert not finding(engine, kv_cache="quantized", kv_bits="2").ok
    engine.cache.layers[1]._quantized_keys = None
    assert not finding(engine, kv_cache="quantized").ok


def test_a_model_with_layers_of_another_kind_is_refused_with_the_way_out() -> None:
    from transformers import LlamaConfig, MistralConfig

    slides = SimpleNamespace(config=MistralConfig(sliding_window=8, num_hidden_layers=2))
    with pytest.raises(Problem, match="set the KV cache to dynamic"):
        caches.quantized("fp8", 8, slides, 1, 8)
    assert [layer.sliding_window for layer in caches.window(4, slides, 1, 8).layers] == [4, 4]
    plain = SimpleNamespace(config=LlamaConfig(num_hidden_layers=2))
    assert len(caches.quantized("fp8", 8, plain, 1, 8).layers) == 2


def test_what_cannot_be_is_refused_in_a_sentence() -> None:
    technique = techniques()["kv_cache"]
    bare = dataclasses.replace(MACHINE, packages={})

    def full(**knobs: Any) -> Any:
        return complete(RunSpec(knobs=knobs), techniques()).knobs

    assert "on a CPU it lies there already" in technique.requires(full(kv_cache="offloaded"), MACHINE, "cpu")
    assert technique.requires(full(kv_cache="offloaded"), MACHINE, "cuda") is None
    assert technique.requires(full(kv_cache="quantized"), bare, "cpu").endswith("pip install hqq.")
    assert technique.requires(full(kv_cache="quantized", kv_backend="quanto"), bare, "cpu").endswith("pip install optimum-quanto.")
    assert technique.requires(full(kv_cache="quantized", kv_backend="fp8"), bare, "cpu") is None
    with pytest.raises(Problem, match="Set kv_backend to hqq, or autocast to off"):
        full(kv_cache="quantized", kv_backend="fp8", autocast="bf16", precision="fp32")
    for kind in ("quantized", "offloaded", "window"):
        assert "choose static" in technique.refuses_graph(full(kv_cache=kind), "cuda")
    for name, value in (("kv_bits", "2"), ("kv_backend", "fp8"), ("kv_window", 8)):
        with pytest.raises(Problem, match="has no effect here"):
            full(**{name: value})


CONFIG = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 8, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 100,
}  # fmt: skip


def estimated(tokens: int, **knobs: Any) -> Any:
    footprint = footprint_of(RunSpec(knobs={"precision": "bf16", **knobs}), techniques())
    return estimate(CONFIG, footprint, tokens - 10, 10)


def kv_estimate(tokens: int, **knobs: Any) -> int:
    return int(estimated(tokens, **knobs).kv_cache_bytes)


def test_the_estimate_bounds_a_window_counts_scales_and_waiting_tokens_and_leaves_the_host_out() -> None:
    numbers = 2 * 8 * 2 * 16  # of a token
    assert kv_estimate(1000) == numbers * 2 * 1000
    assert kv_estimate(1000, kv_cache="window", kv_window=64) == numbers * 2 * 64
    assert kv_estimate(40, kv_cache="window", kv_window=64) == numbers * 2 * 40
    # 991 tokens of 4 bits and one bit more for scale and zero point of 32 numbers; the 9 fed back after the prompt are not packed yet
    assert kv_estimate(1000, kv_cache="quantized") == numbers * (991 * 5 / 8 + 9 * 2)
    assert kv_estimate(20, kv_cache="quantized") == numbers * (11 * 5 / 8 + 9 * 2)
    whole, away = estimated(1000), estimated(1000, kv_cache="offloaded")
    in_host = whole.kv_cache_bytes * 6 / 8  # two layers of eight are on the GPU
    assert (away.kv_cache_bytes, away.kv_host_bytes) == (whole.kv_cache_bytes, in_host)
    assert whole.total_bytes - away.total_bytes == away.kv_host_bytes
    both = together(away, whole)
    assert (both.kv_cache_bytes, both.kv_host_bytes) == (2 * whole.kv_cache_bytes, away.kv_host_bytes)
    assert both.total_bytes == away.total_bytes + whole.weights_bytes + whole.kv_cache_bytes


def test_a_step_in_a_window_stays_the_same_work_and_an_unpacked_cache_is_more_of_it() -> None:
    def step(tokens: int, **knobs: Any) -> float:
        footprint = footprint_of(RunSpec(knobs={"precision": "bf16", **knobs}), techniques())
        return decode_work(CONFIG, footprint, tokens).bytes

    assert step(5000, kv_cache="window", kv_window=64) == step(1000, kv_cache="window", kv_window=64) < step(1000)
    assert step(40, kv_cache="window", kv_window=64) == step(40)
    assert step(1000, kv_cache="quantized") > 2 * (step(1000) - step(0))


def test_what_lies_in_host_memory_is_not_counted_as_the_gpus() -> None:
    from transformers import DynamicCache

    cache = DynamicCache()
    cache.update(torch.zeros(1, 2, 5, 16), torch.zeros(1, 2, 5, 16), 0)
    assert cache_facts(cache, "cuda") == {"kv_bytes_per_number": 4}
    cache.offloading = True
    assert cache_facts(cache, "cpu") == {"kv_bytes_per_number": 4}
    assert cache_facts(cache, "cuda")["kv_host_bytes"] == cache_bytes(cache) == 2 * 2 * 5 * 16 * 4


@pytest.mark.gpu
@pytest.mark.skipif(MACHINE.device != "cuda", reason=f"needs a CUDA device: {MACHINE.no_cuda or 'none found'}")
def test_an_offloaded_cache_says_the_same_from_host_memory() -> None:
    made = [plan_for(RunSpec(model="shape:tiny", device="cuda", knobs={"precision": "fp32", "kv_cache": kind}), techniques(),
                     engine_class("transformers"), MACHINE) for kind in ("dynamic", "offloaded")]  # fmt: skip
    engine = engine_class("transformers")()
    engine.load(made[0], lambda event: None)
    said = []
    for each in made:
        engine.setup(each)
        said.append(tokens_of(engine, (TEXT[:30], TEXT[:12]), 20))
        assert engine.evidence(techniques()["kv_cache"], each).ok
    assert said[0] == said[1]
    assert engine.memory()["kv_host_bytes"] > 0
