"""A KV cache of fixed size that decoder layers fill in place: row r holds its tokens from position 0 on, whatever the others' length.

transformers' attention calls `update(keys, values, layer_idx)` on the cache that it is given. Each layer is given its own slot, so
that the layer's number plays no part and one compiled layer serves all. Example::

    cache = FixedCache(config, rows=2, capacity=256, dtype=torch.bfloat16, device="cuda")
    cache.prompt().slots[0].update(keys, values)    # a prompt: positions 0 ... n - 1
    cache.step(positions).slots[0].update(k, v)     # one token a row, at positions[row]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from playground.measure.torch_memory import cache_bytes


class FixedCache:
    """Keys and values [rows, KV heads, capacity, head size] of each layer; `layers[i].keys` and `.values` as in transformers' caches."""

    def __init__(self, config: Any, rows: int, capacity: int, dtype: torch.dtype, device: str) -> None:
        heads = config.num_key_value_heads or config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (rows, heads, capacity, size)

        def zeros() -> torch.Tensor:
            tensor = torch.zeros(shape, dtype=dtype, device=device)
            torch._dynamo.maybe_mark_dynamic(tensor, 2)  # as in the step: another capacity compiles nothing anew
            return tensor

        self.rows, self.capacity = rows, capacity
        self.layers = [Layer(zeros(), zeros()) for _ in range(config.num_hidden_layers)]
        self.bytes = cache_bytes(self)

    def prompt(self) -> Slots:
        """What a prompt's pass writes to."""
        return Slots([PromptSlot(layer) for layer in self.layers])

    def step(self, positions: torch.Tensor) -> Slots:
        """What a decode step writes to: one token a row, at `positions` [rows]."""
        rows = torch.arange(self.rows, device=positions.device)
        return Slots([StepSlot(layer.keys, layer.values, rows, positions) for layer in self.layers])


@dataclass
class Layer:
    """One layer's tensors."""

    keys: torch.Tensor
    values: torch.Tensor


@dataclass
class Slots:
    """Stands where transformers expects a cache; `slots[i]` is what layer i is given."""

    slots: list[Any]


class PromptSlot:
    """Attention over a prompt needs the prompt's own keys and values alone."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer

    def update(self, keys: torch.Tensor, values: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep [rows, heads, tokens, size] from position 0 on and give them back."""
        self.layer.keys[:, :, : keys.shape[2]].copy_(keys)
        self.layer.values[:, :, : values.shape[2]].copy_(values)
        return keys, values


class StepSlot:
    """Attention of a step needs all that is cached."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, rows: torch.Tensor, positions: torch.Tensor) -> None:
        self.keys, self.values, self.rows, self.positions = keys, values, rows, positions

    def update(self, keys: torch.Tensor, values: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep [rows, heads, 1, size] at each row's position and give the whole cache."""
        self.keys[self.rows, :, self.positions] = keys[:, :, 0]
        self.values[self.rows, :, self.positions] = values[:, :, 0]
        return self.keys, self.values
