"""Text to token ids and back, in the worker: the model's own tokenizer, or plain bytes for shapes that have none.

`pieces()` gives text as soon as it is certain: the pieces of a whole sequence, joined, are its decoded text. Example::

    tokenizer = load_tokenizer(resolved)
    ids = tokenizer.encode_chat(tokenizer.chat("Hello"))
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from playground.core.problem import Problem
from playground.models.folder import read_config
from playground.models.model import ResolvedModel
from playground.models.offline import installed_default

NO_TEXT = "·"
BYTES = "tokens.bytes"  # the empty file in a model folder whose tokens are bytes
_REPLACEMENT = "\ufffd"
_LONGEST, _KEPT = 64, 8  # tokens without a certain character: only noise is that long


class Tokenizer(Protocol):
    """What engines need of a tokenizer. `eos_ids`: ids that end a text; `vocab_size`: ids that it can produce."""

    eos_ids: frozenset[int]
    vocab_size: int

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of plain text, with the special tokens that the model's tokenizer adds."""
        ...

    def chat(self, prompt: str) -> str | None:
        """The exact text of one user message after the chat template, up to where the answer begins; None without a template."""
        ...

    def encode_chat(self, text: str) -> tuple[int, ...]:
        """Token ids of text that `chat` gave, which holds its special tokens already."""
        ...

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files beside a model's weights, so that `load_tokenizer` finds it there."""
        ...

    def pieces(self) -> Callable[[int], str]:
        """A fresh incremental detokeniser: id in, text piece out ("" for special tokens and while a character is incomplete)."""
        ...


def load_tokenizer(resolved: ResolvedModel) -> Tokenizer:
    """The model's tokenizer. A shape takes the default model's where that is on this machine and its vocabulary fits, and bytes otherwise;
    what was made of such a shape says in its folder that it has bytes. Raises Problem("model") for a folder without a tokenizer."""
    if resolved.kind == "made" and (resolved.folder / BYTES).is_file():
        return ByteTokenizer(int(resolved.config["vocab_size"]))
    if resolved.kind != "shape":
        return FolderTokenizer(resolved.folder)
    vocab_size = int(resolved.config["vocab_size"])
    default = installed_default()
    if default is not None and int(default.config["vocab_size"]) <= vocab_size:
        return FolderTokenizer(default.folder)
    return ByteTokenizer(vocab_size)


class FolderTokenizer:
    """A tokenizer of the transformers library, from a model folder."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # the tokenizers library raises plain Exception for a broken file
            raise Problem("model", f"{folder} has no tokenizer that can be loaded: it needs tokenizer.json.", repr(error)) from error
        self.vocab_size = len(self._tokenizer)
        self.eos_ids = _eos_ids(folder, self._tokenizer.eos_token_id)
        added = self._tokenizer.added_tokens_decoder.items()
        self.special = {token_id for token_id, token in added if token.special} | set(self._tokenizer.all_special_ids)

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text)["input_ids"])

    def chat(self, prompt: str) -> str | None:
        if not self._tokenizer.chat_template:
            return None
        from jinja2 import TemplateError

        messages = [{"role": "user", "content": prompt}]
        try:
            return str(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        except TemplateError as error:
            raise Problem("model", f"The model's chat template fails: {error}. Run it without the chat template.", repr(error)) from error

    def encode_chat(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def save(self, folder: Path) -> None:
        self._tokenizer.save_pretrained(folder)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of a whole sequence, special tokens left out."""
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def pieces(self) -> Callable[[int], str]:
        return _Stream(self).piece


class _Stream:
    """Tokens since the last certain text but one, and how many characters of their text have been said. The tokens before the new ones are
    needed because they decide on a leading space. (tokenizers' DecodeStream does this too, but fails on the noise of random weights.)"""

    def __init__(self, tokenizer: FolderTokenizer) -> None:
        self.tokenizer = tokenizer
        self.window: list[int] = []
        self.said = self.context = 0

    def piece(self, token_id: int) -> str:
        if token_id in self.tokenizer.special:
            return ""
        if token_id >= self.tokenizer.vocab_size:
            return NO_TEXT
        self.window.append(token_id)
        text = self.tokenizer.decode(self.window)
        certain = text.rstrip(_REPLACEMENT)  # what follows may still become a character
        endless = len(self.window) > _LONGEST
        new = (text if endless else certain)[self.said :]
        self.said = max(self.said, len(certain))
        if endless or certain == text:
            self.window = self.window[-_KEPT:] if endless else self.window[self.context :]
            self.context, self.said = len(self.window), len(self.tokenizer.decode(self.window))
        return new


class ByteTokenizer:
    """Ids below 256 are the bytes of UTF-8; a shape produces more ids than that, and they have no text."""

    eos_ids: frozenset[int] = frozenset()

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(text.encode("utf-8"))

    def chat(self, prompt: str) -> str | None:
        return None

    def encode_chat(self, text: str) -> tuple[int, ...]:
        return self.encode(text)

    def save(self, folder: Path) -> None:
        (folder / BYTES).touch()

    def pieces(self) -> Callable[[int], str]:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")

        def piece(token_id: int) -> str:
            return decoder.decode(bytes([token_id])) if token_id < 256 else NO_TEXT

        return piece


def _eos_ids(folder: Path, own: int | None) -> frozenset[int]:
    found = {own} if own is not None else set()
    for config in (_generation_config(folder), read_config(folder)):
        given = config.get("eos_token_id")
        found |= set(given) if isinstance(given, list) else {given} if isinstance(given, int) else set()
    return frozenset(found)


def _generation_config(folder: Path) -> Mapping[str, Any]:
    import json

    path = folder / "generation_config.json"
    data = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return data if isinstance(data, dict) else {}
