"""What the variants wrote, prompt by prompt and side by side, each text marked from where it is another one than the baseline's.

Pure and escaped HTML: model output is untrusted. Example::

    outputs_html(results, names)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from playground.measure.agreement import common_prefix
from playground.results.html.difference import departure_html
from playground.results.html.text import escape

Result = Mapping[str, Any]
MOST_PROMPTS = 32
MOST_CHARACTERS = 20_000


def outputs_html(results: Sequence[Result], names: Sequence[str]) -> str:
    """The outputs of each prompt, the first unfolded; "" where there are none."""
    prompts = dict.fromkeys(str(output["prompt"]) for result in results for output in result.get("outputs") or ())
    blocks = [_block(number, prompt, results, names) for number, prompt in enumerate(prompts) if number < MOST_PROMPTS]
    more = f'<p class="quiet">… and {len(prompts) - MOST_PROMPTS} more prompts.</p>' if len(prompts) > MOST_PROMPTS else ""
    return f'<div class="outputs">{"".join(blocks)}{more}</div>' if blocks else ""


def _block(number: int, prompt: str, results: Sequence[Result], names: Sequence[str]) -> str:
    rows = [_row(result, prompt) for result in results]
    baseline = rows[0][1] if rows and rows[0] else None
    texts = "".join(
        _text(index, name, row, baseline if index else None, results[index])
        for index, (name, row) in enumerate(zip(names, rows, strict=True))
    )
    head = f'<summary>Prompt {number + 1}</summary><p class="prompt">{_limited(prompt)}</p>'
    return f'<details{"" if number else " open"}>{head}<div class="texts">{texts}</div></details>'


def _row(result: Result, prompt: str) -> tuple[int, str] | None:
    """Place and text of the output for a prompt."""
    outputs = enumerate(result.get("outputs") or ())
    return next(((place, str(output.get("text", ""))) for place, output in outputs if output["prompt"] == prompt), None)


def _text(index: int, name: str, row: tuple[int, str] | None, baseline: str | None, result: Result) -> str:
    head = f'<h4><i class="swatch"></i>{escape(name)}</h4>'
    if row is None:
        return f'<article class="v{index}">{head}<div class="said empty">no output for this prompt</div></article>'
    place, text = row
    departures = [found for found in result.get("departures") or () if found.get("row") == place] if index else []
    table = departure_html(departures[0]) if departures else ""
    return f'<article class="v{index}">{head}<div class="said">{_marked(text, baseline)}</div>{table}</article>'


def _marked(text: str, baseline: str | None) -> str:
    """The first word that is not the baseline's, marked; whole where there is nothing to compare with or nothing differs."""
    if baseline is None or text == baseline:
        return _limited(text)
    place = common_prefix(text, baseline)
    end = next((at for at in range(place + 1, len(text)) if text[at].isspace()), len(text))
    if place >= len(text):
        return f'{_limited(text)}<mark class="departs" title="The baseline goes on here">∅</mark>'
    mark = f'<mark class="departs" title="Another text than the baseline from here on">{escape(text[place:end])}</mark>'
    return f'{_limited(text[:place])}{mark}<span class="after">{_limited(text[end:])}</span>'


def _limited(text: str) -> str:
    if len(text) <= MOST_CHARACTERS:
        return escape(text)
    return escape(text[:MOST_CHARACTERS]) + f"<em>… {len(text) - MOST_CHARACTERS:,} more characters</em>"
