"""The commands `python -m playground export` and `import`: one experiment or sweep as one file, from one installation to another.

Example::

    python -m playground export k3x9abcd ladder.jsonl.gz
    python -m playground import ladder.jsonl.gz
    python -m playground run ladder
"""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path
from typing import Any

from playground.core.problem import Problem
from playground.models.recording import SUFFIX
from playground.presets import is_sweep
from playground.results.store import open_store
from playground.results.sweeps import Sweeps
from playground.run.exchange import give_out, give_out_sweep, take_in


def register(commands: Any) -> None:
    """Both commands and their flags; `commands`: what argparse's add_subparsers gave."""
    out = commands.add_parser("export", help="write a stored experiment or sweep to one file that another installation imports")
    out.add_argument("experiment", metavar="ID", help="of the experiment, as the history has it, or of the sweep")
    out.add_argument("target", metavar="OUT" + SUFFIX, type=Path, help="the file to write")
    out.set_defaults(command=_export)
    into = commands.add_parser("import", help="keep an exported experiment or sweep here, as a recording that can be played")
    into.add_argument("file", metavar="FILE", type=Path, help="what `export`, or `run --record` or `sweep --record`, wrote")
    into.set_defaults(command=_import)


def _export(args: argparse.Namespace) -> int:
    if not args.target.name.endswith(SUFFIX):
        raise Problem("user", f"The file must end in {SUFFIX}, got {args.target}.")
    store = open_store()
    sweep = None
    with suppress(Problem):  # then it is an experiment's, or nobody's
        sweep = Sweeps(store).load(args.experiment)
    if sweep:
        give_out_sweep(sweep, store, args.target)
        title, number = sweep.title, len(sweep.cells)
    else:
        stored = store.load(args.experiment)
        give_out(stored, args.target)
        title, number = stored.title, len(stored.runs)
    print(f"Exported “{title}” ({number} runs) to {args.target}.")
    return 0


def _import(args: argparse.Namespace) -> int:
    name = take_in(args.file)
    print(f"Imported as {name}. " + ("The tab Sweep shows it." if is_sweep(name) else f"Play it with: python -m playground run {name}"))
    return 0
