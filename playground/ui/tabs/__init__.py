"""One file a tab of the page, besides "Compare". A module here defines TAB and is found; its `order` says where it stands.

Example::

    TAB = Tab("make", "Make", 10, build)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import gradio as gr

from playground.core.registry import discover
from playground.ui.compare import Opener
from playground.ui.handlers import App


@dataclass(frozen=True)
class Tab:
    """`build(app, blocks, place, opener)` makes its components inside the open tab `place` and wires them; `opener` brings things to the
    tab "Compare". It gives components made with render=False that must stand outside of the tab: what a browser remembers is read only
    where it stands on the page, and a tab that is not shown does not."""

    name: str
    title: str
    order: int
    build: Callable[[App, gr.Blocks, gr.Tab, Opener], Sequence[gr.components.Component]]


def tabs() -> list[Tab]:
    """All tabs in order."""
    return sorted(discover("playground.ui.tabs", "TAB").values(), key=lambda tab: tab.order)
