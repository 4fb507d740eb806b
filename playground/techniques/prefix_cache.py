"""Prefix caching: what all prompts begin with is computed once, and its keys and values are copied into each new cache."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from playground.core.engine import Batch
from playground.core.knobs import Toggle
from playground.core.problem import Problem
from playground.core.technique import Effect, Explanation, Finding, Knobs, Technique, flipped
from playground.techniques.setup import TransformersSetup

CACHES = ("dynamic", "static")


@dataclass
class Prefix:
    """The common beginning of all prompts, computed once these are known. `kept`: keys and values [1, heads, tokens, head size]
    of each layer; `seconds`: what that took; `rows`: how many rows began with a copy, `saved` how many tokens they did not compute."""

    tokens: tuple[int, ...] = ()
    kept: list[tuple[Any, Any]] = field(default_factory=list)
    seconds: float = 0.0
    rows: int = 0
    saved: int = 0

    def __call__(self, engine: Any, cache: Any, batch: Batch) -> int:
        """Copy it to the start of each row of a fresh cache; returns its tokens: 0 where a row is another text."""
        size = min(len(self.tokens), min(len(row) for row in batch.token_ids) - 1)
        if size == 0 or any(row[:size] != self.tokens[:size] for row in batch.token_ids):
            return 0
        rows = len(batch.token_ids)
        for layer, pair in enumerate(self.kept):
            keys, values = (part[:, :, :size].expand(rows, -1, -1, -1) for part in pair)
            cache.update(keys, values, layer)
        self.rows += rows
        self.saved += rows * size
        return size

    @property
    def bytes(self) -> int:
        """Of its keys and values."""
        return sum(part.numel() * part.element_size() for pair in self.kept for part in pair)

    def compute(self, engine: Any) -> None:
        """Run the model over it. Raises Problem("user") where the prompts have no common beginning."""
        import torch
        from transformers import DynamicCache

        tokens = shared_prefix(engine.prompts)
        begun = time.perf_counter()
        cache = DynamicCache(config=engine.model.config)
        with engine.passing():
            ids = torch.tensor([tokens], device=engine.options.device)
            engine.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        if engine.options.device == "cuda":
            torch.cuda.synchronize()
        kept = [(layer.keys, layer.values) for layer in cache.layers]
        if any(type(layer).__name__ != "DynamicLayer" for layer in cache.layers):
            raise Problem("unsupported", "Layers of this model do not keep every token, so a prefix cannot be copied into their cache.")
        self.tokens, self.kept, self.seconds = tokens, kept, time.perf_counter() - begun


class PrefixCache(Technique):
    """On or off."""

    name = "prefix_cache"
    title = "Prefix caching"
    group = "Caching"
    order = 31
    phase = "run"
    knobs = (
        Toggle(
            "prefix_cache",
            "Prefix caching",
            False,
            "Compute what all prompts begin with once, and begin each request with a copy of its keys and values.",
        ),
    )
    explain = Explanation(
        what="The tokens that all prompts have in common at the beginning (a system prompt, a document, the chat template's head) go "
        "through the model once. Each request then begins with a copy of their keys and values, and computes only its own rest.",
        helps="Many requests with a long common beginning and a short rest: the time to the first token falls nearly to that of the rest.",
        costs="The keys and values of the prefix stay in memory beside each request's own cache. Decoding is as fast as before, so that "
        "little is won where the prefix is short or the output long, and nothing where prompts begin differently.",
    )
    cases = ({"prefix_cache": True}, {"prefix_cache": True, "kv_cache": "static", "batch_size": 3})

    def conflicts(self, knobs: Knobs) -> str | None:
        """There must be a cache that takes a copy as it is."""
        if not knobs["prefix_cache"]:
            return None
        if knobs.get("serving") == "continuous":
            return (
                "Prefix caching and continuous batching exclude each other here: it keeps a paged cache of its own, which begins empty. "
                "Set serving to batches, or prefix_cache to off."
            )
        if knobs["kv_cache"] in CACHES:
            return None
        return (
            f"Prefix caching and kv_cache={knobs['kv_cache']} exclude each other: the prefix is copied into a cache that keeps every token "
            "as it is. Set kv_cache to dynamic or static, or prefix_cache to off."
        )

    def expect(self, knobs: Knobs, baseline: Knobs) -> Mapping[str, Effect]:
        """Less to compute before the first token, and the prefix in memory."""
        if knobs["prefix_cache"] == baseline["prefix_cache"]:
            return {}
        kept: dict[str, Effect] = {"ttft_s": "down", "itl_s": "same", "kv_cache_bytes": "same"}
        return kept if knobs["prefix_cache"] else flipped(kept)

    def for_transformers(self, knobs: Knobs, setup: TransformersSetup) -> None:
        """What fills each fresh cache, computed before the first pass: see the metric prefix_s."""
        if knobs["prefix_cache"]:
            setup.run.fill = prefix = Prefix()
            setup.run.knowing.append(prefix.compute)

    def evidence_for_transformers(self, knobs: Knobs, engine: Any) -> Finding:
        """Looks at what is kept, and at how many rows began with a copy of it."""
        prefix = engine.options.run.fill
        if not isinstance(prefix, Prefix):
            return Finding(not knobs["prefix_cache"], "0 tokens were computed ahead: each request computes its whole prompt")
        if not prefix.rows:
            return Finding(False, f"{len(prefix.tokens)} tokens were computed ahead, and 0 requests began with them")
        text = (
            f"the first {len(prefix.tokens):,} tokens of all {len(engine.prompts)} prompts were computed once and are kept in "
            f"{prefix.bytes:,} bytes; {prefix.rows} requests of the first pass began with a copy and computed {prefix.saved:,} tokens fewer"
        )
        return Finding(bool(knobs["prefix_cache"]), text)

    def counts_for_transformers(self, knobs: Knobs, engine: Any) -> dict[str, float]:
        """Its size, and what it took to compute."""
        prefix = engine.options.run.fill
        if not isinstance(prefix, Prefix):
            return {}
        return {"prefix_tokens": float(len(prefix.tokens)), "prefix_bytes": float(prefix.bytes), "prefix_s": prefix.seconds}

    def refuses_graph(self, knobs: Knobs, device: str) -> str | None:
        """Its prompt's pass begins at position 0."""
        if not knobs["prefix_cache"]:
            return None
        return "this engine computes each prompt from its first token on: choose the engine transformers, or prefix_cache off."


def shared_prefix(prompts: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The longest common beginning of all prompts, at least one token short of each, since the first new token comes from a token that is
    computed. Raises Problem("user") where there is none."""
    if len(prompts) < 2:
        raise Problem(
            "user", "Prefix caching needs at least two prompts that begin with the same text: add a prompt, or set prefix_cache to off."
        )
    pairs = enumerate(zip(*(row[:-1] for row in prompts), strict=False))
    size = next((place for place, tokens in pairs if len(set(tokens)) > 1), min(len(row) for row in prompts) - 1)
    tokens = prompts[0][:size]
    if not tokens:
        raise Problem(
            "user",
            f"The {len(prompts)} prompts have no token in common at their beginning: put the text that they share first, or set "
            "prefix_cache to off.",
        )
    return tokens


TECHNIQUE = PrefixCache()
