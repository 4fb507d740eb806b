"""Attention: which implementation computes softmax(QK^T)V.

torch's fused attention (sdpa) has several backends and takes the first that can do the job; the options sdpa_... allow one of them alone,
around every forward pass, so that a pass which it cannot do ends the run with a sentence and is not done by another. Example::

    TECHNIQUE.for_transformers({"attention": "sdpa_math"}, setup)   # setup.contexts now allows the math backend alone
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from playground.core.knobs import Choice
from playground.core.machine import Machine
from playground.core.problem import Problem
from playground.core.technique import Effect, Explanation, Finding, Footprint, Knobs, Technique, flipped
from playground.techniques.setup import TransformersSetup

OWN = "playground_"  # before the names of our own attention in transformers' switch
# Each backend's name in torch.nn.attention.SDPBackend and, on a CPU or on CUDA, the operator that it runs.
BACKENDS = {
    "sdpa_math": ("MATH", "_scaled_dot_product_attention_math"),
    "sdpa_efficient": ("EFFICIENT_ATTENTION", "_scaled_dot_product_efficient_attention"),
    "sdpa_flash": ("FLASH_ATTENTION", "_scaled_dot_product_flash_attention"),
    "sdpa_cudnn": ("CUDNN_ATTENTION", "_scaled_dot_product_cudnn_attention"),
}
SWITCHES = {"sdpa_efficient": OWN + "efficient", "flex": "flex_attention"}  # transformers' names where they are not ours
STORED = ("eager", "sdpa_math")  # these write the scores of all pairs of tokens out
NO_MASK = ("sdpa_flash", "flash_attention_2")  # on CUDA, so that a cache of fixed size cannot hide its unused part
SIXTEEN_BIT = ("sdpa_flash", "sdpa_cudnn", "flash_attention_2")  # on CUDA
AMPERE = (8, 0)
PROOF_TOKENS = 8


class Attention(Technique):
    """eager, sdpa, one backend of sdpa alone, compiled or packaged kernels, or one that reads only the filled part of a cache."""

    name = "attention"
    title = "Attention"
    group = "Kernels"
    order = 35  # after the KV cache, whose padding split_kv does not read
    phase = "load"
    common = True
    knobs = (
        Choice(
            "attention",
            "Attention",
            ("eager", "sdpa", *BACKENDS, "flex", "flash_attention_2", "split_kv"),
            "sdpa",
            "eager: separate matrix products and softmax; sdpa: PyTorch's fused scaled_dot_product_attention, with the backend that it "
            "chooses; sdpa_...: one backend alone; flex: compiled by torch; flash_attention_2: the package flash-attn; split_kv: the "
            "engine graph's own kernel, which splits the filled part of the cache among the GPU's processors and never reads the rest.",
        ),
    )
    explain = Explanation(
        what="Chooses the kernel that compares each token with all before it: a prompt of twice the length is four times that work. "
        "eager and sdpa_math store the full matrix of attention weights; flash, efficient, cuDNN and flex kernels work through it "
        "in blocks and never do. sdpa lets PyTorch choose among them. split_kv is for decode steps over a cache of fixed size: many "
        "processors share the part of it that is filled, and nobody reads the rest.",
        helps="Fused kernels: time and memory of the prefill of long prompts, and the more the longer, since all else in a layer grows "
        "with the length and not with its square. In a layer of the default model's sizes on one CPU core (fp32, AVX-512) math and flash "
        "are equal beside all else at 64 tokens; at 1,024 math takes 114 ms, flash 24, and all linear layers together 130. split_kv: "
        "steps with long texts or many rows, where reading the cache takes a good part of the time. Decoding one token "
        "over a short text shows almost nothing.",
        costs="Fused kernels round differently in 16 bits, so the text may depart after some tokens. On a GPU flash takes no mask, so it "
        "cannot run rows of different length in one batch. To name the backend that sdpa chooses anyway gains nothing.",
    )
    cases = tuple({"attention": kind} for kind in knobs[0].options)

    def requires(self, knobs: Knobs, machine: Machine, device: str) -> str | None:
        """What each kernel was written for, and its package."""
        kind = str(knobs["attention"])
        return _only_on_gpus(kind) if device == "cpu" else _not_on_this_gpu(kind, knobs, machine)

    def expect(self, knobs: Knobs, baseline: Knobs) -> Mapping[str, Effect]:
        """eager and math write the scores of all pairs of tokens out, in more kernels; split_kv reads less of the cache in each step. Two
        that store the scores, or two that do not, differ in no byte that is kept."""
        kind, before = knobs["attention"], baseline["attention"]
        if kind == before:
            return {}
        if (kind in STORED) != (before in STORED):
            stored: dict[str, Effect] = {"ttft_s": "up", "itl_s": "up", "peak_allocated_bytes": "up"}
            return stored if kind in STORED else flipped(stored)
        if "split_kv" in (kind, before):
            split: dict[str, Effect] = {"itl_s": "down", "ttft_s": "same"}
            return split if kind == "split_kv" else flipped(split)
        return {"weights_bytes": "same", "kv_cache_bytes": "same"}

    def footprint(self, knobs: Knobs, footprint: Footprint) -> Footprint:
        """eager keeps the score matrix, in 8 kernels more a layer: two products, scale, mask, softmax, a cast and the repeated keys and
        values (transformers 5, eager_attention_forward), in place of one fused kernel. So does math, in 10 more: two products, softmax,
        two scales, two repeats and four that look for rows without a token, and in 16 bits 4 casts (the profile of a step on a CPU, torch
        2.13). split_kv reads no padding of the cache."""
        kind = knobs["attention"]
        if kind == "split_kv":
            return replace(footprint, kv_padded=False)
        if kind not in STORED:
            return footprint
        more = 8 if kind == "eager" else 10 if footprint.weight_bits == 32 else 14
        return replace(footprint, score_matrix=True, layer_kernels=footprint.layer_kernels + more)

    def for_transformers(self, knobs: Knobs, setup: TransformersSetup) -> None:
        """transformers' own switch, and around every pass what allows one backend alone."""
        kind = str(knobs["attention"])
        if kind == "sdpa_efficient":
            _register_efficient()
        setup.load["attn_implementation"] = _switch(kind)
        if kind in BACKENDS:
            setup.contexts.append(lambda: only(kind))

    def evidence_for_transformers(self, knobs: Knobs, engine: Any) -> Finding:
        """Reads the switch of every attention module back, what of sdpa is allowed inside a pass, and which operator one call ran."""
        kind = str(knobs["attention"])
        found = _switched(engine, _switch(kind))
        if not found.ok or kind in ("eager", "flash_attention_2"):
            return found
        if kind == "sdpa":
            allowed = _allowed(engine)
            return Finding(len(allowed) > 1, f"{found.text}, and torch may choose among {len(allowed)} backends")
        return _compiled(found, _one_call(engine)) if kind == "flex" else _alone(kind, found, _allowed(engine), _one_call(engine))

    def refuses_transformers(self, knobs: Knobs, device: str) -> str | None:
        """Another engine's kernel."""
        if knobs["attention"] == "split_kv":
            return "split_kv is a kernel of the engine graph: choose sdpa or eager, or that engine."
        return None

    def for_graph(self, knobs: Knobs, setup: TransformersSetup) -> None:
        """The same switch, to one of the engine's own two."""
        setup.load["attn_implementation"] = OWN + str(knobs["attention"])

    def evidence_for_graph(self, knobs: Knobs, engine: Any) -> Finding:
        """Reads the switch of every attention module back."""
        return _switched(engine, OWN + str(knobs["attention"]))

    def refuses_graph(self, knobs: Knobs, device: str) -> str | None:
        """It brings two kinds of attention, one of them a kernel for CUDA."""
        if knobs["attention"] == "eager":
            return "the engine graph has no eager attention: choose sdpa or split_kv, or the engine transformers."
        if knobs["attention"] not in ("sdpa", "split_kv"):
            return f"its captured steps hold sdpa or split_kv and not {knobs['attention']}: choose one of them, or the engine transformers."
        if knobs["attention"] == "split_kv" and device == "cpu":
            return "split_kv is a CUDA kernel: choose sdpa on a CPU."
        return None


