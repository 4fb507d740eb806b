"""What texts claim of the settings that were compared, and whether this machine bears it out.

Pure and escaped HTML. Example::

    claims_html(presets.judged(results))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from playground.results.claims import OPEN
from playground.results.html.text import escape

Judged = Mapping[str, Any]


def claims_html(judged: Sequence[Judged]) -> str:
    """By source each claim once, and below it what each variant says to it; "" where nothing was claimed."""
    if not judged:
        return ""
    found = "".join(_source(source, [item for item in judged if item["source"] == source]) for source in _each(judged, "source"))
    return f'<section class="claims" aria-label="Claims, judged"><h3>Claims, judged</h3>{found}</section>'


def _each(judged: Sequence[Judged], name: str) -> list[str]:
    return list(dict.fromkeys(str(item[name]) for item in judged))


def _source(source: str, judged: Sequence[Judged]) -> str:
    claims = "".join(_claim(claim, [item for item in judged if item["sentence"] == claim]) for claim in _each(judged, "sentence"))
    return f'<p class="quiet">From: <cite>{escape(source)}</cite></p><div class="lists">{claims}</div>'


def _claim(sentence: str, judged: Sequence[Judged]) -> str:
    return f"<section><p><q>{escape(sentence)}</q></p><ul>{''.join(_item(item) for item in judged)}</ul></section>"


def _item(item: Judged) -> str:
    outcome = str(item["outcome"])
    words = f"{outcome} on this machine" if outcome == OPEN else outcome
    why = f" <small>Why: {escape(item['why'])}</small>" if item["why"] else ""
    mark = f'<i class="swatch"></i><b>{escape(item["variant"])}</b> <b class="outcome {outcome.split()[0]}">{escape(words)}</b>'
    return f'<li class="v{int(item["number"])}">{mark} {escape(item["text"])}{why}</li>'
