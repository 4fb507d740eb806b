"""Bytes of the real tensors behind a model or a KV cache, and the CUDA allocator's peaks. Runs in the worker; torch is imported inside.

Memory is counted by address: overlapping or tied tensors once, and of a mapped file only what tensors use. Example::

    module_bytes(model); cache_bytes(cache); reset_cuda_peaks(); ...; cuda_peaks()["peak_allocated_bytes"]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def module_bytes(model: Any) -> int:
    """Bytes of a module's parameters and buffers, and of what bitsandbytes keeps beside them: scales and code books in `quant_state` (4
    bit, nested too), `CB` and `SCB` (8 bit) on the weights or in the layer's `state`."""
    beside = [vars(module).get(name) for module in model.modules() for name in ("state", "quant_state")]
    return tensor_bytes([*model.parameters(), *model.buffers(), *beside])


def cache_bytes(cache: Any) -> int:
    """Bytes of a transformers cache, over whatever tensors its layers hold (dynamic, static, quantised); None is 0."""
    return 0 if cache is None else tensor_bytes(getattr(cache, "layers", cache))


def cache_facts(cache: Any, device: str) -> dict[str, float]:
    """What the KV formula needs beside the model, read from a filled cache of a model on `device` (cpu or cuda).

    kv_bytes_per_number: of what is not packed; kv_packed_bytes_per_number and kv_residual_tokens: of a quantized cache, with its scale and
    zero point for each group, and after how many new tokens these are packed; kv_window: tokens that each token sees, where no layer keeps
    more; kv_host_bytes: what of it lies in host memory beside a GPU.
    """
    layer = cache.layers[0]
    facts: dict[str, float] = {"kv_bytes_per_number": layer.keys.element_size()}
    if hasattr(layer, "_quantized_keys"):
        grouped = hasattr(layer, "q_group_size")  # else one scale for all
        packed = layer.nbits / 8 + 2 * layer.keys.element_size() / layer.q_group_size if grouped else layer.fp8_dtype.itemsize
        facts |= {"kv_packed_bytes_per_number": packed, "kv_residual_tokens": layer.residual_length if grouped else 1}
    windows = {getattr(each, "sliding_window", None) for each in cache.layers}
    if len(windows) == 1 and (size := windows.pop()):
        facts["kv_window"] = size
    if getattr(cache, "offloading", False) and device == "cuda":
        facts["kv_host_bytes"] = bytes_by_device(cache.layers).get("cpu", 0)
    return facts


def tensor_bytes(things: Any) -> int:
    """Bytes of all tensors reachable from tensors, containers and plain objects; modules among them are not entered."""
    return sum(bytes_by_device(things).values())


def bytes_by_device(things: Any) -> dict[str, int]:
    """As `tensor_bytes`, by the name of the device: cpu, cuda:0."""
    spans: dict[str, list[tuple[int, int]]] = {}
    for tensor in _tensors(things, {}):
        span = _span(tensor)
        if span is not None:
            spans.setdefault(str(tensor.device), []).append(span)
    return {device: _union(group) for device, group in spans.items()}


def cuda_peaks() -> dict[str, float]:
    """Peak bytes since the last reset on the current CUDA device: live tensors and the allocator's reservation; empty without CUDA."""
    import torch

    if not torch.cuda.is_available():
        return {}
    return {"peak_allocated_bytes": torch.cuda.max_memory_allocated(), "peak_reserved_bytes": torch.cuda.max_memory_reserved()}


def reset_cuda_peaks() -> None:
    """Forget the peaks seen so far; nothing to do without CUDA."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _tensors(thing: Any, seen: dict[int, Any]) -> Iterator[Any]:
    """Tensors that hold memory themselves, each object once (`seen` keeps them alive, so that no id comes twice). A wrapper subclass
    (torchao, quanto) gives its inner tensors."""
    import torch

    if thing is None or isinstance(thing, str | bytes | int | float | type | torch.nn.Module | torch.dtype) or id(thing) in seen:
        return
    seen[id(thing)] = thing
    inner: Iterable[Any]
    if isinstance(thing, torch.Tensor):
        if hasattr(thing, "__tensor_flatten__"):
            inner = [getattr(thing, name) for name in thing.__tensor_flatten__()[0]]
        else:
            yield thing
            inner = vars(thing).values()
    elif isinstance(thing, Mapping):
        inner = thing.values()
    elif isinstance(thing, list | tuple | set):
        inner = thing
    else:
        inner = getattr(thing, "__dict__", {}).values()
    for item in list(inner):
        yield from _tensors(item, seen)


def _span(tensor: Any) -> tuple[int, int] | None:
    """First and one past the last address of a tensor's elements; None where it has no memory (empty, meta)."""
    if tensor.device.type == "meta" or tensor.numel() == 0:
        return None
    start = tensor.data_ptr()
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return start, start + (last + 1) * tensor.element_size()


def _union(spans: list[tuple[int, int]]) -> int:
    total, reached = 0, 0
    for start, end in sorted(spans):
        total += max(0, end - max(start, reached))
        reached = max(reached, end)
    return total
