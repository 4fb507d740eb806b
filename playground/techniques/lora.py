"""LoRA on the layers of a loaded model, with peft: read the files, see whether they fit, put them on, merge them, look at what is there.

What the technique `adapters` works with. peft changes the model's own layers in place; no PeftModel is wrapped around it. Example::

    put_on(model, [read("made:logbook", folder)], base="smollm2-135m-instruct", merge=True)
    getattr(model, RECORD)["made:logbook"].share        # by how much the weights moved
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from playground.core.problem import Problem
from playground.core.technique import Finding
from playground.techniques.pruned_model import parameter_count
from playground.techniques.quantization import linear_layers, linear_names

RECORD = "merged_adapters"  # attribute of a model: what was merged into it, by name
PREFIX = "base_model.model."
EVERY = "all-linear"  # peft's name for the targets that are all linear layers
STD = 0.02  # of random adapters
ELSEWHERE = ("alora_invocation_tokens", "layer_replication", "trainable_token_indices", "target_parameters", "use_qalora")
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "mica", "lora_ga")  # ways to begin that take something out of the base's weights


@dataclass(frozen=True)
class Adapter:
    """A peft LoraConfig and its tensors by their names in the file; without tensors its numbers are random. `base`: the model that it was
    trained on, as its file says."""

    name: str
    config: Any
    tensors: dict[str, Any] = field(default_factory=dict)
    base: str = ""


@dataclass(frozen=True)
class Merged:
    """What merging one adapter did: how many layers' weights changed, by which share of their norm, and how many numbers it had."""

    layers: int
    share: float
    numbers: int


def drawn(rank: int) -> Adapter:
    """Random numbers on all linear layers: costs are real, the text is noise."""
    from peft import LoraConfig

    return Adapter(f"random:{rank}", LoraConfig(r=rank, lora_alpha=rank, target_modules=EVERY, inference_mode=True))


def read(name: str, folder: Path) -> Adapter:
    """The adapter in a PEFT folder; raises Problem("model") for anything but a LoRA that works layer by layer."""
    from peft import LoraConfig
    from safetensors.torch import load_file

    try:
        data = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        kind, used = data["peft_type"], [option for option in ELSEWHERE if data.get(option)]
        begun = str(data.get("init_lora_weights", True)).lower()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Problem("model", f"{name} is not an adapter of peft: its adapter_config.json cannot be read.", repr(error)) from error
    if kind != "LORA":
        raise Problem("model", f"{name} is an adapter of the kind {kind}; LORA is what can be loaded here.")
    if used or begun.startswith(CHANGES_BASE):
        what = used[0] if used else f"init_lora_weights {begun}"
        raise Problem("model", f"{name} uses {what}, which changes more than single layers: only a plain LoRA can be loaded here.")
    known = {key: value for key, value in data.items() if key in LoraConfig.__dataclass_fields__}
    try:
        config = LoraConfig(**{**known, "inference_mode": True, "init_lora_weights": True})
    except (TypeError, ValueError) as error:
        raise Problem("model", f"{name} has a configuration that peft does not take: {error}", repr(error)) from error
    return Adapter(name, config, load_file(folder / "adapter_model.safetensors"), str(data.get("base_model_name_or_path") or ""))


def put_on(model: Any, adapters: Sequence[Adapter], base: str, merge: bool) -> Any:
    """`model`, called `base`, with all adapters on it or merged into it. Raises Problem("model") for one that does not fit, before anything
    is changed."""
    from peft import LoraModel

    for adapter in adapters:
        _check_fit(model, adapter, base)
        _check_tied(model, adapter, merge)
    keys = [f"adapter{number}" for number in range(len(adapters))]
    packed = _packed_layers(model)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft warns of the second adapter on a model, which is meant
            for key, adapter in zip(keys, adapters, strict=True):
                config = (
                    replace(adapter.config, target_modules=packed) if packed and adapter.config.target_modules == EVERY else adapter.config
                )
                tuner = LoraModel(model, config, key)
                _fill(model, key, adapter)
                _cast(model, key)
            tuner.set_adapter(keys, inference_mode=True)
            model.requires_grad_(False).eval()
            if merge:
                moved = {adapter.name: _merge(model, key) for key, adapter in zip(keys, adapters, strict=True)}
                model = tuner.merge_and_unload()
                setattr(model, RECORD, moved)
    except (ValueError, KeyError, TypeError, NotImplementedError) as error:
        names = ", ".join(adapter.name for adapter in adapters)
        raise Problem("model", f"peft cannot put {names} on {base}: {error}", repr(error)) from error
    return model


def _packed_layers(model: Any) -> list[str]:
    """The paths of all linear layers where some are not of torch's class, as in a GPTQ checkpoint: peft's "all-linear" would miss those."""
    import torch

    found = linear_names(model)
    return [] if all(isinstance(layer, torch.nn.Linear) for layer in found.values()) else list(found)


def adapted(model: Any) -> list[Any]:
    """The layers that carry an adapter of whatever kind."""
    return [module for module in model.modules() if hasattr(module, "adapter_layer_names") and hasattr(module, "active_adapters")]


def numbers(model: Any) -> int:
    """How many numbers the adapters on a model have."""
    return sum(parameter.numel() for name, parameter in model.named_parameters() if ".lora_" in name)


