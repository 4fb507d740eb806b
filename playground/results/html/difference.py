"""Two texts of two variants, token by token: the choice at which they part, with both models' probabilities, and the whole difference.

Pure and escaped HTML. Example::

    difference_html(("The", " cat"), ("The", " dog"))
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

from playground.results.html.text import escape
from playground.results.numbers import digits

COMPARED_TOKENS = 1000  # aligning two long texts takes time that grows with the square of their length


def departure_html(found: Mapping[str, Any]) -> str:
    """A departure of a result document: what both chose at that token, and how likely each model thought either choice."""
    theirs, ours = str(found["theirs_text"]), str(found["ours_text"])
    rows = "".join(
        f'<tr><th scope="row">{who} <code>{_piece(text)}</code></th>'
        f"<td>{_chance(found.get(before))}</td><td>{_chance(found.get(here))}</td></tr>"
        for who, text, before, here in (
            ("baseline chose", theirs, "baseline_p_theirs", "p_theirs"),
            ("this variant chose", ours, "baseline_p_ours", "p_ours"),
        )
    )
    return (
        f'<table class="departure"><caption>The texts part at token {int(found["position"]) + 1}</caption>'
        '<thead><tr><th scope="col">probability</th><th scope="col">in the baseline</th><th scope="col">here</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def _piece(text: str) -> str:
    return escape(text.replace("\n", "⏎")) or "∅"


def _chance(value: float | None) -> str:
    return '<span class="none">not known</span>' if value is None else digits(float(value))


def difference_html(baseline: Sequence[str], other: Sequence[str]) -> str:
    """Both texts in one, folded away: equal tokens plain, the baseline's own struck out, this variant's own marked. "" for equal texts."""
    if tuple(baseline) == tuple(other):
        return ""
    parts = list(_parts(baseline[:COMPARED_TOKENS], other[:COMPARED_TOKENS]))
    body = "".join(f"<{tag}>{escape(text)}</{tag}>" if tag else escape(text) for tag, text in parts)
    longer = max(len(baseline), len(other)) > COMPARED_TOKENS
    limit = f" Of the first {COMPARED_TOKENS:,} tokens." if longer else ""
    key = f'<p class="quiet">Struck out: only in the baseline. Marked: only here.{limit}</p>'
    return f'<details class="differs"><summary>Every difference from the baseline</summary>{key}<div class="said">{body}</div></details>'


def _parts(baseline: Sequence[str], other: Sequence[str]) -> Iterator[tuple[str, str]]:
    """("", "del" or "ins", text) of neighbouring tokens in the order in which they are read."""
    for kind, a0, a1, b0, b1 in SequenceMatcher(None, baseline, other, autojunk=False).get_opcodes():
        if kind == "equal":
            yield "", "".join(baseline[a0:a1])
            continue
        if a1 > a0:
            yield "del", "".join(baseline[a0:a1])
        if b1 > b0:
            yield "ins", "".join(other[b0:b1])
