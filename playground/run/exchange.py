"""One experiment as one file: out of the store of one installation, into another one, which plays it as a recording.

The file is what `models.recording` writes. What comes in is data from a stranger: it is limited in size, parsed, derived once as the page
would, and written anew, so that nothing of the file itself is kept. Example::

    give_out(store.load("k3x9abcd"), Path("ladder.jsonl.gz"))
    take_in(Path("ladder.jsonl.gz"))      # "ladder": python -m playground run ladder
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from playground.core.events import Event
from playground.core.places import PRESETS
from playground.core.plan import parse_knobs
from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.engines.replay import recorded_spec
from playground.models.recording import SUFFIX, Recording, own_folder, read, recordings, write
from playground.results.result import result
from playground.results.store import StoredExperiment
from playground.techniques import techniques

MOST_FILE_BYTES = 64_000_000
MOST_VARIANTS = 64
LONGEST_NS = 14 * 24 * 3600 * 1e9
GOING_ON = ("waiting", "running")


def header_of(title: str, about: str, specs: Sequence[RunSpec], results: Sequence[Mapping[str, Any] | None]) -> dict[str, Any]:
    """The first line of a recording of these runs, baseline first."""
    made: Mapping[str, Any] = next((found["provenance"] for found in results if found and found.get("provenance")), {})
    machine = str(made.get("gpu") or made.get("cpu") or "unknown machine")
    return {"title": title, "machine": machine, "date": str(made.get("started_at", ""))[:10], "about": about, "specs": list(specs)}


def give_out(stored: StoredExperiment, path: Path) -> None:
    """Write a stored experiment to `path`; raises Problem("user") while it goes on, where it has no events, or for a file that cannot be
    written."""
    if any(run.status in GOING_ON for run in stored.runs):
        raise Problem("user", f"The experiment {stored.id} is not over yet: wait, or stop it.")
    events = [run.events for run in stored.runs]
    if not any(events):
        raise Problem("user", f"The experiment {stored.id} has no events: there is nothing to export.")
    specs = [recorded_spec(run.spec) for run in stored.runs]  # a replay is given out as what was recorded
    try:
        write(path, header_of(stored.title, "", specs, [run.result for run in stored.runs]), events)
    except OSError as error:
        raise Problem("user", f"{path} cannot be written: {error.strerror or error}.") from None


def take_in(path: Path) -> str:
    """Check a recording and keep it in the user's folder; returns the name that finds it, that of an equal one which is there already.
    Raises Problem("user") for a file that is too large, and Problem("model") for one that is none, is damaged, or holds what this version
    does not know."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise Problem("user", f"{path} cannot be read: {error.strerror or error}.") from None
    if size > MOST_FILE_BYTES:
        raise Problem("user", f"{path.name} has {size:,} bytes; a recording of more than {MOST_FILE_BYTES:,} is not imported.")
    recording = read(path)
    _check(recording, path.name)
    name = _free_name(recording, path)
    header = {field: getattr(recording, field) for field in ("title", "machine", "date", "about", "specs")}
    try:
        write(own_folder() / (name + SUFFIX), header, recording.events)
    except OSError as error:
        raise Problem("user", f"The recording cannot be kept in {own_folder()}: {error.strerror or error}.") from None
    return name


def _check(recording: Recording, name: str) -> None:
    """Raises Problem("model") for what could not be played and shown."""
    if not 1 <= len(recording.specs) <= MOST_VARIANTS:
        raise Problem("model", f"{name} holds {len(recording.specs)} variants; 1 to {MOST_VARIANTS} can be shown.")
    try:
        for spec in recording.specs:
            parse_knobs(spec.knobs, techniques())
    except Problem as problem:
        raise Problem("model", f"{name} was written by another version: {problem.message}") from None
    baseline = (recording.specs[0], recording.events[0])
    for number, (spec, events) in enumerate(zip(recording.specs, recording.events, strict=True)):
        if not _playable(events):
            raise Problem(
                "model", f"{name} is not a recording, or it is damaged.", f"variant {number} has no events, or stamps that are none"
            )
        try:
            result(spec, events, baseline if number else None)
        except Exception as error:  # whatever a stranger's values do to whichever number
            raise Problem("model", f"{name} is not a recording, or it is damaged.", f"{type(error).__name__}: {error}") from error


def _playable(events: Sequence[Event]) -> bool:
    stamps = [event.t_ns for event in events]
    numbers = all(isinstance(stamp, int | float) and not isinstance(stamp, bool) and math.isfinite(stamp) for stamp in stamps)
    return bool(stamps) and numbers and max(stamps) - min(stamps) <= LONGEST_NS


def _free_name(recording: Recording, path: Path) -> str:
    """From the file's name, of plain letters; with a number where another recording or experiment has it."""
    wanted = re.sub(r"[^a-z0-9._-]+", "-", path.name.removesuffix(SUFFIX).removesuffix(".gz").lower()).strip(".-") or "recording"
    known, presets = recordings(), {found.stem for found in (PRESETS / "experiments").glob("*.toml")}
    number = 1
    while True:
        name = wanted if number == 1 else f"{wanted}-{number}"
        if name not in known and name not in presets:
            return name
        if name in known and _equal(recording, known[name]):
            return name
        number += 1


def _equal(recording: Recording, path: Path) -> bool:
    try:
        return dataclasses.replace(read(path), name="") == dataclasses.replace(recording, name="")
    except Problem:
        return False
