"""Offloading: some of the decoder's layers stay in host memory or on disk, and come to the device for each pass (accelerate)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from playground.core.knobs import Choice, Range
from playground.core.machine import Machine
from playground.core.problem import Problem
from playground.core.technique import Effect, Explanation, Finding, Footprint, Knobs, Technique, away_layers
from playground.techniques.away import AWAY, Away, copy_rate
from playground.techniques.quantization import refuse_quantized
from playground.techniques.setup import TransformersSetup

SLOWNESS = ("none", "pinned", "cpu", "disk")
PACKERS = ("quantization", "torchao")  # knobs of techniques that keep scales beside or inside their weights


class Offloading(Technique):
    """Weights of the last layers in host memory or in a file, loaded by a hook before each of them runs and dropped after it."""

    name = "offloading"
    title = "Offloading"
    group = "Memory"
    order = 90  # last of what changes the loaded model: it takes the weights away
    phase = "load"
    knobs = (
        Choice(
            "offload",
            "Offload",
            SLOWNESS,
            "none",
            "Where layers that do not stay on the device are kept: cpu is host memory beside a GPU, pinned is host memory that the system "
            "may not move, which the GPU reads by itself, disk is a file.",
        ),
        Range(
            "offload_share",
            "Share offloaded",
            0.05,
            1.0,
            0.05,
            0.5,
            "Share of the decoder's layers that do not stay on the device: the last ones; at least one layer.",
        ),
    )
    explain = Explanation(
        what="The weights of some decoder layers stay in host memory or in a file. A hook of accelerate copies a layer to the device just "
        "before it runs and lets go of it right after, so that the device holds one of these layers at a time.",
        helps="A model that does not fit on the device runs at all, with the same output. Long prompts and large batches share one copy "
        "among many tokens.",
        costs="Every forward pass, and so every token, moves all offloaded bytes over the link. That alone is often many times a step "
        "without offloading. From pinned memory they come faster, and nobody else gets that memory. What is read from disk stays in the "
        "system's file cache while memory is free, so that only then it is as fast as memory.",
    )
    cases = ({"offload": "none"}, {"offload": "cpu"}, {"offload": "pinned"}, {"offload": "disk"}, {"offload": "disk", "offload_share": 1.0})

    def requires(self, knobs: Knobs, machine: Machine, device: str) -> str | None:
        """accelerate."""
        if knobs["offload"] == "none" or "accelerate" in machine.packages:
            return None
        return "needs the package accelerate, which is not installed: pip install accelerate"

    def conflicts(self, knobs: Knobs) -> str | None:
        """Plain weights, and steps that run as Python."""
        kind = knobs["offload"]
        if kind == "none":
            return None
        packer = next((f"{name} {knobs[name]}" for name in PACKERS if knobs.get(name, "none") != "none"), None)
        if packer:
            why = "accelerate's hooks move a weight without the scales that belong to it. Set one of them to none."
            return f"Offload {kind} and {packer} exclude each other: {why}"
        if knobs.get("compile", "off") != "off":
            why = "weights come and go, and a compiled step expects them in their place. Set compile to off, or offload to none."
            return f"Offload {kind} and compile {knobs['compile']} exclude each other: {why}"
        if knobs.get("prune") in ("magnitude", "two_four"):
            why = "zeros cannot be counted in weights that are not there. Set prune to layers or mlp_width, or offload to none."
            return f"Offload {kind} and prune {knobs['prune']} exclude each other: {why}"
        if knobs.get("adapter") and knobs.get("adapter_mode") == "unmerged":
            why = "an adapter beside its layers would come and go with them. Set adapter_mode to merged, or offload to none."
            return f"Offload {kind} and an unmerged adapter exclude each other: {why}"
        return None

    def irrelevant(self, knobs: Knobs) -> Mapping[str, str]:
        """A share of nothing."""
        return {"offload_share": "no layer is offloaded."} if knobs["offload"] == "none" else {}

    def expect(self, knobs: Knobs, baseline: Knobs) -> Mapping[str, Effect]:
        """Fewer weights on the device, and more to move in each step; nothing of the output."""
        share, before = _share(knobs), _share(baseline)
        slow, was = SLOWNESS.index(str(knobs["offload"])), SLOWNESS.index(str(baseline["offload"]))
        if (share, slow) == (before, was):
            return {}
        time_s: dict[str, Effect] = {}
        if (share - before) * (slow - was) >= 0:  # else more from a faster place: nobody knows
            up = share > before or slow > was
            time_s = {"itl_s": "up" if up else "down", "output_tokens_per_s": "down" if up else "up"}
        weights: Effect = "same" if share == before else "down" if share > before else "up"
        return {"weights_bytes": weights, "kv_cache_bytes": "same", **time_s}

    def footprint(self, knobs: Knobs, footprint: Footprint) -> Footprint:
        """Weights of these layers are not on the device."""
        return replace(footprint, away_share=_share(knobs))

    def refuses_transformers(self, knobs: Knobs, device: str) -> str | None:
        """Host memory is where a CPU has its weights."""
        if knobs["offload"] in ("cpu", "pinned") and device == "cpu":
            return f"{knobs['offload']} keeps layers in host memory beside a GPU, and on a CPU they are there already: choose disk."
        return None

    def refuses_graph(self, knobs: Knobs, device: str) -> str | None:
        """No weights that move."""
        if knobs["offload"] != "none":
            return "a captured step reads weights at fixed addresses, and offloaded ones come and go: choose the engine transformers."
        return None

    def for_transformers(self, knobs: Knobs, setup: TransformersSetup) -> None:
        """Loads into host memory, so that the device never holds all; what stays goes there when all other changes are done. Raises
        Problem("user") for a checkpoint that comes quantized. Random weights that nothing else changes are drawn to where they belong:
        they may be more than host memory holds, which a checkpoint's, mapped from its file, need not fit into."""
        kind, share, device = str(knobs["offload"]), float(knobs["offload_share"]), setup.device
        if kind == "none":
            return
        refuse_quantized(setup.config, f"offload {kind}")
        if device != "cpu":
            settled = setup.random_weights and not setup.changes
            setup.load["held_on"] = partial(_place, _first_away(setup.config["num_hidden_layers"], share)) if settled else "cpu"
        setup.changes.append(lambda model: _offloaded(model, kind, share, device))

    def evidence_for_transformers(self, knobs: Knobs, engine: Any) -> Finding:
        """Counts the layers whose weights are nowhere on the device between passes and whose hook fetches them from where it should."""
        kind, layers = str(knobs["offload"]), engine.model.get_decoder().layers
        found = [away for layer in layers if (away := _away(layer)) is not None]
        if kind == "none":
            return Finding(not found, f"{len(found)} of {len(layers)} decoder layers are offloaded")
        there = bool(found) and found[0].kind == kind and found[0].kept()  # one place for all of them
        right = sum(away is found[0] for away in found) if there else 0
        wanted = away_layers(len(layers), float(knobs["offload_share"]))
        size = f"{_bytes(layers) / 1e6:,.1f} MB"
        text = f"{right} of {len(layers)} decoder layers are kept off the device ({kind}, {size}) and fetched by a hook"
        return Finding(right == wanted == len(found), text)

    def counts_for_transformers(self, knobs: Knobs, engine: Any) -> Mapping[str, float]:
        """Bytes of the real tensors that a pass moves, and the rate that one copy of them had when the model was loaded."""
        layers = engine.model.get_decoder().layers
        away = next((found for layer in layers if (found := _away(layer)) is not None), None)
        return {} if away is None else {"offloaded_bytes": _bytes(layers), "link_bytes_per_s": away.bytes_per_s}


