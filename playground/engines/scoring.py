"""Log-probabilities of a text as a transformers model computes them in a run: all at once, or in passes like those that really run.

In the worker. Example::

    log_probabilities(engine, ids)[0].argmax()      # the likeliest token after the first
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from playground.core.problem import Problem
from playground.measure.evaluation import WINDOW


def log_probabilities(engine: Any, token_ids: Sequence[int], stepwise: bool = False) -> Any:
    """[len(token_ids) - 1, vocabulary], as `Engine.score`: one forward pass over the whole text without a cache, or one a token with a
    dynamic one; as the run's techniques say where what they do is not in such a pass.

    Raises Problem("unsupported") where nothing can be scored by what really runs, or not stepwise and otherwise too."""
    import torch

    run, last = engine.options.run, len(token_ids) - 1
    if run.unscored:
        raise Problem("unsupported", run.unscored)
    if stepwise and run.score_tokens == 1:
        raise Problem("unsupported", "texts are scored token by token here, so there is no other batch shape to compare that with")
    with engine.passing():
        ids = torch.tensor([list(token_ids)], device=engine.options.device)
        if stepwise or run.score_tokens:
            return _in_parts(engine, ids[:, :last], 1 if stepwise else run.score_tokens)
        logits = engine.model(input_ids=ids, use_cache=False).logits[0, :-1]
        return torch.log_softmax(logits, dim=-1, dtype=torch.float32).cpu()


def _in_parts(engine: Any, ids: Any, size: int) -> Any:
    """After each of `ids` [1, tokens], `size` of them a pass; where texts are scored so by the run's own wish, through its own cache: of
    one size for all texts, since a step may be compiled for it."""
    import torch
    from transformers import DynamicCache

    run, last = engine.options.run, ids.shape[1]
    own = run.make_cache if run.score_tokens else None
    cache = own(engine.model, 1, max(last, WINDOW)) if own else DynamicCache(config=engine.model.config)
    places, found = torch.arange(last, device=ids.device)[None], []
    for start in range(0, last, size):
        engine.check()
        part, at = ids[:, start : start + size], places[:, start : start + size]
        logits = engine.model(input_ids=part, position_ids=at, past_key_values=cache, use_cache=True).logits[0]
        found.append(torch.log_softmax(logits, dim=-1, dtype=torch.float32).cpu())
    return torch.cat(found)
