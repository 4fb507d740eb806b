"""Mixed precision: fp32 weights, multiplied in 16 bits by torch's autocast.

Autocast leaves the loaded model as it is and casts the inputs of each product when it runs, weights among them. Example::

    TECHNIQUE.for_transformers({"autocast": "bf16"}, setup)   # setup.run.contexts now enters torch.autocast("cpu", torch.bfloat16)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from playground.core.knobs import Choice
from playground.core.machine import Machine
from playground.core.technique import Effect, Explanation, Finding, Footprint, Knobs, Technique, flipped
from playground.techniques.precision import DTYPES
from playground.techniques.quantization import refuse_quantized
from playground.techniques.setup import TransformersSetup

PACKERS = ("quantization", "weight_only", "torchao")  # knobs that leave no fp32 weights to cast


class MixedPrecision(Technique):
    """Products in fp16 or bf16 over weights that stay in fp32."""

    name = "mixed_precision"
    title = "Mixed precision"
    group = "Numbers"
    order = 15
    phase = "run"
    knobs = (
        Choice(
            "autocast",
            "Autocast",
            ("off", "fp16", "bf16"),
            "off",
            "Multiply fp32 weights in 16 bits: torch casts the inputs of each matrix product just before it, weights included.",
        ),
    )
    explain = Explanation(
        what="Leaves the weights in fp32, and torch.autocast casts what goes into matrix products and attention to 16 bits when they run. "
        "Norms, softmax and the KV cache keep fp32.",
        helps="A long prompt where 16-bit matrix units are many times faster than fp32: its arithmetic outweighs the casts. And training, "
        "where fp32 weights are needed.",
        costs="No memory is saved, and decoding often gets slower: in training the cast of a weight is kept for a whole pass, but torch "
        "keeps it only of weights that want a gradient and never in inference mode, so each step reads every weight in 4 bytes, writes "
        "it in 2 and reads it again. Weights in fp16 or bf16 (precision) are smaller and need no cast.",
    )
    cases = ({"autocast": "off", "precision": "fp32"}, {"autocast": "fp16", "precision": "fp32"}, {"autocast": "bf16", "precision": "fp32"})

    def requires(self, knobs: Knobs, machine: Machine, device: str) -> str | None:
        """A GPU before compute capability 8.0 has no arithmetic in bf16."""
        if knobs["autocast"] == "bf16" and device == "cuda" and machine.gpus and machine.gpus[0].capability < (8, 0):
            major, minor = machine.gpus[0].capability
            return f"bf16 needs CUDA compute capability 8.0; {machine.gpus[0].name} has {major}.{minor}. Choose fp16."
        return None

    def conflicts(self, knobs: Knobs) -> str | None:
        """fp32 weights to cast, and passes of our own to enter autocast around."""
        kind = knobs["autocast"]
        if kind == "off":
            return None
        if knobs["precision"] != "fp32":
            return (
                f"autocast {kind} and precision {knobs['precision']} exclude each other: autocast is for weights in fp32, and these have "
                "16 bits already. Set precision to fp32, or autocast to off."
            )
        if packer := next((name for name in PACKERS if knobs.get(name, "none") != "none"), None):
            return (
                f"autocast {kind} and {packer} {knobs[packer]} exclude each other: quantized weights are not fp32, and their kernels "
                f"choose their own formats. Set {packer} to none, or autocast to off."
            )
        if knobs.get("serving") == "continuous":
            return (
                f"autocast {kind} and continuous batching exclude each other: transformers runs those passes in a thread of its own, where "
                "autocast is not entered. Set serving to batches, or autocast to off."
            )
        return None

    def expect(self, knobs: Knobs, baseline: Knobs) -> Mapping[str, Effect]:
        """The same bytes are kept, more of them move in a step, and products are rounded. Both formats have two bytes."""
        kind, before = knobs["autocast"], baseline["autocast"]
        if kind == before:
            return {}
        effects: dict[str, Effect] = {"weights_bytes": "same", "kv_cache_bytes": "same", "itl_s": "same"}
        if "off" in (kind, before):
            effects["itl_s"] = "up"
        return {**(flipped(effects) if kind == "off" else effects), "kld_mean": "up"}

    def footprint(self, knobs: Knobs, footprint: Footprint) -> Footprint:
        """Each weight is written out in 16 bits in every pass. Kernels (the profile of a step on a CPU, torch 2.13): a cast of each linear
        layer's input and one of its weight; 8 casts more in a layer's attention and norms. The KV cache stays in fp32: keys do, since the
        tables of rotary positions are fp32, and to join new values to the empty fp32 cache makes fp32 of them."""
        if knobs["autocast"] == "off":
            return footprint
        return replace(
            footprint,
            unpack_above=0,
            unpacked_bits=16.0,
            linear_kernels=footprint.linear_kernels + 1,
            unpack_kernels=1.0,
            layer_kernels=footprint.layer_kernels + 8,
            product_dtype=DTYPES[str(knobs["autocast"])],
        )

    def for_transformers(self, knobs: Knobs, setup: TransformersSetup) -> None:
        """torch.autocast around every forward pass."""
        if knobs["autocast"] == "off":
            return
        refuse_quantized(setup.config, f"autocast {knobs['autocast']}")
        import torch

        device, dtype = setup.device, getattr(torch, DTYPES[str(knobs["autocast"])])
        setup.run.contexts.append(lambda: torch.autocast(device, dtype))

    def evidence_for_transformers(self, knobs: Knobs, engine: Any) -> Finding:
        """Asks torch inside a pass whether autocast is on; then runs two passes of one token and counts which weights are cast in each."""
        import torch

        device, kind = engine.options.device, str(knobs["autocast"])
        with engine.passing():
            entered = torch.is_autocast_enabled(device)
        if kind == "off" or not entered:
            return Finding(kind == "off" and not entered, f"{int(entered)} autocast is entered around a forward pass")
        (first, logits), (again, _) = cast_weights(engine), cast_weights(engine)
        total = sum(_shapes(engine.model).values())
        cached = getattr(engine.cache.layers[0], "keys", None) if engine.cache is not None else None
        cache = f"; the KV cache holds {_name(cached.dtype)}" if cached is not None else ""
        casts = f"a pass casts {first} of {total} weights of linear layers, and the next one {again} again"
        text = f"logits come in {_name(logits)}; {casts}{cache}"
        return Finding(_name(logits) == DTYPES[kind] and first > 0, text)

    def refuses_transformers(self, knobs: Knobs, device: str) -> str | None:
        """transformers' static cache takes one format."""
        if knobs["autocast"] == "off" or knobs["kv_cache"] != "static":
            return None
        return (
            f"under autocast keys come in fp32 and values in {knobs['autocast']}, and a static cache has one format for both: set "
            "kv_cache to dynamic, or autocast to off."
        )

    def refuses_graph(self, knobs: Knobs, device: str) -> str | None:
        """Its own layers and captured steps multiply what is there."""
        if knobs["autocast"] == "off":
            return None
        return "captured steps multiply the weights in the format that they have: choose another precision, or the engine transformers."


def cast_weights(engine: Any) -> tuple[int, Any]:
    """How many weights of linear layers one forward pass of one token casts, as the profiler sees it, and the dtype of its logits.

    A weight has two dimensions and what flows through the layers has three, so a cast of a weight is known by its shape.
    """
    import torch
    from torch.profiler import ProfilerActivity, profile

    ids = torch.zeros(1, 1, dtype=torch.long, device=engine.options.device)
    with engine.passing(), profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        logits = engine.model(input_ids=ids, use_cache=False).logits
    shapes = [tuple(event.input_shapes[0]) for event in profiler.events() if event.name == "aten::_to_copy" and event.input_shapes]
    return sum((Counter(shapes) & _shapes(engine.model)).values()), logits.dtype


def _shapes(model: Any) -> Counter[tuple[int, ...]]:
    import torch

    return Counter(tuple(module.weight.shape) for module in model.modules() if isinstance(module, torch.nn.Linear))


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


TECHNIQUE = MixedPrecision()
