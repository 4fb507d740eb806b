"""What a GPU computes: the same numbers in fp32 with what rounds nothing, and with what rounds as close as its bits say.

The model is random, from one file for every device and format. Its weights are normal(0, 0.06), so that a layer passes on as much as it
gets: logits have a standard deviation of 1, and each token depends on the text before it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from playground.core.engine import Batch
from playground.core.making import TrainStep
from playground.core.plan import Plan, load_key, plan_for
from playground.core.spec import RunSpec
from playground.engines import engine_class
from playground.measure.machine import probe
from playground.models import tokenizer
from playground.models.weights import build_random
from playground.run import train_adapter, train_distilled, training
from playground.techniques import techniques
from playground.techniques.quantization import linear_layers

MACHINE, DEVICE = probe(), "cuda"
CONFIG = {
    "model_type": "llama", "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 512, "max_position_embeddings": 4096,
}  # fmt: skip
TEXT, TOKENS = tuple((7 * place) % 512 for place in range(200)), 24
PROMPTS = (TEXT[:60], TEXT[:20] + TEXT[100:140])  # of one length, so that a step is compiled once
EXACT: list[dict[str, Any]] = [
    {"offload": "cpu"}, {"offload": "pinned"}, {"attention": "eager"}, {"attention": "sdpa_efficient"},
    {"kv_cache": "off"}, {"kv_cache": "static"}, {"kv_cache": "offloaded"},
    {"kv_cache": "static", "compile": "default"}, {"kv_cache": "static", "compile": "reduce_overhead"},
    {"speculative": "prompt_lookup"}, {"speculative": "draft"}, {"adapter": "random:4", "adapter_mode": "unmerged"},
    {"batch_size": 2, "prefix_cache": True}, {"batch_size": 2, "prefix_cache": True, "kv_cache": "static"},
    {"kind": "graph", "fusion": "off", "attention": "sdpa"}, {"kind": "graph", "fusion": "off", "attention": "split_kv"},
]  # fmt: skip
ATTENTION = [(kind, bits) for kind in ("sdpa_efficient", "sdpa_cudnn", "sdpa_flash") for bits in ("bf16", "fp16")] + [("flex", "bf16")]
# Log-probabilities in fp32 depart from those in float64 by 6e-6 at most here (seen on a CPU), so two orders of sums by twice that; the rest
# is for a GPU's own exponentials. TF32 has 10 bits of mantissa in place of 23, and would show as 100 times this: torch leaves it off.
TOLERANCE = 5e-5
# Rms error of rounding by size. int8: the largest of 256 to 512 normal numbers is 3 sigma, in 127.5 steps, which err by 1 / sqrt(12) each;
# int4: 5.2 sigma from the least to the largest of 128, in 15 steps; fp8: 3 bits of mantissa. Then, how many sides of a product are rounded.
ROUNDING = {"int8_weight_only": (0.0068, 1), "int8_dynamic": (0.0068, 2), "int4_weight_only": (0.10, 1), "fp8": (0.026, 2)}
Get = Callable[..., tuple[Any, Plan]]


@pytest.fixture(scope="module")
def get(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Get]:
    """get("graph", **knobs): that engine and its plan. Runs share what is loaded, so each is to be read before the next is set up."""
    kept: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer, "load_tokenizer", lambda resolved: tokenizer.ByteTokenizer(512))
        random, folder = build_random(CONFIG, torch.float32, "cpu"), str(tmp_path_factory.mktemp("model"))
        for parameter in random.parameters():
            parameter.mul_(3 if parameter.dim() > 1 else 1)
        random.save_pretrained(folder)

        def made(kind: str = "transformers", model: str = folder, device: str = DEVICE, **knobs: Any) -> tuple[Any, Plan]:
            draft = {"draft_model": model} if knobs.get("speculative") == "draft" else {}
            spec = RunSpec(model, kind, device, {"precision": "fp32", **draft, **knobs})
            plan = plan_for(spec, techniques(), engine_class(kind), MACHINE)
            key = load_key(plan.spec, techniques())
            if key not in kept:
                kept[key] = engine_class(kind)()
                kept[key].load(plan, lambda event: None)
            kept[key].setup(plan)
            return kept[key], plan

        yield made
        for engine in kept.values():
            engine.close()


@pytest.fixture(scope="module")
def exact(get: Get) -> Any:
    """Log-probabilities of TEXT in float64, on the CPU."""
    return direct(copy.deepcopy(get(device="cpu")[0].model).double())


def direct(model: Any, weights: list[Any] | None = None) -> Any:
    """Log-probabilities of TEXT as a transformers model gives them, with these weights in its linear layers where some are given."""
    model = copy.deepcopy(model)
    for layer, weight in zip(linear_layers(model), weights or (), strict=weights is not None):
        layer.weight = torch.nn.Parameter(weight.clone(), requires_grad=False)
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([TEXT], device=model.device), use_cache=False).logits[0, :-1]
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1).cpu()


def decoded(engine: Any, plan: Plan, *rows: tuple[int, ...]) -> tuple[list[list[int]], Any]:
    """New tokens of each row, and their log-probabilities [passes, rows, vocabulary]; None where passes are captured, or check several."""
    said: list[Any] = []
    engine.know(rows)
    if engine.compiles(plan):
        engine.compile(Batch(rows, TOKENS))
    watched = plan.spec.engine != "graph" and plan.spec.knobs["speculative"] == "off"
    hook = engine.model.register_forward_hook(lambda *call: said.append(call[2].logits[:, -1].float().cpu()) if watched else None)
    ticks = [tick.tokens for tick in engine.generate(Batch(rows, TOKENS))]
    hook.remove()
    tokens = [[token for tick in ticks for token in tick[row]] for row in range(len(rows))]
    return tokens, torch.stack(said).log_softmax(-1) if said else None


def prove(engine: Any, plan: Plan, only: str = "") -> None:
    """The evidence of one technique, or of all."""
    for technique in plan.techniques:
        finding = engine.evidence(technique, plan) if only in ("", technique.name) else None
        assert finding is None or finding.ok, f"{technique.name}: {finding.text}"


def far(found: Any, wanted: Any) -> float:
    """The largest difference."""
    return float((found - wanted).abs().max())


def apart(found: Any, wanted: Any) -> float:
    """Norm of the difference of centred logits by the norm of those wanted: what is lost, whatever the size of the logits."""
    found, wanted = (each - each.mean(-1, keepdim=True) for each in (found, wanted))
    return float((found - wanted).norm() / wanted.norm())


def test_fp32_on_a_gpu_is_fp32_and_the_text_before_decides_what_comes(get: Get, exact: Any) -> None:
    engine, plan = get()
    assert far(engine.score(TEXT), exact) < TOLERANCE
    assert apart(engine.score((511, *TEXT[1:]))[-1:], exact[-1:]) > 0.1  # these make sure that the tests below can tell right from wrong
    assert len({token for prompt in PROMPTS for token in decoded(engine, plan, prompt)[0][0]}) > TOKENS


@pytest.mark.parametrize("kind", ["cpu", "pinned"])
def test_random_weights_that_are_drawn_to_where_they_stay_are_the_same_ones(get: Get, kind: str) -> None:
    wanted = get(model="shape:tiny")[0].score(TEXT)
    engine, plan = get(model="shape:tiny", offload=kind)
    assert callable(engine.options.load["held_on"])
    assert engine.score(TEXT).equal(wanted)
    prove(engine, plan, "offloading")


@pytest.mark.parametrize("knobs", EXACT, ids=str)
def test_what_rounds_nothing_gives_the_same_tokens_and_the_same_numbers(get: Get, exact: Any, knobs: Any) -> None:
    runs = [(PROMPTS[0], PROMPTS[1][:47])] if "batch_size" in knobs else [(prompt,) for prompt in PROMPTS]
    base, plan = get(**{name: knobs[name] for name in ("adapter", "batch_size") if name in knobs})  # an adapter is merged there
    expected, scores = [decoded(base, plan, *rows) for rows in runs], base.score(TEXT)
    assert "adapter" not in knobs or far(scores, exact) > 1000 * TOLERANCE
    engine, plan = get(**knobs)
    for rows, (tokens, passes) in zip(runs, expected, strict=True):
        own_tokens, own_passes = decoded(engine, plan, *rows)
        assert own_tokens == tokens
        assert own_passes is None or far(own_passes, passes) < TOLERANCE
        prove(engine, plan)
    counts = engine.options.run.counts  # a draft that is the model itself agrees with it
    assert knobs.get("speculative") != "draft" or counts["accepted_tokens"] == counts["drafted_tokens"]
    if "compile" not in knobs:  # which would compile another step for that; its own passes are compared above
        assert far(engine.score(TEXT), scores) < TOLERANCE
    if "kind" in knobs:  # the captured step
        assert far(engine.score(TEXT[:60], stepwise=True), scores[:59]) < TOLERANCE


@pytest.mark.parametrize(("kind", "precision"), ATTENTION)
def test_attention_kernels_depart_by_no_more_than_16_bits_do(get: Get, exact: Any, kind: str, precision: str) -> None:
    wanted = get(attention="sdpa_math", precision=precision)[0].score(TEXT)
    engine, plan = get(attention=kind, precision=precision)
    found, floor = engine.score(TEXT), apart(wanted, exact)
    assert 1e-4 < floor < 0.03  # of 16 bits alone: two that round as much, but otherwise, are sqrt(2) of it apart
    assert apart(found, exact) < 1.5 * floor
    assert apart(found, wanted) < 2 * floor
    assert far(found, wanted) < 6 * 2 * floor * float(exact.std())  # none of 100,000 errors is beyond 6 standard deviations
    # The first of 512 normal numbers is 0.28 before the second on average, and errors of bf16 are 0.02.
    assert (found.argmax(-1) == wanted.argmax(-1)).float().mean() > 0.9
    prove(engine, plan, "attention")


@pytest.mark.parametrize("kind", ROUNDING)
def test_packed_weights_are_rounded_as_their_bits_say_and_multiplied_as_they_are(get: Get, exact: Any, kind: str) -> None:
    base, (engine, plan), (error, sides) = get(precision="bf16")[0], get(precision="bf16", torchao=kind), ROUNDING[kind]
    wanted, found = base.score(TEXT), engine.score(TEXT)
    prove(engine, plan, "torchao")
    with torch.inference_mode():  # each output is one weight and zeros
        meant = [layer(torch.eye(layer.in_features).to(DEVICE, torch.bfloat16)).T.contiguous() for layer in linear_layers(engine.model)]
    for own, weight in zip(meant, (layer.weight for layer in linear_layers(base.model)), strict=True):
        assert 0.8 < float((own.float() - weight.float()).norm() / weight.float().norm()) / error < 1.25
    # Errors of the seven products of each of three layers are independent, so their squares add up.
    floor, expected = apart(wanted, exact), error * math.sqrt(3 * 7 * sides)
    assert 0.6 * expected < apart(found, wanted) < 1.6 * expected
    assert sides == 2 or apart(found, direct(base.model, meant)) < 2 * floor
    # One token a pass has other kernels; errors of 16 bits there bring some activations to the next step.
    assert apart(engine.score(TEXT[:TOKENS], stepwise=True), found[: TOKENS - 1]) < (expected if sides == 2 else 2 * floor)


def test_two_of_four_weights_are_the_largest_and_multiply_as_in_a_dense_matrix(get: Get, exact: Any) -> None:
    base, (engine, plan) = get(precision="bf16")[0], get(precision="bf16", prune="two_four")
    floor, found = apart(base.score(TEXT), exact), engine.score(TEXT)
    prove(engine, plan, "pruning")
    dense = [layer.weight.to_dense() for layer in linear_layers(engine.model)]
    for own, weight in zip(dense, (layer.weight for layer in linear_layers(base.model)), strict=True):
        sizes, whole = (each.unflatten(-1, (-1, 4)).abs().sort(-1).values for each in (own, weight))
        assert not sizes[..., :2].any()
        assert torch.equal(sizes[..., 2:], whole[..., 2:])  # whichever of two of the same size is kept
        assert torch.equal(own[own != 0], weight[own != 0])
    wanted = direct(base.model, dense)
    assert apart(found, wanted) < 2 * floor
    assert apart(engine.score(TEXT[:TOKENS], stepwise=True), wanted[: TOKENS - 1]) < 2 * floor
    assert apart(found, exact) > 10 * floor


# The first pass sets the scale. No later key or value of the first text is larger than its largest; in the second some are by 40 %, beyond
# the format's largest number: a cast to it gave NaN before torch 2.12, and gives that number since then.
@pytest.mark.parametrize("text", [tuple((195 * place) % 512 for place in range(96)), TEXT[:96]], ids=["within", "beyond"])
def test_a_kv_cache_in_fp8_loses_what_three_bits_of_mantissa_lose(get: Get, text: tuple[int, ...]) -> None:
    fp8: dict[str, Any] = {"kv_cache": "quantized", "kv_backend": "fp8"}
    on_cpu, wanted = get(device="cpu", **fp8)[0].score(text), get()[0].score(text)
    engine, plan = get(**fp8)
    found = engine.score(text)
    assert found.isfinite().all()
    assert far(found[:32], wanted[:32]) < TOLERANCE  # 32 tokens a pass, and the first reads what it puts in
    expected = ROUNDING["fp8"][0] * math.sqrt(3 * 2)  # keys and values; an error of keys moves weights as much, since scores are of size 1
    assert 0.6 * expected < apart(found[32:], wanted[32:]) < 1.6 * expected
    assert apart(found, on_cpu) < 1e-3  # but for the few numbers that lie between two of fp8
    decoded(engine, plan, text[:60])
    prove(engine, plan)


ADAPTER = train_adapter.AdapterJob("song", "Red boats go out. Blue boats come in. " * 40, "shape:tiny", 3, 0.02, device=DEVICE, rank=4)
DISTILLED = train_distilled.DistilJob("pocket", ADAPTER.text, "shape:tiny", 3, device=DEVICE, keep_layers=1)


@pytest.mark.parametrize("job", [ADAPTER, DISTILLED], ids=lambda job: job.name)
def test_what_is_trained_on_a_gpu_is_kept_and_runs_there(
    get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, playground_home: Path, job: Any
) -> None:
    (tmp_path / "models").symlink_to(playground_home / "models")
    monkeypatch.setenv("PLAYGROUND_HOME", str(tmp_path))
    monkeypatch.setattr(training, "SCORED_TOKENS", 300)  # a window and a part of one
    events: list[Any] = []
    (train_adapter if job is ADAPTER else train_distilled).make(job.to_dict(), events.append, lambda: None)
    losses = [event.loss for event in events if isinstance(event, TrainStep)]
    assert [math.isfinite(loss) for loss in losses] == [True] * 3
    assert (events[-1].facts["device"], events[-1].facts["losses"]) == (DEVICE, losses)
    ids = tuple(job.text.encode())[-100:]
    before = get(model="shape:tiny")[0].score(ids)
    engine, plan = get(model="shape:tiny", adapter="made:song") if job is ADAPTER else get(model="made:pocket")
    decoded(engine, plan, ids[:20])
    prove(engine, plan)
    assert {parameter.device.type for parameter in engine.model.parameters()} == {DEVICE}
    assert 1e-3 < apart(engine.score(ids), before) < 10  # of what was trained, and no NaN
