"""The page's text as safe HTML: model output with the first token that departs from the baseline marked, and remarks.

Model output is untrusted: everything that comes from a model, a person or a file goes through `escape`. Example::

    marked(("Paris", " is", " big"), 2, " old")   # 'Paris is<mark class="departs" title="...">&nbsp;big</mark>...'
"""

from __future__ import annotations

from collections.abc import Sequence

from playground.results.html.text import escape, variant_table

__all__ = ["escape", "marked", "note_html", "variant_table"]

SHOWN_CHARACTERS = 20_000


def marked(pieces: Sequence[str], departs_at: int | None, baseline_piece: str = "") -> str:
    """Streamed text; from token `departs_at` on it is another text than the baseline's, whose piece there was `baseline_piece`."""
    if departs_at is None or departs_at >= len(pieces):
        return _limited("".join(pieces))
    same, token, other = "".join(pieces[:departs_at]), pieces[departs_at], "".join(pieces[departs_at + 1 :])
    title = f"Token {departs_at + 1} is the first that departs from the baseline: {token!r} instead of {baseline_piece!r}"
    mark = f'<mark class="departs" title="{escape(title)}">{escape(token) or "∅"}</mark>'
    return f'{_limited(same)}{mark}<span class="after">{_limited(other)}</span>'


def note_html(words: str) -> str:
    """A remark in the place of messages; nothing for no words."""
    return f'<div class="note" role="status">{escape(words)}</div>' if words else ""


def _limited(text: str) -> str:
    if len(text) <= SHOWN_CHARACTERS:
        return escape(text)
    return escape(text[:SHOWN_CHARACTERS]) + f"<em>… {len(text) - SHOWN_CHARACTERS:,} more characters</em>"
