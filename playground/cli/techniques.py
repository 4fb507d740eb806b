"""The command `python -m playground techniques`: what each technique does, where it pays and what was measured, as a Markdown table."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from playground.core.places import check_target
from playground.core.problem import Problem
from playground.engines import engines
from playground.models.recording import read, recordings
from playground.results.techniques_table import renewed, table
from playground.techniques import techniques


def register(commands: Any) -> None:
    """The command and its flag; `commands`: what argparse's add_subparsers gave."""
    known = commands.add_parser("techniques", help="what each technique does, where it pays and what was measured, as a Markdown table")
    known.add_argument("--write", metavar="FILE", type=Path, help="renew the table between its two marks in this file, such as README.md")
    known.set_defaults(command=_techniques)


def _techniques(args: argparse.Namespace) -> int:
    made = table(techniques(), engines(), [read(path) for path in recordings().values()])
    try:
        if args.write:
            check_target(args.write)
            args.write.write_text(renewed(args.write.read_text(encoding="utf-8"), made), encoding="utf-8")
    except OSError as error:
        raise Problem("user", f"{args.write} cannot be renewed: {error.strerror or error}.") from None
    if not args.write:
        print(made)
    return 0
