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
ELSEWHERE = "Free some room, or name another place in $PLAYGROUND_HOME."
_NO_ROOM = {
    errno.ENOSPC: "The disk is full",
    errno.EDQUOT: "The disk is full",
    errno.EFBIG: "The disk takes no file of that size",
}


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


def no_room(error: BaseException) -> str:
    """Why the disk takes no more, as a sentence begins; "" for any other error. Libraries that write without Python say so in words."""
    number = error.errno if isinstance(error, OSError) else None
    return next((why for each, why in _NO_ROOM.items() if each == number or f"(os error {each})" in str(error)), "")


def _user_cache() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
