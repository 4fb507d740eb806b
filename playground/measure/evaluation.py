"""On which text quality is scored: the product's own English and Chinese, or the user's, cut into windows of tokens without overlap.

Pure but for reading `assets/eval/`. A tokenizer's leading special token (BOS) stands at the head of every window, not of the first one
only: some models are lost without it. Example::

    for window in windows(engine, spec.protocol, context_length=2048): print(window.name, len(window.ids))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from playground.core.engine import Engine
from playground.core.places import ASSETS
from playground.core.spec import Protocol
from playground.measure.agreement import common_prefix

WINDOW = 512
OWN_TOKENS = 8192
TITLES = {"english": "the product's English text", "chinese": "the product's Chinese text", "own": "your own text"}


@dataclass(frozen=True)
class Window:
    """Token ids that are scored in one pass. `text`: english, chinese or own; `name`: the text and the window's number; `head`: how many
    of the ids are the tokenizer's own start tokens."""

    text: str
    name: str
    ids: tuple[int, ...]
    head: int = 0


def evaluation_text(name: str) -> str:
    """english or chinese: narrative, explanation, dialogue, letters and numbers, written for this purpose."""
    return (ASSETS / "eval" / f"{name}.txt").read_text(encoding="utf-8")


def windows(engine: Engine, protocol: Protocol, context_length: int | None) -> list[Window]:
    """Windows of 512 tokens, or of the context if that is less, each with at least two tokens: of the user's text (at most 8,192 tokens of
    it), or else the first window of the English text ("short"), or all of the English and Chinese ("full")."""
    size = min(WINDOW, context_length or WINDOW)
    if protocol.text.strip():
        return _cut(engine, "own", protocol.text, size, OWN_TOKENS)
    if protocol.evaluation == "short":
        return _cut(engine, "english", evaluation_text("english"), size, size)
    return [window for name in ("english", "chinese") for window in _cut(engine, name, evaluation_text(name), size, None)]


def about(scored: Sequence[Window], protocol: Protocol, context_length: int | None) -> str:
    """What was scored, in words: texts, tokens, window, stride and positions."""
    size = min(WINDOW, context_length or WINDOW)
    head = scored[0].head if scored else 0
    tokens = {name: sum(len(window.ids) - head for window in scored if window.text == name) for name in TITLES}
    if tokens["own"]:
        texts = f"{TITLES['own']} ({tokens['own']:,} tokens; at most {OWN_TOKENS:,} are scored)"
    elif protocol.evaluation == "short":
        texts = f"the first {tokens['english']:,} tokens of {TITLES['english']}"
    else:
        texts = " and ".join(f"{TITLES[name]} ({count:,} tokens)" for name, count in tokens.items() if count)
    each = ", each begun by the tokenizer's start token" if head else ""
    positions = sum(len(window.ids) - 1 for window in scored)
    return f"{texts or 'no text'}; windows of {size} tokens{each}, stride {size - head} (no overlap), {positions:,} positions"


def _cut(engine: Engine, name: str, text: str, size: int, most: int | None) -> list[Window]:
    tokens = tuple(engine.prepare(text, False)[1])
    head = tokens[: common_prefix(tokens, tuple(engine.prepare("", False)[1]))]
    step = size - len(head)
    body = tokens[len(head) : most]
    pieces = [head + body[start : start + step] for start in range(0, len(body), step)] if step > 0 else []
    return [Window(name, f"{name}-{number}", piece, len(head)) for number, piece in enumerate(pieces) if len(piece) > 1]
