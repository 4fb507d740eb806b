"""How events of the page are set up: none is part of the API, and those that show the same components share a queue.

A queue answers one event at a time, in the order in which they were asked (assets/first/in_order.js has a page ask them in the order in
which they were set off). Two at once could be answered the other way round, and the older answer would then stand over the newer one, such
as a whole list over the one that a filter left. Example::

    button.click(handler, inputs, outputs, **pressed("history"))
    gr.on(edits(controls), handler, inputs, outputs, **changed("history"))
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import gradio as gr

PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
# What can take its time, since it asks a hub or writes files, is not in the queues of `pressed` and `changed`, and four go on at once.
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


def edits(controls: Iterable[gr.components.Component]) -> list[Any]:
    """What a person's edits of the controls set off, and what a handler sets does not. `input` alone misses what is pasted, cut, deleted or
    composed of several keys in a text, tags that Backspace takes away, and a slider that is reset: these are seen when the control is left
    (Gradio 6.31). `change` would see them at once, but comes while a preset is still being filled in as well."""
    return [getattr(control, name) for control in controls for name in ("input", *_late(control))]


def offered(choices: Sequence[Any], value: Any, shown: Any, **more: Any) -> Any:
    """The update of a control to these choices. Its value goes with them only where it is not `shown`, the one that the question came with:
    else the answer would undo a choice made meanwhile."""
    return gr.update(choices=choices, **({} if value == shown else {"value": value}), **more)


def _late(control: gr.components.Component) -> tuple[str, ...]:
    if isinstance(control, gr.Slider):
        return ("release",)
    return ("blur",) if isinstance(control, gr.Textbox) or getattr(control, "multiselect", False) else ()
