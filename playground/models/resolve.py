"""A name becomes a local folder: a catalogue name, shape:NAME, made:NAME, a hub id, a folder, or a .gguf file.

`resolve` fetches what is missing (in the worker: a GGUF conversion needs torch); `peek` never fetches weights and never imports torch.
Example::

    model = resolve("smollm2-135m-instruct", print)
    model.folder, model.source
"""

from __future__ import annotations

import re
from pathlib import Path

from playground.core.problem import Problem, did_you_mean
from playground.models.catalogue import SHAPE, catalogue, find, made_source
from playground.models.folder import check_folder, existing, peek_folder, resolve_folder
from playground.models.gguf import peek_gguf, resolve_gguf
from playground.models.hub import peek_hub, resolve_hub
from playground.models.made import PREFIX, find_made, provenance
from playground.models.model import ModelFacts, OnProgress, ResolvedModel
from playground.models.offline import resolve_default
from playground.models.shape import resolve_shape, shape_entry

__all__ = ["ModelFacts", "ResolvedModel", "peek", "require_made", "resolve"]
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def resolve(name: str, progress: OnProgress) -> ResolvedModel:
    """The model called `name`, on this machine when this returns; raises Problem("model") with a sentence on what is wrong, or
    Problem("user") for a made:NAME that is no model.

    progress: called in this thread with the bytes of a download; an exception that it raises ends the work.
    """
    if name.startswith(SHAPE):
        return resolve_shape(name)
    if name.startswith(PREFIX):
        return _resolve_made(name)
    entry = find(name)
    if entry is not None:
        return resolve_default(name, progress) if entry.kind == "default" else resolve_hub(name, entry.hub, progress)
    if path := existing(name):
        return resolve_folder(name, path) if path.is_dir() else _resolve_file(name, path, progress)
    if _is_path(name):
        raise Problem("model", f"There is no file or folder {name}.")
    if _HUB_ID.fullmatch(name):
        return resolve_hub(name, name, progress)
    raise Problem("model", did_you_mean("There is no model", name, [entry.name for entry in catalogue()]))


def peek(name: str, ask_hub: bool = True) -> ModelFacts | None:
    """What is known of `name` within a few seconds, without weights; None for an unknown name, a broken file or a silent hub.

    ask_hub: fetch config.json of a hub model where it is not on this machine; without it the answer comes at once."""
    try:
        return _peek(name, ask_hub)
    except Problem:
        return None


def _peek(name: str, ask_hub: bool) -> ModelFacts | None:
    if name.startswith(SHAPE):
        return ModelFacts(name, "shape", shape_entry(name).config, random_weights=True)
    entry = find(name)
    if entry is not None and entry.config:
        return ModelFacts(name, entry.kind, entry.config)
    if entry is None and (path := existing(name)):
        return peek_folder(name, path) if path.is_dir() else peek_gguf(name, path)
    hub_id = entry.hub if entry else name
    return peek_hub(name, hub_id, ask_hub) if _HUB_ID.fullmatch(hub_id) and not _is_path(hub_id) else None


def require_made(name: str) -> None:
    """Raises Problem("user") for a made:NAME that is no model on this machine, and says how to make it; silent for every other name."""
    if name.startswith(PREFIX):
        _made_folder(name)


def _made_folder(name: str) -> Path:
    how = f"A model is made with `python -m playground distil --name {name.removeprefix(PREFIX)}`, or on the page's tab Make."
    return find_made(name, "model", how)


def _resolve_made(name: str) -> ResolvedModel:
    folder = _made_folder(name)
    return ResolvedModel(name, folder, "made", made_source(provenance(folder)), check_folder(folder))


def _resolve_file(name: str, path: Path, progress: OnProgress) -> ResolvedModel:
    if path.suffix == ".gguf":
        return resolve_gguf(name, path, progress)
    if path.suffix == ".safetensors":
        return resolve_folder(name, path.parent)
    raise Problem("model", f"{path} is not a model: give a .gguf file, or a folder with config.json and *.safetensors.")


def _is_path(name: str) -> bool:
    return name.startswith(("/", ".", "~", "\\")) or name.endswith((".gguf", ".safetensors")) or name.count("/") > 1
