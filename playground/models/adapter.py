"""Where an adapter is: a PEFT folder, made:NAME, or a hub id whose files are fetched. Only safetensors are taken.

It reads headers and configuration, no weights. Example::

    resolve_adapter("made:logbook", print)      # a folder with adapter_config.json and adapter_model.safetensors
"""

from __future__ import annotations

import re
from pathlib import Path

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
