"""Where things are: the user's folder (`$PLAYGROUND_HOME`, by default the user's cache folder) and the data that the product ships; and
what is no place to write to, or has no room."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

from playground.core.problem import Problem

ROOT = Path(__file__).resolve().parents[2]
PRESETS = ROOT / "presets"
ASSETS = ROOT / "assets"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def home() -> Path:
    """The folder of models, results and logs, created if it is missing; raises OSError where it cannot be."""
    folder = home_path()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def home_path() -> Path:
    """Where `home` is, whether it is there or not."""
    given = os.environ.get("PLAYGROUND_HOME")
    return Path(given).expanduser() if given else _user_cache() / "inference-playground"


def keep_compiled() -> None:
    """What torch and triton compile stays in the user's folder for the next worker."""
    for variable, folder in (("TORCHINDUCTOR_CACHE_DIR", "inductor"), ("TRITON_CACHE_DIR", "triton")):
        os.environ.setdefault(variable, str(home() / "compiled" / folder))


def check_target(path: Path) -> None:
    """Raises Problem("user") for a place to write to that holds something other than a file: a folder, a pipe, a device."""
    if os.path.exists(path) and not os.path.isfile(path):  # Path's own raise where this user may not look
        raise Problem("user", f"{path} is there already and is not a file: choose another name.")


def is_full(error: BaseException) -> bool:
    """Whether it says that the disk is: libraries that write without Python say so in words only."""
    told = any(f"(os error {number})" in str(error) for number in _FULL)
    return told or (isinstance(error, OSError) and error.errno in _FULL)


def _user_cache() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
