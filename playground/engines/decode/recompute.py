"""Decoding without a KV cache: every step runs the whole text again, whose length changes, so that nothing of it can be captured.

Example::

    for tick in recompute(logits_after, ids, lengths, batch, eos={2}): print(tick.tokens)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch

from playground.core.engine import Batch
from playground.core.events import Tick
from playground.engines.sampling import Sampler, kind_of


def recompute(logits_after: Callable[..., Any], ids: Any, lengths: Any, batch: Batch, eos: Collection[int]) -> Iterator[Tick]:
    """One tick a step. logits_after(ids [rows, tokens], lengths [rows], use_cache=False) -> [rows, vocabulary]; ids [rows, longest prompt]
    padded on the right, and the `lengths` of the prompts; `eos` ends a row."""
    sampler = Sampler(kind_of(batch), ids.device.type)
    sampler.set(batch)
    longest, rows = ids.shape[1], torch.arange(ids.shape[0], device=ids.device)
    ids = torch.nn.functional.pad(ids, (0, batch.max_new_tokens))
    ended = [False] * len(batch.token_ids)
    for number in range(batch.max_new_tokens):
        with torch.inference_mode():
            chosen = sampler.choose(logits_after(ids[:, : longest + number], lengths + number, use_cache=False))
            ids[rows, lengths + number] = chosen
            tokens = chosen.tolist()
        yield Tick(time.perf_counter_ns(), tuple(() if done else (token,) for token, done in zip(tokens, ended, strict=True)))
        ended = [done or token in eos for done, token in zip(ended, tokens, strict=True)]
        if all(ended):
            break
