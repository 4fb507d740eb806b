"""The commands that make a model or an adapter, such as `python -m playground adapt`: one for each recipe (see `run.recipes`).

Progress goes to stderr, the table to stdout. Example::

    python -m playground adapt --text notes.txt --name notes --steps 30 --rank 8
    python -m playground run --set adapter=made:notes --prompt "Dear diary,"
    python -m playground distil --name pocket --steps 100
    python -m playground run --model made:pocket
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from playground.cli.output import check_writable, write_json
from playground.core.events import Done, Event, Score
from playground.core.knobs import Choice, Knob
from playground.core.making import Made, TrainStep
from playground.core.problem import Problem
from playground.core.spec import DEFAULT_MODEL
from playground.results.numbers import shown
from playground.run.making import make
from playground.run.progress import tell
from playground.run.recipes import Recipe, Table, recipes

STEPS_A_LINE = 5


def register(commands: Any) -> None:
    """All commands and their flags; `commands`: what argparse's add_subparsers gave."""
    for recipe in recipes().values():
        command = commands.add_parser(recipe.name, help=recipe.about, description=recipe.about)
        command.add_argument("--name", required=True, help="what to call it: it becomes made:NAME")
        command.add_argument("--text", type=Path, default=recipe.text, metavar="FILE", help="what to learn from; default: a text of ours")
        command.add_argument("--model", default=DEFAULT_MODEL, help=f"{recipe.model_label}: a catalogue name, hub id or folder")
        for knob in recipe.knobs:
            command.add_argument(f"--{knob.name.replace('_', '-')}", default=str(knob.default), help=_help(knob))
        command.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="where to train (default: auto)")
        command.add_argument("--json", metavar="OUT", help="write how it was made as JSON to this file, - for stdout")
        command.set_defaults(command=_make, recipe=recipe)


def table_text(table: Table) -> str:
    """The table in a few lines."""
    width = max(len(title) for title, _, _ in table.rows) + 2
    lines = [" " * width + "".join(f"{head:>14}" for head in table.heads)]
    for title, unit, values in table.rows:
        lines.append(f"{title:<{width}}" + "".join(f"{'-' if value is None else shown(value, unit):>14}" for value in values))
    return "\n".join(lines)


def _help(knob: Knob) -> str:
    one_of = f" One of {', '.join(knob.options)}." if isinstance(knob, Choice) else ""
    default = f" Default: {knob.default}" if knob.default != "" else ""
    return f"{knob.help}{one_of}{default}".replace("%", "%%")


def _make(args: argparse.Namespace) -> int:
    recipe: Recipe = args.recipe
    asked = {knob.name: knob.parse(getattr(args, knob.name)) for knob in recipe.knobs}
    job = recipe.job(name=args.name, text=_text(args.text), model=args.model, device=args.device, **asked)
    job.check()
    check_writable(args.json)
    cancel = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: cancel.set())
    last: Event | None = None
    for event in make(recipe.module, job.to_dict(), cancel=cancel):
        if event is None:
            continue
        last = event
        _tell(args.name, event)
        if isinstance(event, Made):
            _print(recipe, event, args.json)
    return 0 if isinstance(last, Done) else 1


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Problem("user", f"{path} cannot be read as a text: {error}.") from None


def _tell(name: str, event: Event) -> None:
    if isinstance(event, TrainStep):
        if event.step % STEPS_A_LINE == 0 or event.step in (1, event.steps):
            left = f", {event.left_s:.0f} s left" if event.left_s else ""
            print(f"[{name}] step {event.step} of {event.steps}: loss {event.loss:.3f}{left}", file=sys.stderr)
    elif isinstance(event, Score):
        values = ", ".join(f"{text} {value:.3g}" for text, value in event.values.items())
        print(f"[{name}] {event.about}: {values}", file=sys.stderr)
    else:
        tell(name, event)


def _print(recipe: Recipe, event: Made, target: str | None) -> None:
    if target != "-":
        print(f"{table_text(recipe.table(event.facts))}\n{recipe.use.format(name=event.name)}")
    if target:
        write_json(target, event.facts)
