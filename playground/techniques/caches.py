"""The caches that the knob kv_cache makes out of transformers' layers, the mask of a window, and what of them can be seen afterwards.

It runs in the worker; torch and transformers are imported inside. It decides nothing about knobs: see `techniques.kv_cache`. Example::

    cache = quantized("hqq", 4, model, rows=1, tokens=200)
    with banded(128): model(input_ids=ids, past_key_values=window(128, model, rows=1, tokens=200))
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from playground.core.problem import Problem

GROUP = 32  # neighbouring numbers of one token's key or value that share a scale and a zero point, at most
RESIDUAL = 32  # newest tokens that wait in full precision until they are quantized together
HQQ_TOKENS = 4  # hqq packs groups from 2 or 4 places of a tensor into one byte: their number must divide


def dynamic(model: Any, rows: int, tokens: int) -> Any:
    """Grows by what each step adds."""
    from transformers import DynamicCache

    return DynamicCache(config=model.config)


def static(model: Any, rows: int, tokens: int) -> Any:
    """Of `tokens` a row from the start."""
    from transformers import StaticCache

    return StaticCache(config=model.config, max_cache_len=tokens)


def offloaded(model: Any, rows: int, tokens: int) -> Any:
    """Grows in host memory; the layer at hand and the next one are on the GPU."""
    from transformers import DynamicCache

    _only(model, "An offloaded", "DynamicLayer", "DynamicSlidingWindowLayer")
    return DynamicCache(config=model.config, offloading=True)


def quantized(backend: str, bits: int, model: Any, rows: int, tokens: int) -> Any:
    """A prompt is quantized after its own pass, and new tokens whenever `RESIDUAL` of them have come, with all before them. Groups lie
    within one token's key or value of one head, so that padding is in no scale but its own; fp8 has one scale for a layer's keys and one
    for its values, from the first pass on, and no residual.

    Raises Problem("unsupported") for a model whose layers keep something else than all keys and values."""
    from transformers import QuantizedCache

    _only(model, "A quantized", "DynamicLayer")
    if backend == "fp8":
        cache = QuantizedCache(backend=backend, config=model.config)
        cache.layers = [_fp8_layer() for _ in cache.layers]
        return cache
    axis = 1 if backend == "hqq" else 0  # both mean: groups of neighbours
    options = {"nbits": bits, "axis_key": axis, "axis_value": axis, "q_group_size": _group(model), "residual_length": RESIDUAL}
    cache = QuantizedCache(backend=backend, config=model.config, **options)
    if backend == "hqq":
        cache.layers = [_hqq_layer(options) for _ in cache.layers]
    return cache


def window(size: int, model: Any, rows: int, tokens: int) -> Any:
    """Keeps the last `size` - 1 tokens, which the next one sees beside itself. Errors as `quantized`."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicSlidingWindowLayer

    _only(model, "A window as", "DynamicLayer", "DynamicSlidingWindowLayer")
    cache = DynamicCache(config=model.config)
    cache.layers = [DynamicSlidingWindowLayer(size) for _ in cache.layers]
    return cache


@contextmanager
def banded(size: int) -> Iterator[None]:
    """Every mask that transformers makes meanwhile shows a token no more than the last `size` ones, itself counted."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS as masks

    plain = dict(masks)
    for name, make in plain.items():
        masks[name] = partial(_band, make, size)
    try:
        yield
    finally:
        for name in plain:
            del masks[name]


def seen_by_last(model: Any, tokens: int) -> int:
    """How many of `tokens` tokens the last one may attend to, in the mask that transformers makes for this model as things stand."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS as masks
    from transformers.masking_utils import causal_mask_function

    config = model.config.get_text_config()
    shape = {"batch_size": 1, "q_length": 1, "kv_length": tokens, "q_offset": tokens - 1, "kv_offset": 0}
    options = {"attention_mask": None, "config": config, "device": model.device}
    mask = masks[config._attn_implementation](**shape, mask_function=causal_mask_function, **options)
    if mask is None:
        return tokens
    if hasattr(mask, "mask_mod"):  # flex: what it asks for each pair
        import torch

        places = torch.arange(tokens, device=model.device)
        zero = torch.zeros_like(places)
        return int(mask.mask_mod(zero, zero, zero, places).sum())
    return int((mask if mask.dtype.itemsize == 1 else mask == 0).sum())  # shown is True for sdpa, and 0 is added for eager


def packed_bits(layer: Any) -> tuple[float, int]:
    """Of a quantized layer's keys: bits that a number really takes without scales, and packed tokens a row (0.0 and 0 before any)."""
    stored = layer._quantized_keys
    if stored is None:
        return 0.0, 0
    numbers, tokens = stored, layer.get_seq_length() - (layer.keys.shape[-2] if layer.keys.dim() == 4 else 0)
    if isinstance(stored, tuple):  # hqq and fp8: the numbers, then what belongs to them
        numbers = stored[0]
        shape = stored[1]["shape"] if isinstance(stored[1], dict) else numbers.shape
    else:  # a tensor of quanto, around a packed one, around its bytes
        numbers, shape = stored._data._data, stored.shape
    return 8 * numbers.numel() * numbers.element_size() / math.prod(shape), tokens


def _fp8_layer() -> Any:
    from transformers.cache_utils import Fp8QuantizedLayer

    class ClampedFp8Layer(Fp8QuantizedLayer):  # type: ignore[misc]
        """The scale is that of the first pass; what comes later and is too large for it becomes the largest number there is, which before
        torch 2.12 a cast to float8 made NaN of (github.com/pytorch/pytorch/pull/178817)."""

        def _quantize(self, tensor: Any, scale: Any = None) -> Any:
            if scale is None:
                return super()._quantize(tensor)
            return (tensor.float() / scale).clamp(-self.fp8_max, self.fp8_max).to(self.fp8_dtype), scale

    return ClampedFp8Layer()


def _hqq_layer(options: dict[str, int]) -> Any:
    from torch.nn.functional import pad
    from transformers.cache_utils import HQQQuantizedLayer

    class PaddedHQQLayer(HQQQuantizedLayer):  # type: ignore[misc]
        """hqq's layer for any number of tokens: what is packed is filled up, and cut again when it is read."""

        def _quantize(self, tensor: Any, axis: int) -> Any:
            tokens = tensor.shape[-2]
            return *super()._quantize(pad(tensor, (0, 0, 0, -tokens % HQQ_TOKENS)), axis), tokens

        def _dequantize(self, stored: Any) -> Any:
            *packed, tokens = stored
            return super()._dequantize(packed)[..., :tokens, :]

    return PaddedHQQLayer(**options)


def _group(model: Any) -> int:
    config = model.config.get_text_config()
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return math.gcd(GROUP, size)


def _band(make: Any, size: int, *, mask_function: Any, local_size: int | None = None, **rest: Any) -> Any:
    from transformers.masking_utils import and_masks, sliding_window_overlay

    band = and_masks(sliding_window_overlay(size), mask_function)
    return make(mask_function=band, local_size=min(size + 1, local_size or size + 1), **rest)  # up to `size` keys, no mask is needed


def _only(model: Any, what: str, *kinds: str) -> None:
    from transformers import DynamicCache

    others = {type(layer).__name__ for layer in DynamicCache(config=model.config).layers} - set(kinds)
    if others:
        raise Problem(
            "unsupported",
            f"{what} KV cache stands for layers that keep the keys and values of all tokens, and this model has layers of another kind "
            f"({', '.join(sorted(others))}): set the KV cache to dynamic.",
        )
