"""torchao: the decoder's linear weights in 8 or 4 bits as tensors of another class, in transformers' own layers.

`torchao.quantize_` puts them in the place of the loaded weights, pruned or not. Example::

    python -m playground run --set torchao=int8_weight_only
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from playground.core.knobs import Choice
from playground.core.machine import Machine
from playground.core.problem import Problem
from playground.core.technique import Effect, Explanation, Finding, Footprint, Knobs, Technique
from playground.techniques import precision
from playground.techniques.quantization import comes_quantized, linear_layers, refuse_quantized
from playground.techniques.setup import TransformersSetup

GROUPS = (128, 64, 32)  # weights that share a scale and a zero point with int4: the largest that divides the inputs of all layers
BITS = {"int8_weight_only": 8.02, "int4_weight_only": 4.25, "int8_dynamic": 8.02, "fp8": 8.02}  # with the scales; int4 in groups of 128
CLASSES = {
    "int8_weight_only": "Int8Tensor",
    "int4_weight_only": "Int4TilePackedTo4dTensor",
    "int8_dynamic": "Int8Tensor",
    "fp8": "Float8Tensor",
}
DYNAMIC = ("int8_dynamic", "fp8")  # round the activations as well
CAPABILITY = {"int4_weight_only": (8, 0), "fp8": (8, 9)}


class TorchAO(Technique):
    """Weights of torchao's tensor classes, with or without rounded activations."""

    name = "torchao"
    title = "torchao"
    group = "Numbers"
    order = 24  # after pruning, which needs plain weights
    phase = "load"
    knobs = (
        Choice(
            "torchao",
            "torchao",
            ("none", *BITS),
            "none",
            "Bits of the linear weights with PyTorch's own library; int8_dynamic and fp8 round the activations too.",
        ),
    )
    explain = Explanation(
        what="PyTorch's own library for quantization puts tensors of 8 or 4 bits into the decoder's linear layers; embeddings, norms and "
        "the output head stay as they are. Weight-only multiplies in the precision of the activations. int8_dynamic and fp8 round each "
        "token's activations as well, so that the product itself has 8 bits.",
        helps="Weights take half or a quarter of the memory of 16 bits. Long prompts and large batches can gain from products of 8 bits, "
        "where the processor is faster at them; torch.compile joins the rounding of fp8 and int8_dynamic to other kernels.",
        costs="Output quality, least with int8_weight_only, most with int4_weight_only. int8_weight_only writes each weight out in full "
        "precision at every step, and uncompiled int8_dynamic runs many small operations a layer: decoding gains nothing or is slower. "
        "On a GPU int8_dynamic is slowest: torchao 0.18 writes each layer's input out as text, to see what kind of tensor it is, and with "
        "16 rows or fewer, for which torch has no product of integers, it multiplies in fp32.",
    )
    cases = (
        {"torchao": "int8_weight_only"},
        {"torchao": "int8_weight_only", "precision": "bf16"},
        {"torchao": "int4_weight_only", "precision": "bf16"},
        {"torchao": "int8_dynamic"},
        {"torchao": "fp8", "precision": "bf16"},
    )

    def requires(self, knobs: Knobs, machine: Machine, device: str) -> str | None:
        """The package; for int4 and fp8 a GPU whose tensor cores have them (torchao 0.18: no CPU layout of int4 without the package mslk,
        and no fp8 products on a CPU); and what compiled steps multiply."""
        kind = str(knobs["torchao"])
        if kind == "none":
            return None
        if "torchao" not in machine.packages:
            return "needs the package torchao, which is not installed: pip install torchao."
        if kind == "int8_dynamic" and device != "cpu" and knobs.get("compile", "off") != "off":
            why = "torch's product of integers needs more than 16 rows there, and a step may have one"
            return f"int8_dynamic cannot be compiled on a GPU: {why}. Set compile to off, or torchao to int8_weight_only."
        wanted = CAPABILITY.get(kind)
        if wanted is None:
            return None
        needs = f"{kind} needs a GPU of CUDA compute capability {wanted[0]}.{wanted[1]}"
        if device == "cpu":
            return f"{needs}: its products have no CPU kernels. Choose int8_weight_only or int8_dynamic."
        if machine.gpus and machine.gpus[0].capability < wanted:
            major, minor = machine.gpus[0].capability
            return f"{needs}; {machine.gpus[0].name} has {major}.{minor}. Choose int8_weight_only or int8_dynamic."
        return None

    def conflicts(self, knobs: Knobs) -> str | None:
        """One way to pack the weights; int4 and fp8 kernels take bf16 alone; nothing is merged into packed weights."""
        kind = str(knobs["torchao"])
        if kind == "none":
            return None
        other = next((f"{name} {knobs[name]}" for name in ("quantization", "weight_only") if knobs[name] != "none"), None)
        if other:
            return f"torchao {kind} and {other} exclude each other: both pack the same weights. Set one of them to none."
        if knobs["adapter"] and knobs["adapter_mode"] == "merged":
            return (
                f"A merged adapter and torchao {kind} exclude each other: nothing is added to packed weights. Set adapter_mode to unmerged."
            )
        if kind in CAPABILITY and knobs["precision"] != "bf16":
            return f"torchao {kind} and {knobs['precision']} exclude each other: its kernels take bf16. Set precision to bf16."
        return None

    def expect(self, knobs: Knobs, baseline: Knobs) -> Mapping[str, Effect]:
        """Fewer bits are fewer bytes and other output. Less time only where a kernel reads the packed weights: int8 in eager PyTorch
        moves more than plain weights do."""
        kind, before = str(knobs["torchao"]), str(baseline["torchao"])
        if kind == before:
            return {}
        slower = {"int8_weight_only": 1, "int8_dynamic": 1, "none": 0}
        times = slower.get(kind, -1) - slower.get(before, -1)
        bits = _bits(knobs) - _bits(baseline)
        step: dict[str, Effect] = {"itl_s": "up" if times > 0 else "down"} if times else {}
        size: Effect = "same" if not bits else "up" if bits > 0 else "down"
        return {"weights_bytes": size, **step, "kv_cache_bytes": "same", "kld_mean": "up", "top1_agreement": "down"}

    def footprint(self, knobs: Knobs, footprint: Footprint) -> Footprint:
        """The linear layers without the head. int8_weight_only: every product first writes its weights out in the precision of the
        activations, and scales after. int8_dynamic: 36 operators that compute, for one product and the rounding of its input, and 5 casts
        more in 16 bits (profile of a CPU, torchao 0.18), which a compiled step joins. int4 and fp8: their kernels were not counted."""
        kind = str(knobs["torchao"])
        if kind == "none":
            return footprint
        casts = footprint.weight_bits < 32
        footprint = replace(footprint, linear_bits=BITS[kind])
        if kind == "int8_weight_only":
            return replace(footprint, linear_kernels=3.0 if casts else 2.0, unpack_above=0, unpacked_bits=footprint.weight_bits)
        if kind == "int8_dynamic":
            kernels = 41.0 if casts else 36.0
            return replace(footprint, linear_kernels=kernels, joined_kernels=kernels - 1)
        return footprint

    def for_transformers(self, knobs: Knobs, setup: TransformersSetup) -> None:
        """A change of the loaded model."""
        kind = str(knobs["torchao"])
        if kind != "none":
            refuse_quantized(setup.config, f"torchao {kind}")
            setup.changes.append(partial(_packed, kind, setup.device))

    def evidence_for_transformers(self, knobs: Knobs, engine: Any) -> Finding:
        """Counts the linear layers by the class of their weights, and looks at what one says of its activations."""
        kind, layers = str(knobs["torchao"]), linear_layers(engine.model)
        ours = [layer.weight for layer in layers if _is_torchao(layer)]
        if kind == "none":
            return Finding(
                not ours or comes_quantized(engine.options.config) == "torchao",
                f"{len(layers)} linear layers, {len(ours)} of them with torchao's tensors",
            )
        right = [weight for weight in ours if type(weight).__name__ == CLASSES[kind] and _rounds(weight) == (kind in DYNAMIC)]
        stored = f" ({_dtype(right[0])}, activations {'rounded for each token' if kind in DYNAMIC else 'kept'})" if right else ""
        text = f"{len(right)} of {len(layers)} linear layers have weights of torchao's class {CLASSES[kind]}{stored}"
        return Finding(0 < len(right) == len(layers), text)

    def refuses_graph(self, knobs: Knobs, device: str) -> str | None:
        """It has kernels of its own for packed weights, and joins plain ones."""
        if knobs["torchao"] == "none":
            return None
        return "the engine graph packs weights for its own kernels: choose weight_only with this engine, or the engine transformers."


