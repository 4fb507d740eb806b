"""Shapes: an architecture from the catalogue with random weights. Speed and memory are real, the text is noise.

Resolving one writes its config.json; `models.weights.build_random` makes the weights. Example::

    resolve_shape("shape:tiny").config["hidden_size"]   # 64
"""

from __future__ import annotations

import json
import os

from playground.core.problem import Problem, did_you_mean
from playground.models.catalogue import SHAPE, Entry, catalogue
from playground.models.model import ResolvedModel, cache


def shape_entry(name: str) -> Entry:
    """The catalogue entry of "shape:NAME"; raises Problem("model") with the nearest name."""
    shapes = {entry.name: entry for entry in catalogue() if entry.kind == "shape"}
    if name not in shapes:
        raise Problem("model", did_you_mean("There is no shape", name, shapes))
    return shapes[name]


def resolve_shape(name: str) -> ResolvedModel:
    """A folder that holds config.json only, kept in the cache."""
    entry = shape_entry(name)
    folder = cache() / "shapes" / entry.name.removeprefix(SHAPE)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(entry.config, indent=1)
    path = folder / "config.json"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        fresh = folder / f"config.json.{os.getpid()}"
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
    return ResolvedModel(name, folder, "shape", f"{entry.title}: no trained weights, the text is noise", entry.config, random_weights=True)
