"""The commands `python -m playground export` and `import`: one experiment as one file, from one installation to another.

Example::

    python -m playground export k3x9abcd ladder.jsonl.gz
    python -m playground import ladder.jsonl.gz
    python -m playground run ladder
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from playground.core.problem import Problem
from playground.models.recording import SUFFIX
from playground.results.store import open_store
from playground.run.exchange import give_out, take_in


def register(commands: Any) -> None:
    """Both commands and their flags; `commands`: what argparse's add_subparsers gave."""
    out = commands.add_parser("export", help="write a stored experiment to one file that another installation imports")
    out.add_argument("experiment", metavar="ID", help="of the experiment, as the history has it")
    out.add_argument("target", metavar="OUT" + SUFFIX, type=Path, help="the file to write")
    out.set_defaults(command=_export)
    into = commands.add_parser("import", help="keep an exported experiment here, as a recording that can be played")
    into.add_argument("file", metavar="FILE", type=Path, help="what `export`, or `run --record`, wrote")
    into.set_defaults(command=_import)


def _export(args: argparse.Namespace) -> int:
    if not args.target.name.endswith(SUFFIX):
        raise Problem("user", f"The file must end in {SUFFIX}, got {args.target}.")
    stored = open_store().load(args.experiment)
    give_out(stored, args.target)
    print(f"Exported “{stored.title}” ({len(stored.runs)} runs) to {args.target}.")
    return 0


def _import(args: argparse.Namespace) -> int:
    name = take_in(args.file)
    print(f"Imported as {name}. Play it with: python -m playground run {name}")
    return 0
