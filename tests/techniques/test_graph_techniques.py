"""What the techniques of the engine graph refuse, need, expect of memory, and take for proof."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from playground.core.machine import Gpu, Machine
from playground.core.plan import complete, footprint_of
from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.core.technique import Footprint
from playground.engines import engines
from playground.measure.estimate import estimate
from playground.measure.roofline import decode_work, prefill_work
from playground.techniques import fusion, techniques
from playground.techniques.setup import RunSetup, TransformersSetup

CPU = Machine("h", "cpu", 2, 8, 4)
H200 = replace(CPU, device="cuda", gpus=(Gpu("H200", "u", (9, 0), 1, 1, "1"),), packages={"triton": "3.6"})
A100 = replace(H200, gpus=(Gpu("A100", "u", (8, 0), 1, 1, "1"),))
LLAMA_1B = {
    "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256, "tie_word_embeddings": True,
}  # fmt: skip


def known(name: str) -> Any:
    return techniques()[name]


def full(**knobs: Any) -> Any:
    return complete(RunSpec(knobs=knobs), techniques()).knobs


class PackedLinear(torch.nn.Module):
    in_features = out_features = 8

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind


class Joined(torch.nn.Module):
    def __init__(self, linear: torch.nn.Module) -> None:
        super().__init__()
        self.linear = linear


class Part(torch.nn.Module):
    pass


class SmallLinear(torch.nn.Linear):
    pass


class SomeAttention(torch.nn.Module):
    def __init__(self, implementation: str) -> None:
        super().__init__()
        self.config = SimpleNamespace(_attn_implementation=implementation)


class FixedCache:
    def __init__(self) -> None:
        self.layers = [SimpleNamespace(keys=torch.zeros(2, 3, 128, 8))] * 4


class Decoder(torch.nn.Module):
    """Layers and a head: the embedding's, or one of its own."""

    def __init__(self, *layers: torch.nn.Module) -> None:
        super().__init__()
        self.layers, self.head, self.embedding = torch.nn.ModuleList(layers), torch.nn.Linear(4, 4), torch.nn.Embedding(4, 4)
        self.head.weight = self.embedding.weight

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.head

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.embedding


def loaded(*layers: torch.nn.Module, **facts: Any) -> Any:
    """As much of an engine as the proofs look at."""
    usual = {
        "compiled": False,
        "cache": None,
        "last_step_tokens": None,
        "options": SimpleNamespace(device="cpu", config={}, run=RunSetup()),
    }
    return SimpleNamespace(**{"model": Decoder(*layers), **usual, **facts})


def linear() -> torch.nn.Linear:
    return torch.nn.Linear(4, 4)


@pytest.mark.parametrize(
    ("name", "knobs", "device", "reason"),
    [
        ("kv_cache", {"kv_cache": "dynamic"}, "cuda", "cannot grow: choose static, or off"),
        ("kv_cache", {"kv_cache": "static"}, "cuda", None),
        ("kv_cache", {"kv_cache": "off"}, "cpu", None),
        ("attention", {"attention": "eager"}, "cuda", "no eager attention: choose sdpa or split_kv"),
        ("attention", {"attention": "split_kv"}, "cpu", "split_kv is a CUDA kernel: choose sdpa"),
        ("attention", {"attention": "split_kv"}, "cuda", None),
        ("attention", {"attention": "sdpa"}, "cpu", None),
        ("weight_only", {"weight_only": "fp8"}, "cpu", "fp8 needs a GPU: choose int8"),
        ("weight_only", {"weight_only": "fp8"}, "cuda", None),
        ("weight_only", {"weight_only": "int4"}, "cpu", None),
        ("quantization", {"quantization": "int8", "int8_threshold": 6.0}, "cuda", "choose weight-only int8, or int8_threshold 0."),
        ("quantization", {"quantization": "int8", "int8_threshold": 0.0}, "cuda", None),
        ("quantization", {"quantization": "int8", "int8_threshold": 6.0}, "cpu", None),
        ("quantization", {"quantization": "nf4", "int8_threshold": 6.0}, "cuda", None),
    ],
)
def test_the_engine_graph_refuses_what_a_captured_step_cannot_have(name: str, knobs: Any, device: str, reason: str | None) -> None:
    found = known(name).refuses_graph(knobs, device)
    assert found is reason if reason is None else reason in found