@contextmanager
def only(kind: str) -> Iterator[None]:
    """Allow one backend of sdpa; raises Problem("unsupported") for a pass that it cannot do."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(getattr(SDPBackend, BACKENDS[kind][0])):
        try:
            yield
        except RuntimeError as error:
            if "No available kernel" not in str(error) and "No viable backend" not in str(error):
                raise
            raise Problem(
                "unsupported",
                f"{kind} cannot do this pass: torch has no such kernel for it. On a GPU flash takes no mask, and one is needed for rows of "
                "different length and for several tokens after cached ones; all fused kernels have limits to the size of a head. Choose "
                "sdpa, which takes the first backend that can.",
                str(error),
            ) from error


def _only_on_gpus(kind: str) -> str | None:
    if kind in ("sdpa_efficient", "sdpa_cudnn"):
        return f"{kind} is a kernel for CUDA: on a CPU choose sdpa_flash or sdpa_math."
    if kind == "flash_attention_2":
        return "flash_attention_2 is a kernel for CUDA: on a CPU choose sdpa_flash."
    if kind == "flex":
        return "flex is for CUDA here, since what torch compiles of it for a CPU fails for rows of different length: choose sdpa_flash."
    return None


def _not_on_this_gpu(kind: str, knobs: Knobs, machine: Machine) -> str | None:
    if kind == "flash_attention_2" and "flash_attn" not in machine.packages:
        return "flash_attention_2 needs the package flash-attn, which is not installed: pip install flash-attn --no-build-isolation."
    if kind == "flex" and "triton" not in machine.packages:
        return "flex needs the package triton, which is not installed: pip install triton."
    if kind in SIXTEEN_BIT and machine.gpus and machine.gpus[0].capability < AMPERE:
        gpu = machine.gpus[0]
        return f"{kind} needs CUDA compute capability 8.0; {gpu.name} has {gpu.capability[0]}.{gpu.capability[1]}. Choose sdpa_efficient."
    if kind in SIXTEEN_BIT and knobs.get("precision") == "fp32" and knobs.get("autocast", "off") == "off":
        return f"{kind} multiplies fp16 and bf16 on a GPU: set precision to one of them, or choose sdpa_efficient."
    if kind in NO_MASK and knobs.get("kv_cache") == "static":
        return f"{kind} takes no mask on a GPU, to hide the unused part of a static cache: choose a dynamic one, or sdpa_efficient."
    return None


def _switch(kind: str) -> str:
    """The name in transformers' switch."""
    return SWITCHES.get(kind, "sdpa" if kind in BACKENDS else kind)


