"""Attention: which implementation computes softmax(QK^T)V."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from playground.core.knobs import Choice
from playground.core.technique import Effect, Explanation, Finding, Footprint, Knobs, Technique, flipped
from playground.techniques.setup import TransformersSetup


class Attention(Technique):
    """eager or sdpa."""

    name = "attention"
    title = "Attention"
    group = "Kernels"
    order = 25
    phase = "load"
    knobs = (
        Choice(
            "attention",
            "Attention",
            ("eager", "sdpa"),
            "sdpa",
            "eager: separate matrix products and softmax; sdpa: PyTorch's fused scaled_dot_product_attention.",
        ),
    )
    explain = Explanation(
        what="eager stores the full matrix of attention weights; sdpa lets PyTorch choose a fused kernel that never does.",
        helps="Long prompts: time and memory of the prefill. Decoding one token over a short text shows almost nothing.",
        costs="Fused kernels round differently in 16 bits, so the text may depart after some tokens.",
    )
    cases = ({"attention": "eager"}, {"attention": "sdpa"})

    def expect(self, knobs: Knobs, baseline: Knobs) -> Mapping[str, Effect]:
        """eager writes the scores of all pairs of tokens out, in more kernels."""
        if knobs["attention"] == baseline["attention"]:
            return {}
        eager: dict[str, Effect] = {"ttft_s": "up", "itl_s": "up", "peak_allocated_bytes": "up"}
        return eager if knobs["attention"] == "eager" else flipped(eager)

    def footprint(self, knobs: Knobs, footprint: Footprint) -> Footprint:
        """eager keeps the score matrix, in 8 kernels more a layer: two products, scale, mask, softmax, a cast and the repeated keys and
        values (transformers 5, eager_attention_forward), in place of one fused kernel."""
        if knobs["attention"] != "eager":
            return footprint
        return replace(footprint, score_matrix=True, layer_kernels=footprint.layer_kernels + 8)

    def for_transformers(self, knobs: Knobs, setup: TransformersSetup) -> None:
        """transformers' own switch."""
        setup.load["attn_implementation"] = str(knobs["attention"])

    def evidence_for_transformers(self, knobs: Knobs, engine: Any) -> Finding:
        """Reads the switch of every attention module back."""
        wanted = str(knobs["attention"])
        modules = [m for m in engine.model.modules() if type(m).__name__.endswith("Attention") and hasattr(m, "config")]
        right = sum(m.config._attn_implementation == wanted for m in modules)
        return Finding(bool(modules) and right == len(modules), f"{right} of {len(modules)} attention layers use {wanted}")


TECHNIQUE = Attention()
