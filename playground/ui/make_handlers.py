"""What happens on a click in the tab "Make": submit, watch, find again. Plain functions of an `App`; the tab wires them to components.

Example::

    job = submit(app, Wanted("adapt", "mine", "smollm2-135m-instruct", None, "auto", {"steps": 30, ...}))
    async for view in watch(app, job.id, "SESSION/make"): ...
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from playground.core.making import Made
from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.run.jobs import Job
from playground.run.making import Making
from playground.run.recipes import Recipe, recipes
from playground.ui import strings
from playground.ui.handlers import UPDATE_S, App
from playground.ui.making import MakingView, fold


@dataclass(frozen=True)
class Wanted:
    """What the form says. `text`: None for the recipe's own; `knobs`: of this recipe, by name."""

    recipe: str
    name: str
    model: str
    text: str | None
    device: str
    knobs: Mapping[str, Any]


def submit(app: App, wanted: Wanted, before: str = "") -> Job:
    """Queue what the form says; raises Problem and starts nothing where something is wrong or the job `before` still goes on."""
    earlier = app.jobs.get(before) if before else None
    if earlier is not None and not earlier.stop.is_set() and not earlier.done.is_set():
        raise Problem("user", strings.STILL_GOING)
    recipe = recipes()[wanted.recipe]
    asked = {knob.name: knob.parse(wanted.knobs[knob.name]) for knob in recipe.knobs}
    if wanted.text is not None and not wanted.text.strip():
        raise Problem("user", strings.OWN_TEXT_MISSING)
    text = recipe.text.read_text(encoding="utf-8") if wanted.text is None else wanted.text
    job = recipe.job(name=wanted.name.strip(), text=text, model=wanted.model.strip(), device=wanted.device, **asked)
    job.check()
    return app.jobs.submit_other(recipe.name, lambda runner, stop: Making(recipe.module, job.to_dict(), runner, stop))


async def watch(app: App, job_id: str, page: str) -> AsyncIterator[MakingView]:
    """States of a job to show: at once, then at most five a second while something changes, until it is over, the page is left, or the
    same page starts another watch."""
    newest = app.newest(page)
    job = app.jobs.get(job_id) if job_id else None
    if job is None:
        yield MakingView(status="gone" if job_id else "")
        return
    view, cursor, before = MakingView(), 0, None
    while newest():
        over = job.done.is_set()
        events, cursor = job.events_since(cursor)
        for _, event in events:
            view = fold(view, event)
        view = replace(view, status=job.status if over or job.status != "done" else "running", ahead=job.ahead)
        if view != before:
            yield view
            before = view
        if over:
            return
        await asyncio.sleep(UPDATE_S)


def recipe_of(app: App, job_id: str) -> Recipe | None:
    """The recipe of a job."""
    job = app.jobs.get(job_id)
    return recipes().get(job.title) if job else None


def facts_of(app: App, job_id: str) -> Mapping[str, Any]:
    """How the thing that a job made was made."""
    job = app.jobs.get(job_id)
    events = job.events_since(0)[0] if job else []
    return next((event.facts for _, event in events if isinstance(event, Made)), {})


def compared(facts: Mapping[str, Any]) -> Sequence[RunSpec]:
    """The comparison to fill the form with; nothing for what no recipe knows."""
    recipe = recipe_for(facts)
    return recipe.compared(facts) if recipe else [RunSpec()]


def recipe_for(facts: Mapping[str, Any]) -> Recipe | None:
    """The recipe by which a thing was made."""
    return next((recipe for recipe in recipes().values() if recipe.kind == facts.get("kind")), None)
