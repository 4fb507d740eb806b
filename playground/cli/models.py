"""The command `python -m playground models`: the models of the catalogue."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from playground.cli.output import write_json
from playground.models.catalogue import catalogue


def register(commands: Any) -> None:
    """The command and its flag; `commands`: what argparse's add_subparsers gave."""
    models = commands.add_parser("models", help="list the models of the catalogue")
    models.add_argument("--json", metavar="OUT", help="write JSON to this file, - for stdout")
    models.set_defaults(command=_models)


def _models(args: argparse.Namespace) -> int:
    entries = catalogue()
    if args.json:
        write_json(args.json, [dataclasses.asdict(entry) for entry in entries])
    if args.json != "-":
        for entry in entries:
            print(f"{entry.name:<32}{entry.title}\n{'':<32}{entry.note}")
        print("\nAlso: any hub id (org/name), a local folder, a .gguf file.")
    return 0
