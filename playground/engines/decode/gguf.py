"""A model whose linear weights stay in the blocks of a GGUF file: bytes in memory, unpacked for each product.

The blocks are unpacked in float32 and rounded to the activations' format, so every product is that of the dequantised model. Embeddings,
norms and the output head come from the converted folder, where whole weights are never read. Example::

    model = load_blocks(resolved, torch.float32, "cpu")      # resolved: models.model.ResolvedModel
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from gguf import GGMLQuantizationType, GGUFReader
from torch import nn
from torch.nn.functional import linear as product

from playground.core.problem import Problem
from playground.models.model import ResolvedModel
from playground.models.weights import build_random, empty_model
from playground.techniques.gguf_blocks import RANDOM_KIND
from playground.techniques.quantization import linear_layers

AT_ONCE = 1 << 18  # numbers unpacked at once on a CPU: what its caches hold until they are multiplied
PROBED = slice(1, 3)  # rows of each layer that are held against the dequantised ones: where rows were reordered, these moved


class GgufLinear(nn.Linear):
    """nn.Linear whose weight is the bytes of GGUF blocks [outputs, bytes a row]. kind: the name of their type, such as Q4_1."""

    def __init__(self, plain: nn.Linear, kind: str, blocks: torch.Tensor) -> None:
        nn.Module.__init__(self)
        self.kind, self.in_features, self.out_features = kind, plain.in_features, plain.out_features
        self.weight = nn.Parameter(blocks, requires_grad=False)
        self.register_parameter("bias", plain.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., inputs] -> [..., outputs]."""
        rows = max(1, AT_ONCE // self.in_features) if x.device.type == "cpu" and not torch.compiler.is_compiling() else self.out_features
        parts = [product(x, unpack(blocks, self.kind).to(x.dtype)) for blocks in self.weight.split(rows)]
        out = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        return out if self.bias is None else out + self.bias


def unpack(blocks: torch.Tensor, kind: str) -> torch.Tensor:
    """Bytes [rows, bytes a row] -> float32 [rows, columns]."""
    from transformers.integrations.gguf.dequant import dequantize

    rows = blocks.shape[0]
    if kind in ("Q5_0", "Q5_1"):  # the two common types that transformers does not have
        return _unpack_5(blocks.reshape(-1, 22 if kind == "Q5_0" else 24), kind == "Q5_1").reshape(rows, -1)
    return dequantize(blocks, GGMLQuantizationType[kind].value).reshape(rows, -1)


def _unpack_5(blocks: torch.Tensor, with_minimum: bool) -> torch.Tensor:
    """Q5_0 and Q5_1: a float16 scale (and minimum), 32 fifth bits, 32 times 4 bits."""
    scale, start = blocks[:, :2].view(torch.float16).float(), 4 if with_minimum else 2
    bits = torch.arange(8, dtype=torch.uint8, device=blocks.device)
    fifth = (blocks[:, start : start + 4, None] >> bits & 1).flatten(1)
    low, high = blocks[:, start + 4 :] & 15, blocks[:, start + 4 :] >> 4
    number = torch.cat([low, high], dim=1) | fifth << 4
    return scale * number + blocks[:, 2:4].view(torch.float16).float() if with_minimum else scale * (number.to(torch.int8) - 16)


def load_blocks(resolved: ResolvedModel, dtype: torch.dtype, device: str, *, held_on: Any = "", **options: Any) -> Any:
    """The model with the blocks of its GGUF file; for a shape, whose weights are random, with blocks that they are rounded to.

    held_on: the device that gets all weights in place of `device`, for a shape also as build_random takes it; options: more for
    from_config, such as attn_implementation. Raises Problem("unsupported") where no linear layer can keep its blocks.
    """
    if resolved.random_weights:
        return _rounded(build_random(resolved.folder, dtype, device, held_on=held_on, **options))
    if resolved.gguf is None:
        why = "it has no blocks to keep. Set gguf_blocks to off, or give the path of a .gguf file."
        raise Problem("user", f"{resolved.name} does not come from a GGUF file: {why}")
    if not resolved.gguf.is_file():
        way_out = f"Set gguf_blocks to off, or delete {resolved.folder}: the next run gets the file anew."
        raise Problem("model", f"The GGUF file of {resolved.name} is not there any more. {way_out}")
    model = empty_model(resolved.folder, dtype, **options)
    place = torch.device(held_on or device)
    packed = _put_blocks(model, resolved.gguf, place)
    if not packed:
        raise Problem("unsupported", f"{resolved.gguf.name} has no linear layer in blocks that can be unpacked here.")
    _fill(model, resolved.folder, packed, dtype, place)
    return model.requires_grad_(False).eval()


def _put_blocks(model: Any, file: Path, place: torch.device) -> dict[str, GgufLinear]:
    """Puts a GgufLinear in the place of each decoder layer that the file has in blocks; by the name of the weight."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map
    from transformers.integrations.gguf.dequant import GGML_BLOCK
    from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor

    reader = GGUFReader(file)
    family = str(reader.fields["general.architecture"].contents())
    own = next(key for key, name in MODEL_ARCH_NAMES.items() if name == family)
    names = get_tensor_name_map(own, model.config.num_hidden_layers)
    order = TENSOR_PROCESSORS.get(family, TensorProcessor)(config=model.config.to_dict())  # the rows of q and k, for one
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    wanted, packed = {id(layer) for layer in linear_layers(model)}, {}
    for name, layer in list(model.named_modules()):
        found = tensors.get(f"{names.get_name(name)}.weight") if id(layer) in wanted else None
        if found is None or not (found.tensor_type.value in GGML_BLOCK or found.tensor_type.name in ("Q5_0", "Q5_1")):
            continue
        blocks = torch.tensor(order.process(weights=found.data, name=found.name).weights, device=place)
        packed[f"{name}.weight"] = GgufLinear(layer, found.tensor_type.name, blocks)
        model.set_submodule(name, packed[f"{name}.weight"])
    return packed


def _fill(model: Any, folder: Path, packed: dict[str, GgufLinear], dtype: torch.dtype, place: torch.device) -> None:
    """Everything but the blocks, from the converted folder, against which the blocks are held."""
    from safetensors import safe_open

    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                if name in packed:
                    _check(name, packed[name], file.get_slice(name)[PROBED])
                    continue
                module = model.get_submodule(name.rpartition(".")[0])
                value = file.get_tensor(name).to(place, dtype, copy=True)  # else the whole file stays mapped
                setattr(module, name.rpartition(".")[2], nn.Parameter(value))
    for module in model.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            module._buffers[name] = buffer.to(place)
    model.tie_weights()
    if left := [name for name, parameter in model.named_parameters() if parameter.is_meta]:
        raise Problem("model", f"{folder} has no weights for {', '.join(left[:3])}. Delete it: it is made again from the GGUF file.")


def _check(name: str, layer: GgufLinear, rows: torch.Tensor) -> None:
    found = unpack(layer.weight[PROBED], layer.kind)
    if found.shape != rows.shape or not torch.equal(found.to(rows.device, rows.dtype), rows):
        raise Problem("unsupported", f"The blocks of {name} are not those of the dequantised weights. Set gguf_blocks to off.")


def _rounded(model: Any) -> Any:
    """`model` with each decoder layer rounded to blocks."""
    from gguf.quants import quantize

    names = {id(layer): name for name, layer in model.named_modules()}
    for layer in linear_layers(model):
        if layer.in_features % 32:
            raise Problem("unsupported", f"{RANDOM_KIND} blocks hold 32 numbers of a row, and {names[id(layer)]} has {layer.in_features}.")
        blocks = quantize(layer.weight.float().cpu().numpy(), GGMLQuantizationType[RANDOM_KIND])
        packed = GgufLinear(layer, RANDOM_KIND, torch.tensor(blocks, device=layer.weight.device))
        model.set_submodule(names[id(layer)], packed)
    return model
