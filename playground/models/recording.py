"""Recorded experiments: the raw events of real runs in one small file, so that they can be looked at again anywhere.

A recording is a `.jsonl.gz` file. Its first line is a header (title, machine, date, about, specs: the variants, baseline first), every
further line is one event: `{"v": variant, "e": {event}}`. Files in `assets/recordings/` and those that were imported, in the user's folder,
have a name, all others a path. A recorded sweep's header has `sweep` besides: its plan, and the place of each variant in it. Example::

    recording = read(find("h100-precision"))
    print(recording.title, recording.machine, len(recording.events[0]))
"""

from __future__ import annotations

import gzip
import json
import os
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playground.core.events import Event, from_json, to_json
from playground.core.places import ASSETS, check_target, home_path
from playground.core.problem import Problem, did_you_mean
from playground.core.spec import RunSpec
from playground.core.sweep import Cell, SweepSpec
from playground.models.folder import existing

FOLDER = ASSETS / "recordings"
SUFFIX = ".jsonl.gz"
MOST_BYTES = 256_000_000  # of what a file unpacks to; a small file can be packed to fill any memory
FIELDS = ("title", "machine", "date", "about", "specs")


@dataclass(frozen=True)
class RecordedCell:
    """A cell of a recorded sweep. variant: which of the recording's it is, None where it has no events, for `reason`; seconds: it took."""

    cell: Cell
    variant: int | None = None
    reason: str = ""
    seconds: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; the spec of a variant is among the recording's, and not here."""
        left_out = ("index",) if self.variant is None else ("index", "spec")
        cell = {name: value for name, value in self.cell.to_dict().items() if name not in left_out}
        return {**cell, "variant": self.variant, "reason": self.reason, "seconds": self.seconds}


@dataclass(frozen=True)
class RecordedSweep:
    """The plan of a recorded sweep, and all its cells in order."""

    plan: SweepSpec
    cells: tuple[RecordedCell, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"plan": self.plan.to_dict(), "cells": [held.to_dict() for held in self.cells]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], specs: Sequence[RunSpec]) -> RecordedSweep:
        """What `to_dict` gave of a recording with these variants; raises ValueError and its like for anything else."""
        cells = []
        for index, item in enumerate(data["cells"]):
            variant, seconds = item["variant"], item["seconds"]
            spec = RunSpec.from_dict(item["spec"]) if variant is None else specs[variant]
            cell = Cell(index, int(item["line"]), tuple(item["point"]), spec, str(item["label"]))
            cells.append(RecordedCell(cell, variant, str(item["reason"]), None if seconds is None else float(seconds)))
        if [held.variant for held in cells if held.variant is not None] != list(range(len(specs))):
            raise ValueError("each variant must be one of the cells, in their order")
        return cls(SweepSpec.from_dict(data["plan"]), tuple(cells))


@dataclass(frozen=True)
class Recording:
    """A recorded experiment: what was run (`specs`, baseline first) and the events of each variant, in order. `name`: what finds it;
    `sweep`: what its variants are cells of, None where they are one comparison."""

    name: str
    title: str
    machine: str
    date: str
    about: str
    specs: tuple[RunSpec, ...]
    events: tuple[tuple[Event, ...], ...]
    sweep: RecordedSweep | None = None


def write(path: Path, header: Mapping[str, Any], events: Sequence[Sequence[Event]]) -> None:
    """Write a recording in one piece: a reader sees the whole file or none.

    header: title, machine, date, about and specs (RunSpec or their dictionaries), as many as `events`; of a sweep, `sweep`. Raises
    Problem("user") for anything else and for a path that holds something other than a file, OSError where the file cannot be written.
    """
    check_target(path)
    sweep: RecordedSweep | None = header.get("sweep")
    if set(header) - {"sweep"} != set(FIELDS):
        raise Problem("user", f"A recording needs exactly these: {', '.join(FIELDS)}; it got {', '.join(header) or 'nothing'}.")
    specs = [spec.to_dict() if isinstance(spec, RunSpec) else dict(spec) for spec in header["specs"]]
    if len(specs) != len(events):
        raise Problem("user", f"A recording needs the events of each variant: {len(specs)} variants, events of {len(events)}.")
    first = {**{name: header[name] for name in FIELDS}, "specs": specs, **({"sweep": sweep.to_dict()} if sweep else {})}
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as raw, gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as packed:
            packed.write(json.dumps(first, ensure_ascii=False).encode() + b"\n")
            for variant, list_of_events in enumerate(events):
                for event in list_of_events:
                    packed.write(f'{{"v":{variant},"e":{to_json(event)}}}\n'.encode())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read(path: Path, *, events_too: bool = True) -> Recording:
    """The recording in that file, its events left out unless `events_too`. Raises Problem("model") for a file that is none or damaged."""
    try:
        with gzip.open(path, "rb") as packed:
            lines = _lines(packed)
            header = json.loads(next(lines))
            specs = tuple(RunSpec.from_dict(spec) for spec in header["specs"])
            sweep = RecordedSweep.from_dict(header["sweep"], specs) if "sweep" in header else None
            events: tuple[list[Event], ...] = tuple([] for _ in specs)
            for line in lines if events_too else ():
                data = json.loads(line)
                events[data["v"]].append(from_json(data["e"]))
        texts = {name: str(header[name]) for name in ("title", "machine", "date", "about")}
    except (OSError, EOFError, StopIteration, ValueError, LookupError, TypeError, AttributeError, zlib.error, RecursionError) as error:
        raise Problem("model", f"{path.name} is not a recording, or it is damaged.", f"{type(error).__name__}: {error}") from error
    return Recording(name=_name(path), specs=specs, events=tuple(tuple(item) for item in events), sweep=sweep, **texts)


def _lines(packed: gzip.GzipFile) -> Iterator[str]:
    """The lines of an unpacked file; raises ValueError where they are too many."""
    left = MOST_BYTES
    while line := packed.readline(left + 1):
        left -= len(line)
        if left < 0:
            raise ValueError(f"it unpacks to more than {MOST_BYTES:,} bytes")
        yield line.decode("utf-8")


def own_folder() -> Path:
    """Where imported recordings are, whether it is there or not."""
    return home_path() / "recordings"


def recordings(folder: Path | None = None) -> dict[str, Path]:
    """Recordings by name: those of one folder (FOLDER: what the product ships), or the shipped and the imported ones."""
    if folder is not None:
        return {path.name.removesuffix(SUFFIX): path for path in sorted(folder.glob("*" + SUFFIX))}
    return {**recordings(own_folder()), **recordings(FOLDER)}


def find(name_or_path: str, folder: Path | None = None) -> Path:
    """The file of a recording's name (as in `recordings`) or of a path; raises Problem("model") with the nearest name for none."""
    known = recordings(folder)
    if name_or_path in known:
        return known[name_or_path]
    path = existing(name_or_path)
    if path is not None and path.is_file():
        return path
    raise Problem("model", did_you_mean("There is no recording", name_or_path, known))


def _name(path: Path) -> str:
    named = path.parent.resolve() in (FOLDER.resolve(), own_folder().resolve())
    return path.name.removesuffix(SUFFIX) if named else str(path)
