"""Prompts of an exact length in tokens, for whatever tokenizer there is, from the product's own text.

The text is cut at the character at which its tokens are as many as asked for. Where a character more or less jumps over that number, a few
short words are put behind an earlier cut. Example::

    text_of(512, lambda text: len(tokenizer.encode(text)))
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from playground.core.places import ASSETS
from playground.core.problem import Problem

SOURCES = ("training/logbook.txt", "eval/english.txt")
FILLERS = (" a", " the", ".", " I", "x")
MOST_CHARACTERS = 64  # a token, on the whole
CUTS = 40  # characters to step back, at most, before giving up


def text_of(tokens: int, count: Callable[[str], int], number: int = 0) -> str:
    """A text of exactly `tokens` tokens, of which `count` says how many a text has; texts of other `number`s begin elsewhere.

    Raises Problem("model") where no cut has that many, such as 1 token for a tokenizer that puts two in front of every text.
    """
    high = 4 * tokens
    while count(_passage(high, number)) < tokens and high < MOST_CHARACTERS * tokens:
        high *= 2
    low = 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(_passage(middle, number)) <= tokens else (low, middle)
    for cut in range(low, max(low - CUTS, 0), -1):
        text = _passage(cut, number)
        missing = tokens - count(text)
        if missing == 0 and text.strip():
            return text
        for filler in FILLERS if missing > 0 else ():
            if count(text + filler * missing) == tokens:
                return text + filler * missing
    raise Problem("model", f"No prompt of exactly {tokens:,} tokens can be made for this model's tokenizer: try a few more.")


def _passage(characters: int, number: int) -> str:
    """So many characters of the text, from its paragraph `number` on. Each time that it begins anew it says so, so that no two stretches
    of a long prompt are alike."""
    paragraphs = _paragraphs()
    start = number % len(paragraphs)
    whole = "\n\n".join((*paragraphs[start:], *paragraphs[:start]))
    text, part = whole, 1
    while len(text) < characters:
        part += 1
        text += f"\n\nPart {part}.\n\n{whole}"
    return text[:characters]


@functools.cache
def _paragraphs() -> tuple[str, ...]:
    """Of the texts that were written for the product."""
    text = "\n\n".join((ASSETS / source).read_text(encoding="utf-8") for source in SOURCES)
    return tuple(filter(None, (paragraph.strip() for paragraph in text.split("\n\n"))))
