"""The decoder's layers as the graph engine runs them: each with its own slot of the cache, and in a step compiled once for all.

torch.compile specialises what it compiles to what it sees: a layer's number in the model, which only picks its part of the cache, would
make it compile each layer anew. Here every layer has number 0 and is handed its own slot, so that one compiled layer serves all and
compile time does not grow with depth. What a layer does is transformers' own forward. Example::

    layers = Layers(model, compiled=True)
    hidden = model.get_decoder()(ids, past_key_values=cache.step(positions), lengths=lengths)
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from playground.core.places import keep_compiled as keep_compiled

COMPILATIONS = 256  # different numbers of rows, and kinds of layers, in the life of a process
STEP = "lengths"  # the argument that only a decode step has


class Layers:
    """Takes the place of the `forward` of each decoder layer of `model`."""

    def __init__(self, model: Any, compiled: bool) -> None:
        self.run_step: Callable[..., Any] = _forward
        if compiled:
            torch._dynamo.config.recompile_limit = COMPILATIONS
            self.run_step = torch.compile(_forward, dynamic=False, fullgraph=True)
        for number, layer in enumerate(model.get_decoder().layers):
            for module in layer.modules():
                if hasattr(module, "layer_idx"):
                    module.layer_idx = 0
            layer.forward = functools.partial(self._call, layer, number)

    def compiled(self) -> bool:
        """Whether steps go through torch.compile, and it has made a graph in this process (it can be switched off from outside)."""
        return self.run_step is not _forward and torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0

    def _call(self, layer: Any, number: int, hidden: torch.Tensor, past_key_values: Any = None, **options: Any) -> torch.Tensor:
        slot = None if past_key_values is None else past_key_values.slots[number]
        run = self.run_step if STEP in options else _forward
        result: torch.Tensor = run(layer, hidden, past_key_values=slot, **options)
        return result


def _forward(layer: Any, hidden: torch.Tensor, **options: Any) -> Any:
    return type(layer).forward(layer, hidden, **options)
