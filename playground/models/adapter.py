"""Where an adapter is: a PEFT folder, made:NAME, or a hub id whose files are fetched. Only safetensors are taken.

It reads headers and configuration, no weights. Example::

    resolve_adapter("made:logbook", print)      # a folder with adapter_config.json and adapter_model.safetensors
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from playground.core.problem import Problem
from playground.models import hub
from playground.models.folder import HOW_TO_CONVERT, WHY_NO_PICKLE, existing
from playground.models.intact import check_safetensors
from playground.models.made import PREFIX, find_made
from playground.models.model import OnProgress, told

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PICKLE = "adapter_model.bin"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def resolve_adapter(name: str, progress: OnProgress) -> Path:
    """The folder of a whole adapter; raises Problem("model") or Problem("user") with what is wrong with it."""
    if name.startswith(PREFIX):
        folder = find_made(name, "adapter")
    elif path := existing(name):
        folder = path if path.is_dir() else path.parent
    elif _HUB_ID.fullmatch(name):
        folder = _from_hub(name, progress)
    else:
        raise Problem("model", f"There is no adapter {name!r}: give a PEFT folder, made:NAME or a hub id (org/name).")
    _check(name, folder)
    return folder


def adapter_numbers(name: str) -> int | None:
    """How many numbers an adapter has, by the header of its file; None where it is not on this machine or not whole. Asks no hub."""
    from huggingface_hub import try_to_load_from_cache
    from safetensors import SafetensorError, safe_open

    try:
        path: Any = None
        if name.startswith(PREFIX):
            path = find_made(name) / WEIGHTS
        elif found := existing(name):
            path = (found if found.is_dir() else found.parent) / WEIGHTS
        elif _HUB_ID.fullmatch(name):
            path = try_to_load_from_cache(name, WEIGHTS)
        if not isinstance(path, str | Path):
            return None
        with safe_open(path, framework="np") as file:
            return sum(int(math.prod(file.get_slice(key).get_shape())) for key in file.keys())  # noqa: SIM118 (a file is no mapping)
    except (Problem, OSError, SafetensorError):
        return None


def _check(name: str, folder: Path) -> None:
    if not (folder / CONFIG).is_file():
        raise Problem("model", f"{name} is not an adapter: {folder} has no {CONFIG}.")
    if not (folder / WEIGHTS).is_file():
        if (folder / PICKLE).is_file():
            raise Problem("model", f"{name} has its weights only as a pickle ({PICKLE}). {WHY_NO_PICKLE} {HOW_TO_CONVERT}")
        raise Problem("model", f"{name} is incomplete: {folder} has no {WEIGHTS}.")
    check_safetensors(folder / WEIGHTS)


def _from_hub(hub_id: str, progress: OnProgress) -> Path:
    """The snapshot in the hub's cache, fetched if it is not whole there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    files = [CONFIG, WEIGHTS]
    try:
        folder = Path(snapshot_download(hub_id, local_files_only=True, allow_patterns=files))
        if all((folder / file).is_file() for file in files):
            return folder
    except (OSError, HFValidationError):
        pass  # not here yet
    told(progress, f"fetching the adapter {hub_id}", 0, None, "")
    return hub.fetched(hub_id, lambda: snapshot_download(hub_id, allow_patterns=files, etag_timeout=hub.ANSWER_S))
