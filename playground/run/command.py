"""A command of `python -m playground` beside `run`: a module of this package that defines CLI is one, and no list names it again.

Example::

    CLI = Command("doctor", "what this machine can do", flags, run)
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Command:
    """`flags` gives the command's parser its arguments, `run` carries it out and returns the exit status."""

    name: str
    help: str
    flags: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def write_json(target: str, data: Any) -> None:
    """Indented JSON to a file, or to stdout where `target` is "-"."""
    text = json.dumps(data, indent=2, ensure_ascii=False)
    if target == "-":
        print(text)
    else:
        Path(target).write_text(text + "\n", encoding="utf-8")
