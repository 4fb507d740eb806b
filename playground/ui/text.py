"""Text as safe HTML: escaped, model output with the first token that departs from the baseline marked, and tables of one column a variant.

Model output is untrusted: everything that comes from a model, a person or a file goes through `escape`. Example::

    marked(("Paris", " is", " big"), 2, " old")   # 'Paris is<mark class="departs" title="...">&nbsp;big</mark>...'
"""

from __future__ import annotations

import html
from collections.abc import Sequence

SHOWN_CHARACTERS = 20_000


def escape(text: object) -> str:
    """Text that a browser shows and never interprets."""
    return html.escape(str(text), quote=True)


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


def variant_table(label: str, first: str, names: Sequence[str], rows: str) -> str:
    """A table that scrolls sideways in its frame: `first` heads the row names, then a column a variant; `rows` is HTML."""
    heads = "".join(f'<th scope="col" class="v{i}"><i class="swatch"></i>{escape(name)}</th>' for i, name in enumerate(names))
    return (
        f'<div class="table-scroll" tabindex="0" role="region" aria-label="{escape(label)}"><table class="comparison">'
        f'<thead><tr><th scope="col">{escape(first)}</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _limited(text: str) -> str:
    if len(text) <= SHOWN_CHARACTERS:
        return escape(text)
    return escape(text[:SHOWN_CHARACTERS]) + f"<em>… {len(text) - SHOWN_CHARACTERS:,} more characters</em>"
