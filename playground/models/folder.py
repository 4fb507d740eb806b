"""A folder with config.json and *.safetensors: is it a model that we load, and what is known of it?

Reads headers only; refuses pickles, half downloads and folders without weights. Example::

    resolve_folder("~/models/mine", Path("~/models/mine").expanduser()).source
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from playground.core.problem import Problem
from playground.models.intact import check_safetensors
from playground.models.model import ModelFacts, ResolvedModel

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
WHY_NO_PICKLE = "Unpickling a checkpoint can run any code that it carries, so only safetensors and GGUF are loaded."
HOW_TO_CONVERT = "Where you trust the file, convert it: load it with transformers and call save_pretrained, which writes safetensors."


def existing(name: str) -> Path | None:
    """The file or folder of that name, `~` expanded. None where there is none, be it that no path can be called so (too long, the home of
    an unknown user, a null byte); raises Problem("model") where this user may not look."""
    try:
        path = Path(name).expanduser()
        return path if path.is_dir() or path.is_file() else None
    except PermissionError as error:
        raise Problem("model", f"{name} cannot be read: {error.strerror}.", repr(error)) from error
    except (OSError, RuntimeError, ValueError):
        return None


def resolve_folder(name: str, folder: Path) -> ResolvedModel:
    """The model in `folder`; raises Problem("model") where there is none that can be loaded."""
    try:
        config = check_folder(folder)
    except OSError as error:
        raise Problem("model", f"{folder} cannot be read: {error.strerror or error}.", repr(error)) from error
    return ResolvedModel(name, folder, "folder", f"local folder {folder}", config)


def peek_folder(name: str, folder: Path) -> ModelFacts | None:
    """Facts of a folder with a readable config.json, None otherwise."""
    try:
        return ModelFacts(name, "folder", read_config(folder))
    except (OSError, Problem):
        return None


def check_folder(folder: Path) -> dict[str, Any]:
    """config.json of a folder whose safetensors files are whole; raises Problem("model") that says what was found instead."""
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    weights = [name for name in names if name.endswith(".safetensors")]
    if not weights:
        _refuse(folder, names)
    config = read_config(folder)
    shards = _shards(folder)
    if missing := sorted(shards - set(weights)):
        raise Problem("model", f"{folder} is incomplete: {len(missing)} of {len(shards)} weight files are missing, first {missing[0]}.")
    for name in weights:
        check_safetensors(folder / name)
    return config


def read_config(folder: Path) -> dict[str, Any]:
    """config.json as a mapping; raises Problem("model")."""
    path = folder / "config.json"
    if not path.is_file():
        raise Problem("model", f"{folder} has no config.json, so its architecture is not known. Copy the whole model folder.")
    config = _read_json(path)
    if not isinstance(config.get("model_type"), str):
        raise Problem("model", f"{path} has no model_type: it is not the configuration of a transformers model.")
    return config


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise Problem("model", f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(data, dict):
        raise Problem("model", f"{path} must hold a JSON object.")
    return data


def _shards(folder: Path) -> set[str]:
    path = folder / "model.safetensors.index.json"
    table = _read_json(path).get("weight_map", {}) if path.is_file() else {}
    return {str(file) for file in table.values()} if isinstance(table, dict) else set()


def _refuse(folder: Path, names: list[str]) -> None:
    pickles = [name for name in names if name.endswith(PICKLES)]
    if pickles:
        raise Problem("model", f"{folder} has its weights only as a pickle ({pickles[0]}). {WHY_NO_PICKLE} {HOW_TO_CONVERT}")
    ggufs = [name for name in names if name.endswith(".gguf")]
    if ggufs:
        raise Problem("model", f"{folder} holds a GGUF file: give the path of the file itself, {folder / ggufs[0]}")
    found = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "") if names else "no files"
    raise Problem("model", f"{folder} has no weights: it needs config.json and *.safetensors, and has {found}.")
