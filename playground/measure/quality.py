"""Output quality by teacher forcing: perplexity of a fixed text, the divergence from the baseline's distributions on it, the noise floor of
both, and multiple-choice questions.

Runs in the worker, one window of text at a time: the baseline's log-probabilities go to disk and come back from there (`reference`).
Example::

    values, missing, about = score_quality(engine, spec.protocol, save_to=folder)          # the baseline
    values, missing, about = score_quality(engine, spec.protocol, reference=folder)        # a variant
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playground.core.engine import Engine
from playground.core.problem import Problem
from playground.core.spec import Protocol
from playground.measure.divergence import Divergence, negative_log_likelihood, perplexity, require_usable
from playground.measure.evaluation import Window, about, windows
from playground.measure.questions import Asked, encode, is_right, questions
from playground.measure.reference import comparable, keep

COMPARISONS = ("kld_mean", "kld_p99", "top1_agreement")
TEXTS = ("ppl", "ppl_chinese", *COMPARISONS)
FLOORS = ("kld_mean_floor", "kld_p99_floor", "top1_agreement_floor", "ppl_floor")
QUALITY_METRICS = (*TEXTS, *FLOORS, "matching_tokens_floor", "question_accuracy")
FLOOR_TOKENS = 128
TOO_SHORT = "the text gave fewer than two tokens"
TOO_UNLIKELY = "the text is so unlikely to this model that its perplexity is too large for a number"

Scored = tuple[dict[str, float], dict[str, str], str]
Found = tuple[dict[str, float], dict[str, str]]


def unsupported(error: Exception) -> str | None:
    """The reason in a Problem("unsupported"); None for every other error."""
    return error.message if isinstance(error, Problem) and error.kind == "unsupported" else None


def score_quality(
    engine: Engine,
    protocol: Protocol,
    *,
    reference: Path | None = None,
    save_to: Path | None = None,
    context_length: int | None = None,
    check: Callable[[], None] = lambda: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    explain: Callable[[Exception], str | None] = unsupported,
) -> Scored:
    """Figures by name, reasons for those that are missing, and what was scored.

    reference: the folder of the baseline's log-probabilities; None: this is the baseline or a single run, so the noise floor is measured.
    save_to: keep the log-probabilities in this folder for the variants; a disk that is full costs only them. check: called before each
    forward pass; what it raises ends the scoring. progress: tokens scored so far, and in all. explain: the reason that an error of the
    engine is for the figures at hand (texts, floor or questions); None: the error is raised.
    """
    scored = windows(engine, protocol, context_length)
    asked = [encode(engine, question) for question in questions()] if protocol.evaluation == "full" else []
    floor = [] if reference else [window.ids[:FLOOR_TOKENS] for window in scored[:1]]
    total = sum(len(window.ids) for window in scored) + sum(2 * len(ids) for ids in floor) + sum(item.tokens for item in asked)
    scorer = _Scorer(engine, check, progress, total)
    values: dict[str, float] = {}
    missing: dict[str, str] = {}
    parts: list[tuple[tuple[str, ...], Callable[[], Found]]] = [
        (TEXTS, lambda: _texts(scorer, scored, protocol, reference, save_to)),
        (FLOORS, lambda: _floor(scorer, scored, reference)),
        (("question_accuracy",), lambda: _answers(scorer, asked, context_length)),
    ]
    for names, part in parts:
        try:
            found, lacking = part()
        except Exception as error:
            reason = explain(error)
            if reason is None:
                raise
            found, lacking = {}, dict.fromkeys(names, reason)
        values |= {name: value for name, value in found.items() if math.isfinite(value)}
        missing |= lacking | {name: TOO_UNLIKELY for name, value in found.items() if not math.isfinite(value)}
    return values, missing, about(scored, protocol, context_length) + _method(asked)


@dataclass
class _Scorer:
    """The engine's `score` with a check for Stop before it, usable numbers only, and tokens counted."""

    engine: Engine
    check: Callable[[], None]
    progress: Callable[[int, int], None]
    total: int
    done: int = 0

    def __call__(self, ids: tuple[int, ...], stepwise: bool = False) -> Any:
        """Log-probabilities [len(ids) - 1, vocabulary]."""
        self.check()
        logprobs = self.engine.score(ids, stepwise) if stepwise else self.engine.score(ids)
        require_usable(logprobs, ids)
        self.done += len(ids)
        self.progress(self.done, self.total)
        return logprobs


