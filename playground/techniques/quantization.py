"""Quantization of the decoder's linear layers with bitsandbytes: int8 (LLM.int8), nf4 and fp4."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from playground.core.knobs import Choice, Range, Toggle
from playground.core.machine import Machine
from playground.core.problem import Problem
from playground.core.technique import Effect, Explanation, Finding, Footprint, Knobs, Technique
from playground.techniques import precision
from playground.techniques.precision import DTYPES
from playground.techniques.setup import TransformersSetup

FOUR_BIT = ("nf4", "fp4")
BITS = {"int8": 8.0, "nf4": 4.0, "fp4": 4.0}
LAYERS = {"int8": "Linear8bitLt", "nf4": "Linear4bit", "fp4": "Linear4bit"}


class Quantization(Technique):
    """Linear weights in 8 or 4 bits, dequantized (4 bit) or multiplied as integers (int8) at each step."""

    name = "quantization"
    title = "Quantization"
    group = "Numbers"
    order = 20
    phase = "load"
    common = True
    knobs = (
        Choice("quantization", "Quantization", ("none", "int8", "nf4", "fp4"), "none", "Bits of the linear weights (bitsandbytes)."),
        Toggle("double_quantization", "Double quantization", False, "Quantize the 4-bit scales too: about 0.4 bit less a weight.", True),
        Choice(
            "compute_dtype",
            "4-bit compute dtype",
            ("auto", "fp32", "fp16", "bf16"),
            "auto",
            "Format in which dequantized 4-bit weights are multiplied; auto is the precision above.",
            True,
        ),
        Range(
            "int8_threshold",
            "int8 outlier threshold",
            0.0,
            20.0,
            0.5,
            6.0,
            "Activations above it are multiplied in fp16; 0 multiplies all in int8.",
            advanced=True,
        ),
    )
    explain = Explanation(
        what="Stores the decoder's linear weights in 8 or 4 bits with a scale per row or block; embeddings, norms and the output head "
        "stay in 16 or 32 bits.",
        helps="A model fits where it did not, and decoding can get faster where reading weights is the limit.",
        costs="Output quality, most at 4 bit and for small models. Extra kernels a layer: where launching kernels is the limit, int8 and "
        "4-bit are slower than bf16, not faster.",
    )
    cases = (
        {"quantization": "int8", "precision": "fp16"},
        {"quantization": "int8", "precision": "fp16", "int8_threshold": 0.0},
        {"quantization": "nf4"},
        {"quantization": "fp4"},
        {"quantization": "nf4", "double_quantization": True, "compute_dtype": "fp32"},
    )

    def requires(self, knobs: Knobs, machine: Machine, device: str) -> str | None:
        """bitsandbytes and accelerate, and on CUDA compute capability 6.0 (README of bitsandbytes 0.50)."""
        if knobs["quantization"] == "none":
            return None
        for package in ("bitsandbytes", "accelerate"):
            if package not in machine.packages:
                return f"needs the package {package}, which is not installed: pip install {package}"
        if device == "cuda" and machine.gpus and machine.gpus[0].capability < (6, 0):
            major, minor = machine.gpus[0].capability
            return f"needs CUDA compute capability 6.0; {machine.gpus[0].name} has {major}.{minor}"
        return None

    def conflicts(self, knobs: Knobs) -> str | None:
        """int8 multiplies fp16 activations: any other precision would be cast in every layer."""
        if knobs["quantization"] == "int8" and knobs["precision"] != "fp16":
            return (
                f"int8 and {knobs['precision']} exclude each other: bitsandbytes multiplies int8 weights with fp16 activations and would "
                "cast in every layer. Set precision to fp16."
            )
        return None

    def irrelevant(self, knobs: Knobs) -> Mapping[str, str]:
        """The advanced knobs belong to one kind of quantization each."""
        reasons = {}
        if knobs["quantization"] not in FOUR_BIT:
            reasons["double_quantization"] = reasons["compute_dtype"] = "it applies to nf4 and fp4."
        if knobs["quantization"] != "int8":
            reasons["int8_threshold"] = "it applies to int8."
        return reasons

    def expect(self, knobs: Knobs, baseline: Knobs) -> Mapping[str, Effect]:
        """Fewer bits are fewer bytes, fewer bytes less time, and other weights other output."""
        kind, before = str(knobs["quantization"]), str(baseline["quantization"])
        if kind == before:
            nested, was = bool(knobs["double_quantization"]), bool(baseline["double_quantization"])
            return {} if nested == was else {"weights_bytes": "down" if nested else "up", "kld_mean": "up"}
        bits, old = _linear_bits(knobs), _linear_bits(baseline)
        effect: Effect = "same" if bits == old else "down" if bits < old else "up"
        return {"weights_bytes": effect, "itl_s": effect, "kv_cache_bytes": "same", "kld_mean": "up", "top1_agreement": "down"}

    def footprint(self, knobs: Knobs, footprint: Footprint) -> Footprint:
        """The linear layers without the output head; embedding, head, norms and biases keep their precision.

        int8: 8 bits and a 32-bit scale a row (counted as 0.02 bits). 4 bit: a scale per 64 weights, counted with 32 bits as on a GPU (0.5
        bits; a CPU keeps 16 of them); double quantization leaves 8/64 + 32/(64 x 256) = 0.127 bits (QLoRA paper, section 3).

        Kernels count in host time, in units of a plain one (bitsandbytes 0.50, CUDA). int8 quantizes the activations, multiplies and scales
        the result; a threshold above 0 adds kernels that look for outliers, for whose answer the host waits: 5.5 kernels more a layer in a
        profile, and the time of 16 more plain ones (fitted to the 1B and 8B Llama shapes on an H200; other hosts will differ). 4 bit
        multiplies packed weights in one kernel up to 7 tokens, which takes the host as long as 3.7 plain ones (fitted likewise), and on
        large GPUs mostly unpacks the whole matrix first beyond (gemm_4bit's table by chip and shape; a CPU with AVX512-BF16 never
        unpacks); double quantization then unpacks the scales too.
        """
        kind = knobs["quantization"]
        if kind == "none":
            return footprint
        if kind == "int8":
            return replace(footprint, linear_bits=8.02, linear_kernels=17.0 if knobs["int8_threshold"] else 3.0)
        nested = bool(knobs["double_quantization"])
        compute = precision.BITS.get(str(knobs["compute_dtype"]), footprint.weight_bits)
        return replace(
            footprint,
            linear_bits=4.127 if nested else 4.5,
            linear_kernels=3.7,
            unpack_above=7,
            unpacked_bits=compute,
            unpack_kernels=3.0 if nested else 1.0,
            product_dtype=precision.DTYPES.get(str(knobs["compute_dtype"]), footprint.product_dtype),
        )

    def for_transformers(self, knobs: Knobs, setup: TransformersSetup) -> None:
        """A BitsAndBytesConfig for `from_pretrained`."""
        kind = str(knobs["quantization"])
        if kind == "none":
            return
        refuse_quantized(setup.config, f"quantization {kind}")
        import torch
        from transformers import BitsAndBytesConfig

        if kind == "int8":
            config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=float(knobs["int8_threshold"]))
        else:
            compute = str(knobs["compute_dtype"])
            config = BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type=kind,
                bnb_4bit_use_double_quant=bool(knobs["double_quantization"]),
                bnb_4bit_compute_dtype=getattr(torch, DTYPES.get(compute, setup.dtype)),
            )
        setup.load["quantization_config"] = config

    def evidence_for_transformers(self, knobs: Knobs, engine: Any) -> Finding:
        """Counts the linear layers by their real class, without the output head, and reads the state of one of them."""
        kind, linears = str(knobs["quantization"]), linear_layers(engine.model)
        if kind == "none" and (method := comes_quantized(engine.options.config)):
            return _as_it_came(method, engine.model)
        if kind == "none":
            packed = sum(type(m).__name__ in LAYERS.values() for m in linears)
            return Finding(packed == 0, f"{len(linears)} linear layers, {packed} of them quantized by bitsandbytes")
        right = [m for m in linears if type(m).__name__ == LAYERS[kind] and _is(m, kind)]
        text = f"{len(right)} of {len(linears)} Linear layers are {LAYERS[kind]} ({kind}{_details(right[:1], kind)})"
        return Finding(bool(right) and len(right) == len(linears), text)

    def refuses_graph(self, knobs: Knobs, device: str) -> str | None:
        """No answer that the host waits for: CUDA captures no such step (cudaErrorStreamCaptureUnsupported)."""
        if knobs["quantization"] == "int8" and knobs["int8_threshold"] and device == "cuda":
            return (
                "with an outlier threshold int8 makes the host wait for the search in every layer, and such a step cannot be captured: "
                "choose weight-only int8, or int8_threshold 0."
            )
        return None


def linear_layers(model: Any) -> list[Any]:
    """The decoder's linear layers, of whatever class: without the output head and without the layers of an adapter."""
    return list(linear_names(model).values())


