"""Where a variant's greedy text departs from the baseline's, and how likely each model found both tokens there.

Runs in the worker. The baseline keeps the log-probabilities of its own outputs, from one forward pass over prompt and output; a variant
scores prompt and common beginning in the same way. Both for a few requests and tokens only, so that it stays cheap. Example::

    reason = save_outputs(engine, folder, prompts, outputs)                     # the baseline; ids by request
    found, reason = departures(engine, folder, prompts, outputs, piece)         # a variant
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from playground.core.engine import Engine
from playground.core.events import Departure
from playground.measure.agreement import common_prefix
from playground.measure.divergence import require_usable
from playground.measure.reference import Stored, keep, opened_or_why, other_vocabulary

ROWS = 4
OUTPUT_TOKENS = 256
SCORED_TOKENS = 1024

Ids = Sequence[int]
TOO_LONG = f"prompt and output together are longer than the {SCORED_TOKENS:,} tokens that are scored for the difference of texts"


def first_departure(ours: Ids, theirs: Ids) -> int | None:
    """The first position with different tokens; None where one text is the beginning of the other."""
    place = common_prefix(tuple(ours), tuple(theirs))
    return place if place < min(len(ours), len(theirs)) else None


def save_outputs(
    engine: Engine, folder: Path, prompts: Sequence[Ids], outputs: Sequence[Ids], *, check: Callable[[], None] = lambda: None
) -> str:
    """Keep the baseline's outputs (their first 256 tokens, of the first 4 different prompts) with the log-probabilities at each position.

    prompts, outputs: token ids by request; check: called before each forward pass. Returns why something was not kept, or "". What the
    engine raises is raised, Problem("unsupported") where it has no log-probabilities.
    """
    reasons = []
    for row in _rows(prompts, outputs):
        prompt, output = tuple(prompts[row]), tuple(outputs[row][:OUTPUT_TOKENS])
        if not output:
            continue
        if len(prompt) + len(output) > SCORED_TOKENS:
            reasons.append(TOO_LONG)
            continue
        check()
        logprobs = engine.score(prompt + output)
        require_usable(logprobs, prompt + output)
        reasons.append(keep(_path(folder, row), prompt + output, logprobs[len(prompt) - 1 :]))
        del logprobs  # before the next: one text in memory at a time
    return _joined(reasons)


def departures(
    engine: Engine,
    folder: Path,
    prompts: Sequence[Ids],
    outputs: Sequence[Ids],
    piece: Callable[[int], str],
    *,
    check: Callable[[], None] = lambda: None,
) -> tuple[list[Departure], str]:
    """A Departure for each of the first 4 different prompts whose output departs from the baseline's, and why some may be missing ("":
    none is). `piece`: the text of a token id alone. Raises as `save_outputs` does."""
    found, reasons = [], []
    for row in _rows(prompts, outputs):
        prompt, output = tuple(prompts[row]), tuple(outputs[row])
        stored = _baseline_output(_path(folder, row), prompt)
        if isinstance(stored, str):
            reasons.append(stored)
            continue
        theirs = stored.ids[len(prompt) :]
        place = first_departure(output, theirs)
        if place is None:
            reasons.append(f"equal in the first {OUTPUT_TOKENS} tokens, and no more are compared" if _cut_off(output, theirs) else "")
            continue
        check()
        logprobs = engine.score(prompt + output[: place + 1])
        require_usable(logprobs, prompt + output[: place + 1])
        if other := other_vocabulary(stored, logprobs.shape[1]):
            reasons.append(other)
            continue
        found.append(_departure(row, place, (output[place], theirs[place]), logprobs[-1], stored[place : place + 1][0], piece))
        del logprobs
    return found, _joined(reasons)


def _departure(row: int, place: int, tokens: tuple[int, int], ours: Any, theirs: Any, piece: Callable[[int], str]) -> Departure:
    mine, other = tokens
    return Departure(
        time.perf_counter_ns(),
        row,
        place,
        ours=mine,
        theirs=other,
        ours_text=piece(mine),
        theirs_text=piece(other),
        p_ours=math.exp(ours[mine]),
        p_theirs=math.exp(ours[other]),
        baseline_p_ours=math.exp(theirs[mine]),
        baseline_p_theirs=math.exp(theirs[other]),
    )


def _baseline_output(path: Path, prompt: tuple[int, ...]) -> Stored | str:
    """What the baseline kept for the same prompt, or why there is nothing."""
    stored = opened_or_why(path, "output", "the baseline kept no output to compare with")
    if isinstance(stored, str):
        return stored
    if stored.ids[: len(stored.ids) - len(stored)] != prompt:
        return "the baseline's model saw other tokens, so the texts cannot be compared token by token"
    return stored


def _rows(prompts: Sequence[Ids], outputs: Sequence[Ids]) -> Iterator[int]:
    """The first request of each different prompt, for the first few of them."""
    firsts = {tuple(prompt): row for row, prompt in reversed(list(enumerate(prompts)))}
    yield from [row for row in sorted(firsts.values()) if row < len(outputs)][:ROWS]


def _cut_off(ours: Ids, theirs: Ids) -> bool:
    return len(theirs) == OUTPUT_TOKENS < len(ours)


def _path(folder: Path, row: int) -> Path:
    return folder / f"output-{row}"


def _joined(reasons: Sequence[str]) -> str:
    return "; ".join(dict.fromkeys(reason for reason in reasons if reason))