def _texts(scorer: _Scorer, scored: Sequence[Window], protocol: Protocol, reference: Path | None, save_to: Path | None) -> Found:
    if not scored:
        raise Problem("unsupported", TOO_SHORT)
    losses: dict[str, float] = defaultdict(float)
    positions: dict[str, int] = defaultdict(int)
    divergence = Divergence()
    reason = "" if reference else "this is the baseline: there is nothing to compare it with"
    unsaved = ""
    for window in scored:
        logprobs = scorer(window.ids)
        losses[window.text] += negative_log_likelihood(logprobs, window.ids)
        positions[window.text] += len(window.ids) - 1
        if reference and not reason:
            reason = _compare(divergence, reference / window.name, window, logprobs)
        if save_to and not unsaved:
            unsaved = keep(save_to / window.name, window.ids, logprobs)
        del logprobs  # before the next: one window in memory at a time
    if unsaved and save_to:
        for window in scored:
            (save_to / window.name).unlink(missing_ok=True)
    reason = unsaved or reason
    ppl = {name: perplexity(loss, positions[name]) for name, loss in losses.items()}
    values = {"ppl": ppl["own" if "own" in ppl else "english"]} | ({} if reason else divergence.values())
    missing = dict.fromkeys(COMPARISONS, reason) if reason else {}
    if "chinese" in ppl:
        return {**values, "ppl_chinese": ppl["chinese"]}, missing
    why = "your own text is scored in place of the product's" if "own" in ppl else "the short evaluation scores English only"
    return values, {**missing, "ppl_chinese": why}


def _compare(divergence: Divergence, path: Path, window: Window, logprobs: Any) -> str:
    """Why this window cannot be compared with the baseline's, or ""."""
    stored = comparable(path, window.ids, int(logprobs.shape[1]))
    if isinstance(stored, str):
        return stored
    divergence.add(stored, logprobs)
    return ""


def _floor(scorer: _Scorer, scored: Sequence[Window], reference: Path | None) -> Found:
    """The text's beginning in one forward pass against one pass a token, as decoding has it: what the batch shape alone changes."""
    if reference or not scored:
        why = "the noise floor is measured on the baseline" if reference else TOO_SHORT
        return {}, dict.fromkeys(FLOORS, why)
    ids = scored[0].ids[:FLOOR_TOKENS]
    divergence = Divergence()
    together, stepwise = scorer(ids), scorer(ids, stepwise=True)
    divergence.add(together, stepwise)
    ppl = [perplexity(negative_log_likelihood(logprobs, ids), len(together)) for logprobs in (together, stepwise)]
    return {**{f"{name}_floor": value for name, value in divergence.values().items()}, "ppl_floor": abs(ppl[1] - ppl[0])}, {}


def _answers(scorer: _Scorer, asked: Sequence[Asked], context_length: int | None) -> Found:
    if not asked:
        return {}, {"question_accuracy": "the short evaluation asks no questions"}
    longest = max(len(ids) for item in asked for ids in item.options)
    if context_length and longest > context_length:
        raise Problem("unsupported", f"the longest question has {longest} tokens, and the model's context holds {context_length}")
    right = sum(is_right(item, scorer) for item in asked)
    return {"questions_right": float(right), "questions": float(len(asked))}, {}


def _method(asked: Sequence[Asked]) -> str:
    if not asked:
        return ""
    chance = 1 / len(asked[0].options)
    return (
        f"; {len(asked)} multiple-choice questions, each option scored by the sum of its tokens' log-probabilities after "
        f"“Question: … Answer:” (guessing: {chance:.0%})"
    )
