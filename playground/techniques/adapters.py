"""Adapters: LoRA from a PEFT folder, on top of a model or added to its weights.

The layers are changed in place, so that the model stays the one that transformers loaded. An adapter that does not fit is refused before
anything is changed. Example::

    {"adapter": "made:logbook", "adapter_mode": "unmerged", "quantization": "nf4"}      # QLoRA
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from playground.core.knobs import Choice, Text
from playground.core.machine import Machine
from playground.core.problem import Problem
from playground.core.technique import Effect, Explanation, Finding, Footprint, Knobs, Technique
from playground.techniques import lora
from playground.techniques.quantization import comes_quantized
from playground.techniques.setup import TransformersSetup

RANDOM = "random:"
RANKS = range(1, 513)
KERNELS = 4.0  # of one adapter on one layer: two products, a scaling and a sum (peft 0.21, lora.layer.Linear.forward)


class Adapters(Technique):
    """LoRA, one or several on one base, merged or not."""

    name = "adapters"
    title = "Adapters"
    group = "Weights"
    order = 26
    phase = "load"
    knobs = (
        Text(
            "adapter",
            "LoRA adapter",
            "A PEFT folder, made:NAME, a hub id, or random:RANK for costs alone; several with commas between them add up.",
        ),
        Choice(
            "adapter_mode",
            "Adapter is",
            ("merged", "unmerged"),
            "merged",
            "Merged adds it to the weights once, unmerged computes it beside them at each step.",
        ),
    )
    explain = Explanation(
        what="LoRA leaves the weights as they are and learns a small correction for each layer: the product of two thin matrices, of rank "
        "4 to 64. Merged, the correction is added to the weights when the model is loaded; unmerged, each layer computes it beside its own "
        "product.",
        helps="A model learns a style or a task from little text in minutes, in about one percent of its size. Many adapters can share one "
        "base, and unmerged they work over a base of 4 bits too.",
        costs="Unmerged, four more kernels in each adapted layer: where launching kernels is the limit, a step gets slower by far more "
        "than the few added numbers suggest. Merged costs nothing at each step. What the adapter was not trained on may get worse.",
    )
    cases = (
        {"adapter": ""},
        {"adapter": "random:4", "adapter_mode": "merged"},
        {"adapter": "random:4", "adapter_mode": "unmerged"},
        {"adapter": "random:4, random:2", "adapter_mode": "unmerged"},
    )

    def requires(self, knobs: Knobs, machine: Machine, device: str) -> str | None:
        """peft, where there is an adapter."""
        if names_of(knobs) and "peft" not in machine.packages:
            return "needs the package peft, which is not installed: pip install peft"
        return None

    def conflicts(self, knobs: Knobs) -> str | None:
        """Nothing is merged into quantized weights."""
        names = names_of(knobs)
        for name in names:
            if names.count(name) > 1:
                return f"The adapter {name} is named twice: name each once."
            if name.startswith(RANDOM) and _rank(name) not in RANKS:
                return f"{name} is no adapter: {RANDOM}RANK needs a whole number from {RANKS[0]} to {RANKS[-1]}."
        kind = knobs["quantization"]
        if names and knobs["adapter_mode"] == "merged" and kind != "none":
            return (
                f"A merged adapter and quantization {kind} exclude each other: the sum would be rounded to those few bits again, and "
                "most of so small a correction is lost in the rounding. Set adapter_mode to unmerged."
            )
        return None

    def irrelevant(self, knobs: Knobs) -> Mapping[str, str]:
        """The mode is that of an adapter."""
        return {} if names_of(knobs) else {"adapter_mode": "no adapter is chosen."}

    def expect(self, knobs: Knobs, baseline: Knobs) -> Mapping[str, Effect]:
        """Another adapter gives other output; each unmerged one adds bytes and work to a step."""
        effects: dict[str, Effect] = {}
        if names_of(knobs) != names_of(baseline):
            effects |= {"kld_mean": "up", "top1_agreement": "down"}
        beside, before = _beside(knobs), _beside(baseline)
        if beside != before:
            effects |= dict.fromkeys(("weights_bytes", "itl_s"), "up" if beside > before else "down")
        elif effects and not beside:
            effects |= dict.fromkeys(("weights_bytes", "itl_s"), "same")
        return effects

    def footprint(self, knobs: Knobs, footprint: Footprint) -> Footprint:
        """The kernels of an adapter on all linear layers, 4 a layer; one on some of them has fewer. Its bytes, some percent at most, are
        not counted here: they are in its files."""
        return replace(footprint, linear_kernels=footprint.linear_kernels + KERNELS * _beside(knobs))

    def adapters(self, knobs: Knobs) -> tuple[str | int, ...]:
        """All of them, unless they are merged."""
        names = names_of(knobs) if _beside(knobs) else []
        return tuple(_rank(name) if name.startswith(RANDOM) else name for name in names)

    def for_transformers(self, knobs: Knobs, setup: TransformersSetup) -> None:
        """Finds the files now, and changes the layers once the model is there. Raises Problem("user") for a merge into a checkpoint that
        comes quantized."""
        names = names_of(knobs)
        if not names:
            return
        found = [lora.drawn(_rank(name)) if name.startswith(RANDOM) else lora.read(name, _folder(setup, name)) for name in names]
        merge = knobs["adapter_mode"] == "merged"
        if merge and (method := comes_quantized(setup.config)):
            why = f"This model comes quantized ({method}), and nothing can be merged into it"
            raise Problem("user", f"{why}: set adapter_mode to unmerged.")
        setup.changes.append(functools.partial(lora.put_on, adapters=found, base=setup.model, merge=merge))

    def evidence_for_transformers(self, knobs: Knobs, engine: Any) -> Finding:
        """Unmerged: the adapter's layers in the model and their numbers, by name. Merged: none left, and by how much the weights moved
        when it was added."""
        names = names_of(knobs)
        layers = lora.adapted(engine.model)
        moved = getattr(engine.model, lora.RECORD, {})
        if not names:
            return Finding(not layers and not moved, f"{len(layers)} layers carry an adapter")
        if knobs["adapter_mode"] == "merged":
            text = f"{', '.join(moved) or 'no adapter'} merged: {len(layers)} adapter layers are left"
            worked = set(moved) == set(names) and all(part.share > 0 for part in moved.values())
            shares = "; ".join(f"{part.layers} layers' weights moved by {100 * part.share:.2f} % of their norm" for part in moved.values())
            return Finding(worked and not layers, f"{text}; {shares}" if shares else text)
        parts = [lora.described(engine.model, number, name) for number, name in enumerate(names)]
        return Finding(bool(layers) and not moved and all(part.ok for part in parts), "; ".join(part.text for part in parts))

    def counts_for_transformers(self, knobs: Knobs, engine: Any) -> Mapping[str, float]:
        """Numbers of the adapters: those in the model, or those that were merged into it."""
        if not names_of(knobs):
            return {}
        moved = getattr(engine.model, lora.RECORD, {})
        return {"adapter_numbers": float(sum(part.numbers for part in moved.values()) or lora.numbers(engine.model))}

    def refuses_graph(self, knobs: Knobs, device: str) -> str | None:
        """The engine joins and packs plain linear layers."""
        if _beside(knobs):
            return "the engine graph joins and packs plain linear layers, and an unmerged adapter is none: set adapter_mode to merged."
        return None


def names_of(knobs: Knobs) -> list[str]:
    """The adapters that are asked for, in order."""
    return [name.strip() for name in str(knobs["adapter"]).split(",") if name.strip()]


def _beside(knobs: Knobs) -> int:
    """How many adapters each layer computes beside its own weights."""
    return len(names_of(knobs)) if knobs["adapter_mode"] == "unmerged" else 0


def _rank(name: str) -> int:
    text = name.removeprefix(RANDOM)
    return int(text) if text.isdecimal() and len(text) < 9 else 0


def _folder(setup: TransformersSetup, name: str) -> Any:
    if setup.find_adapter is None:
        raise Problem("unsupported", "This engine looks for no adapters.")
    return setup.find_adapter(name)


TECHNIQUE = Adapters()