def test_the_engine_transformers_has_no_split_kv() -> None:
    assert "a kernel of the engine graph" in known("attention").refuses_transformers({"attention": "split_kv"}, "cuda")
    assert known("attention").refuses_transformers({"attention": "eager"}, "cuda") is None


def test_fp8_needs_hardware_that_has_it() -> None:
    requires = known("weight_only").requires
    assert requires({"weight_only": "fp8"}, A100, "cuda") == "fp8 needs CUDA compute capability 8.9; A100 has 8.0. Choose int8."
    assert requires({"weight_only": "fp8"}, H200, "cuda") is None
    assert requires({"weight_only": "int8"}, A100, "cuda") is None


def test_compiling_needs_triton_on_a_gpu_and_a_compiler_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    requires, wanted = known("fusion").requires, {"fusion": "compile"}
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(fusion.shutil, "which", lambda name: None)
    assert requires(wanted, H200, "cuda") is None
    assert "pip install triton" in requires(wanted, replace(H200, packages={}), "cuda")
    assert "install g++ or clang++" in requires(wanted, CPU, "cpu")
    assert requires({"fusion": "off"}, CPU, "cpu") is None
    monkeypatch.setattr(fusion.shutil, "which", lambda name: name if name == "clang++" else None)
    assert requires(wanted, CPU, "cpu") is None
    monkeypatch.setattr(fusion.shutil, "which", lambda name: name if name == "/opt/cc" else None)
    assert requires(wanted, CPU, "cpu") is not None
    monkeypatch.setenv("CXX", "/opt/cc")
    assert requires(wanted, CPU, "cpu") is None


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"weight_only": "int8", "precision": "fp32"}, "Weight-only int8 and fp32 exclude each other"),
        ({"weight_only": "int4", "quantization": "nf4"}, "Weight-only int4 and quantization nf4 exclude each other"),
    ],
)
def test_weights_are_packed_once_and_for_16_bit_activations(knobs: Any, sentence: str) -> None:
    with pytest.raises(Problem, match=sentence):
        complete(RunSpec(knobs=knobs), techniques())
    complete(RunSpec(knobs={"weight_only": "int4", "precision": "fp16"}), techniques())


@pytest.mark.parametrize(("kind", "bits"), [("none", 16), ("int8", 8.02), ("fp8", 8.02), ("int4", 4.125)])
def test_packed_weights_take_their_bits_and_all_others_sixteen(kind: str, bits: float) -> None:
    footprint = footprint_of(RunSpec(knobs={"weight_only": kind}), techniques())
    # 1,235,814,400 weights, of which 16 layers x (2048 x (2048 + 1024 + 2048) + 3 x 2048 x 8192) are linear
    linear_weights = 16 * (2048 * (2048 + 1024 + 2048) + 3 * 2048 * 8192)
    expected = (1_235_814_400 - linear_weights) * 2 + linear_weights * bits / 8
    assert estimate(LLAMA_1B, footprint, 10, 10).weights_bytes == pytest.approx(expected, abs=1)


def test_layers_whose_columns_128_does_not_divide_have_smaller_groups_and_more_scales() -> None:
    smollm = {
        "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
        "num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True,
    }  # fmt: skip
    footprint = footprint_of(RunSpec(knobs={"weight_only": "int4"}), techniques())
    of_576, of_1536 = 30 * 576 * (576 + 2 * 192 + 2 * 1536 + 576), 30 * 1536 * 576  # q k v, gate and up, o; down
    others = 49152 * 576 + 30 * 2 * 576 + 576
    expected = of_576 * (4 + 16 / 64) / 8 + of_1536 * (4 + 16 / 128) / 8 + others * 2
    assert estimate(smollm, footprint, 10, 10).weights_bytes == pytest.approx(expected, abs=1)


