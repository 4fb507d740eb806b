"""What techniques change before an engine loads or runs a model. One dataclass an engine family; plain values, no torch.

Example: precision sets `setup.dtype = "bfloat16"`; the KV cache sets `setup.run.make_cache`; pruning appends to `setup.changes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class RunSetup:
    """What holds for one run, and is forgotten before the next one.

    make_cache: (model, rows, tokens) -> a transformers Cache with room for `tokens` a row, or None for no cache; contexts: entered around
    every forward pass, scoring included; fill: (engine, cache, batch) -> how many tokens, the same at the start of each row, the fresh
    cache holds now; decode: (engine, batch) -> ticks, in place of one token a forward pass; score_tokens: texts are scored this many
    tokens a forward pass through the run's own cache, where such passes are what really runs (None: all at once, without); unscored: why
    they cannot be scored by what really runs, "" where they can; opening: called with the engine once all of a run's settings are known,
    and knowing: once all its prompts are, before any clock runs; closing: called when these settings are forgotten; seen: what techniques
    note for the evidence of each other, by name; counts: what passes count by name, emptied before the timed ones.
    """

    make_cache: Callable[[Any, int, int], Any] | None = None
    contexts: list[Callable[[], AbstractContextManager[Any]]] = field(default_factory=list)
    fill: Callable[[Any, Any, Any], int] | None = None
    decode: Callable[[Any, Any], Iterator[Any]] | None = None
    score_tokens: int | None = None
    unscored: str = ""
    opening: list[Callable[[Any], None]] = field(default_factory=list)
    knowing: list[Callable[[Any], None]] = field(default_factory=list)
    closing: list[Callable[[], None]] = field(default_factory=list)
    seen: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)


@dataclass
class TransformersSetup:
    """For engines that run a transformers model.

    dtype: torch dtype name of unquantized weights and activations; device: "cpu" or "cuda"; load: further arguments of `from_pretrained`;
    changes: called with the loaded model, in order, each returns the model to go on with; contexts: as RunSetup's, but for every run;
    fusion, weight_only, gguf_blocks: the values of those knobs, for engines that load a model so or change it; run: what the run-phase
    techniques set; config: the content of the model's config.json, before anything is loaded; random_weights: whether they are drawn in
    place of read; tokenizer: the loaded one (models.tokenizer); model: its name; find_adapter: of an adapter's name, its folder on this
    machine; draft: name of a second model to load beside it, "" for none.
    """

    device: str = "cpu"
    dtype: str = "float32"
    load: dict[str, Any] = field(default_factory=dict)
    changes: list[Callable[[Any], Any]] = field(default_factory=list)
    contexts: list[Callable[[], AbstractContextManager[Any]]] = field(default_factory=list)
    fusion: str = "off"
    weight_only: str = "none"
    gguf_blocks: bool = False
    run: RunSetup = field(default_factory=RunSetup)
    config: Mapping[str, Any] = field(default_factory=dict)
    random_weights: bool = False
    tokenizer: Any = None
    model: str = ""
    find_adapter: Callable[[str], Path] | None = None
    draft: str = ""
