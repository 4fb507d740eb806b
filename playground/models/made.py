"""What was made on this machine, such as an adapter or a model: one folder each in $PLAYGROUND_HOME/made, whole or not there at all.

A thing is filled into a hidden folder beside its own, which is renamed when it is complete; what an interrupted process left is removed by
the next try. Every thing carries provenance.json: how it was made. Example::

    with making("logbook") as folder:
        (folder / "adapter_config.json").write_text(...)
    find_made("made:logbook", "adapter")            # $PLAYGROUND_HOME/made/logbook
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from playground.core.places import ASSETS, ELSEWHERE, home, no_room
from playground.core.problem import Problem, did_you_mean

PREFIX = "made:"
PROVENANCE = "provenance.json"
SPARE_BYTES = 32 << 20  # left free beside what is written
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}")


def made_folder() -> Path:
    """Where things are made, created if it is missing."""
    folder = home() / "made"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def made(kind: str = "") -> dict[str, dict[str, Any]]:
    """Name and provenance of everything that was made here or comes with the product, of one kind ("adapter", "model") or of all. What
    cannot be read is left out: `find_made` says so to whom asks for it by name."""
    folders: list[Path] = []
    with suppress(OSError):
        folders += sorted((ASSETS / "made").iterdir())
    with suppress(OSError):
        folders += sorted(made_folder().iterdir())
    found: dict[str, dict[str, Any]] = {}
    for folder in folders:
        with suppress(Problem):
            if _NAME.fullmatch(folder.name) and (folder / PROVENANCE).is_file():
                found[folder.name] = provenance(folder)
    return {name: facts for name, facts in found.items() if not kind or facts.get("kind") == kind}


def made_here() -> dict[str, dict[str, Any]]:
    """Name and provenance of what was made on this machine, the newest first."""
    names = [folder.name for folder in made_folder().iterdir() if (folder / PROVENANCE).is_file() and not folder.name.startswith(".")]
    newest = sorted(names, key=lambda name: (made_folder() / name / PROVENANCE).stat().st_mtime, reverse=True)
    known = made()
    return {name: known[name] for name in newest if name in known}


def forget(name: str) -> None:
    """Delete what was made on this machine under that name (with or without made:); raises Problem("user") where there is nothing."""
    folder = find_made(name)
    if folder.parent != made_folder():
        raise Problem("user", f"{PREFIX}{folder.name} comes with the product and cannot be deleted.")
    gone = folder.with_name(f".{folder.name}.part-0")  # out of sight at once, whole
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def find_made(name: str, kind: str = "", how: str = "") -> Path:
    """The folder of "made:NAME": from this machine, else from the product. `kind`: what it must be ("adapter", "model"), or "" for any;
    `how`: a sentence on how it is made, for who names what is not there.

    Raises Problem("user") with the nearest name of that kind, for a thing of another kind, and for one whose provenance cannot be read."""
    plain = name.removeprefix(PREFIX)
    for root in (made_folder(), ASSETS / "made"):
        if _NAME.fullmatch(plain) and (root / plain / PROVENANCE).is_file():
            found = provenance(root / plain).get("kind")
            if kind and found != kind:
                raise Problem("user", f"{PREFIX}{plain} is of the kind {found}, and here one of the kind {kind} is needed.")
            return root / plain
    raise Problem("user", f"{did_you_mean('Nothing was made under the name', plain, made(kind))} {how}".rstrip())


def when_made(text: str) -> str:
    """The moments at which the things that `text` names with made:NAME were made: what is made anew under an old name is another thing."""
    moments: list[str] = []
    for name in sorted(set(re.findall(rf"{PREFIX}({_NAME.pattern})", text))):
        with suppress(OSError, Problem):
            moments.append(str((find_made(name) / PROVENANCE).stat().st_mtime_ns))
    return " ".join(moments)


def provenance(folder: Path) -> dict[str, Any]:
    """How the thing in `folder` was made; raises Problem("user") where its file cannot be read."""
    path = folder / PROVENANCE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Problem("user", f"{path} cannot be read: {error}. Delete the folder {folder} and make it again.") from error
    if not isinstance(found, dict):
        raise Problem("user", f"{path} must hold a JSON object. Delete the folder {folder} and make it again.")
    return found


def check_name(name: str) -> None:
    """Raises Problem("user") for a name that no folder should have, and for one that is taken."""
    if not name:
        raise Problem("user", "Give it a name: letters, digits, dots, dashes and underscores.")
    if not _NAME.fullmatch(name):
        raise Problem("user", f"The name {name!r} cannot be used: take letters, digits, dots, dashes and underscores, 64 at most.")
    if (made_folder() / name).exists():
        raise Problem("user", f"{PREFIX}{name} was made before: choose another name, or delete the folder {made_folder() / name}.")


def check_room(needed: int) -> None:
    """Raises Problem("user") before the work where `needed` bytes would not fit on the disk."""
    free = shutil.disk_usage(made_folder()).free
    if free < needed + SPARE_BYTES:
        need = f"{(needed + SPARE_BYTES) / 1e6:,.0f} MB are needed in {made_folder()}"
        raise Problem("user", f"There is no room for what is to be made: {need}, {free / 1e6:,.0f} MB are free.")


@contextmanager
def making(name: str, facts: Mapping[str, Any] | None = None) -> Iterator[Path]:
    """A fresh folder to fill, which becomes `name` with `facts` as its provenance when the block ends well, and is removed otherwise.

    Raises Problem("user") for a name that is taken and for a disk that is full.
    """
    check_name(name)
    target = made_folder() / name
    _sweep(name)
    part = target.with_name(f".{name}.part-{os.getpid()}")
    try:
        part.mkdir()
        yield part
        (part / PROVENANCE).write_text(json.dumps({**(facts or {}), "name": name}, indent=1, ensure_ascii=False), encoding="utf-8")
        check_name(name)
        part.rename(target)
    except Exception as error:
        if why := no_room(error):
            raise Problem("user", f"{why}: nothing of {PREFIX}{name} was kept in {made_folder()}. {ELSEWHERE}") from error
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _sweep(name: str) -> None:
    """Remove what processes that are gone left of `name`."""
    for left in made_folder().glob(f".{name}.part-*"):
        number = left.name.rpartition("-")[2]
        if not number.isdigit() or int(number) == os.getpid() or not psutil.pid_exists(int(number)):
            shutil.rmtree(left, ignore_errors=True)
