"""Output quality by teacher forcing: perplexity of a fixed English text, and the divergence from the baseline's distributions on it.

Runs in the worker; torch and numpy are imported inside. The baseline's log-probabilities lie in one file (token ids, then float32
log-probabilities) that a variant maps into memory and reads in chunks. Example::

    values, missing, about = score_quality(engine, reference=None, save_to=Path("baseline.npy"))
    values, missing, about = score_quality(engine, reference=Path("baseline.npy"), save_to=None)
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playground.core.engine import Engine
from playground.core.places import ASSETS
from playground.core.problem import Problem

MAX_TOKENS = 512
CHUNK = 32
COMPARISONS = ("kld_mean", "kld_p99", "top1_agreement")
Scored = tuple[dict[str, float], dict[str, str], str]


def evaluation_text() -> str:
    """The product's own English text: narrative, explanation, dialogue and numbers, written for this purpose."""
    return (ASSETS / "eval" / "english.txt").read_text(encoding="utf-8")


def score_quality(engine: Engine, reference: Path | None, save_to: Path | None, context_length: int | None = None) -> Scored:
    """Figures by metric name, reasons for those that are missing, and what was scored.

    The text's first 512 tokens (or `context_length`, if that is less) are one window. `save_to`: keep the log-probabilities there for the
    variants; a disk that is full costs only them. `reference`: the file that the baseline kept. An engine without log-probabilities gives
    reasons only; any other failure of the engine is raised.
    """
    _, tokens = engine.prepare(evaluation_text(), False)
    ids = tuple(tokens[: min(MAX_TOKENS, context_length or MAX_TOKENS)])
    about = f"the first {len(ids)} tokens of the product's English text in one window, {max(len(ids) - 1, 0)} positions, no overlap"
    if len(ids) < 2:
        return {}, dict.fromkeys((*COMPARISONS, "ppl"), "the text gave fewer than two tokens"), about
    try:
        logprobs = engine.score(ids)
    except Problem as problem:
        if problem.kind != "unsupported":
            raise
        return {}, dict.fromkeys((*COMPARISONS, "ppl"), problem.message), about
    if reason := _unusable(logprobs, ids):
        return {}, dict.fromkeys((*COMPARISONS, "ppl"), reason), about
    values, missing = {"ppl": _perplexity(logprobs, ids)}, {}
    if reference is None:
        missing = dict.fromkeys(COMPARISONS, "this is the baseline: there is nothing to compare it with")
    elif reason := _mismatch(reference, ids, int(logprobs.shape[1])):
        missing = dict.fromkeys(COMPARISONS, reason)
    else:
        values |= _compare(reference, logprobs)
    if save_to is not None and (reason := _save(save_to, ids, logprobs)):
        missing |= dict.fromkeys(COMPARISONS, reason)
    return values, missing, about


def _unusable(logprobs: Any, ids: tuple[int, ...]) -> str:
    """Why these log-probabilities cannot be used, or ""."""
    if len(logprobs) != len(ids) - 1 or max(ids) >= logprobs.shape[1]:
        return f"the engine gave log-probabilities of shape {tuple(logprobs.shape)} for {len(ids)} tokens"
    broken = sum(int((~chunk.isfinite()).any(dim=1).sum()) for chunk in logprobs.split(CHUNK))
    if broken:
        return f"the model's log-probabilities are not finite at {broken} of {len(logprobs)} positions (numbers overflowed)"
    return ""


def _perplexity(logprobs: Any, ids: tuple[int, ...]) -> float:
    import torch

    following = torch.tensor(ids[1:]).unsqueeze(1)
    return math.exp(-float(logprobs.gather(1, following).double().mean()))


def _compare(reference: Path, logprobs: Any) -> dict[str, float]:
    """KL(p_baseline || p_variant) in nats a position over the full vocabulary, and how often the likeliest tokens agree."""
    import torch

    divergences, agreeing = [], 0
    for start, theirs in _chunks(reference):
        ours = logprobs[start : start + len(theirs)].double()
        divergences.append((theirs.exp() * (theirs - ours)).sum(dim=1))
        agreeing += int((theirs.argmax(dim=1) == ours.argmax(dim=1)).sum())
    kld = torch.cat(divergences)
    return {
        "kld_mean": float(kld.mean()),
        "kld_p99": float(torch.quantile(kld, 0.99)),
        "top1_agreement": agreeing / len(kld),
    }


def _chunks(reference: Path) -> Iterator[tuple[int, Any]]:
    """First row and float64 log-probabilities [at most CHUNK, vocabulary] of the file, in order."""
    import numpy as np
    import torch

    _, stored = _open(reference)
    for start in range(0, len(stored), CHUNK):
        yield start, torch.from_numpy(np.array(stored[start : start + CHUNK], dtype=np.float64))


def _mismatch(reference: Path, ids: tuple[int, ...], vocabulary: int) -> str:
    """Why the baseline's file cannot be compared with, or ""."""
    try:
        theirs, stored = _open(reference)
    except FileNotFoundError:
        return "the baseline left no log-probabilities to compare with"
    except (OSError, ValueError, EOFError) as error:
        return f"the baseline's log-probabilities cannot be read ({error})"
    if theirs != ids:
        return "the baseline's model splits the text into other tokens, so positions cannot be compared"
    if stored.shape != (len(ids) - 1, vocabulary):
        return f"the baseline's vocabulary has {stored.shape[-1]} entries and this model's {vocabulary}"
    return ""


def _open(path: Path) -> tuple[tuple[int, ...], Any]:
    """Token ids and the mapped log-probabilities [positions, vocabulary] of a file that `_save` wrote."""
    import numpy as np

    with path.open("rb") as file:
        ids = np.load(file)
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        return tuple(int(token) for token in ids), np.memmap(path, dtype, "r", file.tell(), shape)


def _save(path: Path, ids: tuple[int, ...], logprobs: Any) -> str:
    """Keep ids and log-probabilities in one file that appears only when it is complete; the reason where that failed, else ""."""
    import numpy as np

    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            for array in (np.array(ids, dtype=np.int64), np.ascontiguousarray(logprobs.numpy(), dtype=np.float32)):
                np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
                file.write(array.data)  # not np.save, whose error for a full disk does not say so
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        why = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
        return f"the baseline's log-probabilities could not be stored: {why}"
    return ""
