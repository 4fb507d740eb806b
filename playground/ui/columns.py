"""A variant's column while it runs and after: status, progress, headline numbers, text, evidence, as one escaped piece of HTML.

Pure: a `VariantView` and result documents in, a string out. Example::

    column_html(view, 1, row=0, result=None, baseline=None, waiting="Waiting: 1 run ahead of yours")
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from playground.core.events import Progress
from playground.results.html.difference import departure_html, difference_html
from playground.results.html.headlines import numbers_html, verdict_html
from playground.results.numbers import shown
from playground.techniques import techniques
from playground.ui.strings import FAILURE_ADVICE, NEXT_ROUND, PHASES, STATUS
from playground.ui.text import escape, marked
from playground.ui.view import Row, VariantView, View, row_departure

Result = Mapping[str, Any]


def column_html(view: View, index: int, row: int, result: Result | None, baseline: Result | None, waiting: str = "") -> str:
    """The column of variant `index`; `baseline` is the baseline's result (None for the baseline itself)."""
    variant = view.variants[index]
    parts = [
        _head(variant, index),
        _progress(variant, waiting, view.current == index),
        _failure(variant),
        verdict_html(result),
        numbers_html(result, baseline),
        _text(view, index, row),
        _difference(view, index, row, result),
        _evidence(variant),
        _warnings(variant),
    ]
    return f'<article class="variant v{index}" aria-label="{escape(variant.name)}">{"".join(parts)}</article>'


def _head(variant: VariantView, index: int) -> str:
    badge = f'<span class="badge {variant.status}">{STATUS[variant.status]}</span>'
    return f'<header><i class="swatch"></i><h3>{escape(variant.name)}</h3>{badge}</header>'


def _progress(variant: VariantView, waiting: str, current: bool) -> str:
    """One line of what is going on and, for something long, a bar; always the same two nodes, so that nothing jumps."""
    if variant.status == "waiting":
        line = waiting or "Starts after the variant before it."
    elif variant.ended:
        line = f"{variant.tokens:,} tokens generated in all passes" if variant.tokens else ""
    else:
        line = _phase_line(variant) if current else NEXT_ROUND
    share, words = "", ""
    if variant.progress is not None:
        share, words = bar(variant.progress, variant.progress_began)
        line = words
    return f'<p class="phase">{escape(line)}</p><div class="bar" {share}></div>'


def _phase_line(variant: VariantView) -> str:
    phase = PHASES.get(variant.phase, variant.phase.capitalize())
    detail = variant.detail if variant.phase in ("round", "warmup", "timed") or variant.phase not in PHASES else ""
    return " · ".join(part for part in (phase, detail) if part) or "Starting"


def bar(progress: Progress, began: Progress | None) -> tuple[str, str]:
    """Attributes of the bar, and "Fetching weights: 12 of 100 MB, 5 MB/s, 18 s left"."""
    unit = "B" if progress.unit in ("B", "bytes") else progress.unit
    words = f"{progress.name[:1].upper()}{progress.name[1:]}: {shown(progress.done, unit)}"
    seconds = (progress.t_ns - began.t_ns) / 1e9 if began else 0.0
    speed = (progress.done - began.done) / seconds if began and seconds > 0 else 0.0
    if progress.total:
        words += f" of {shown(progress.total, unit)}"
    if speed > 0:
        words += f" · {shown(speed, unit)}/s"
    if speed > 0 and progress.total:
        words += f" · {duration((progress.total - progress.done) / speed)} left"
    if not progress.total:
        return 'data-busy="true"', words
    percent = max(0.0, min(100.0, 100 * progress.done / progress.total))
    attributes = f'style="--done:{percent:.1f}%" role="progressbar" aria-valuenow="{percent:.0f}" aria-valuemin="0" aria-valuemax="100"'
    return f'{attributes} aria-label="{escape(progress.name)}"', words


def duration(seconds: float) -> str:
    """ "8 s", "2 min 5 s", "1 h 3 min"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _failure(variant: VariantView) -> str:
    if variant.failure is None:
        return '<div class="failure"></div>'
    advice = FAILURE_ADVICE.get(variant.failure.kind, "")
    detail = variant.failure.detail.strip()
    log = f"<details><summary>Log</summary><pre>{escape(detail[-6000:])}</pre></details>" if detail else ""
    return f'<div class="failure"><strong>{escape(variant.failure.message)}</strong> {escape(advice)}{log}</div>'


def _text(view: View, index: int, row: int) -> str:
    """The stream of one request. The box is pinned to its newest line by the style sheet."""
    variant, baseline = view.variants[index], view.variants[0]
    shown_row = variant.rows.get(row)
    if shown_row is None:
        words = "No text for this prompt yet." if variant.rows else ("" if variant.ended else "The text appears here.")
        return f'<div class="stream" tabindex="0" role="region" aria-label="Output"><div class="said empty">{words}</div></div>'
    body = _said(shown_row, baseline.rows.get(row) if index else None)
    pinned = "stream" if variant.ended else "stream live"
    return f'<div class="{pinned}" tabindex="0" role="region" aria-label="Output"><div class="said">{body}</div></div>'


@lru_cache(32)  # of variants that have ended, the text is not made again for each update
def _said(row: Row, baseline: Row | None) -> str:
    """The text with the token marked that departs from the baseline's."""
    at = row_departure(baseline, row)
    return marked(tuple(row.pieces), at, "" if baseline is None or at is None else tuple(baseline.pieces)[at])


def _difference(view: View, index: int, row: int, result: Result | None) -> str:
    """Where and how a variant's text departs from the baseline's; the whole difference once everything has ended, since it takes time."""
    if not index:
        return '<div class="difference"></div>'
    known = [item for item in (result or {}).get("departures") or () if item.get("row") == row]
    parts = [departure_html(known[0])] if known else []
    one, two = view.variants[0].rows.get(row), view.variants[index].rows.get(row)
    ended = all(variant.ended for variant in view.variants)
    if ended and one is not None and two is not None and None not in (one.token_ids, two.token_ids):
        parts.append(difference_html(tuple(one.pieces), tuple(two.pieces)))
    return f'<div class="difference">{"".join(parts)}</div>'


def _evidence(variant: VariantView) -> str:
    titles = {technique.name: technique.title for technique in techniques().values()}
    items = [
        f'<li class="{"proved" if found.ok else "refuted"}"><b>{"✓" if found.ok else "✕"}</b> '
        f"<span>{escape(titles.get(found.technique, found.technique))}: {escape(found.text)}</span></li>"
        for found in variant.evidence
    ]
    return f'<ul class="evidence" aria-label="Evidence that each setting took effect">{"".join(items)}</ul>'


def _warnings(variant: VariantView) -> str:
    items = [f"<li>{escape(message)}</li>" for message in variant.warnings]
    return f'<ul class="warnings" aria-label="Warnings">{"".join(items)}</ul>'
