"""Weight-only quantization: the decoder's linear weights in 8 or 4 bits, for the engine graph's own products with few rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from playground.core.knobs import Choice
from playground.core.machine import Machine
from playground.core.technique import Effect, Explanation, Finding, Footprint, Knobs, Technique
from playground.techniques import precision
from playground.techniques.quantization import linear_layers
from playground.techniques.setup import TransformersSetup

# Bits a weight with its scale: one of 32 bits a row (counted as 0.02), or one of 16 bits for each of the largest GROUPS.
PACKED = "PackedLinear"  # what the engine graph puts in the place of a layer
BITS = {"int8": 8.02, "int4": 4.125, "fp8": 8.02}
GROUPS = (128, 64, 32)  # columns of a row that share a scale with int4: the first that divides the columns of the layer
FEW_TOKENS = 256  # are multiplied with packed weights, 64 at a time; for more these are written out first
FP8 = (8, 9)


class WeightOnly(Technique):
    """Packed weights that a kernel unpacks while it multiplies; activations keep their precision."""

    name = "weight_only"
    title = "Weight-only quantization"
    group = "Numbers"
    order = 23
    phase = "load"
    common = True
    knobs = (
        Choice(
            "weight_only",
            "Weight-only",
            ("none", "int8", "int4", "fp8"),
            "none",
            "Bits of the linear weights, unpacked by the engine graph's kernels while they multiply.",
        ),
    )
    explain = Explanation(
        what="Rounds the decoder's linear weights to 8 bits with a scale a row (int8; fp8 is e4m3) or to 4 bits with a scale for each 128 "
        "of them (int4). The output head gets 8 bits, unless it is the embedding; embeddings and norms keep their precision. A step "
        "unpacks the weights as it multiplies.",
        helps="Decoding few rows on a GPU with captured steps: reading weights is then what takes the time, and half or a quarter of the "
        "bytes take about half or a quarter of it.",
        costs="Output quality, least with int8, most with int4 and for small models. The pass of a prompt of more than 256 tokens "
        "writes the weights out first, so its first token comes later; on a CPU every step does, and is slower than without packing.",
    )
    cases = (
        {"weight_only": "none"},
        {"weight_only": "int8", "precision": "bf16"},
        {"weight_only": "int4", "precision": "bf16"},
        {"weight_only": "fp8", "precision": "bf16"},
    )

    def requires(self, knobs: Knobs, machine: Machine, device: str) -> str | None:
        """fp8 products need the hardware's conversions (Ada, Hopper)."""
        if knobs["weight_only"] != "fp8" or device != "cuda" or not machine.gpus or machine.gpus[0].capability >= FP8:
            return None
        major, minor = machine.gpus[0].capability
        return f"fp8 needs CUDA compute capability 8.9; {machine.gpus[0].name} has {major}.{minor}. Choose int8."

    def conflicts(self, knobs: Knobs) -> str | None:
        """One way to pack the weights, and 16-bit activations."""
        kind = knobs["weight_only"]
        if kind == "none":
            return None
        if knobs["quantization"] != "none":
            other = f"quantization {knobs['quantization']}"
            return f"Weight-only {kind} and {other} exclude each other: both pack the same weights. Set one of them to none."
        if knobs["precision"] == "fp32":
            why = "its products take 16-bit activations. Set precision to bf16 or fp16."
            return f"Weight-only {kind} and fp32 exclude each other: {why}"
        return None

    def expect(self, knobs: Knobs, baseline: Knobs) -> Mapping[str, Effect]:
        """Fewer bits are fewer bytes, fewer bytes less time, and other weights other output. Nothing of the first token: a short prompt has
        less to read too, for a long one the weights are written out (8B shape, 1,024 tokens, H200: bf16 33 ms, int8 81, int4 105)."""
        if knobs["weight_only"] == baseline["weight_only"]:
            return {}
        bits, before = _bits(knobs), _bits(baseline)
        effect: Effect = "same" if bits == before else "down" if bits < before else "up"
        return {"weights_bytes": effect, "itl_s": effect, "kv_cache_bytes": "same", "kld_mean": "up", "top1_agreement": "down"}

    def footprint(self, knobs: Knobs, footprint: Footprint) -> Footprint:
        """The linear layers, and the output head with 8 bits. Up to 256 tokens are multiplied with the packed weights, 64 in a kernel; for
        more the whole matrix is written out in the precision of the activations first."""
        kind = str(knobs["weight_only"])
        if kind == "none":
            return footprint
        unpacked = footprint.weight_bits
        groups = GROUPS if kind == "int4" else ()
        return replace(
            footprint, linear_bits=BITS[kind], linear_groups=groups, head_bits=BITS["int8"], unpack_above=FEW_TOKENS, unpacked_bits=unpacked
        )

    def for_graph(self, knobs: Knobs, setup: TransformersSetup) -> None:
        """The engine packs once the weights are there."""
        setup.weight_only = str(knobs["weight_only"])

    def evidence_for_graph(self, knobs: Knobs, engine: Any) -> Finding:
        """Counts the linear layers by class and by the kind that each says it is, and looks at the output head."""
        kind, layers = str(knobs["weight_only"]), linear_layers(engine.model)
        packed = [layer for layer in layers if type(layer).__name__ == PACKED]
        if kind == "none":
            return Finding(not packed, f"{len(layers)} linear layers, {len(packed)} of them packed by the engine graph")
        right = sum(layer.kind == kind for layer in packed)
        head = _head(engine.model)
        text = f"{right} of {len(layers)} linear layers are packed as {kind}, the output head {head.text}"
        return Finding(bool(layers) and right == len(layers) and head.ok, text)

    def refuses_graph(self, knobs: Knobs, device: str) -> str | None:
        """fp8 on a CPU would be unpacked in every step, and slower than int8 at the same size."""
        if knobs["weight_only"] == "fp8" and device == "cpu":
            return "fp8 needs a GPU: choose int8, which has as many bits, on a CPU."
        return None


def _head(model: Any) -> Finding:
    """Packed, or the embedding itself."""
    head = model.get_output_embeddings()
    if type(head).__name__ == PACKED:
        return Finding(True, f"as {head.kind}")
    return Finding(head.weight is model.get_input_embeddings().weight, f"keeps {str(head.weight.dtype).removeprefix('torch.')}")


def _bits(knobs: Knobs) -> float:
    return BITS.get(str(knobs["weight_only"]), precision.BITS[str(knobs["precision"])])


TECHNIQUE = WeightOnly()
