"""Where commands write: texts to a file, JSON to stdout too, and a check before the work that it can be done.

Example::

    check_writable(args.json); ...; write_json(args.json, results)
    write_text(args.csv, csv_text(rows))
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from playground.core.places import check_target
from playground.core.problem import Problem


def check_writable(target: str | None, *, replaced: bool = False) -> None:
    """Raises Problem before hours of work for an output that cannot be written afterwards; `replaced`: as a recording is, in one piece, so
    that it can be no pipe and no device."""
    if not target or target == "-":
        return
    path = Path(target)
    if replaced:
        check_target(path)
    if path.is_dir() or not path.absolute().parent.is_dir() or not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise Problem("user", f"{target} cannot be written: its folder must exist and be writable.")


def write_json(target: str, data: Any) -> None:
    """To that file, or to stdout for "-"; raises Problem("user") as `write_text` does."""
    text = json.dumps(data, indent=2, ensure_ascii=False)
    if target == "-":
        print(text)
    else:
        write_text(Path(target), text + "\n")


def write_text(path: Path, text: str) -> None:
    """To that file; pipes and devices count as files; raises Problem("user") where it cannot be written."""
    try:
        path.write_text(text, encoding="utf-8", errors="replace", newline="")  # a model may write half of a character
    except OSError as error:
        raise Problem("user", f"{path} cannot be written: {error.strerror or error}.") from None
