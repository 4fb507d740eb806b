"""Autocast: products in 16 bits over fp32 weights, what it casts in every pass, and what it excludes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from playground.core.engine import Batch
from playground.core.machine import Gpu, Machine
from playground.core.plan import complete, footprint_of, plan_for
from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.engines.transformers import TransformersEngine
from playground.measure.machine import probe
from playground.measure.roofline import decode_work
from playground.techniques import techniques

TINY = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 512, "tie_word_embeddings": True,
}  # fmt: skip


def loaded(**knobs: Any) -> tuple[TransformersEngine, Any]:
    spec = RunSpec(model="shape:tiny", engine="transformers", device="cpu", knobs={"precision": "fp32", **knobs})
    plan = plan_for(spec, techniques(), TransformersEngine, probe())
    engine = TransformersEngine()
    engine.load(plan, lambda event: None)
    engine.setup(plan)
    return engine, plan


def run(engine: TransformersEngine) -> Any:
    return [tick.tokens for tick in engine.generate(Batch(((7, 8, 9), (10, 11, 12, 13, 14)), 5))]


def casts(mode: Callable[[], AbstractContextManager[Any]], requires_grad: bool) -> int:
    """Casts of a weight of 8 x 4 in four products under one autocast."""
    layer, row = torch.nn.Linear(4, 8, bias=False).requires_grad_(requires_grad), torch.ones(1, 1, 4)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler, mode(), torch.autocast("cpu", torch.bfloat16):
        for _ in range(4):
            layer(row)
    return sum(event.name == "aten::_to_copy" and event.input_shapes[0] == [8, 4] for event in profiler.events())


def test_torch_keeps_the_cast_of_a_weight_that_wants_a_gradient_and_never_in_inference_mode() -> None:
    assert casts(torch.no_grad, requires_grad=True) == 1
    assert casts(torch.no_grad, requires_grad=False) == 4
    assert casts(torch.inference_mode, requires_grad=True) == 4


@pytest.mark.parametrize(("kind", "dtype"), [("bf16", "bfloat16"), ("fp16", "float16")])
def test_every_pass_casts_every_weight_again_and_the_cache_stays_in_fp32(kind: str, dtype: str) -> None:
    engine, plan = loaded(autocast=kind)
    plain, _ = loaded()
    run(engine), run(plain)
    finding = engine.evidence(techniques()["mixed_precision"], plan)
    assert finding.ok
    # 2 layers of 7 linear layers, and the output head
    assert f"logits come in {dtype}; a pass casts 15 of 15 weights of linear layers, and the next one 15 again" in finding.text
    assert "the KV cache holds float32" in finding.text
    assert engine.memory() == plain.memory(), "nothing is saved: neither weights nor cache"


def test_a_run_that_entered_no_autocast_is_no_proof() -> None:
    engine, plan = loaded(autocast="bf16")
    engine.options.run.contexts.clear()
    run(engine)
    finding = engine.evidence(techniques()["mixed_precision"], plan)
    assert (finding.ok, finding.text) == (False, "0 autocast is entered around a forward pass")
    other, _ = loaded(autocast="fp16")
    run(other)
    assert not techniques()["mixed_precision"].evidence_for_transformers(plan.spec.knobs, other).ok, "fp16 is not bf16"
    assert not techniques()["mixed_precision"].evidence_for_transformers({**plan.spec.knobs, "autocast": "off"}, other).ok


def test_autocast_is_forgotten_with_the_run() -> None:
    engine, _ = loaded(autocast="bf16")
    rounded = engine.score((7, 8, 9, 10))
    _, plain = loaded()
    engine.setup(plain)
    exact = engine.score((7, 8, 9, 10))
    assert exact.dtype == rounded.dtype == torch.float32
    assert torch.equal(exact, loaded()[0].score((7, 8, 9, 10)))
    assert not torch.equal(exact, rounded)
    torch.testing.assert_close(exact, rounded, rtol=0.02, atol=0.02)  # 8 bits of mantissa in products of 64 terms


@pytest.mark.parametrize("knobs", [{"kv_cache": "off"}, {"kv_cache": "window"}, {"attention": "eager"}, {"attention": "sdpa_math"}])
def test_it_runs_beside_other_settings_with_padded_rows(knobs: dict[str, Any]) -> None:
    engine, plan = loaded(autocast="bf16", batch_size=2, **knobs)
    assert len(run(engine)) == 5
    for technique in plan.techniques:
        finding = engine.evidence(technique, plan)
        assert finding is None or finding.ok, f"{technique.name}: {finding.text}"


@pytest.mark.parametrize(
    ("knobs", "way_out"),
    [
        ({"precision": "bf16"}, "Set precision to fp32, or autocast to off"),
        ({"precision": "fp32", "quantization": "nf4"}, "Set quantization to none, or autocast to off"),
    ],
)
def test_what_autocast_cannot_run_with_is_refused_with_the_way_out(knobs: dict[str, Any], way_out: str) -> None:
    with pytest.raises(Problem, match=way_out) as caught:
        complete(RunSpec(knobs={"autocast": "bf16", **knobs}), techniques())
    assert caught.value.kind == "user"


def test_a_static_cache_is_refused_and_really_cannot_take_what_autocast_gives() -> None:
    with pytest.raises(Problem, match="set kv_cache to dynamic, or autocast to off"):
        loaded(kv_cache="static", autocast="bf16")
    engine, _ = loaded(kv_cache="static")
    engine.options.run.contexts.append(lambda: torch.autocast("cpu", torch.bfloat16))
    with pytest.raises(RuntimeError, match="same dtype"):
        run(engine)


def test_the_engine_graph_and_an_old_gpu_are_refused() -> None:
    known = techniques()["mixed_precision"]
    old = Machine("h", "cpu", 2, 8, 4, "cuda", (Gpu("T4", "u", (7, 5), 1, 1, "1"),))
    assert "or the engine transformers" in known.refuses_graph({"autocast": "bf16"}, "cuda")
    assert known.refuses_graph({"autocast": "off"}, "cuda") is None
    assert "T4 has 7.5. Choose fp16." in known.requires({"autocast": "bf16"}, old, "cuda")
    assert known.requires({"autocast": "fp16"}, old, "cuda") is None


def test_a_step_moves_each_weight_in_four_bytes_and_twice_in_two() -> None:
    def moved(autocast: str) -> float:
        return decode_work(TINY, footprint_of(RunSpec(knobs={"precision": "fp32", "autocast": autocast}), techniques()), 10).bytes

    # 2 layers: queries and output 64 x 64, keys and values 64 x 32, three of 64 x 192
    linear = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 192)
    assert moved("bf16") - moved("off") == linear * 4
    expected = techniques()["mixed_precision"].expect({"autocast": "bf16"}, {"autocast": "off"})
    assert expected == {"weights_bytes": "same", "kv_cache_bytes": "same", "itl_s": "up", "kld_mean": "up"}
