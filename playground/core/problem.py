"""One exception for everything that a person should read.

A `Problem` carries a kind (what family of failure), a sentence for the page and the terminal, and a detail (log, traceback)
that is shown on request. Example::

    raise Problem("user", did_you_mean("unknown knob", "precison", ["precision", "kv_cache"]))
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Literal, get_args

ProblemKind = Literal["oom", "crash", "hang", "unsupported", "model", "user"]
PROBLEM_KINDS: tuple[str, ...] = get_args(ProblemKind)


class Problem(Exception):
    """A failure with a kind, a readable sentence and an optional detail."""

    def __init__(self, kind: ProblemKind, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.kind: ProblemKind = kind
        self.message = message
        self.detail = detail


def did_you_mean(what: str, given: str, known: Iterable[str]) -> str:
    """A sentence about an unknown name: the nearest known one if there is one, and otherwise the list of known names."""
    names = sorted(known)
    near = difflib.get_close_matches(str(given), names, n=1, cutoff=0.6)
    if near:
        return f"{what} {given!r}; did you mean {near[0]!r}?"
    return f"{what} {given!r}; known: {', '.join(names) or 'none'}."