def _offloaded(model: Any, kind: str, share: float, device: str) -> Any:
    """`model` with its last layers kept away and everything else on `device`."""
    import torch
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module
    from accelerate.utils import PrefixedDataset

    layers = model.get_decoder().layers
    first = _first_away(len(layers), share)
    tensors = {f"{at}.{name}": tensor.data.cpu() for at in range(first, len(layers)) for name, tensor in layers[at].named_parameters()}
    if any(type(tensor) is not torch.Tensor or tensor.is_meta for tensor in tensors.values()):
        raise Problem("unsupported", "Offloading moves plain weights only, and those of this model are packed. Set offload to none.")
    away = AWAY[kind](tensors)
    for at in range(first, len(layers)):
        hook = AlignDevicesHook(
            execution_device=device,
            offload=True,
            weights_map=PrefixedDataset(away, f"{at}."),
            place_submodules=True,  # a layer at a time, not each of its modules
            skip_keys="past_key_values",
        )
        add_hook_to_module(layers[at], hook, append=True)
    for parameter in model.parameters():
        if not parameter.is_meta:
            # A copy even on the same CPU, else the whole file of the checkpoint stays mapped.
            parameter.data = parameter.data.to(device, copy=parameter.device.type == "cpu")
    for module in model.modules():
        for name, buffer in module._buffers.items():
            module._buffers[name] = buffer if buffer is None else buffer.to(device)
    away.bytes_per_s = copy_rate(away, device)
    return model


def _first_away(layers: int, share: float) -> int:
    return layers - away_layers(layers, share)


def _place(first: int, path: str) -> str:
    """Where the module at `path` is kept: host memory from layer `first` on, and where it is drawn ("") before."""
    found = re.search(r"\.layers\.(\d+)", path)
    return "cpu" if found and int(found[1]) >= first else ""


def _away(layer: Any) -> Away | None:
    """Where a layer's weights come from, or None for one that has them."""
    from accelerate.hooks import AlignDevicesHook

    hook = getattr(layer, "_hf_hook", None)
    if not isinstance(hook, AlignDevicesHook) or not hook.offload or not all(parameter.is_meta for parameter in layer.parameters()):
        return None
    found = getattr(hook.weights_map, "dataset", None)
    return found if isinstance(found, Away) else None


def _bytes(layers: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for layer in layers if _away(layer) is not None for tensor in layer.parameters())


def _share(knobs: Knobs) -> float:
    return float(knobs["offload_share"]) if knobs["offload"] != "none" else 0.0


TECHNIQUE = Offloading()
