"""The decode loop of speculative decoding: some tokens are proposed, one forward pass of the model checks them all. In the worker.

Greedy and one row: the pass gives the model's own choice after each proposed token, so the proposals up to the first that differs are what
it would have said anyway, and its choice there comes on top. Of the cache, what was not accepted is cut off again. Example::

    setup.run.decode = Speculation("prompt_lookup", draft_tokens=5, lookup_ngram=3)
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from playground.core.engine import Batch
from playground.core.events import Tick
from playground.core.problem import Problem

PLAIN_PASSES = 5  # timed after the run, for the break-even


@dataclass
class Speculation:
    """How tokens are proposed, at most `draft_tokens` of them before each pass."""

    kind: str
    draft_tokens: int
    lookup_ngram: int
    last: int | None = None  # token that the model has not been given yet
    draft_kv_bytes: int = 0

    def __call__(self, engine: Any, batch: Batch) -> Iterator[Tick]:
        """Ticks of one token or more. Raises Problem for what this loop cannot do: drawn tokens, several rows, a cache that keeps all."""
        check(batch)
        ids = list(batch.token_ids[0])
        total = len(ids) + batch.max_new_tokens
        ends = frozenset() if batch.ignore_eos else engine.tokenizer.eos_ids
        engine.cache = engine._fresh_cache(1, total - 1)
        start = engine._filled(batch)
        engine.first_input = engine.first_input or (1, len(ids) - start, 0)
        draft: Draft | Lookup = Draft(engine) if self.kind == "draft" else Lookup(self.lookup_ngram)
        new = chosen_by(engine, ids[start:], last_only=True)
        check_cache(engine.cache)
        yield Tick(time.perf_counter_ns(), (tuple(new),))
        ids += new
        counts = engine.options.run.counts
        count(counts, target_passes=1, speculated_tokens=1)
        with timed(counts, "draft_prompt_s"), engine.passing():
            draft.read(ids[:-1])
        while len(ids) < total and ids[-1] not in ends:
            begun = time.perf_counter()
            with engine.passing():
                drafted = draft.propose(ids, min(self.draft_tokens, total - len(ids) - 1))
            between = time.perf_counter()
            new, agreed = self._checked(engine, ids, drafted, ends)
            now = time.perf_counter_ns()
            ids += new
            target_s = now / 1e9 - between
            count(counts, target_passes=1, speculated_tokens=len(new), drafted_tokens=len(drafted), accepted_tokens=agreed)
            count(counts, draft_s=between - begun, target_s=target_s)
            if drafted:
                count(counts, cycles=1, cycle_s=now / 1e9 - begun)
            yield Tick(now, (tuple(new),))
        self.last = ids[-1]
        self.draft_kv_bytes = max(self.draft_kv_bytes, draft.kv_bytes())
        engine.count_cache()

    def _checked(self, engine: Any, ids: Sequence[int], drafted: Sequence[int], ends: frozenset[int]) -> tuple[list[int], int]:
        """The tokens that the model says next, and how many of them were proposed; the cache then holds all of them but the last."""
        said = chosen_by(engine, [ids[-1], *drafted])
        agreed = next((place for place, token in enumerate(drafted) if token != said[place]), len(drafted))
        new = said[: agreed + 1]
        ending = next((place + 1 for place, token in enumerate(new) if token in ends), len(new))
        engine.cache.crop(ending - len(said))
        return new[:ending], min(agreed, ending)

    def plain_pass_s(self, engine: Any) -> float | None:
        """Seconds of a pass of the model over one token with the run's last cache: the median of some, measured now; None before a run."""
        if self.last is None or engine.cache is None:
            return None
        seconds = []
        for _ in range(1 + PLAIN_PASSES):
            begun = time.perf_counter()
            chosen_by(engine, [self.last])
            seconds.append(time.perf_counter() - begun)
            engine.cache.crop(-1)
        return statistics.median(seconds[1:])


class Lookup:
    """Proposes what followed the last time that the text went on like this."""

    def __init__(self, longest: int) -> None:
        self.longest = longest

    def read(self, ids: Sequence[int]) -> None:
        """Nothing to prepare."""

    def propose(self, ids: Sequence[int], count: int) -> list[int]:
        """Up to `count` tokens to come after `ids`."""
        return looked_up(ids, self.longest, count)

    def kv_bytes(self) -> int:
        """It keeps no cache."""
        return 0


