"""Answers in the order in which they were asked: what shows the same component shares a queue, and the newest of two questions wins."""

from __future__ import annotations

from collections import defaultdict

import gradio as gr

from playground.ui.events import edited
from playground.ui.handlers import App
from playground.ui.page import build_page

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


def test_a_line_of_text_is_followed_however_it_is_edited() -> None:
    with gr.Blocks():
        text, number = gr.Textbox(), gr.Number()
        assert (edited(text).event_name, edited(number).event_name) == ("change", "input")
