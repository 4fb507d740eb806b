"""Weights into memory, in the worker: a folder's safetensors, or random ones for a shape.

Random weights are made tensor by tensor on the device in their final form, so that an 8B model never needs more room than its final size.
Example::

    model = build_random(resolved.folder, torch.bfloat16, "cuda")
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from playground.core.problem import Problem

SEED = 0
STD = 0.02
CHUNK = 1 << 24
# What transformers 5.23 loads a checkpoint with whose weights come packed by these methods.
LIBRARIES = {
    "gptq": ("optimum", "gptqmodel"),
    "awq": ("gptqmodel",),
    "compressed-tensors": ("compressed-tensors",),
    "torchao": ("torchao",),
    "hqq": ("hqq",),
}


def import_architecture(config: Mapping[str, Any]) -> None:
    """The code of a config's architecture and all that it imports, which takes seconds in a fresh process and is no loading of weights.
    Never fails: loading says better what is wrong with a model."""
    with contextlib.suppress(Exception):
        from transformers import AutoTokenizer  # noqa: F401
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

        MODEL_FOR_CAUSAL_LM_MAPPING.get(CONFIG_MAPPING[config["model_type"]], None)


def load_pretrained(folder: Path, dtype: Any, device: str, quantization_config: Any = None, *, held_on: str = "", **options: Any) -> Any:
    """The transformers model of `folder` on `device`, in `dtype` (torch), ready for inference.

    quantization_config: a transformers BitsAndBytesConfig or None; held_on: the device that gets all weights in place of `device`, for a
    caller that moves them itself; options: more for from_pretrained, such as attn_implementation.
    Raises Problem("model") for an architecture that transformers does not know or that needs code of its own, Problem("unsupported") for
    packed weights whose library or device is missing.
    """
    import torch
    from transformers import AutoModelForCausalLM

    if quantization_config is not None:
        options["quantization_config"] = quantization_config
    fixed = {"local_files_only": True, "use_safetensors": True, "trust_remote_code": False, "device_map": {"": held_on or device}}
    method = _check_method(folder)
    if method == "awq" and (device != "cpu" or (dtype == torch.bfloat16 and torch.cuda.is_available())):
        # Known beforehand, and loading first would compile kernels for minutes.
        _check_precision(method, dtype, torch.float16)
    _check_library(method)
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **fixed, **options)
    except (ImportError, RuntimeError) as error:
        if not method or isinstance(error, torch.OutOfMemoryError):
            raise
        sentence = f"This model comes quantized ({method}), and it cannot be loaded on this device ({device}): {_first_line(error)}"
        raise Problem("unsupported", sentence, repr(error)) from error
    except (ValueError, OSError, KeyError) as error:
        raise _unloadable(str(folder), error) from error
    if method:
        _check_precision(method, dtype, model.dtype)
    if hasattr(model, "ct_decompress_hook"):
        # compressed-tensors unpacks all weights in the first pass and keeps them so: that belongs to loading, in time and in memory.
        model.hf_quantizer.compressor.decompress_model(model)
    return _frozen(model)


def build_random(
    folder_or_config: Path | Mapping[str, Any],
    dtype: Any,
    device: str,
    quantization_config: Any = None,
    *,
    seed: int = SEED,
    held_on: str | Callable[[str], str] = "",
    **options: Any,
) -> Any:
    """A model with random weights on `device`: normal(0, 0.02), norms 1, biases 0; the same seed draws the same numbers for every dtype.

    folder_or_config: a folder with config.json, or its content. quantization_config: a transformers BitsAndBytesConfig; then each linear
    layer but the output head is quantized as soon as it is made. held_on: the device that keeps what `device` drew, or gives it of a
    module's path ("": the same one), so that no device needs room for more than it keeps and one tensor.
    options: more for from_config, such as attn_implementation.
    """
    import torch

    model = empty_model(folder_or_config, dtype, **options)
    if quantization_config is not None:
        _use_bitsandbytes(model, quantization_config)
    with torch.no_grad():
        _materialise(model, torch.device(device), seed, held_on if callable(held_on) else lambda path: held_on)
    return _frozen(model)


def empty_model(folder_or_config: Path | Mapping[str, Any], dtype: Any, **options: Any) -> Any:
    """A model whose parameters have no storage; its buffers, such as the rotary frequencies, are real, for no checkpoint holds them.

    folder_or_config: a folder with config.json, or its content; options: more for from_config. Raises Problem("model")."""
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        if isinstance(folder_or_config, Mapping):
            config = AutoConfig.for_model(**folder_or_config)
        else:
            config = AutoConfig.from_pretrained(folder_or_config, local_files_only=True, trust_remote_code=False)
        with init_empty_weights(include_buffers=False):
            return AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False, **options)
    except (ValueError, OSError, KeyError) as error:
        raise _unloadable(str(folder_or_config), error) from error


def _use_bitsandbytes(model: Any, quantization_config: Any) -> None:
    from transformers.integrations import replace_with_bnb_linear

    skipped = quantization_config.llm_int8_skip_modules or ["lm_head"]
    replace_with_bnb_linear(model, modules_to_not_convert=skipped, quantization_config=quantization_config)


def _materialise(model: Any, device: Any, seed: int, held_on: Callable[[str], str]) -> None:
    import torch

    tied = model.config.tie_word_embeddings
    head = model.get_output_embeddings()
    for path, module in model.named_modules():
        place = torch.device(held_on(path) or device)
        for name, empty in list(module.named_parameters(recurse=False)):
            if tied and module is head and name == "weight":
                continue
            weight = _random(path, name, empty, device, seed).to(place)
            setattr(module, name, _stored(module, name, weight, empty))
        for name, buffer in list(module.named_buffers(recurse=False)):
            module._buffers[name] = buffer.to(place)
    if tied:
        head.weight = model.get_input_embeddings().weight
    if left := [name for name, parameter in model.named_parameters() if parameter.is_meta]:
        raise RuntimeError(f"no weights were made for {left}")
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _random(path: str, name: str, like: Any, device: Any, seed: int) -> Any:
    """Numbers of the shape and dtype of `like`, drawn in float32 a slice at a time, from a stream of its own for each parameter."""
    import torch

    if like.dim() < 2:
        return torch.full(like.shape, float(name == "weight"), dtype=like.dtype, device=device)
    weight = torch.empty(like.shape, dtype=like.dtype, device=device)
    stream = torch.Generator(device).manual_seed(seed ^ zlib.crc32(f"{path}.{name}".encode()))
    for part in weight.split(max(1, CHUNK // weight[0].numel())):
        part.copy_(torch.randn(part.shape, generator=stream, device=device) * STD)
    return weight


def _stored(module: Any, name: str, weight: Any, empty: Any) -> Any:
    """`weight` as the parameter that the module holds: quantized in a bitsandbytes layer, plain everywhere else."""
    import torch

    kind = type(empty).__name__
    if name != "weight" or kind not in ("Params4bit", "Int8Params"):
        return torch.nn.Parameter(weight, requires_grad=False)
    import bitsandbytes

    if kind == "Int8Params":
        # Int8Params quantizes while it moves from the CPU to its device, and nowhere else.
        return bitsandbytes.nn.Int8Params(weight.cpu(), requires_grad=False, has_fp16_weights=empty.has_fp16_weights).to(weight.device)
    settings = {key: getattr(empty, key) for key in ("blocksize", "compress_statistics", "quant_type", "quant_storage")}
    return bitsandbytes.nn.Params4bit(weight, requires_grad=False, module=module, **settings).to(weight.device)


def _frozen(model: Any) -> Any:
    model.requires_grad_(False)
    return model.eval()


def _check_method(folder: Path) -> str:
    """How the weights of `folder` are quantized already, "" where they are plain; raises Problem("model") for a method that transformers
    does not know, whose packed weights it would leave out with no more than a warning."""
    from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    found = config.get("quantization_config")
    if not found:
        return ""
    method = str(found.get("quant_method", "bitsandbytes"))
    if method != "bitsandbytes" and method not in AUTO_QUANTIZER_MAPPING:
        raise Problem("model", f"This model comes quantized by {method}, which transformers does not know. Choose another version of it.")
    return method


def _check_library(method: str) -> None:
    """Raises Problem("unsupported") that names the packages which a known method needs and which are not installed; imports none."""
    missing = [name for name in LIBRARIES.get(method, ()) if not _installed(name)]
    if missing:
        sentence = f"This model comes quantized ({method}), and the library that unpacks it is missing"
        # With the product's own requirements, so that pip picks a release for the torch that is here.
        raise Problem("unsupported", f"{sentence}: pip install -r requirements.txt {' '.join(missing)}")


def _check_precision(method: str, wanted: Any, found: Any) -> None:
    """Raises Problem("user") where a method computes in another dtype than the one asked for: AWQ's kernels on a GPU know fp16 alone, and
    transformers changes bf16 to that wherever there is a GPU."""
    if found != wanted:
        names = [str(each).removeprefix("torch.").replace("bfloat", "bf").replace("float", "fp") for each in (found, wanted)]
        sentence = f"This model comes quantized ({method}) and computes in {names[0]} here, not in {names[1]}"
        raise Problem("user", f"{sentence}: set precision to {names[0]}.")


def _installed(package: str) -> bool:
    try:
        return bool(importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return False


def _unloadable(what: str, error: Exception) -> Problem:
    return Problem("model", f"transformers cannot load {what}: {_first_line(error)}", repr(error))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
