"""The quality stage of a run: scores on the evaluation texts, the noise floor of matching tokens, and where the text departs from the
baseline's. What a model cannot give is told with its reason; a model that cannot be scored has still been measured.

Example::

    quality(passes, batches, first_pass, reference=folder, save_to=None)      # a variant, against the baseline's folder
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from playground.core.engine import Batch
from playground.core.events import Progress, Score, Warned
from playground.measure.agreement import common_prefix
from playground.measure.departure import departures, save_outputs
from playground.measure.quality import QUALITY_METRICS, score_quality
from playground.run.failures import from_exception
from playground.run.passes import Passes, Rows, Steps

MATCHING = "matching_tokens_floor"
Ids = tuple[int, ...]


def quality(passes: Passes, batches: Sequence[tuple[Rows, Batch]], first_pass: Steps, reference: Path | None, save_to: Path | None) -> None:
    """Emit the Score, and a Departure for each of the first prompts whose greedy text departs from the baseline's."""
    passes.phase("quality")
    if passes.engine.facts.get("random_weights"):
        reason = "random weights, so quality has no meaning"
        passes.emit(Score(time.perf_counter_ns(), {}, dict.fromkeys(QUALITY_METRICS, reason)))
        return
    values, missing, about = score_quality(
        passes.engine,
        passes.plan.spec.protocol,
        reference=reference,
        save_to=save_to,
        context_length=passes.engine.facts.get("context_length"),
        check=passes.check,
        progress=lambda done, total: passes.emit(Progress(time.perf_counter_ns(), "scoring", done, total, "tokens")),
        explain=_reason,
    )
    outputs = _outputs(first_pass)
    found = _matching_floor(passes, batches[0][1], outputs[0]) if reference is None else "the noise floor is measured on the baseline"
    if isinstance(found, str):
        missing = {**missing, MATCHING: found}
    else:
        values = {**values, MATCHING: found}
    passes.emit(Score(time.perf_counter_ns(), values, missing, about))
    if passes.plan.spec.workload.temperature == 0 and "ppl" in values:  # else the Score says why there are no log-probabilities
        _departures(passes, [ids for _, batch in batches for ids in batch.token_ids], outputs, reference, save_to)


def _outputs(first_pass: Steps) -> list[Ids]:
    """Token ids of each request, in order."""
    return [tuple(token for tick in ticks for token in tick.tokens[place]) for rows, ticks in first_pass for place in range(len(rows))]


def _matching_floor(passes: Passes, batch: Batch, output: Ids) -> float | str:
    """How many tokens of the first request come out the same at another batch shape, or why that is not known."""
    if batch.temperature > 0:
        return "at a temperature above 0 tokens are drawn, so two runs need not match"
    rows = batch.token_ids[:1] * (2 if len(batch.token_ids) == 1 else 1)
    other: list[int] = []
    try:
        with closing(passes.engine.generate(dataclasses.replace(batch, token_ids=rows, row_tokens=(), arrivals_s=()))) as steps:  # type: ignore[type-var]
            for tick in steps:
                other += tick.tokens[0]
                passes.check()
    except Exception as error:
        reason = _reason(error)
        if reason is None:
            raise
        return reason
    return float(common_prefix(output, tuple(other)))


def _departures(passes: Passes, prompts: Sequence[Ids], outputs: Sequence[Ids], reference: Path | None, save_to: Path | None) -> None:
    """Keep the baseline's outputs for the variants, or compare a variant's with them."""

    def piece(token: int) -> str:
        return passes.engine.pieces()(token)

    try:
        if save_to is not None:
            reason = save_outputs(passes.engine, save_to, prompts, outputs, check=passes.check)
            if reason:
                passes.emit(Warned(time.perf_counter_ns(), f"Where the texts of the other variants depart will not be known: {reason}."))
        elif reference is not None:
            for departure in departures(passes.engine, reference, prompts, outputs, piece, check=passes.check)[0]:
                passes.emit(departure)
    except Exception as error:
        why = _reason(error)
        if why is None:
            raise
        passes.emit(Warned(time.perf_counter_ns(), f"Where the texts depart is not known: {why}"))


def _reason(error: Exception) -> str | None:
    """Why the engine could not, where that is its nature or its memory; None for what is a failure of the run."""
    failed = from_exception(error)
    return failed.message if failed.kind in ("unsupported", "oom") else None
