"""What stands beside the form: a link that opens it again, and the command line that runs it. Pure; assets/share.js makes the link whole.

Example::

    share_html(draft, world)
"""

from __future__ import annotations

from playground.core.problem import Problem
from playground.engines import engines
from playground.results.command import Command, command
from playground.ui.availability import World
from playground.ui.form import Draft, specs_of
from playground.ui.link import link_of
from playground.ui.text import escape


def share_html(draft: Draft, world: World) -> str:
    """Both, or why there is none of them yet."""
    try:
        query = link_of(draft, world)
        link = _line("Link", f'<code data-query="{escape(query)}">?{escape(query)}</code>')
    except Problem as problem:
        link = f'<p class="quiet">No link: {escape(problem.message)}</p>'
    try:
        found = command(specs_of(draft, world), world.techniques, engines())
        line = _line("Command", f"<code>{escape(found.line)}</code>") + _files(found)
    except Problem as problem:
        line = f'<p class="quiet">No command: {escape(problem.message)}</p>'
    return f'<div class="share">{link}{line}</div>'


def _line(title: str, code: str) -> str:
    return (
        f'<div class="line"><b>{title}</b>{code}<button type="button" data-copy aria-label="Copy the {title.lower()}">Copy</button></div>'
    )


def _files(found: Command) -> str:
    return "".join(
        f"<details><summary>It reads {escape(name)}, to be saved where it runs</summary><pre>{escape(text)}</pre></details>"
        for name, text in found.files.items()
    )
