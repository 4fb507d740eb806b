"""Precision: the number format of weights and activations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from playground.core.knobs import Choice
from playground.core.technique import Effect, Explanation, Finding, Footprint, Knobs, Technique
from playground.techniques.setup import TransformersSetup

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
BITS = {"fp32": 32, "fp16": 16, "bf16": 16}


class Precision(Technique):
    """fp32, fp16 or bf16 weights and activations."""

    name = "precision"
    title = "Precision"
    group = "Numbers"
    order = 10
    phase = "load"
    common = True
    knobs = (
        Choice(
            "precision",
            "Precision",
            tuple(DTYPES),
            "bf16",
            "Number format of weights and activations: 4 bytes (fp32) or 2 bytes (fp16, bf16) a number.",
        ),
    )
    explain = Explanation(
        what="Stores and multiplies numbers with 32 or 16 bits. fp16 keeps more digits, bf16 keeps fp32's range.",
        helps="Decoding reads every weight for every token, so half the bytes can mean twice the speed where memory is the limit; 16-bit "
        "matrix units of GPUs are also many times faster than fp32.",
        costs="Rounding: text can depart from fp32 after some tokens. fp16 overflows beyond 65,504. A CPU without 16-bit arithmetic "
        "converts on the fly and may gain nothing.",
    )
    cases = ({"precision": "fp32"}, {"precision": "fp16"}, {"precision": "bf16"})

    def expect(self, knobs: Knobs, baseline: Knobs) -> Mapping[str, Effect]:
        """Fewer bits are fewer bytes, and fewer bytes less time; formats of equal size are equally fast."""
        if knobs["precision"] == baseline["precision"]:
            return {}
        bits, before = BITS[str(knobs["precision"])], BITS[str(baseline["precision"])]
        effect: Effect = "same" if bits == before else "down" if bits < before else "up"
        return {"weights_bytes": effect, "kv_cache_bytes": effect, "itl_s": effect, "ttft_s": effect}

    def footprint(self, knobs: Knobs, footprint: Footprint) -> Footprint:
        """Weights, KV cache and products in this format."""
        kind = str(knobs["precision"])
        return replace(footprint, weight_bits=BITS[kind], kv_bits=BITS[kind], product_dtype=DTYPES[kind])

    def for_transformers(self, knobs: Knobs, setup: TransformersSetup) -> None:
        """Load in this dtype."""
        setup.dtype = DTYPES[str(knobs["precision"])]

    def evidence_for_transformers(self, knobs: Knobs, engine: Any) -> Finding:
        """Counts the dtypes of all floating-point parameters of more than 8 bits (packed weights are integers or fp8, and not counted)."""
        wanted = str(knobs["precision"])
        numbers = [p for p in engine.model.parameters() if p.is_floating_point() and p.element_size() > 1]
        found = Counter(str(p.dtype).removeprefix("torch.") for p in numbers)
        total, right = sum(found.values()), found[DTYPES[wanted]]
        if right != total:
            listed = ", ".join(f"{count} {dtype}" for dtype, count in sorted(found.items()))
            return Finding(False, f"only {right} of {total} floating-point tensors are {wanted}: {listed}")
        return Finding(True, f"{right} of {total} floating-point tensors are {wanted}")


TECHNIQUE = Precision()