def _register_efficient() -> None:
    """sdpa with the keys and values of each group repeated: torch's efficient kernel knows no groups, and transformers would leave them."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    def repeated(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **options: Any) -> Any:
        groups = query.shape[1] // key.shape[1]
        plain = SimpleNamespace(is_causal=getattr(module, "is_causal", True))
        return sdpa_attention_forward(plain, query, repeat_kv(key, groups), repeat_kv(value, groups), attention_mask, **options)

    AttentionInterface.register(SWITCHES["sdpa_efficient"], repeated)
    AttentionMaskInterface.register(SWITCHES["sdpa_efficient"], sdpa_mask)


def _layers(engine: Any) -> list[Any]:
    return [m for m in engine.model.modules() if type(m).__name__.endswith("Attention") and hasattr(m, "config")]


def _switched(engine: Any, wanted: str) -> Finding:
    modules = _layers(engine)
    right = sum(m.config._attn_implementation == wanted for m in modules)
    return Finding(bool(modules) and right == len(modules), f"{right} of {len(modules)} attention layers use {wanted}")


def _allowed(engine: Any) -> set[str]:
    """The backends of sdpa that are allowed inside a pass."""
    from torch.backends import cuda

    with engine.passing():
        enabled = {
            "sdpa_math": cuda.math_sdp_enabled(), "sdpa_efficient": cuda.mem_efficient_sdp_enabled(),
            "sdpa_flash": cuda.flash_sdp_enabled(), "sdpa_cudnn": cuda.cudnn_sdp_enabled(),
        }  # fmt: skip
    return {name for name, is_on in enabled.items() if is_on}


def _one_call(engine: Any) -> Counter[str]:
    """How often the profiler saw each operator in one call of the first layer's attention, on made-up queries, keys and values of its
    shape. The model itself does not run, so that its first pass stays the first."""
    import torch
    from torch.profiler import ProfilerActivity, profile
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    layer, text = _layers(engine)[0], engine.model.config.get_text_config()
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    made = {"dtype": getattr(torch, engine.options.dtype), "device": engine.options.device}
    query = torch.zeros(1, text.num_attention_heads, PROOF_TOKENS, size, **made)
    key = torch.zeros(1, text.num_key_value_heads, PROOF_TOKENS, size, **made)
    attend = ALL_ATTENTION_FUNCTIONS[layer.config._attn_implementation]
    with engine.passing(), profile(activities=[ProfilerActivity.CPU]) as profiler:
        attend(layer, query, key, key, None, scaling=size**-0.5)
    return Counter(event.name.removeprefix("aten::") for event in profiler.events())


def _alone(kind: str, found: Finding, allowed: set[str], ran: Counter[str]) -> Finding:
    """The one backend is allowed and ran; on a CPU flash has a name of its own."""
    operators = (BACKENDS[kind][1], BACKENDS[kind][1] + "_for_cpu")
    seen = [name for name in ran if name.startswith("_scaled_dot_product_")]
    text = f"{found.text}, with {len(allowed)} of {len(BACKENDS)} backends allowed; one call of it ran {', '.join(seen) or 'none of them'}"
    return Finding(allowed == {kind} and any(ran[name] for name in operators), text)


def _compiled(found: Finding, ran: Counter[str]) -> Finding:
    """flex attention that torch did not compile computes the whole matrix, with a softmax of its own."""
    regions = sum(count for name, count in ran.items() if name.startswith("Torch-Compiled Region"))
    text = f"{found.text}; one call of it entered {regions} compiled regions and ran {ran['_softmax']} separate softmax"
    return Finding(regions > 0 and ran["_softmax"] == 0, text)


TECHNIQUE = Attention()
