"""What the commands that make something share, such as `adapt` and `distil`: flags, text, progress on stderr, the table on stdout.

Example::

    return carry_out(MODULE, job_from(args, AdapterJob), args.json, told)
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

from playground.core.events import Done, Event, Score
from playground.core.making import Made, TrainStep
from playground.core.problem import Problem
from playground.run.command import write_json
from playground.run.making import make
from playground.run.progress import tell
from playground.run.training_job import TrainingJob

STEPS_A_LINE = 5
TITLES = {"held-out": "your text, held out", "english": "other English text", "chinese": "other Chinese text"}
Job = TypeVar("Job", bound=TrainingJob)


def shared_flags(parser: argparse.ArgumentParser, job: type[TrainingJob], text: Path) -> None:
    """The flags of every job that trains on a text, with the defaults of `job`; `text`: the file that is read where none is named."""
    parser.add_argument("--name", required=True, help="what to call it: it becomes made:NAME")
    parser.add_argument("--text", type=Path, default=text, metavar="FILE", help=f"what to learn from; default: the product's {text.name}")
    parser.add_argument("--steps", type=int, default=job.steps, metavar="N", help=f"of 256 tokens; default: {job.steps}")
    parser.add_argument(
        "--learning-rate", type=float, default=job.learning_rate, metavar="X", help=f"at its highest; default: {job.learning_rate:g}"
    )
    parser.add_argument("--held-out", type=float, default=job.held_out, metavar="SHARE", help="of the text, to be tested on")
    parser.add_argument("--seed", type=int, default=job.seed, metavar="N", help="of the first numbers and of the order of the text")
    parser.add_argument("--device", default=job.device, choices=("auto", "cpu", "cuda"))
    parser.add_argument("--json", metavar="OUT", help="write how it was made as JSON to this file, - for stdout")


def job_from(args: argparse.Namespace, kind: type[Job]) -> Job:
    """The job that the flags describe, checked; raises Problem for what cannot be, and for outputs that cannot be written."""
    given = {field.name: getattr(args, field.name) for field in fields(kind) if field.name != "text"}
    job = kind(text=_text(args.text), **given)
    job.check()
    if args.json and args.json != "-" and not Path(args.json).absolute().parent.is_dir():
        raise Problem("user", f"{args.json} cannot be written: its folder does not exist.")
    return job


def carry_out(module: str, job: TrainingJob, target: str | None, told: Callable[[Made], str]) -> int:
    """Make it, watched, until it is there or Ctrl-C; returns the exit status. `target`: where its facts go as JSON; `told`: what stdout
    says of the result."""
    cancel = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: cancel.set())
    last: Event | None = None
    for event in make(module, job.to_dict(), cancel=cancel):
        if event is None:
            continue
        last = event
        _tell(job.name, event)
        if isinstance(event, Made):
            _print(event, target, told)
    return 0 if isinstance(last, Done) else 1


def columns(title: str, heads: tuple[str, ...], rows: Mapping[str, tuple[str, ...]]) -> list[str]:
    """The lines of a small table: a title and a name a row on the left, and figures to the right."""
    return [f"{name:<38}" + "".join(f"{cell:>14}" for cell in cells) for name, cells in {title: heads, **rows}.items()]


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


def _print(event: Made, target: str | None, told: Callable[[Made], str]) -> None:
    if target:
        write_json(target, event.facts)
    if target != "-":
        print(told(event))
