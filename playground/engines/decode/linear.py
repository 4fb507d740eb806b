"""Linear layers of the graph engine: joined projections, packed weights, and products with few rows on kernels of our own.

`install` changes the layers that transformers loaded, in place: where projections take the same input their weights become one (queries,
keys and values; gate and up), so that a step launches one product for them; weights are packed to 8 or 4 bits where that was asked
for. Example::

    install(model, join=True, kind="int4")
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.profiler import record_function

from playground.core.problem import Problem
from playground.engines.decode.packing import group_of, multiply, pack
from playground.measure.step_profile import MARK
from playground.techniques.weight_only import FEW_TOKENS, GROUPS

HEAD_KINDS = {"int4": "int8"}  # how the output head is packed, where it is not as the layers are
FEW_ROWS = 64  # at most: beyond, the library's products are as fast
JOINTS = {"attention": ("q_proj", "k_proj", "v_proj"), "MLP": ("gate_proj", "up_proj")}


class SmallLinear(nn.Linear):
    """nn.Linear whose products with few rows read the weights at the speed of memory. `part` of the model: for the profile."""

    part = "head"

    def forward(self, x: torch.Tensor, pairs: bool = False) -> torch.Tensor:
        """[..., inputs] -> [..., outputs]; pairs: silu(first half) * second half of the outputs."""
        if _is_small(x):
            return torch.ops.playground.linear(x, self.weight, None, self.bias, "plain", pairs, self.part)
        return multiply(x, self.weight, None, self.bias, "plain", pairs)


class PackedLinear(nn.Module):
    """A linear layer with weights in 8 or 4 bits; the activations keep their precision. kind: int8, int4 or fp8."""

    def __init__(self, linear: nn.Linear, kind: str, part: str) -> None:
        super().__init__()
        self.kind, self.part = kind, part
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight, scales = pack(linear.weight.data, kind)
        self.register_buffer("weight", weight)
        self.register_buffer("scales", scales)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.data)

    def forward(self, x: torch.Tensor, pairs: bool = False) -> torch.Tensor:
        """As SmallLinear; many rows at once are multiplied with weights that are written out for them."""
        own = (self.weight, self.scales, self.bias, self.kind, pairs, self.part)
        if _is_small(x):
            return torch.ops.playground.linear(x, *own)
        if _is_small(x, FEW_TOKENS):
            products = [torch.ops.playground.linear(part, *own) for part in x.flatten(0, -2).split(FEW_ROWS)]
            return torch.cat(products).unflatten(0, x.shape[:-1])
        return multiply(x, self.weight, self.scales, self.bias, self.kind, pairs)


class Joined(nn.Module):
    """The first of several projections of one input: computes all of them and keeps the others' results for the `Part`s to fetch."""

    def __init__(self, linear: nn.Module, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.linear, self.sizes = linear, sizes
        self.rest: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., inputs] -> [..., outputs of the first]."""
        outputs = self.linear(x).split(self.sizes, dim=-1)
        self.rest = list(outputs[1:])
        return outputs[0]


class Part(nn.Module):
    """One of the other projections: its result is there already."""

    def __init__(self, joined: Joined) -> None:
        super().__init__()
        self.joined = (joined,)  # in a tuple, so that the layer is no module of this one as well

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., inputs] -> [..., outputs]; called once, in the order of the projections, after the first."""
        result: torch.Tensor = self.joined[0].rest.pop(0)
        return result


def install(model: Any, *, join: bool, kind: str) -> None:
    """Join and pack the plain linear layers of the decoder (bitsandbytes' are left as they are); kind: none, int8, int4 or fp8. Where
    layers are joined, products with few rows use our kernels, in the output head too. A head that is not the embedding's is packed with 8
    bits, whatever the layers have: it is a large part of what a step reads, and 4 bits there would cost most."""
    gated: dict[type, type] = {}
    for layer in model.get_decoder().layers:
        for parent in list(layer.modules()):
            part = "attention" if hasattr(parent, "o_proj") else "MLP"
            if join:
                _join(parent, JOINTS[part], gated)
            for owner in [parent, *(child for child in parent.children() if isinstance(child, Joined))]:
                for name, child in list(owner.named_children()):
                    if type(child) is nn.Linear:
                        _replace(owner, name, child, part, join, kind)
    head = model.get_output_embeddings()
    if type(head) is nn.Linear and kind != "none" and head.weight is not model.get_input_embeddings().weight:
        model.set_output_embeddings(PackedLinear(head, HEAD_KINDS.get(kind, kind), "head"))
    elif type(head) is nn.Linear and join:
        head.__class__ = SmallLinear


def _replace(owner: nn.Module, name: str, linear: nn.Linear, part: str, join: bool, kind: str) -> None:
    if kind == "int4" and not group_of(linear.in_features):
        groups = f"{GROUPS[0]}, {GROUPS[1]} or {GROUPS[2]}"
        why = f"int4 packs the columns of a weight in groups of {groups}, and a layer of this model has {linear.in_features} of them."
        raise Problem("unsupported", f"{why} Choose int8.")
    if kind != "none":
        setattr(owner, name, PackedLinear(linear, kind, part))
    elif join:
        linear.__class__, linear.part = SmallLinear, part


def _join(parent: nn.Module, names: tuple[str, ...], gated: dict[type, type]) -> None:
    linears: list[Any] = [getattr(parent, name, None) for name in names]
    if any(type(linear) is not nn.Linear for linear in linears):
        return
    first, sizes = linears[0], tuple(linear.out_features for linear in linears)
    with torch.device("meta"):
        one = nn.Linear(first.in_features, sum(sizes), bias=first.bias is not None, dtype=first.weight.dtype)
    one.weight = nn.Parameter(torch.cat([linear.weight.data for linear in linears]), requires_grad=False)
    if first.bias is not None:
        one.bias = nn.Parameter(torch.cat([linear.bias.data for linear in linears]), requires_grad=False)
    joined = Joined(one, sizes)
    setattr(parent, names[0], joined)
    for name in names[1:]:
        setattr(parent, name, Part(joined))
    if names == JOINTS["MLP"] and parent.config.hidden_act == "silu":
        kind = type(parent)
        parent.__class__ = gated.setdefault(kind, type(kind.__name__, (kind,), {"forward": _gated}))


def _gated(mlp: Any, x: torch.Tensor) -> torch.Tensor:
    """down(silu(gate(x)) * up(x)) with gate, up and what is between in one kernel."""
    result: torch.Tensor = mlp.down_proj(mlp.gate_proj.linear(x, pairs=True))
    return result


def _is_small(x: torch.Tensor, most: int = FEW_ROWS) -> bool:
    return bool(x.is_cuda) and x.dtype != torch.float32 and x.numel() // x.shape[-1] <= most


@torch.library.custom_op("playground::linear", mutates_args=())
def _linear(
    x: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor | None, bias: torch.Tensor | None, kind: str, pairs: bool, part: str
) -> torch.Tensor:
    from playground.engines.decode.linear_kernels import small_linear

    with record_function(MARK + part):
        return small_linear(x.flatten(0, -2), weight, scales, bias, kind, pairs).unflatten(0, x.shape[:-1])


@_linear.register_fake
def _(
    x: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor | None, bias: torch.Tensor | None, kind: str, pairs: bool, part: str
) -> torch.Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0] // (2 if pairs else 1))
