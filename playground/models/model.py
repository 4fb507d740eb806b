"""What a model is once its name is resolved: `ResolvedModel` (a local folder) and `ModelFacts` (what is known without fetching weights).

Plain data, no I/O but `cache`. Example::

    ResolvedModel("shape:tiny", Path("..."), "shape", "random weights, seed 0", {"model_type": "llama"}, random_weights=True)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from playground.core.events import Progress
from playground.core.places import home

Kind = Literal["hub", "folder", "gguf", "default", "shape", "made"]
OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class ResolvedModel:
    """A model on this machine. `folder` holds config.json and, except for shapes, *.safetensors and the tokenizer; `source` says honestly
    where the weights come from; `config` is the content of config.json; `gguf` is the file that the folder was converted from, be
    it still there or not, None where there was none."""

    name: str
    folder: Path
    kind: Kind
    source: str
    config: Mapping[str, Any]
    random_weights: bool = False
    gguf: Path | None = None


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model without fetching its weights. `config`: Hugging Face names (num_hidden_layers, hidden_size, ...)."""

    name: str
    kind: Kind
    config: Mapping[str, Any]
    random_weights: bool = False


def cache() -> Path:
    """The folder of converted models and shapes, created if it is missing."""
    folder = home() / "models"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def told(progress: OnProgress, name: str, done: float, total: float | None = None, unit: str = "B") -> None:
    """Send one Progress event, stamped now."""
    progress(Progress(time.perf_counter_ns(), name, done, total, unit))
