"""The command `python -m playground doctor`: what this machine can do, and why not the rest."""

from __future__ import annotations

import argparse
from typing import Any

from playground.cli.output import write_json
from playground.run.doctor import examine, in_words


def register(commands: Any) -> None:
    """The command and its flag; `commands`: what argparse's add_subparsers gave."""
    doctor = commands.add_parser("doctor", help="what this machine can do: devices, knobs, versions, memory, folders")
    doctor.add_argument("--json", metavar="OUT", help="write JSON to this file, - for stdout")
    doctor.set_defaults(command=_doctor)


def _doctor(args: argparse.Namespace) -> int:
    report = examine()
    if args.json:
        write_json(args.json, report)
    if args.json != "-":
        print("\n".join(in_words(report)))
    return 0