def test_weights_are_written_out_for_more_than_256_tokens_in_the_precision_of_the_activations() -> None:
    found = known("weight_only").footprint(full(weight_only="int4"), Footprint(weight_bits=16.0))
    assert (found.unpack_above, found.unpacked_bits, found.linear_kernels) == (256, 16.0, 1.0)


@pytest.mark.parametrize(
    ("kind", "device", "above"), [("int4", "cpu", 0), ("none", "cpu", None), ("int4", "cuda", 256), ("none", "cuda", None)]
)
def test_on_a_cpu_packed_weights_are_written_out_in_every_step(kind: str, device: str, above: int | None) -> None:
    spec = RunSpec(knobs={"weight_only": kind})
    assert footprint_of(spec, techniques(), engines()["graph"], device).unpack_above == above


def test_a_fused_layer_is_ten_kernels() -> None:
    knobs = {"fusion": "compile", "attention": "split_kv", "kv_cache": "static"}
    footprint = footprint_of(RunSpec(knobs=knobs), techniques(), engines()["graph"], "cuda")
    step, prompt = decode_work(LLAMA_1B, footprint, 10), prefill_work(LLAMA_1B, footprint, 10)
    assert (step.launches, step.captured) == (16 * 10 + 21, True)
    assert (prompt.launches, prompt.captured) == (16 * 49 + 21, False), "a prompt's pass is not compiled"
    off = footprint_of(RunSpec(knobs={**knobs, "kv_cache": "off"}), techniques(), engines()["graph"], "cuda")
    assert decode_work(LLAMA_1B, off, 10).launches == 16 * 39 + 21, "nor is a step without a cache"


def test_fewer_bits_promise_a_shorter_step_and_nothing_of_the_first_token() -> None:
    expect = known("weight_only").expect
    plain, int8, int4 = (full(weight_only=kind) for kind in ("none", "int8", "int4"))
    assert "ttft_s" not in expect(int4, plain)
    assert (expect(int4, plain)["itl_s"], expect(int4, int8)["itl_s"]) == ("down", "down")


def test_split_kv_reads_no_padding_of_a_static_cache() -> None:
    specs = [RunSpec(knobs={"kv_cache": "static", "attention": kind}) for kind in ("sdpa", "split_kv")]
    assert [footprint_of(spec, techniques()).kv_padded for spec in specs] == [True, False]


def test_the_knobs_reach_the_engines_setup() -> None:
    setup = TransformersSetup()
    known("fusion").for_graph({"fusion": "compile"}, setup)
    known("weight_only").for_graph({"weight_only": "int4"}, setup)
    known("attention").for_graph({"attention": "split_kv"}, setup)
    assert (setup.fusion, setup.weight_only, setup.load) == ("compile", "int4", {"attn_implementation": "playground_split_kv"})


def test_weight_only_is_proved_by_the_class_and_kind_of_every_layer_but_the_head() -> None:
    prove = known("weight_only").evidence_for_graph
    packed = loaded(Joined(PackedLinear("int8")), Part(), PackedLinear("int8"))
    assert prove({"weight_only": "int8"}, packed).text == "2 of 2 linear layers are packed as int8, the output head keeps float32"
    assert prove({"weight_only": "int8"}, packed).ok
    assert not prove({"weight_only": "int4"}, packed).ok
    assert not prove({"weight_only": "none"}, packed).ok
    half = prove({"weight_only": "int8"}, loaded(PackedLinear("int8"), SmallLinear(4, 4)))
    assert (half.ok, half.text) == (False, "1 of 2 linear layers are packed as int8, the output head keeps float32")
    plain = prove({"weight_only": "none"}, loaded(linear(), SmallLinear(4, 4)))
    assert (plain.ok, plain.text) == (True, "2 linear layers, 0 of them packed by the engine graph")


def test_a_head_that_is_not_the_embedding_must_be_packed_with_8_bits() -> None:
    prove = known("weight_only").evidence_for_graph
    engine = loaded(PackedLinear("int4"))
    engine.model.head = PackedLinear("int8")
    found = prove({"weight_only": "int4"}, engine)
    assert (found.ok, found.text) == (True, "1 of 1 linear layers are packed as int4, the output head as int8")
    engine.model.head = torch.nn.Linear(4, 4)
    assert not prove({"weight_only": "int4"}, engine).ok


