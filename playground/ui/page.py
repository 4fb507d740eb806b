"""The page: a header with the device strip, and tabs. Importing it never imports torch.

Example::

    page = build_page(Jobs(store), store)
    page.queue().launch(**look())
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from playground.core.machine import Machine
from playground.core.places import ASSETS
from playground.engines import engines
from playground.measure.machine import probe
from playground.results.store import Store
from playground.run.jobs import Jobs
from playground.techniques import techniques
from playground.ui import compare, strings
from playground.ui.api import add_api
from playground.ui.availability import World
from playground.ui.device import Strip
from playground.ui.handlers import App
from playground.ui.memory import Facts
from playground.ui.tabs import tabs
from playground.ui.text import escape


def build_page(jobs: Jobs, store: Store, machine: Machine | None = None) -> gr.Blocks:
    """The whole page on these jobs and this store; `machine` is probed where it is not given."""
    facts = Facts()
    app = App(jobs, store, World(techniques(), engines(), machine or probe(), facts.config), facts)
    with gr.Blocks(title=strings.TITLE, analytics_enabled=False, fill_width=True) as blocks:
        _header(app)
        outside: list[gr.components.Component] = []
        with gr.Tabs(selected=compare.NAME, elem_id="tabs") as shown:
            with gr.Tab(strings.COMPARE, id=compare.NAME, elem_id=f"tab-{compare.NAME}"):
                opener = compare.build_compare(app, blocks, shown)
            for tab in tabs():
                with gr.Tab(tab.title, id=tab.name, elem_id=f"tab-{tab.name}") as place:
                    outside += tab.build(app, blocks, place, opener)
        for component in outside:
            component.render()
        add_api(app)
    return blocks


def calm_queue(blocks: gr.Blocks) -> None:
    """Let Gradio's idle queue look for work fifty times a second instead of a thousand: that took 5 % of a core from every run."""
    queue = blocks._queue
    queue.sleep_when_free = queue.progress_update_sleep_when_free = 0.02


def send_updates_whole(blocks: gr.Blocks) -> None:
    """Send each update that a generator yields whole. Gradio 6.31 sends what differs from the one before, and the page changes that one
    with it in place, drawn or not: what is to be set once, such as a button that appears, was lost on a busy page."""
    differences = blocks.handle_streaming_diffs

    def handled(
        block_fn: Any, data: list[Any], session_hash: str | None, run: str | None, final: bool, simple_format: bool = False
    ) -> list[Any]:
        whole = final or simple_format or session_hash is None or run is None or run not in blocks.pending_diff_streams[session_hash]
        given = list(data)
        sent = differences(block_fn, data, session_hash, run, final, simple_format)
        return [[["replace", [], new]] if not whole and isinstance(new, dict) else old for old, new in zip(sent, given, strict=True)]

    blocks.handle_streaming_diffs = handled


def _header(app: App) -> None:
    strip = Strip(app.world.machine, app.jobs)

    def sample(_: Any = None) -> dict[str, Any]:
        return strip.sample()

    with gr.Row(elem_classes="top", equal_height=True):
        gr.HTML(f'<div class="brand"><h1>{escape(strings.TITLE)}</h1><p>{escape(strings.TAGLINE)}</p></div>', apply_default_css=False)
        # A server function is a plain request: a gr.Timer's event costs the browser some 100 ms a second.
        gr.HTML(
            strip.sample()["html"],
            js_on_load=(ASSETS / "device_strip.js").read_text(encoding="utf-8"),
            server_functions=[sample],
            apply_default_css=False,
            elem_id="device",
        )
