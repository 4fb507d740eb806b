"""Fusion: fewer and larger kernels in a decode step, by joining products and compiling what is between them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from playground.core.knobs import Choice
from playground.core.machine import Machine
from playground.core.technique import Effect, Explanation, Finding, Footprint, Knobs, Technique, flipped
from playground.techniques.setup import TransformersSetup

COMPILERS = ("g++", "c++", "clang++")
FUSED_KERNELS = 10.0


class Fusion(Technique):
    """Each layer as transformers wrote it, or joined and compiled."""

    name = "fusion"
    title = "Fusion"
    group = "Kernels"
    order = 37
    phase = "load"
    common = True
    knobs = (
        Choice(
            "fusion",
            "Fusion",
            ("off", "compile"),
            "off",
            "compile: one product for queries, keys and values, one for gate and up, and few kernels for what is between products.",
        ),
    )
    explain = Explanation(
        what="Projections that take the same input become one product, and torch.compile turns the small operations between products "
        "(norms, rotary positions, activations) into few kernels. One decoder layer is compiled and serves for all of them.",
        helps="Decoding, where a step is many small kernels, each of which starts, ends, and reads what the one before has just written.",
        costs="Some seconds to compile when the model is first used, kept on disk for the next time; and another order of rounding, so "
        "that the text may depart after some tokens.",
    )
    cases = ({"fusion": "off"}, {"fusion": "compile"})

    def requires(self, knobs: Knobs, machine: Machine, device: str) -> str | None:
        """What torch.compile writes its kernels with: triton on CUDA, a C++ compiler on a CPU."""
        return no_compiler(machine, device) if knobs["fusion"] == "compile" else None

    def expect(self, knobs: Knobs, baseline: Knobs) -> Mapping[str, Effect]:
        """The same weights in fewer kernels."""
        if knobs["fusion"] == baseline["fusion"]:
            return {}
        fused: dict[str, Effect] = {"itl_s": "down", "output_tokens_per_s": "up", "kernels_per_token": "down", "weights_bytes": "same"}
        return fused if knobs["fusion"] == "compile" else flipped(fused)

    def footprint(self, knobs: Knobs, footprint: Footprint) -> Footprint:
        """Kernels of a joined and compiled layer in a decode step, cache included (a prompt's pass is not compiled), counted in the profile
        of a 1B and an 8B Llama shape with split_kv (H200, torch 2.11): two norms with the residual sum before them; the products for
        queries, keys and values, for attention's output, for gate and up with the activation, and down; two for rotary positions and the
        cache's new row; attention; the last residual sum."""
        if knobs["fusion"] != "compile":
            return footprint
        return replace(footprint, step_kernels=FUSED_KERNELS)

    def for_graph(self, knobs: Knobs, setup: TransformersSetup) -> None:
        """The engine joins and compiles once the weights are there."""
        setup.fusion = str(knobs["fusion"])

    def evidence_for_graph(self, knobs: Knobs, engine: Any) -> Finding:
        """Counts joined products by class, and asks whether the compiled layer ran. bitsandbytes' layers are packed and not joined."""
        classes = [type(module).__name__ for module in engine.model.modules()]
        joined, parts = classes.count("Joined"), classes.count("Part")
        if knobs["fusion"] == "off":
            return Finding(not engine.compiled and joined == 0, f"no layer is compiled, {joined} products are joined")
        ok = joined > 0 or knobs["quantization"] != "none"
        if knobs.get("kv_cache") == "off":
            ours = not {"SmallLinear", "PackedLinear"}.isdisjoint(classes)  # the output head, if no other layer
            return Finding(ours and ok, f"{joined} joined products do the work of {joined + parts}; without a KV cache no step is compiled")
        ran = "one compiled layer served for all" if engine.compiled else "no compiled layer ran"
        return Finding(engine.compiled and ok, f"{ran}, {joined} joined products do the work of {joined + parts}")


def no_compiler(machine: Machine, device: str) -> str | None:
    """Why torch.compile cannot write kernels for this machine's device, cpu or cuda, or None."""
    if device == "cuda":
        return None if "triton" in machine.packages else "compile needs the package triton, which is not installed: pip install triton"
    if any(shutil.which(name) for name in (os.environ.get("CXX", ""), *COMPILERS) if name):
        return None
    return "compile needs a C++ compiler on a CPU, and there is none: install g++ or clang++, or name one in $CXX."


TECHNIQUE = Fusion()
