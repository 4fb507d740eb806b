"""A recorded sweep, as it is in the store of the installation that ran it: every number comes from the recorded events, and is called so.

Example::

    load_recorded("recording:h200-batch-size").cells[0].result["metrics"]["itl_s"]["kind"]      # "recorded"
"""

from __future__ import annotations

from playground.core.problem import Problem
from playground.engines.replay import specs_of
from playground.models.recording import RecordedCell, Recording, find, read
from playground.results.result import result
from playground.results.sweeps import StoredCell, StoredSweep, ended, reference_of

RECORDED = "recorded"  # the status of such a sweep
PREFIX = "recording:"


def load_recorded(sweep: str) -> StoredSweep:
    """The recorded sweep of an id, PREFIX and its name; raises Problem("model") where there is none."""
    recording = read(find(sweep.removeprefix(PREFIX)))
    if recording.sweep is None:
        raise Problem("model", f"The recording {recording.name} is not of a sweep.")
    return recorded_sweep(recording)


def recorded_sweep(recording: Recording) -> StoredSweep:
    """The sweep in a recording that has one, quality compared with the same cell as when it ran."""
    if recording.sweep is None:
        raise ValueError(f"{recording.name} is not of a sweep")
    played, cells = specs_of(recording), [held.cell for held in recording.sweep.cells]

    def stored(held: RecordedCell) -> StoredCell:
        if held.variant is None:
            return StoredCell(held.cell, "skipped", reason=held.reason)
        baseline, first = None, reference_of(held.cell, cells)
        if first is not None and first != held.cell and recording.sweep:
            variant = recording.sweep.cells[first.index].variant
            baseline = (first.spec, ()) if variant is None else (played[variant], recording.events[variant])
        document = result(played[held.variant], recording.events[held.variant], baseline)
        return StoredCell(held.cell, **ended(document), seconds=held.seconds)

    title = f"{recording.title} · {recording.machine}, {recording.date}"
    made = tuple(stored(held) for held in recording.sweep.cells)
    return StoredSweep(PREFIX + recording.name, title, recording.date, RECORDED, recording.sweep.plan, made)