def linear_names(model: Any) -> dict[str, Any]:
    """The same by their paths in the model."""
    head = model.get_output_embeddings()
    plain = {name: m for name, m in model.named_modules() if ".lora_" not in name and not hasattr(m, "base_layer")}
    return {name: m for name, m in plain.items() if hasattr(m, "in_features") and hasattr(m, "out_features") and m is not head}


def comes_quantized(config: Mapping[str, Any]) -> str:
    """The method by which the weights of a checkpoint are quantized already, by its config.json, e.g. "gptq"; "" for plain weights."""
    found = config.get("quantization_config")
    return str(found.get("quant_method") or "an unnamed method") if isinstance(found, Mapping) else ""


def refuse_quantized(config: Mapping[str, Any], what: str) -> None:
    """Raises Problem("user") for a checkpoint whose weights are packed already; `what`: that which needs plain ones."""
    if method := comes_quantized(config):
        way_out = "Leave that out: the model loads as it is."
        raise Problem("user", f"This model comes quantized ({method}), and {what} needs plain weights. {way_out}")


def _as_it_came(method: str, model: Any) -> Finding:
    """What the loaded layers of a quantized checkpoint are; some kinds are unpacked while they load where the device has no kernels."""
    layers = linear_layers(model)
    kinds = Counter(kind for kind in map(_packed_kind, layers) if kind)
    packed = ", ".join(f"{count} of {len(layers)} linear layers are {kind}" for kind, count in kinds.items())
    schemes = Counter(scheme for scheme in map(_scheme, layers) if scheme)
    came = f" ({'; '.join(f'{count} {scheme}' for scheme, count in schemes.items())})" if schemes else ""
    what = packed or f"all {len(layers)} linear layers were unpacked while loading{came}"
    return Finding(True, f"the checkpoint comes quantized ({method}): {what}")


