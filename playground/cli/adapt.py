"""The command `python -m playground adapt`: train an adapter on a text and print what it did to perplexity.

Progress goes to stderr, the table to stdout. Example::

    python -m playground adapt --text notes.txt --name notes --steps 30 --rank 8
    python -m playground run --set adapter=made:notes --prompt "Dear diary,"
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from playground.core.events import Done, Event, Score
from playground.core.making import Made, TrainStep
from playground.core.places import ASSETS
from playground.core.problem import Problem
from playground.core.spec import DEFAULT_MODEL
from playground.run.making import make
from playground.run.progress import tell
from playground.run.train_adapter import MODULE, AdapterJob

TEXT = ASSETS / "training" / "logbook.txt"
STEPS_A_LINE = 5


def register(commands: Any) -> None:
    """The command and its flags; `commands`: what argparse's add_subparsers gave."""
    adapt = commands.add_parser("adapt", help="train a LoRA adapter on a text, to be used as --set adapter=made:NAME")
    adapt.add_argument("--name", required=True, help="what to call it: it becomes made:NAME")
    adapt.add_argument("--text", type=Path, default=TEXT, metavar="FILE", help="what to learn from; default: the product's own logbook")
    adapt.add_argument("--model", default=DEFAULT_MODEL, help=f"catalogue name, hub id or folder of the base; default: {DEFAULT_MODEL}")
    adapt.add_argument("--steps", type=int, default=AdapterJob.steps, metavar="N", help=f"of 256 tokens; default: {AdapterJob.steps}")
    adapt.add_argument("--rank", type=int, default=AdapterJob.rank, metavar="R", help=f"of the matrices; default: {AdapterJob.rank}")
    adapt.add_argument("--learning-rate", type=float, default=AdapterJob.learning_rate, metavar="X", help="at its highest")
    adapt.add_argument("--held-out", type=float, default=AdapterJob.held_out, metavar="SHARE", help="of the text, to be tested on")
    adapt.add_argument("--seed", type=int, default=AdapterJob.seed, metavar="N", help="of the first numbers and of the order of the text")
    adapt.add_argument("--device", default=AdapterJob.device, choices=("auto", "cpu", "cuda"))
    adapt.add_argument("--json", metavar="OUT", help="write how it was made as JSON to this file, - for stdout")
    adapt.set_defaults(command=_adapt)


def table(facts: Mapping[str, Any]) -> str:
    """Perplexity of each text before and after, in a few lines."""
    titles = {"held-out": "your text, held out", "english": "other English text", "chinese": "other Chinese text"}
    lines = [f"{'perplexity (lower is better)':<30}{'before':>10}{'after':>10}"]
    for name, values in facts["perplexity"].items():
        lines.append(f"{titles.get(name, name):<30}{values['before']:>10.2f}{values['after']:>10.2f}")
    lines.append(f"{facts['steps']} steps, rank {facts['rank']}, {facts['dtype']}, {facts['seconds']:.0f} s in all")
    return "\n".join(lines)


def _adapt(args: argparse.Namespace) -> int:
    fields = {name: getattr(args, name) for name in AdapterJob.__dataclass_fields__ if name != "text"}
    job = AdapterJob(text=_text(args.text), **fields)
    job.check()
    if args.json and args.json != "-" and not Path(args.json).absolute().parent.is_dir():
        raise Problem("user", f"{args.json} cannot be written: its folder does not exist.")
    cancel = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: cancel.set())
    last: Event | None = None
    for event in make(MODULE, job.to_dict(), cancel=cancel):
        if event is None:
            continue
        last = event
        _tell(job.name, event)
        if isinstance(event, Made):
            _print(event, args.json)
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
        shown = ", ".join(f"{text} {value:.2f}" for text, value in event.values.items())
        print(f"[{name}] perplexity {event.about}: {shown}", file=sys.stderr)
    else:
        tell(name, event)


def _print(event: Made, target: str | None) -> None:
    data = json.dumps(event.facts, indent=2, ensure_ascii=False)
    if target and target != "-":
        Path(target).write_text(data + "\n", encoding="utf-8")
    print(data if target == "-" else f"{table(event.facts)}\nUse it with --set adapter={event.name}")