def described(model: Any, number: int, name: str) -> Finding:
    """The adapter with that number on the real layers: ranks, layers, numbers; ok where it is active and changes at least one of them.
    Training may leave some layers' correction at zero, and peft begins with all of them there."""
    key = f"adapter{number}"
    layers = [layer for layer in adapted(model) if key in layer.active_adapters and not layer.merged and not layer.disable_adapters]
    own = [parameter for layer in layers for part, parameter in layer.named_parameters() if ".lora_" in f".{part}" and f".{key}" in part]
    ranks = sorted({layer.r[key] for layer in layers if key in layer.r})
    count, everything = sum(parameter.numel() for parameter in own), parameter_count(model) - numbers(model)
    idle = sum(not bool(_second(layer, key).count_nonzero()) for layer in layers)
    linear = len(linear_layers(model))
    rank = "/".join(str(rank) for rank in ranks) or "none"
    share = f"{100 * count / everything:.1f} %"
    text = f"{name}: LoRA rank {rank} on {len(layers)} of {linear} linear layers, {_readable(count)} numbers ({share})"
    return Finding(idle < len(layers), f"{text}, unmerged" + (f", all zero and without effect on {idle} layers" if idle else ""))


def _check_fit(model: Any, adapter: Adapter, base: str) -> None:
    modules = dict(model.named_modules())
    absent = [place for place in _places(adapter) if place not in modules]
    made = f"{adapter.name}, made for {adapter.base or 'a model that it does not name'}, does not fit {base}"
    if absent:
        there = f"{len(absent)} of the {len(_places(adapter))} layers that it changes are not there, first {absent[0]}"
        raise Problem("model", f"{made}: {there}. Choose the model that it was made for.")
    for name, tensor in adapter.tensors.items():
        layer, wanted = modules[_place(name)], tuple(tensor.shape)
        size = {"A": getattr(layer, "in_features", None), "B": getattr(layer, "out_features", None)}
        for side, dimension in (("A", 1), ("B", 0)):
            if f".lora_{side}." in name and size[side] is not None and wanted[dimension] != size[side]:
                sizes = f"{_place(name)} has {size[side]} {'inputs' if side == 'A' else 'outputs'} there and {wanted[dimension]} here"
                raise Problem("model", f"{made}: its layers have other sizes ({sizes}). Choose the model that it was made for.")


def _check_tied(model: Any, adapter: Adapter, merge: bool) -> None:
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    touched = [model.get_submodule(place) for place in _places(adapter)]
    if merge and head is not None and head.weight is embedding.weight and any(layer in (head, embedding) for layer in touched):
        why = "its embedding and its output head are the same weights, and the adapter changes one of them"
        raise Problem("model", f"{adapter.name} cannot be merged into this model: {why}. Set adapter_mode to unmerged.")


def _places(adapter: Adapter) -> list[str]:
    return list(dict.fromkeys(_place(name) for name in adapter.tensors))


def _place(name: str) -> str:
    """Path of the layer that a tensor of the file belongs to."""
    plain = name.removeprefix(PREFIX)
    return plain.split(".lora_")[0] if ".lora_" in plain else plain.rpartition(".")[0]


def _fill(model: Any, key: str, adapter: Adapter) -> None:
    """The adapter's numbers into the layers that peft made for them."""
    import torch
    from peft import set_peft_model_state_dict

    if not adapter.tensors:
        seed = torch.Generator().manual_seed(int(key.removeprefix("adapter")))
        for name, parameter in sorted(model.named_parameters(), key=lambda item: item[0]):  # whatever the order of the layers
            if ".lora_" in name and f".{key}." in name:
                parameter.data.copy_(torch.randn(parameter.shape, generator=seed) * STD)
        return
    try:
        result: Any = set_peft_model_state_dict(model, dict(adapter.tensors), adapter_name=key)
    except RuntimeError as error:
        raise Problem("model", f"{adapter.name} does not fit its own configuration: {error}", repr(error)) from error
    lacking = [name for name in result.missing_keys if f".{key}" in name]
    if lacking or result.unexpected_keys:
        first = (lacking or list(result.unexpected_keys))[0]
        what = f"{len(lacking)} tensors are missing, {len(result.unexpected_keys)} more are there than it names, first {first}"
        raise Problem("model", f"{adapter.name} does not fit its own configuration: {what}.")


def _cast(model: Any, key: str) -> None:
    """The adapter in the number format of the activations; peft leaves it in float32 over layers of int8."""
    dtype = model.get_input_embeddings().weight.dtype
    for name, parameter in model.named_parameters():
        if ".lora_" in name and f".{key}." in name:
            parameter.data = parameter.data.to(dtype)


def _merge(model: Any, key: str) -> Merged:
    """Add one adapter to the weights below it, and measure what that changed in them."""
    layers, change, whole, count = 0, 0.0, 0.0, 0
    for layer in adapted(model):
        if key not in layer.active_adapters or not hasattr(layer, "get_base_layer"):
            continue
        before = layer.get_base_layer().weight.detach().clone()
        layer.merge(safe_merge=True, adapter_names=[key])
        moved = float((layer.get_base_layer().weight.float() - before.float()).norm())
        layers, change, whole = layers + (moved > 0), change + moved**2, whole + float(before.float().norm()) ** 2
        count += sum(part.numel() for name, part in layer.named_parameters() if "lora_" in name and f".{key}." in name)
    return Merged(layers, (change / whole) ** 0.5 if whole else 0.0, count)


def _second(layer: Any, key: str) -> Any:
    """The matrix that begins at zero in training."""
    return layer.lora_B[key].weight if key in layer.lora_B else layer.lora_embedding_B[key]


def _readable(count: int) -> str:
    return f"{count / 1e6:.2f} M" if count >= 1e5 else f"{count:,}"
