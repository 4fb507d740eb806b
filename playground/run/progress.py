"""How a run goes, a line an event on stderr. Example::

for index, event in running: tell("int8", event)
"""

from __future__ import annotations

import sys

from playground.core.events import Event, Evidence, Failed, Phase, Progress, Warned
from playground.results.numbers import shown


def tell(label: str, event: Event) -> None:
    """One line of progress on stderr."""
    if isinstance(event, Phase):
        print(f"[{label}] {event.detail or event.name}", file=sys.stderr)
    elif isinstance(event, Progress) and event.unit == "B":
        total = f" of {shown(event.total, 'bytes')}" if event.total else ""
        print(f"[{label}] {event.name}: {shown(event.done, 'bytes')}{total}", end="\r", file=sys.stderr)
    elif isinstance(event, Evidence):
        print(f"[{label}] {'✓' if event.ok else '✗'} {event.technique}: {event.text}", file=sys.stderr)
    elif isinstance(event, Warned):
        print(f"[{label}] warning: {event.message}", file=sys.stderr)
    elif isinstance(event, Failed):
        print(f"[{label}] failed ({event.kind}): {event.message}\n{event.detail}".rstrip(), file=sys.stderr)
