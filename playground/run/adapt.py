"""The command `python -m playground adapt`: train an adapter on a text and print what it did to perplexity.

Progress goes to stderr, the table to stdout. Example::

    python -m playground adapt --text notes.txt --name notes --steps 30 --rank 8
    python -m playground run --set adapter=made:notes --prompt "Dear diary,"
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from playground.core.making import Made
from playground.core.places import ASSETS
from playground.core.spec import DEFAULT_MODEL
from playground.run.command import Command
from playground.run.making_command import TITLES, carry_out, columns, job_from, shared_flags
from playground.run.train_adapter import MODULE, AdapterJob

TEXT = ASSETS / "training" / "logbook.txt"


def table(facts: Mapping[str, Any]) -> str:
    """Perplexity of each text before and after, in a few lines."""
    rows = {TITLES.get(name, name): (f"{two['before']:.2f}", f"{two['after']:.2f}") for name, two in facts["perplexity"].items()}
    last = f"{facts['steps']} steps, rank {facts['rank']}, {facts['dtype']}, {facts['seconds']:.0f} s in all"
    return "\n".join([*columns("perplexity (lower is better)", ("before", "after"), rows), last])


def _flags(parser: argparse.ArgumentParser) -> None:
    shared_flags(parser, AdapterJob, TEXT)
    parser.add_argument("--model", default=DEFAULT_MODEL, help=f"catalogue name, hub id or folder of the base; default: {DEFAULT_MODEL}")
    parser.add_argument("--rank", type=int, default=AdapterJob.rank, metavar="R", help=f"of the matrices; default: {AdapterJob.rank}")


def _told(event: Made) -> str:
    return f"{table(event.facts)}\nUse it with --set adapter={event.name}"


def _run(args: argparse.Namespace) -> int:
    return carry_out(MODULE, job_from(args, AdapterJob), args.json, _told)


CLI = Command("adapt", "train a LoRA adapter on a text, to be used as --set adapter=made:NAME", _flags, _run)
