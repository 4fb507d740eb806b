"""The decoder's linear weights stay in the blocks of the model's GGUF file, and each product unpacks them.

transformers unpacks a llama's GGUF file when it loads it; the layers that keep the blocks are ours (engines.decode.gguf). Example::

    python -m playground run --model ~/models/some.Q4_K_M.gguf --set gguf_blocks=on
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from playground.core.knobs import Toggle
from playground.core.machine import Machine
from playground.core.technique import Effect, Explanation, Finding, Footprint, Knobs, Technique, flipped
from playground.techniques.quantization import linear_layers
from playground.techniques.setup import TransformersSetup

CLASS = "GgufLinear"
RANDOM_KIND = "Q4_1"  # what the random weights of a shape are rounded to: the type of the offline default model
BITS = 5.0  # of a weight in that type, with its scale and minimum
PACKERS = ("quantization", "weight_only", "torchao")  # knobs of techniques that pack the same weights
KERNELS = 8.0  # operators that compute, to unpack Q4_1 in fp32; a cast more in 16 bits (profile of a CPU, transformers 5.23)


class GgufBlocks(Technique):
    """GGUF blocks in memory in place of the weights that they stand for."""

    name = "gguf_blocks"
    title = "GGUF blocks"
    group = "Numbers"
    order = 21  # with quantization: how the model is loaded
    phase = "load"
    knobs = (Toggle("gguf_blocks", "GGUF blocks", False, "Keep the linear weights of a GGUF file packed, and unpack them in each step."),)
    explain = Explanation(
        what="Keeps the blocks of a GGUF file, 32 or 256 weights in some 4 to 8 bits each with their scales, packed in memory. As a rule "
        "they are unpacked once, when the file is converted; this unpacks a linear layer of the decoder each time it multiplies. "
        "Embeddings, norms and the output head stay as they are. A shape's random weights are rounded to Q4_1.",
        helps="A model fits where its unpacked weights do not, with the same output to the bit: they are the same numbers.",
        costs="Time: every step unpacks every weight before it multiplies, which moves more bytes than unpacked weights would. A kernel "
        "that multiplies the blocks themselves, as llama.cpp has, would be faster than unpacked weights; eager PyTorch has none.",
    )
    cases = ({"gguf_blocks": True}, {"gguf_blocks": True, "precision": "bf16"})

    def requires(self, knobs: Knobs, machine: Machine, device: str) -> str | None:
        """The gguf package and accelerate."""
        for package in ("gguf", "accelerate"):
            if knobs["gguf_blocks"] and package not in machine.packages:
                return f"needs the package {package}, which is not installed: pip install {package}."
        return None

    def conflicts(self, knobs: Knobs) -> str | None:
        """One way to pack the weights, and nothing that changes them one by one."""
        if not knobs["gguf_blocks"]:
            return None
        if other := next((f"{name} {knobs[name]}" for name in PACKERS if knobs[name] != "none"), None):
            return f"GGUF blocks and {other} exclude each other: both pack the same weights. Set gguf_blocks to off, or the other to none."
        if knobs["prune"] not in ("none", "layers"):
            why = "single weights of packed blocks cannot be taken away. Set gguf_blocks to off, or prune to layers."
            return f"GGUF blocks and pruning by {knobs['prune']} exclude each other: {why}"
        if knobs["adapter"] and knobs["adapter_mode"] == "merged":
            return "A merged adapter and GGUF blocks exclude each other: nothing is added to packed weights. Set adapter_mode to unmerged."
        if knobs["autocast"] != "off":
            why = "there are no fp32 weights to cast. Set gguf_blocks or autocast to off."
            return f"GGUF blocks and autocast {knobs['autocast']} exclude each other: {why}"
        return None

    def expect(self, knobs: Knobs, baseline: Knobs) -> Mapping[str, Effect]:
        """The same numbers in fewer bytes; each step unpacks them, which moves more than reading them unpacked would."""
        if knobs["gguf_blocks"] == baseline["gguf_blocks"]:
            return {}
        same: dict[str, Effect] = dict.fromkeys(("kv_cache_bytes", "kld_mean", "top1_agreement"), "same")
        effects: dict[str, Effect] = {"weights_bytes": "down", "itl_s": "up", **same}
        return effects if knobs["gguf_blocks"] else flipped(effects)

    def footprint(self, knobs: Knobs, footprint: Footprint) -> Footprint:
        """The linear layers without the head, in the file's bits where the model's facts have them; each product first writes its weights
        out in float32."""
        if not knobs["gguf_blocks"]:
            return footprint
        kernels = KERNELS + (footprint.weight_bits < 32)
        return replace(footprint, linear_bits=BITS, in_blocks=True, unpack_above=0, unpacked_bits=32.0, unpack_kernels=kernels)

    def for_transformers(self, knobs: Knobs, setup: TransformersSetup) -> None:
        """The engine loads the blocks."""
        setup.gguf_blocks = bool(knobs["gguf_blocks"])

    def evidence_for_transformers(self, knobs: Knobs, engine: Any) -> Finding:
        """Counts the linear layers that hold bytes, by the type of their blocks, and those bytes."""
        layers = linear_layers(engine.model)
        packed = [layer for layer in layers if type(layer).__name__ == CLASS and layer.weight.element_size() == 1]
        if not knobs["gguf_blocks"]:
            return Finding(not packed, f"{len(packed)} of {len(layers)} Linear layers keep GGUF blocks")
        kinds = ", ".join(f"{kind} {count}" for kind, count in Counter(layer.kind for layer in packed).most_common())
        weights = sum(layer.in_features * layer.out_features for layer in packed)
        bits = 8 * sum(layer.weight.nbytes for layer in packed) / max(weights, 1)
        text = f"{len(packed)} of {len(layers)} Linear layers keep their GGUF blocks"
        plain = f"; {len(layers) - len(packed)} are plain, as in the file" if len(packed) < len(layers) else ""
        return Finding(bool(packed), f"{text} ({kinds}): {bits:.1f} bits a weight{plain}" if packed else text)

    def refuses_graph(self, knobs: Knobs, device: str) -> str | None:
        """It packs weights for kernels of its own."""
        if knobs["gguf_blocks"]:
            return "the engine graph packs weights for its own kernels: choose weight_only with this engine, or the engine transformers."
        return None


TECHNIQUE = GgufBlocks()
