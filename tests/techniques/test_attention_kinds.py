"""Kinds of attention: the same text from each, proof of the kernel that ran, and clear words where a kernel cannot do it."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import pytest
import torch

from playground.core.engine import Batch
from playground.core.machine import Gpu, Machine
from playground.core.plan import complete, footprint_of, plan_for
from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.engines.transformers import TransformersEngine
from playground.measure.estimate import estimate
from playground.measure.machine import probe
from playground.techniques import attention, techniques

ON_A_CPU = ("eager", "sdpa", "sdpa_math", "sdpa_flash")
ONLY_ON_GPUS = ("sdpa_efficient", "sdpa_cudnn", "flex", "flash_attention_2")
PADDED = ((7, 8, 9), (10, 11, 12, 13, 14, 15, 16), (17,))
CPU = Machine("h", "cpu", 2, 8, 4)
H100 = replace(CPU, device="cuda", gpus=(Gpu("H100", "u", (9, 0), 1, 1, "1"),), packages={"triton": "3", "flash_attn": "2.8"})
T4 = replace(H100, gpus=(Gpu("T4", "u", (7, 5), 1, 1, "1"),))


def loaded(**knobs: Any) -> tuple[TransformersEngine, Any]:
    spec = RunSpec(model="shape:tiny", engine="transformers", device="cpu", knobs={"precision": "fp32", **knobs})
    plan = plan_for(spec, techniques(), TransformersEngine, probe())
    engine = TransformersEngine()
    engine.load(plan, lambda event: None)
    engine.setup(plan)
    return engine, plan


def text(engine: TransformersEngine, rows: tuple[tuple[int, ...], ...]) -> list[tuple[tuple[int, ...], ...]]:
    return [tick.tokens for tick in engine.generate(Batch(rows, 6))]


def asked(device_machine: Machine, device: str, **knobs: Any) -> str | None:
    full = complete(RunSpec(knobs=knobs), techniques()).knobs
    return techniques()["attention"].requires(full, device_machine, device)


@pytest.mark.parametrize("kv_cache", ["off", "dynamic", "static"])
def test_every_kind_gives_the_same_text_in_fp32_with_padded_rows_and_each_cache(kv_cache: str) -> None:
    texts = [text(loaded(attention=kind, kv_cache=kv_cache, batch_size=3)[0], PADDED) for kind in ON_A_CPU]
    assert texts.count(texts[0]) == len(ON_A_CPU)


@pytest.mark.parametrize(
    ("kind", "operator"),
    [("sdpa_math", "_scaled_dot_product_attention_math"), ("sdpa_flash", "_scaled_dot_product_flash_attention_for_cpu")],
)
def test_the_backend_that_was_asked_for_ran_alone(kind: str, operator: str) -> None:
    engine, plan = loaded(attention=kind)
    finding = engine.evidence(techniques()["attention"], plan)
    assert finding.ok
    assert operator in finding.text
    assert "1 of 4 backends allowed" in finding.text
    before = {torch.backends.cuda.math_sdp_enabled(), torch.backends.cuda.flash_sdp_enabled()}
    assert before == {True}, "outside of a pass nothing is forbidden"


def test_a_backend_that_is_not_held_to_is_no_proof_though_torch_would_choose_it_by_itself() -> None:
    engine, plan = loaded(attention="sdpa_flash")
    engine.options.contexts.clear()
    finding = engine.evidence(techniques()["attention"], plan)
    assert not finding.ok
    assert "4 of 4 backends allowed" in finding.text
    assert "flash_attention_for_cpu" in finding.text


def test_another_backend_than_the_one_asked_for_is_no_proof() -> None:
    engine, plan = loaded(attention="sdpa_math")
    wrong = {**plan.spec.knobs, "attention": "sdpa_flash"}
    assert not techniques()["attention"].evidence_for_transformers(wrong, engine).ok
    engine.options.contexts[:] = [lambda: contextlib.nullcontext()]
    assert not engine.evidence(techniques()["attention"], plan).ok


def test_a_pass_that_the_backend_cannot_do_is_told_in_a_sentence_with_the_way_out() -> None:
    query = torch.zeros(1, 2, 4, 8)
    with pytest.raises(Problem, match=r"sdpa_cudnn cannot do this pass.*Choose sdpa") as caught, attention.only("sdpa_cudnn"):
        torch.nn.functional.scaled_dot_product_attention(query, query, query)
    assert caught.value.kind == "unsupported"
    assert "viable backend" in caught.value.detail


def test_other_errors_of_a_pass_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="out of memory"), attention.only("sdpa_math"):
        raise RuntimeError("CUDA out of memory")


@pytest.mark.parametrize("kind", ONLY_ON_GPUS)
def test_kernels_for_gpus_are_refused_on_a_cpu_with_one_that_it_has(kind: str) -> None:
    with pytest.raises(Problem, match=rf"Attention: {kind} .*choose sdpa_flash") as caught:
        loaded(attention=kind)
    assert caught.value.kind == "unsupported"


@pytest.mark.parametrize(
    ("machine", "knobs", "reason"),
    [
        (H100, {"attention": "sdpa_flash", "precision": "bf16"}, None),
        (H100, {"attention": "sdpa_flash", "precision": "fp32"}, "set precision to one of them, or choose sdpa_efficient"),
        (H100, {"attention": "sdpa_flash", "precision": "fp32", "autocast": "bf16"}, None),
        (H100, {"attention": "sdpa_flash", "kv_cache": "static"}, "unused part of a static cache: choose a dynamic one"),
        (H100, {"attention": "sdpa_cudnn", "kv_cache": "static"}, None),
        (H100, {"attention": "sdpa_efficient", "precision": "fp32", "kv_cache": "static"}, None),
        (H100, {"attention": "flex"}, None),
        (replace(H100, packages={}), {"attention": "flex"}, "pip install triton"),
        (H100, {"attention": "flash_attention_2"}, None),
        (replace(H100, packages={}), {"attention": "flash_attention_2"}, "pip install flash-attn"),
        (T4, {"attention": "sdpa_flash", "precision": "fp16"}, "needs CUDA compute capability 8.0; T4 has 7.5. Choose sdpa_efficient."),
        (T4, {"attention": "sdpa_efficient", "precision": "fp16"}, None),
    ],
)
def test_a_gpu_is_asked_for_what_each_kernel_needs(machine: Machine, knobs: Any, reason: str | None) -> None:
    found = asked(machine, "cuda", **knobs)
    assert found is None if reason is None else found is not None and reason in found


@pytest.mark.parametrize("kind", [*attention.BACKENDS, "flex", "flash_attention_2"])
def test_the_engine_graph_has_none_of_them(kind: str) -> None:
    reason = techniques()["attention"].refuses_graph({"attention": kind}, "cuda")
    assert reason is not None
    assert "choose one of them, or the engine transformers" in reason


def test_the_efficient_kernel_gets_repeated_keys_and_values_and_gives_the_same_numbers() -> None:
    from types import SimpleNamespace

    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    attention._register_efficient()
    module = SimpleNamespace(is_causal=True, num_key_value_groups=3)
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 6, 5, 8), torch.randn(2, 2, 5, 8), torch.randn(2, 2, 5, 8)
    ours, _ = ALL_ATTENTION_FUNCTIONS["playground_efficient"](module, query, key, value, None, scaling=0.3)
    theirs, _ = sdpa_attention_forward(module, query, key, value, None, scaling=0.3)
    torch.testing.assert_close(ours, theirs)


def test_four_times_the_scores_for_twice_the_prompt_are_counted_where_they_are_stored() -> None:
    config = {
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 100,
    }  # fmt: skip

    def activations(kind: str, tokens: int) -> int:
        footprint = footprint_of(RunSpec(knobs={"attention": kind, "precision": "fp32"}), techniques())
        return estimate(config, footprint, tokens, 1).activation_bytes

    for tokens in (100, 200):
        stored = activations("sdpa_math", tokens) - activations("sdpa_flash", tokens)
        assert stored == 4 * tokens**2 * 8  # 4 heads, once in fp32 weights' precision and once in float32
    assert activations("sdpa", 100) == activations("sdpa_cudnn", 100) == activations("flex", 100)


def test_what_is_expected_follows_from_whether_the_scores_are_stored() -> None:
    def expect(kind: str, before: str) -> Any:
        return techniques()["attention"].expect({"attention": kind}, {"attention": before})

    assert expect("sdpa_flash", "sdpa_math") == {"ttft_s": "down", "itl_s": "down", "peak_allocated_bytes": "down"}
    assert expect("eager", "sdpa_math") == expect("sdpa_flash", "sdpa") == {"weights_bytes": "same", "kv_cache_bytes": "same"}
