"""The contract of a technique: one optimisation, its knobs, its explanation, how engines apply it and the proof that it took effect.

A technique is one file in `playground/techniques/` that ends with `TECHNIQUE = ThatClass()`. For every engine that supports it, it has a
pair of methods named after the engine; without the pair the engine refuses every value but the default, and the page says so::

    def for_transformers(self, knobs, setup): ...            # change `setup` before load (phase "load") or before a run ("run")
    def evidence_for_transformers(self, knobs, engine): ...  # look at the real objects and return Finding(ok, text)
    def counts_for_transformers(self, knobs, engine): ...    # if it counts something for metrics: {name: number}, after the timed passes

These run in the worker, may import torch inside, and are called in the order of `order`. Where an engine can have some values and not
others, a third method says why, or returns None; it runs in the page's process too::

    def refuses_transformers(self, knobs, device): ...       # device is cpu or cuda

An engine may take the methods of another one where a technique has none under its own name: see `Engine.hooks`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from playground.core.knobs import Knob, KnobValue
from playground.core.machine import Machine
from playground.core.spec import Workload

if TYPE_CHECKING:
    from playground.core.engine import Batch

Knobs = Mapping[str, KnobValue]
Effect = Literal["up", "down", "same"]
GGUF_BITS = "gguf_linear_bits"  # beside what a model's config.json has: mean bits of a linear weight in the GGUF file that it came from


@dataclass(frozen=True)
class Explanation:
    """Plain words: what it does, when it helps, what it costs."""

    what: str
    helps: str
    costs: str


@dataclass(frozen=True)
class Finding:
    """What the proof found, in one sentence with numbers. `ok` False stops the run: nothing is ever substituted silently."""

    ok: bool
    text: str


@dataclass(frozen=True)
class Footprint:
    """How knobs change memory and the work of a step, for the estimate before loading and for the roofline.

    Bits a number for: all weights, the decoder's linear layers and an output head that is not the embedding's (None: as all weights), the
    KV cache. `kv_share`: 0 where no cache is kept, 1 where each token is; `kv_copied`: the cache is copied when it grows; `kv_padded`: it
    is allocated in full and attention reads all of it; `rows`: sequences a batch; `score_matrix`: attention weights are stored in full;
    `captured`: steps are replayed from a CUDA graph, so that their launches cost the host nothing; `kv_bucketed`: the cache is allocated
    in the sizes of `measure.buckets`; `kv_window`: tokens that each token attends to, and the cache keeps (None: all); `kv_offloaded`: it
    lies in host memory, but for two layers; `kv_unpacked_bits`: each step writes all of it out in these bits (None: it is read as it is),
    and after the prompt the newest tokens are kept so until `kv_residual` of them have come.

    Where more than `unpack_above` tokens are multiplied at once (None: never), each linear layer's weights are first written out in
    `unpacked_bits`. Kernels of eager transformers: `layer_kernels` of one decoder layer without a cache and with one product for each of
    its linear layers; `step_kernels` in its place in the decode steps of a compiled layer; `linear_kernels` of a linear layer,
    `joined_kernels` of which a compiled step joins with others; `unpack_kernels` more where its weights are unpacked. `layers_share`,
    `mlp_share`: what is left of the decoder's layers and of the intermediate channels of each, as `kept_layers` and `kept_width` count
    them. `away_share`: of the decoder's layers, those that are kept off the device and come to it for each pass, as `away_layers` counts
    them. `in_blocks`: linear layers keep the blocks of a GGUF file, which are those of `linear_bits` where the model's facts do not name
    its own (GGUF_BITS). `linear_groups`: columns that share a scale; `linear_bits` counts the first, and a layer whose columns it does not
    divide takes the next that does. `speculated`: a step checks proposed tokens, and nobody knows before how many of them it will keep.
    `scheduled`: requests come over time, and nobody knows which share a step.
    `product_dtype`: torch's name of the format in which linear layers multiply, which need not be that of their weights
    (those of int8 and fp8 are counted as the format that the results come in).
    """

    weight_bits: float = 32.0
    linear_bits: float | None = None
    linear_groups: tuple[int, ...] = ()
    head_bits: float | None = None
    kv_bits: float = 32.0
    kv_share: float = 1.0
    kv_copied: bool = False
    kv_padded: bool = False
    rows: int = 1
    score_matrix: bool = False
    unpack_above: int | None = None
    unpacked_bits: float = 16.0
    layer_kernels: float = 39.0
    step_kernels: float | None = None
    linear_kernels: float = 1.0
    joined_kernels: float = 0.0
    unpack_kernels: float = 1.0
    captured: bool = False
    kv_bucketed: bool = False
    kv_window: int | None = None
    kv_offloaded: bool = False
    kv_unpacked_bits: float | None = None
    kv_residual: int = 0
    layers_share: float = 1.0
    mlp_share: float = 1.0
    away_share: float = 0.0
    in_blocks: bool = False
    speculated: bool = False
    scheduled: bool = False
    product_dtype: str = "float32"

    @property
    def bits_of_linear(self) -> float:
        """Bits a number of the decoder's linear layers."""
        return self.weight_bits if self.linear_bits is None else self.linear_bits

    @property
    def bits_of_head(self) -> float:
        """Bits a number of an output head that is not the embedding's."""
        return self.weight_bits if self.head_bits is None else self.head_bits