def _packed_kind(layer: Any) -> str:
    """Class and bits of a packed layer, e.g. "Linear4bit (nf4, 4 bits)"; "" for a plain one."""
    name, weight = type(layer).__name__, getattr(layer, "weight", None)
    if name in LAYERS.values():
        state = getattr(weight, "quant_state", None)
        return f"{name} ({state.quant_type + ', ' if state is not None else ''}{'8' if name == LAYERS['int8'] else '4'} bits)"
    bits = getattr(layer, "bits", None) or getattr(layer, "w_bit", None)  # gptqmodel
    if bits:
        return f"{name} ({bits} bits{_groups(getattr(layer, 'group_size', None))})"
    stored = getattr(weight, "qdata", None)  # torchao
    if stored is not None:
        return f"{name} with {type(weight).__name__} ({str(stored.dtype).removeprefix('torch.')})"
    plain = weight is not None and weight.is_floating_point() and weight.element_size() > 1
    return "" if plain else f"{name} ({scheme})" if (scheme := _scheme(layer)) else name


def _scheme(layer: Any) -> str:
    """How compressed-tensors says that a layer came, be it unpacked since or not, e.g. "pack-quantized, 4 bits, groups of 128"."""
    scheme: Any = getattr(layer, "quantization_scheme", None)
    weights, inputs = getattr(scheme, "weights", None), getattr(scheme, "input_activations", None)
    if weights is None:
        return ""
    form = str(getattr(scheme.format, "value", scheme.format or "no format"))
    rounded = f", activations rounded to {inputs.num_bits} bits" if inputs is not None else ""
    return f"{form}, {weights.num_bits} bits{_groups(weights.group_size)}{rounded}"


def _groups(size: Any) -> str:
    return f", groups of {size}" if isinstance(size, int) and size > 0 else ""


def _linear_bits(knobs: Knobs) -> float:
    return BITS.get(str(knobs["quantization"]), precision.BITS[str(knobs["precision"])])


def _is(layer: Any, kind: str) -> bool:
    if kind == "int8":
        return "int8" in str(layer.weight.dtype)
    state = getattr(layer.weight, "quant_state", None)
    return state is not None and state.quant_type == kind


def _details(layers: list[Any], kind: str) -> str:
    """Settings read back from the layer, not from the knobs."""
    for layer in layers:
        if kind == "int8":
            return f", outlier threshold {layer.state.threshold:g}"
        state = layer.weight.quant_state
        dtype = str(layer.compute_dtype).removeprefix("torch.")
        return f", blocks of {state.blocksize}, {'double quantization, ' if state.nested else ''}compute {dtype}"
    return ""


TECHNIQUE = Quantization()
