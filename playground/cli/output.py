"""Where commands write: JSON to a file or to stdout, and a check before the work that it can be done.

Example::

    check_writable(args.json); ...; write_json(args.json, results)
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from playground.core.problem import Problem


def check_writable(target: str | None) -> None:
    """Raises Problem before hours of work for an output that cannot be written afterwards."""
    if not target or target == "-":
        return
    path = Path(target)
    if path.is_dir() or not path.absolute().parent.is_dir() or not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise Problem("user", f"{target} cannot be written: its folder must exist and be writable.")


def write_json(target: str, data: Any) -> None:
    """To that file, or to stdout for "-"; raises OSError."""
    text = json.dumps(data, indent=2, ensure_ascii=False)
    if target == "-":
        print(text)
    else:
        Path(target).write_text(text + "\n", encoding="utf-8")
