"""Answers in the order in which they were asked: what shows the same component shares a queue, and the newest of two questions wins."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import gradio as gr
import pytest

from playground.ui import handlers
from playground.ui.events import edits
from playground.ui.handlers import App
from playground.ui.page import build_page, send_updates_whole
from playground.ui.results import Shown

ELSEWHERE = {"watch", "files"}  # streams that end each other, and files that are written beside what is shown


def test_whatever_shows_a_component_stands_in_one_queue_of_one(app: App) -> None:
    queues: dict[str, set[tuple[str, object]]] = defaultdict(set)
    for event in build_page(app.jobs, app.store).fns.values():
        for shown in event.outputs:
            name = str(getattr(shown, "elem_id", None) or "")
            # A model that was made, and a tab that is opened, come from other tabs as well.
            if name and name != "tabs" and not name.endswith("model") and event.concurrency_id not in ELSEWHERE:
                queues[name].add((str(event.concurrency_id), event.concurrency_limit))
    assert len(queues) > 100
    estimates = {name: queues.pop(name) for name in ("estimate", "share")}
    assert list(estimates.values()) == [{("estimate", 4)}] * 2  # ordered by App.newest
    assert {name: found for name, found in queues.items() if len(found) > 1 or next(iter(found))[1] != 1} == {}


def test_only_the_newest_question_of_a_part_of_an_open_page_counts(app: App) -> None:
    first, other = app.newest("one/estimate"), app.newest("two/estimate")
    assert [first(), other()] == [True, True]
    second = app.newest("one/estimate")
    assert [first(), second(), other()] == [False, True, True]
    app.left("one")
    assert [second(), other()] == [False, True]


def test_a_control_is_followed_also_where_it_tells_of_an_edit_only_when_it_is_left() -> None:
    def told(control: gr.components.Component) -> list[str]:
        return [event.event_name for event in edits([control])]

    with gr.Blocks():
        assert told(gr.Number()) == told(gr.Dropdown()) == told(gr.Radio()) == ["input"]
        assert told(gr.Textbox()) == told(gr.Dropdown(multiselect=True)) == ["input", "blur"]
        assert told(gr.Slider()) == ["input", "release"]


def test_a_queue_has_one_limit_also_where_the_api_uses_it(app: App) -> None:
    limits: dict[str, set[object]] = defaultdict(set)
    for event in build_page(app.jobs, app.store).fns.values():
        limits[str(event.concurrency_id)].add(event.concurrency_limit)
    assert {"form", "history", "api", "estimates"} <= set(limits)
    assert {queue: found for queue, found in limits.items() if len(found) > 1} == {}  # the lowest would hold for all of them


def test_a_stored_run_that_took_long_to_load_does_not_stand_over_what_was_asked_after_it(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    later = False

    def load(app: App, job: str, row: int) -> Shown:
        if later:
            app.newest("page")  # somebody asks for another meanwhile
        return Shown(status=job)

    async def shown() -> list[str]:
        return [state.status async for state in handlers.watch(app, "stored", 0, "page")]

    monkeypatch.setattr(handlers, "stored", load)
    with ThreadPoolExecutor(1) as threads:  # this thread may have a loop already, of the browser tests
        assert threads.submit(asyncio.run, shown()).result() == ["stored"]
        later = True
        assert threads.submit(asyncio.run, shown()).result() == []


def test_an_update_that_a_generator_yields_is_sent_whole_and_a_text_as_what_it_adds():
    with gr.Blocks() as blocks:
        text, button = gr.HTML(), gr.Button()
        blocks.load(lambda: None, None, [text, button])
    send_updates_whole(blocks)
    fn = next(iter(blocks.fns.values()))
    once, then = gr.update(visible=True), gr.skip()
    assert blocks.handle_streaming_diffs(fn, ["One", once], session_hash="page", run="run", final=False) == ["One", once]
    added = blocks.handle_streaming_diffs(fn, ["One, two", then], session_hash="page", run="run", final=False)
    assert added == [[["append", [], ", two"]], [["replace", [], then]]]
    assert blocks.handle_streaming_diffs(fn, ["", ""], session_hash="page", run="run", final=True) == ["One, two", then]
    assert blocks.handle_streaming_diffs(fn, ["plain", then], session_hash=None, run=None, final=False) == ["plain", then]