def test_bitsandbytes_is_told_from_the_engines_own_layers() -> None:
    prove = known("quantization").evidence_for_transformers
    found = prove({"quantization": "none"}, loaded(PackedLinear("int8"), SmallLinear(4, 4), linear()))
    assert (found.ok, found.text) == (True, "3 linear layers, 0 of them quantized by bitsandbytes")
    assert not prove({"quantization": "nf4"}, loaded(PackedLinear("int4"))).ok


def test_fusion_is_proved_by_joined_products_and_a_compiled_layer_that_ran() -> None:
    prove = known("fusion").evidence_for_graph
    on, off = {"fusion": "compile", "quantization": "none"}, {"fusion": "off", "quantization": "none"}
    layers = [Joined(linear()), Part(), Part(), linear(), Joined(linear()), Part()]
    found = prove(on, loaded(*layers, compiled=True))
    assert (found.ok, found.text) == (True, "one compiled layer served for all, 2 joined products do the work of 5")
    assert not prove(on, loaded(*layers, compiled=False)).ok
    assert not prove(on, loaded(linear(), compiled=True)).ok
    assert prove({**on, "quantization": "nf4"}, loaded(linear(), compiled=True)).ok, "bitsandbytes' layers are not joined"
    assert prove(off, loaded(linear(), compiled=False)).text == "no layer is compiled, 0 products are joined"
    assert prove(off, loaded(linear(), compiled=False)).ok
    assert not prove(off, loaded(*layers, compiled=False)).ok


def test_attention_is_proved_by_the_switch_of_every_layer() -> None:
    prove = known("attention").evidence_for_graph
    both = loaded(SomeAttention("playground_split_kv"), SomeAttention("playground_split_kv"))
    assert prove({"attention": "split_kv"}, both).text == "2 of 2 attention layers use playground_split_kv"
    assert prove({"attention": "split_kv"}, both).ok
    assert not prove({"attention": "sdpa"}, both).ok
    assert not prove({"attention": "sdpa"}, loaded(SomeAttention("sdpa"))).ok


def test_the_cache_is_proved_by_its_own_class_and_by_one_token_a_step() -> None:
    prove = known("kv_cache").evidence_for_graph
    found = prove({"kv_cache": "static"}, loaded(cache=FixedCache(), last_step_tokens=1))
    expected = "cache is FixedCache: 4 layers, keys 2 x 3 x 128 x 8 (rows x heads x tokens x head size)"
    assert (found.ok, found.text) == (True, expected)
    assert not prove({"kv_cache": "static"}, loaded(cache=FixedCache(), last_step_tokens=9)).ok
    assert not prove({"kv_cache": "dynamic"}, loaded(cache=FixedCache())).ok
    assert not prove({"kv_cache": "static"}, loaded()).ok
    off = prove({"kv_cache": "off"}, loaded(last_step_tokens=12))
    assert (off.ok, off.text) == (True, "no cache was kept: the last step ran all 12 tokens of the row again")
    assert not prove({"kv_cache": "off"}, loaded(cache=FixedCache())).ok


@pytest.mark.parametrize(("graphs", "ok"), [([object(), object()], True), ([object(), None], False)])
def test_on_a_gpu_every_step_that_reads_the_cache_must_be_captured(graphs: list[Any], ok: bool) -> None:
    steps = {number: SimpleNamespace(graph=graph) for number, graph in enumerate(graphs)}
    engine = loaded(cache=FixedCache(), last_step_tokens=1, options=SimpleNamespace(device="cuda"), steps=steps)
    found = known("kv_cache").evidence_for_graph({"kv_cache": "static"}, engine)
    captured = sum(graph is not None for graph in graphs)
    assert found.ok is ok
    assert found.text.endswith(f"; {captured} of 2 decode steps are captured in a CUDA graph")