def _packed(kind: str, device: str, model: Any) -> Any:
    """The loaded model, its decoder's linear weights replaced."""
    from torchao.quantization import quantize_

    layers = {id(layer) for layer in linear_layers(model)}
    quantize_(model, _config(kind, device, linear_layers(model)), filter_fn=lambda module, name: id(module) in layers)
    return model


def _config(kind: str, device: str, layers: list[Any]) -> Any:
    """torchao's configuration, which is to leave torch's global settings alone; a CPU without VNNI instructions would overflow with the
    full range of int8."""
    import torch
    from torchao import quantization as ao
    from torchao.utils import should_reduce_range

    if kind == "int8_weight_only":
        return ao.Int8WeightOnlyConfig(set_inductor_config=False)
    if kind == "int8_dynamic":
        narrow = should_reduce_range(torch.device(device))
        return ao.Int8DynamicActivationInt8WeightConfig(reduce_range=narrow, set_inductor_config=False)
    if kind == "fp8":
        return ao.Float8DynamicActivationFloat8WeightConfig(granularity=ao.PerRow(), set_inductor_config=False)
    group = next((size for size in GROUPS if all(layer.in_features % size == 0 for layer in layers)), None)
    if group is None:
        raise Problem(
            "unsupported", f"int4 needs layers whose inputs are a multiple of {GROUPS[-1]}: choose int8_weight_only for this model."
        )
    return ao.Int4WeightOnlyConfig(group_size=group, int4_packing_format="tile_packed_to_4d", set_inductor_config=False)


def _is_torchao(layer: Any) -> bool:
    return type(getattr(layer, "weight", None)).__module__.startswith("torchao.")


def _rounds(weight: Any) -> bool:
    """Whether products with this weight round the activations first."""
    return getattr(weight, "act_quant_kwargs", None) is not None


def _dtype(weight: Any) -> str:
    return str(weight.qdata.dtype).removeprefix("torch.")


def _bits(knobs: Knobs) -> float:
    return BITS.get(str(knobs["torchao"]), precision.BITS[str(knobs["precision"])])


TECHNIQUE = TorchAO()
