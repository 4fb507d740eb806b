"""What happens on a click: submit, watch, stop, find again. Plain functions of an `App`; the page wires them to components.

A run lives in `Jobs`, not here: closing the page or a generator never stops it. Example::

    app = App(jobs, store, world)
    job = submit(app, draft)
    async for state in watch(app, job.id, row=0, page="session"): ...
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from playground.core.plan import plan_for
from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.engines import engine_class
from playground.measure.machine import probe
from playground.models.resolve import require_made
from playground.presets import judged
from playground.results.store import Store
from playground.run.jobs import Job, Jobs
from playground.run.sweep_queue import SweepQueue
from playground.ui import strings
from playground.ui.availability import World
from playground.ui.form import Draft, column_names, labels, specs_of
from playground.ui.memory import Facts, estimate_html
from playground.ui.results import Shown
from playground.ui.speed import ceilings_of, speed_html
from playground.ui.text import escape, note_html
from playground.ui.view import View, fold, start

UPDATE_S = 0.2
QUIET_S = 10.0


@dataclass
class App:
    """What the handlers of all pages share. `sweeps`: those that go on; `marks`: by open page ("SESSION", or "SESSION/PART" for a part of
    it), what was asked there last."""

    jobs: Jobs
    store: Store
    world: World
    facts: Facts = field(default_factory=Facts)
    sweeps: SweepQueue = field(init=False)
    marks: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sweeps = SweepQueue(self.jobs, self.store)

    def newest(self, part: str) -> Callable[[], bool]:
        """Whether what begins now is still what was asked last of a part of a page that is open."""
        mark = self.marks[part] = object()
        return lambda: self.marks.get(part) is mark

    def left(self, page: str) -> None:
        """End what watches for a page that was closed."""
        for name in [name for name in list(self.marks) if name.split("/")[0] == page]:
            self.marks.pop(name, None)


def check(app: App, specs: Sequence[RunSpec]) -> None:
    """Raises Problem for the first spec that cannot run here, before anything starts."""
    names = column_names(specs)
    for name, spec in zip(names, specs, strict=True):
        try:
            engine = engine_class(spec.engine)
            require_made(spec.model)
            plan_for(spec, app.world.techniques, engine, app.world.machine)
            if config := app.world.config_of(spec.model):
                engine.admit(config)
        except Problem as problem:
            raise Problem(problem.kind, f"{name}: {problem.message}", problem.detail) from None


def submit(app: App, draft: Draft, mine: Sequence[str] = ()) -> Job:
    """Queue what the form says; raises Problem and starts nothing where something is wrong or one of the jobs `mine` still goes on.

    A job that was told to stop no longer holds the next one up: that one waits for it in the queue.
    """
    _require_none_going(app, mine)
    specs = specs_of(draft, app.world)
    check(app, specs)
    return app.jobs.submit(title_of(specs), specs)


def run_again(app: App, experiment: str, mine: Sequence[str] = ()) -> Job:
    """Queue a stored experiment once more, as it was, under its title; raises Problem as `submit` does, and where it is gone."""
    _require_none_going(app, mine)
    earlier = app.store.load(experiment)
    specs = [run.spec for run in earlier.runs]
    check(app, specs)
    return app.jobs.submit(earlier.title, specs)


def delete(app: App, experiments: Sequence[str]) -> None:
    """Take experiments out of the history and off every page; `app.store.earlier.restore` brings them back. Raises Problem."""
    app.store.earlier.delete(experiments)
    app.jobs.forget(experiments)


def _require_none_going(app: App, mine: Sequence[str]) -> None:
    if any(not job.stop.is_set() for job in not_over(app, mine)):
        raise Problem("user", strings.STILL_GOING)


def title_of(specs: Sequence[RunSpec]) -> str:
    """ "fp32, bf16 · smollm2-135m-instruct"."""
    return f"{' vs '.join(dict.fromkeys(spec.label for spec in specs))} · {specs[0].model}"


def not_over(app: App, job_ids: Sequence[str]) -> list[Job]:
    """Those of the jobs that wait or run, in the same order."""
    known = (app.jobs.get(job_id) for job_id in job_ids)
    return [job for job in known if job is not None and not job.done.is_set()]


def stop(app: App, shown: str, mine: Sequence[str] = ()) -> str | None:
    """Cancel the job that is shown if it waits or runs, else the newest of `mine` that does; its id, or None where there was none."""
    going = not_over(app, [*mine, shown])
    if not going:
        return None
    going[-1].cancel()
    return going[-1].id


def specs_of_run(app: App, job_id: str) -> list[RunSpec]:
    """The variants of a job or of a stored experiment; empty where it is gone."""
    job = app.jobs.get(job_id)
    if job is not None:
        return list(job.specs)
    try:
        return [run.spec for run in app.store.load(job_id).runs]
    except Problem:
        return []


async def watch(app: App, job_id: str, row: int, page: str) -> AsyncIterator[Shown]:
    """States of a run to show: at once, then at most five a second while something changes.

    While a timed pass runs on the CPU that the page needs as well (`Job.quiet`), only a new phase and one state in ten seconds are shown:
    drawing five times a second doubled the latency that was measured on two cores. Ends when the run is over, when the page is left, or
    when the same page starts another watch.
    """
    newest = app.newest(page)
    job = app.jobs.get(job_id)
    if job is None:
        earlier = await asyncio.to_thread(stored, app, job_id, row)
        if newest():
            yield earlier
        return
    state, cursor, before, shown_at = _fresh(app, job.specs, row), 0, None, 0.0
    while newest():
        over = job.done.is_set()
        events, cursor = job.events_since(cursor)
        view = state.view
        for item in events:
            view = fold(view, item)
        state = replace(state, view=view, results=list(job.results), status=job.status if over or job.status != "done" else "running")
        state = replace(state, ahead=job.ahead, claims=await asyncio.to_thread(judged, job.results) if over else ())
        held = job.quiet and before is not None and _stages(state) == _stages(before) and time.monotonic() - shown_at < QUIET_S
        if not newest():  # asked again meanwhile
            return
        if state != before and not held:
            yield state
            before, shown_at = state, time.monotonic()
        if over:
            return
        await asyncio.sleep(UPDATE_S)


def _stages(state: Shown) -> list[tuple[str, str, str]]:
    return [(variant.status, variant.phase, variant.detail) for variant in state.view.variants]


def stored(app: App, job_id: str, row: int) -> Shown:
    """A finished run from the store, as it was shown when it ended."""
    try:
        experiment = app.store.load(job_id)
    except Problem:
        return Shown(status="gone")
    state = _fresh(app, [run.spec for run in experiment.runs], row)
    view, results, statuses = state.view, [], []
    for run in experiment.runs:
        for event in run.events:
            view = fold(view, (run.index, event))
        status: Any = run.status
        variant = replace(view.variants[run.index], status=status)
        view = View((*view.variants[: run.index], variant, *view.variants[run.index + 1 :]))
        results.append(run.result or {"status": run.status, "metrics": {}})
        statuses.append(run.status)
    worst = next((status for status in ("interrupted", "cancelled", "failed", "running", "waiting") if status in statuses), "done")
    return replace(state, view=view, results=results, status=worst, claims=judged(results))


def _fresh(app: App, specs: Sequence[RunSpec], row: int) -> Shown:
    known = list(specs)
    if not all(spec.label for spec in known):
        computed = labels(known, app.world)
        known = [spec.replace(label=spec.label or label) for spec, label in zip(known, computed, strict=True)]
    names = column_names(known)
    return Shown(start(names), names, row=row)


def estimate(app: App, draft: Draft) -> str:
    """Memory and speed to expect of what the form says, or what is missing for that."""
    try:
        specs = specs_of(draft, app.world)
    except Problem as problem:
        return f'<div class="estimate"><p class="quiet">No memory estimate: {escape(problem.message)}</p></div>'
    names, machine, known = column_names(specs), probe(), app.world.techniques
    speed = speed_html(specs, names, app.facts.of, known, ceilings_of(app.store, known, machine, specs))
    return estimate_html(specs, names, app.facts.of, known, machine) + speed


def known_models(app: App, draft: Draft) -> list[str]:
    """Models of the form whose config is known."""
    names = [draft.model, *(str(changes["model"]) for changes in draft.variants if "model" in changes)]
    return [name for name in dict.fromkeys(names) if app.world.config_of(name)]


def remeasure(app: App) -> str:
    """Forget what was measured of this machine, so that the next run measures it again; says so."""
    try:
        app.store.forget_ceilings()
    except Problem as problem:
        return note_html(problem.message)
    return note_html(strings.REMEASURE_DONE)


def message_html(problem: Problem | None) -> str:
    """The message in its fixed place: empty, or what is wrong and what to do."""
    if problem is None:
        return ""
    detail = f"<details><summary>Details</summary><pre>{escape(problem.detail)}</pre></details>" if problem.detail else ""
    return f'<div class="problem" role="alert"><b>Not started.</b> {escape(problem.message)}{detail}</div>'
