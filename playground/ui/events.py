"""How events of the page are set up: none is part of the API, and those that show the same components share a queue.

A queue answers one event at a time, in the order in which they were asked. Two at once could be answered the other way round, and the
older answer would then stand over the newer one, such as a whole list over the one that a filter left. Example::

    button.click(handler, inputs, outputs, **pressed("history"))
    gr.on([edited(control) for control in controls], handler, inputs, outputs, **changed("history"))
"""

from __future__ import annotations

from typing import Any

import gradio as gr

PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
# What can take its time, since it asks a hub or writes files, holds up neither the queues above nor more than three others of its kind.
ESTIMATE: dict[str, Any] = {**PRIVATE, "concurrency_id": "estimate", "concurrency_limit": 4, "trigger_mode": "always_last"}
FILES: dict[str, Any] = {**PRIVATE, "concurrency_id": "files", "concurrency_limit": 4}
# A page's newest watch ends the one before, which must not keep it from starting.
WATCH: dict[str, Any] = {**PRIVATE, "concurrency_id": "watch", "concurrency_limit": None, "trigger_mode": "multiple"}


def pressed(queue: str) -> dict[str, Any]:
    """For what a button does, in the named queue: pressed again before the answer, it counts once."""
    return {**PRIVATE, "concurrency_id": queue, "concurrency_limit": 1}


def changed(queue: str) -> dict[str, Any]:
    """For what follows the value of a control, in the named queue: of changes before the answer, the last one counts."""
    return {**pressed(queue), "trigger_mode": "always_last"}


def edited(control: gr.components.Component) -> Any:
    """The event of a control that every edit by a person sets off. A line of text has `input` for single keys only: what is pasted, cut,
    deleted or composed of several keys is a `change` (Gradio 6.31)."""
    return control.change if isinstance(control, gr.Textbox) else control.input
