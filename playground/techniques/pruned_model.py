"""Taking weights, layers or intermediate channels away from a loaded model, in place, and counting what is left.

What to take is decided from the weights and from one pass over `ids` [tokens], a text of the product's own. torch is imported inside;
the model is a transformers decoder of the llama family. Example::

    keep_layers(model, ids, 24)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from playground.core.problem import Problem

FEW, OF = 2, 4  # weights kept of each group in a row: what sparse tensor cores take
BY_LAYER = ("layer_types", "no_rope_layers", "mlp_layer_types")  # lists in a config with one entry a layer


def block_similarities(model: Any, ids: Any) -> list[float]:
    """For each decoder layer the cosine similarity of its input and its output, mean over the tokens of `ids`: near 1 where the layer
    changes little (Block Influence of ShortGPT is 1 minus this)."""
    import torch

    found: list[float] = []

    def compare(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        before = args[0] if args else kwargs["hidden_states"]
        after = output[0] if isinstance(output, tuple) else output
        found.append(float(torch.nn.functional.cosine_similarity(before.float(), after.float(), dim=-1).mean()))

    layers = model.get_decoder().layers
    with _hooks([layer.register_forward_hook(compare, with_kwargs=True) for layer in layers]):
        _read(model, ids)
    return found


def least_useful(similarities: Sequence[float], count: int) -> list[int]:
    """Indices of the `count` layers that change their input least, ascending."""
    return sorted(sorted(range(len(similarities)), key=lambda index: -similarities[index])[:count])


def keep_layers(model: Any, ids: Any, count: int) -> None:
    """Leaves the `count` decoder layers that change their input most on `ids` [tokens], as `drop_layers` does."""
    similarities = block_similarities(model, ids)
    drop_layers(model, least_useful(similarities, len(similarities) - count))


def drop_layers(model: Any, indices: Sequence[int]) -> None:
    """Takes the decoder layers of these indices out; those left are numbered anew, so that a KV cache has as many layers as there are.

    `model.config.pruned_layers` keeps the indices. Raises ValueError where no layer would be left."""
    import torch

    decoder, config = model.get_decoder(), model.config.get_text_config()
    kept = [index for index in range(len(decoder.layers)) if index not in set(indices)]
    if not kept:
        raise ValueError("no layer would be left")
    for name in BY_LAYER:
        listed = getattr(config, name, None)
        if listed:
            setattr(config, name, [listed[index] for index in kept])
    decoder.layers = torch.nn.ModuleList(decoder.layers[index] for index in kept)
    for number, layer in enumerate(decoder.layers):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = number
    config.num_hidden_layers = len(kept)
    config.pruned_layers = sorted(indices)


def narrow_mlps(model: Any, ids: Any, width: int) -> None:
    """Leaves `width` intermediate channels in the MLP of each layer: those that add most to its output on `ids`, the size of the
    activation times that of the channel's column in the down projection. Raises Problem for an MLP that is not gate, up and down."""
    import torch

    mlps = [_gated(layer) for layer in model.get_decoder().layers]
    sums = {id(mlp.down_proj): torch.zeros(mlp.down_proj.in_features, device=mlp.down_proj.weight.device) for mlp in mlps}

    def add(down: Any, args: tuple[Any, ...]) -> None:
        sums[id(down)] += args[0].float().abs().flatten(0, -2).sum(dim=0)

    with _hooks([mlp.down_proj.register_forward_pre_hook(add) for mlp in mlps]):
        _read(model, ids)
    for mlp in mlps:
        size = sums[id(mlp.down_proj)] * mlp.down_proj.weight.float().norm(dim=0)
        kept = size.topk(width).indices.sort().values
        for linear in (mlp.gate_proj, mlp.up_proj):
            _replace(linear, linear.weight[kept], None if linear.bias is None else linear.bias[kept])
        _replace(mlp.down_proj, mlp.down_proj.weight[:, kept].contiguous(), mlp.down_proj.bias)
    model.config.get_text_config().intermediate_size = width


def zero_smallest(weight: Any, share: float) -> None:
    """Sets the smallest `share` of a matrix's numbers by size to zero, exactly so many where several have the same size."""
    count = round(share * weight.numel())
    if not count:
        return
    sizes = weight.detach().abs().float().flatten()
    # kthvalue takes 300 times as long as topk on a GPU, and topk twice as long on a CPU
    limit = sizes.topk(count, largest=False, sorted=False).values.amax() if sizes.is_cuda else sizes.kthvalue(count).values
    smaller = sizes < limit
    equal = (sizes == limit).nonzero().flatten()[: count - int(smaller.sum())]
    smaller[equal] = True
    weight.data.masked_fill_(smaller.view_as(weight), 0)


def two_of_four(weight: Any) -> Any:
    """A copy of a matrix [outputs, inputs] that keeps the two largest of each four numbers of a row; inputs are a multiple of four."""
    groups = weight.detach().unflatten(-1, (-1, OF))
    kept = groups.abs().topk(FEW, dim=-1).indices
    return groups.new_zeros(groups.shape).scatter(-1, kept, groups.gather(-1, kept)).flatten(-2)


def zeros(weights: Iterable[Any]) -> tuple[int, int]:
    """How many numbers of these matrices are zero, and how many there are; (0, 0) where they are packed, so that none can be counted. Holds
    one of them at a time."""
    import torch

    plain = (torch.Tensor, torch.nn.Parameter)
    found, of = 0, 0
    for weight in weights:
        if type(weight) not in plain or not weight.is_floating_point() or weight.is_meta:
            return 0, 0
        found, of = found + weight.numel() - int(weight.count_nonzero()), of + weight.numel()
        del weight  # before the next is made
    return found, of


def parameter_count(model: Any) -> int:
    """Numbers that the model's weights stand for, each once: a packed linear layer counts as many as it has inputs times outputs."""
    seen: set[int] = set()
    total = 0
    for module in model.modules():
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        linear = hasattr(module, "in_features") and hasattr(module, "out_features") and own
        if linear and id(own[0]) not in seen:
            bias = getattr(module, "bias", None)
            total += module.in_features * module.out_features + (0 if bias is None else bias.numel())
        elif not linear:
            total += sum(each.numel() for each in module.parameters(recurse=False) if id(each) not in seen)
        seen |= {id(each) for each in own}
    return total


def _gated(layer: Any) -> Any:
    import torch

    mlp = getattr(layer, "mlp", None)
    parts = [getattr(mlp, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    if not all(isinstance(part, torch.nn.Linear) for part in parts):
        raise Problem("unsupported", "The MLPs of this model are not a gate, an up and a down projection each: prune layers instead.")
    return mlp


def _replace(linear: Any, weight: Any, bias: Any) -> None:
    import torch

    linear.weight = torch.nn.Parameter(weight, requires_grad=False)
    linear.bias = None if bias is None else torch.nn.Parameter(bias, requires_grad=False)
    linear.out_features, linear.in_features = weight.shape


@contextmanager
def _hooks(handles: Sequence[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _read(model: Any, ids: Any) -> None:
    import torch

    with torch.no_grad():
        model.get_decoder()(input_ids=ids[None], use_cache=False)
