"""Attention of the graph engine, plugged into transformers: a prompt's by sdpa, a decode step's over a cache of fixed size.

Two names for `attn_implementation`: `playground_sdpa` reads the whole cache of a step under a mask, `playground_split_kv` only what is
filled, with a kernel of our own. A step says how much is filled by `lengths` [rows]; a call without them is a prompt or a text to score,
which is causal and needs no mask, for rows begin at position 0 and end in padding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.profiler import record_function

from playground.measure.step_profile import MARK
from playground.techniques.attention import OWN


def register() -> None:
    """Make both names known to transformers. Neither has a mask function, so that transformers prepares no mask for them."""
    from transformers import AttentionInterface

    AttentionInterface.register(OWN + "sdpa", sdpa)
    AttentionInterface.register(OWN + "split_kv", split_kv)


def sdpa(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, filled: Any = None, **options: Any
) -> tuple[torch.Tensor, None]:
    """torch's fused attention; `filled` [rows, 1, 1, capacity] bool masks a step's cache. Shapes as in transformers."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    options.pop("lengths", None)
    output, _ = sdpa_attention_forward(module, query, key, value, filled, **options)
    return output, None


def split_kv(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, lengths: Any = None, **options: Any
) -> tuple[torch.Tensor, None]:
    """A step reads `lengths` [rows] positions of the cache and no more; what is no step goes to `sdpa`."""
    if lengths is None:
        return sdpa(module, query, key, value, attention_mask, **options)
    return torch.ops.playground.split_kv(query, key, value, lengths, options["scaling"]), None


@torch.library.custom_op("playground::split_kv", mutates_args=())
def _split_kv(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, lengths: torch.Tensor, scaling: float) -> torch.Tensor:
    from playground.engines.decode.attention_kernels import split_kv_attention

    with record_function(MARK + "attention"):
        return split_kv_attention(query, keys, values, lengths, scaling)


@_split_kv.register_fake
def _(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, lengths: torch.Tensor, scaling: float) -> torch.Tensor:
    rows, heads, _, size = query.shape
    return query.new_empty(rows, 1, heads, size)
