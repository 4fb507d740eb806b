"""One experiment or one sweep as one file: out of the store of one installation, into another one, which plays it as a recording.

The file is what `models.recording` writes. What comes in is data from a stranger: it is limited in size, parsed, derived once as the page
would, and written anew, so that nothing of the file itself is kept. Example::

    give_out(store.load("k3x9abcd"), Path("ladder.jsonl.gz"))
    take_in(Path("ladder.jsonl.gz"))      # "ladder": python -m playground run ladder
    give_out_sweep(Sweeps(store).load("m4p7qrst"), store, Path("batches.jsonl.gz"))     # the tab Sweep shows it elsewhere
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from playground.core.events import Event
from playground.core.places import PRESETS
from playground.core.plan import parse_knobs
from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.core.sweep import MOST_CELLS, cells
from playground.engines.replay import recorded_spec
from playground.models.recording import FIELDS, SUFFIX, RecordedCell, RecordedSweep, Recording, own_folder, read, recordings, write
from playground.results.result import result
from playground.results.store import Store, StoredExperiment
from playground.results.sweep_charts import sweep_charts
from playground.results.sweeps import StoredCell, StoredSweep
from playground.run.recorded_sweep import recorded_sweep
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
    _write(path, header_of(stored.title, "", specs, [run.result for run in stored.runs]), events)


def give_out_sweep(stored: StoredSweep, store: Store, path: Path) -> None:
    """Write a stored sweep to `path`, with the events of each cell that ended and the reason why another has none; raises Problem("user")
    while it goes on, where nothing of it has ended, or for a file that cannot be written."""
    if stored.status in GOING_ON:
        raise Problem("user", f"The sweep {stored.id} is not over yet: wait, or stop it.")
    held_cells: list[RecordedCell] = []
    events: list[Sequence[Event]] = []
    results: list[Mapping[str, Any] | None] = []
    for held in stored.cells:
        cell = dataclasses.replace(held.cell, spec=recorded_spec(held.cell.spec))
        if seen := _events(held, store):
            held_cells.append(RecordedCell(cell, len(events), seconds=held.seconds))
            events.append(seen)
            results.append(held.result)
        else:
            kept_nothing = "Its events are not in the store." if held.finished else "It was not run to its end."
            held_cells.append(RecordedCell(cell, None, (held.status == "skipped" and held.reason) or kept_nothing))
    if not events:
        raise Problem("user", f"No run of the sweep {stored.id} has ended: there is nothing to export.")
    specs = [held.cell.spec for held in held_cells if held.variant is not None]
    header = header_of(stored.title, stored.plan.about, specs, results)
    _write(path, {**header, "sweep": RecordedSweep(stored.plan, tuple(held_cells))}, events)


def _events(held: StoredCell, store: Store) -> Sequence[Event]:
    """Of a cell that ended; none where it did not, and where the store does not have them."""
    if held.finished and held.experiment:
        with suppress(Problem):
            return store.load(held.experiment).runs[0].events
    return ()


def _write(path: Path, header: Mapping[str, Any], events: Sequence[Sequence[Event]]) -> None:
    try:
        write(path, header, events)
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
    header = {field: getattr(recording, field) for field in (*FIELDS, "sweep")}
    try:
        write(own_folder() / (name + SUFFIX), header, recording.events)
    except OSError as error:
        raise Problem("user", f"The recording cannot be kept in {own_folder()}: {error.strerror or error}.") from None
    return name


def _check(recording: Recording, name: str) -> None:
    """Raises Problem("model") for what could not be played and shown."""
    held_cells = recording.sweep.cells if recording.sweep else ()
    specs = [held.cell.spec for held in held_cells] or recording.specs
    most, what = (MOST_CELLS, "runs") if recording.sweep else (MOST_VARIANTS, "variants")
    if not recording.specs or len(specs) > most:
        raise Problem("model", f"{name} holds {len(specs)} {what}; 1 to {most} can be shown.")
    try:
        for spec in specs:
            parse_knobs(spec.knobs, techniques())
        if recording.sweep:
            _check_places(recording.sweep)
        for number, events in enumerate(recording.events):
            if not _playable(events):
                raise ValueError(f"variant {number} has no events, or stamps that are none")
        _derive(recording)
    except Problem as problem:
        raise Problem("model", f"{name} was written by another version: {problem.message}") from None
    except Exception as error:  # whatever a stranger's values do to whichever number
        raise Problem("model", f"{name} is not a recording, or it is damaged.", f"{type(error).__name__}: {error}") from error


def _check_places(sweep: RecordedSweep) -> None:
    """Raises Problem for a plan that this version does not have, and ValueError where its cells are not those of the plan."""
    plan = sweep.plan.checked(techniques())
    planned = {(cell.line, cell.point) for cell in cells(plan, techniques())}
    found = [(held.cell.line, held.cell.point) for held in sweep.cells]
    seconds = [held.seconds for held in sweep.cells if held.seconds is not None]
    if plan != sweep.plan or len(found) != len(planned) or set(found) != planned or not all(0 <= each < math.inf for each in seconds):
        raise ValueError("its runs are not those of its plan")


def _derive(recording: Recording) -> None:
    """All that the page would show of it."""
    if recording.sweep:
        stored = recorded_sweep(recording)
        sweep_charts(stored.plan, stored.cells)
        return
    baseline = (recording.specs[0], recording.events[0])
    for number, (spec, events) in enumerate(zip(recording.specs, recording.events, strict=True)):
        result(spec, events, baseline if number else None)


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
