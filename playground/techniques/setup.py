"""What techniques change before an engine loads or runs a model. One dataclass an engine family; plain values, no torch.

Example: precision sets `setup.dtype = "bfloat16"`; the KV cache sets `setup.make_cache`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class TransformersSetup:
    """For engines that run a transformers model.

    dtype: torch dtype name of unquantized weights and activations; device: "cpu" or "cuda"; load: further arguments of `from_pretrained`;
    make_cache: (model, rows, tokens) -> a transformers Cache with room for `tokens` a row, or None for no cache; fusion, weight_only: the
    values of those knobs, for engines that change the loaded model.
    """

    device: str = "cpu"
    dtype: str = "float32"
    load: dict[str, Any] = field(default_factory=dict)
    make_cache: Callable[[Any, int, int], Any] | None = None
    fusion: str = "off"
    weight_only: str = "none"