def kept_layers(layers: int, share: float) -> int:
    """How many of `layers` decoder layers are left where `share` of them is kept."""
    return round(layers * share)


def away_layers(layers: int, share: float) -> int:
    """How many of `layers` decoder layers are kept off the device where `share` of them is: at least one, unless it is none."""
    return max(1, round(layers * share)) if share else 0


def kept_width(channels: int, share: float) -> int:
    """How many of `channels` intermediate channels are left where `share` of them is kept: a multiple of 32, the smallest group of
    columns that 4-bit weights are packed in."""
    return channels if share == 1 else round(channels * share / 32) * 32


def flipped(effects: Mapping[str, Effect]) -> dict[str, Effect]:
    """The effects of going the other way."""
    other: dict[Effect, Effect] = {"up": "down", "down": "up", "same": "same"}
    return {metric: other[effect] for metric, effect in effects.items()}


class Technique:
    """Base of all techniques; subclasses fill the class attributes and override what applies."""

    name: ClassVar[str]
    title: ClassVar[str]
    group: ClassVar[str]
    order: ClassVar[int]
    phase: ClassVar[Literal["load", "run"]]
    knobs: ClassVar[tuple[Knob, ...]]
    explain: ClassVar[Explanation]
    cases: ClassVar[tuple[Mapping[str, KnobValue], ...]]
    common: ClassVar[bool] = False  # whether the page shows its knobs unfolded

    def requires(self, knobs: Knobs, machine: Machine, device: str) -> str | None:
        """Why these values cannot work on this machine's device, cpu or cuda (a package or a capability that is missing), or None."""
        return None

    def conflicts(self, knobs: Knobs) -> str | None:
        """Why these values exclude each other or another technique's, with what to choose instead, or None."""
        return None

    def irrelevant(self, knobs: Knobs) -> Mapping[str, str]:
        """Names of own knobs that have no effect beside the other values, each with the reason."""
        return {}

    def expect(self, knobs: Knobs, baseline: Knobs) -> Mapping[str, Effect]:
        """What a person expects of these values against the baseline's, by metric: the physics alone, which the verdict may contradict
        with its reason. Empty where the technique's own knobs are equal."""
        return {}

    def footprint(self, knobs: Knobs, footprint: Footprint) -> Footprint:
        """`footprint` as these values change it; called in `order`. A count of kernels names what was counted."""
        return footprint

    def models(self, knobs: Knobs) -> tuple[str, ...]:
        """Names of further models that are loaded beside the run's own: in its number format, not quantized, each with a KV cache."""
        return ()

    def adapters(self, knobs: Knobs) -> tuple[str | int, ...]:
        """Names of the adapters that are computed beside the weights; a number is the rank of one on all linear layers."""
        return ()

    def batches(self, knobs: Knobs, work: Workload, prompts: Sequence[tuple[int, ...]]) -> list[tuple[tuple[int, ...], Batch]] | None:
        """The batches of a pass, each with the numbers of its requests, where these values decide them; None where they do not."""
        return None

    def defaults(self) -> dict[str, KnobValue]:
        """Default value of every knob."""
        return {knob.name: knob.default for knob in self.knobs}

    def active(self, knobs: Knobs) -> bool:
        """Whether any own knob differs from its default."""
        return any(knobs.get(name, default) != default for name, default in self.defaults().items())

    def hook(self, method: str, engine: str) -> Any:
        """The method for an engine, e.g. hook("for", "transformers"), or None."""
        return getattr(self, f"{method}_{engine}", None)
