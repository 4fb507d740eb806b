"""Attention: which implementation computes softmax(QK^T)V."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from playground.core.knobs import Choice
from playground.core.technique import Effect, Explanation, Finding, Footprint, Knobs, Technique, flipped
from playground.techniques.setup import TransformersSetup

OWN = "playground_"  # what the engine graph puts before the names of its attention in transformers' switch


class Attention(Technique):
    """eager, sdpa or a kernel that reads only what is filled of a cache of fixed size."""

    name = "attention"
    title = "Attention"
    group = "Kernels"
    order = 35  # after the KV cache, whose padding split_kv does not read
    phase = "load"
    knobs = (
        Choice(
            "attention",
            "Attention",
            ("eager", "sdpa", "split_kv"),
            "sdpa",
            "eager: separate matrix products and softmax; sdpa: PyTorch's fused scaled_dot_product_attention; split_kv: the engine graph's "
            "own kernel, which splits the filled part of the cache among the GPU's processors and never reads the rest.",
        ),
    )
    explain = Explanation(
        what="eager stores the full matrix of attention weights; sdpa lets PyTorch choose a fused kernel that never does. split_kv is for "
        "decode steps over a cache of fixed size: many processors share the part of it that is filled, and nobody reads the rest.",
        helps="sdpa: time and memory of the prefill of long prompts. split_kv: steps with long texts or many rows, where reading the cache "
        "takes a good part of the time. Decoding one token over a short text shows almost nothing.",
        costs="Fused kernels round differently in 16 bits, so the text may depart after some tokens.",
    )
    cases = ({"attention": "eager"}, {"attention": "sdpa"}, {"attention": "split_kv"})

    def expect(self, knobs: Knobs, baseline: Knobs) -> Mapping[str, Effect]:
        """eager writes the scores of all pairs of tokens out, in more kernels; split_kv reads less of the cache in each step."""
        kind, before = knobs["attention"], baseline["attention"]
        if kind == before:
            return {}
        if "eager" in (kind, before):
            eager: dict[str, Effect] = {"ttft_s": "up", "itl_s": "up", "peak_allocated_bytes": "up"}
            return eager if kind == "eager" else flipped(eager)
        split: dict[str, Effect] = {"itl_s": "down", "ttft_s": "same"}
        return split if kind == "split_kv" else flipped(split)

    def footprint(self, knobs: Knobs, footprint: Footprint) -> Footprint:
        """eager keeps the score matrix, in 8 kernels more a layer: two products, scale, mask, softmax, a cast and the repeated keys and
        values (transformers 5, eager_attention_forward), in place of one fused kernel. split_kv reads no padding of the cache."""
        if knobs["attention"] == "split_kv":
            return replace(footprint, kv_padded=False)
        if knobs["attention"] != "eager":
            return footprint
        return replace(footprint, score_matrix=True, layer_kernels=footprint.layer_kernels + 8)

    def for_transformers(self, knobs: Knobs, setup: TransformersSetup) -> None:
        """transformers' own switch."""
        setup.load["attn_implementation"] = str(knobs["attention"])

    def evidence_for_transformers(self, knobs: Knobs, engine: Any) -> Finding:
        """Reads the switch of every attention module back."""
        return _switched(engine, str(knobs["attention"]))

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
        if knobs["attention"] == "split_kv" and device == "cpu":
            return "split_kv is a CUDA kernel: choose sdpa on a CPU."
        return None


def _switched(engine: Any, wanted: str) -> Finding:
    modules = [m for m in engine.model.modules() if type(m).__name__.endswith("Attention") and hasattr(m, "config")]
    right = sum(m.config._attn_implementation == wanted for m in modules)
    return Finding(bool(modules) and right == len(modules), f"{right} of {len(modules)} attention layers use {wanted}")


TECHNIQUE = Attention()
