"""The exact input of each variant. Pure and escaped HTML.

Example::

    prepared_html(view)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from playground.ui.text import escape
from playground.ui.view import View

SHOWN_PROMPTS = 32


def prepared_html(view: View) -> str:
    """The exact input of each variant after the chat template, with token counts; variants with the same input share one list."""
    groups: dict[Any, list[str]] = {}
    for variant in view.variants:
        if variant.prepared is not None:
            groups.setdefault((variant.prepared.texts, variant.prepared.token_counts, variant.prepared.templated), []).append(variant.name)
    if not groups:
        return '<p class="quiet">The text that the model really sees, and its number of tokens, appear here once a run has begun.</p>'
    return "".join(_prepared(names, *key) for key, names in groups.items())


def _prepared(names: list[str], texts: Sequence[str], counts: Sequence[int], templated: bool) -> str:
    how = "through the model's chat template" if templated else "as written, no chat template"
    items = "".join(
        f"<li><b>{count:,} tokens</b><pre>{escape(text)}</pre></li>"
        for text, count in list(zip(texts, counts, strict=False))[:SHOWN_PROMPTS]
    )
    more = f"<p>… and {len(texts) - SHOWN_PROMPTS} more prompts</p>" if len(texts) > SHOWN_PROMPTS else ""
    return f'<p class="quiet">{escape(", ".join(names))}: {how}</p><ol class="prepared">{items}</ol>{more}'
