"""Text as safe HTML, and tables of one column a variant.

Model output is untrusted: everything that comes from a model, a person or a file goes through `escape`. Example::

    escape("<b>")   # "&lt;b&gt;"
"""

from __future__ import annotations

import html
from collections.abc import Sequence


def escape(text: object) -> str:
    """Text that a browser shows and never interprets."""
    return html.escape(str(text), quote=True)


def variant_table(label: str, first: str, names: Sequence[str], rows: str) -> str:
    """A table that scrolls sideways in its frame: `first` heads the row names, then a column a variant; `rows` is HTML."""
    heads = "".join(f'<th scope="col" class="v{i}"><i class="swatch"></i>{escape(name)}</th>' for i, name in enumerate(names))
    return (
        f'<div class="table-scroll" tabindex="0" role="region" aria-label="{escape(label)}"><table class="comparison">'
        f'<thead><tr><th scope="col">{escape(first)}</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
    )