class Draft:
    """Proposes what the engine's second model says, greedy, one pass a token, with a cache of its own."""

    def __init__(self, engine: Any) -> None:
        from transformers import DynamicCache

        self.model, self.device = engine.draft, engine.options.device
        self.cache = DynamicCache(config=self.model.config)
        self.known: list[int] = []  # tokens that the cache holds
        rows = (model.get_input_embeddings().weight.shape[0] for model in (engine.model, engine.draft))
        self.ids = min(rows)  # sizes of embeddings are rounded up beyond the vocabulary, and not always alike

    def read(self, ids: Sequence[int]) -> None:
        """The prompt, so that it is not in the time of the first proposal."""
        self._next(self._tensor(ids))
        self.known = list(ids)
        check_cache(self.cache)
        if self.device != "cpu":
            self._wait()

    def propose(self, ids: Sequence[int], count: int) -> list[int]:
        """`count` tokens to come after `ids`."""
        if count == 0:
            return []
        kept = next((place for place, (old, new) in enumerate(zip(self.known, ids, strict=False)) if old != new), len(self.known))
        kept = min(kept, len(ids) - 1)
        self.cache.crop(kept - len(self.known))
        tokens = [self._next(self._tensor(ids[kept:]))]
        while len(tokens) < count:
            tokens.append(self._next(tokens[-1]))
        drafted = [int(token) for token in tokens]
        self.known = [*ids, *drafted[:-1]]
        return drafted

    def kv_bytes(self) -> int:
        """Of its cache as it is now."""
        return sum(part.numel() * part.element_size() for layer in self.cache.layers for part in (layer.keys, layer.values))

    def _next(self, ids: Any) -> Any:
        logits = self.model(input_ids=ids, past_key_values=self.cache, use_cache=True, logits_to_keep=1).logits
        return logits[:, -1, : self.ids].argmax(dim=-1, keepdim=True)

    def _tensor(self, ids: Sequence[int]) -> Any:
        import torch

        return torch.tensor([list(ids)], device=self.device).clamp(max=self.ids - 1)

    def _wait(self) -> None:
        import torch

        torch.cuda.synchronize()


def looked_up(ids: Sequence[int], longest: int, count: int) -> list[int]:
    """Up to `count` tokens that followed an earlier occurrence of the end of `ids`: its last `longest` tokens, else fewer, down to one.

    Of several occurrences the last one that is followed by `count` tokens, else the one followed by most. Source: Saxena 2023, "Prompt
    Lookup Decoding". Example: looked_up([1, 2, 3, 4, 2], 3, 2) is [3, 4].
    """
    if count == 0:
        return []
    ids = list(ids)
    for size in range(min(longest, len(ids) - 1), 0, -1):
        end = ids[-size:]
        found = [place + size for place in range(len(ids) - size) if ids[place] == end[0] and ids[place : place + size] == end]
        if found:
            enough = [place for place in found if len(ids) - place >= count]
            start = enough[-1] if enough else found[0]
            return ids[start : start + count]
    return []


def chosen_by(engine: Any, ids: Sequence[int], last_only: bool = False) -> list[int]:
    """The model's most likely token after each of `ids`, or after the last, which come next in the engine's cache; waits for the device."""
    import torch

    with engine.passing():
        given = torch.tensor([list(ids)], device=engine.options.device)
        logits = engine.model(input_ids=given, past_key_values=engine.cache, use_cache=True, logits_to_keep=int(last_only)).logits
        tokens: list[int] = logits[0].argmax(dim=-1).tolist()
    return tokens


def check(batch: Batch) -> None:
    """Raises Problem for drawn tokens and for several rows."""
    if batch.temperature > 0:
        raise Problem(
            "user",
            "Speculative decoding accepts a proposed token where it is the most likely one, so tokens cannot be drawn here: set the "
            "temperature to 0, or speculative to off.",
        )
    if len(batch.token_ids) > 1:
        raise Problem("unsupported", "Speculative decoding runs one row at a time: rows would accept different numbers of tokens.")


def check_cache(cache: Any) -> None:
    """Raises Problem("unsupported") for a cache whose layers cannot give tokens back, once it is filled."""
    kinds = sorted({type(layer).__name__ for layer in cache.layers} - {"DynamicLayer"})
    if kinds:
        raise Problem("unsupported", f"Tokens that are not accepted must leave the cache again, and {kinds[0]} keeps them.")


def count(counts: dict[str, float], **more: float) -> None:
    """Add to the run's counts."""
    for name, value in more.items():
        counts[name] = counts.get(name, 0) + value


@contextmanager
def timed(counts: dict[str, float], name: str) -> Iterator[None]:
    """Add the seconds of a block to the run's counts."""
    begun = time.perf_counter()
    yield
    count(counts, **{name: time.perf_counter() - begun})
