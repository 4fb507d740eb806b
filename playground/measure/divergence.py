"""Numbers from log-probabilities: how likely a text is, and how far one model's distributions are from another's.

Runs in the worker on float32 tensors [positions, vocabulary], a few rows at a time in float64; torch is imported inside. Example::

    nll = negative_log_likelihood(logprobs, ids)
    difference = Divergence(); difference.add(baseline, variant); difference.values()["kld_mean"]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from playground.core.problem import Problem

CHUNK = 32


def require_usable(logprobs: Any, ids: Sequence[int]) -> None:
    """Raises Problem("unsupported") where these are not the finite log-probabilities of all tokens after the first."""
    if len(logprobs) != len(ids) - 1 or max(ids) >= logprobs.shape[1]:
        raise Problem("unsupported", f"the engine gave log-probabilities of shape {tuple(logprobs.shape)} for {len(ids)} tokens")
    broken = sum(int((~chunk.isfinite()).any(dim=1).sum()) for chunk in logprobs.split(CHUNK))
    if broken:
        sentence = f"the model's log-probabilities are not finite at {broken} of {len(logprobs)} positions (numbers overflowed)"
        raise Problem("unsupported", sentence)


def negative_log_likelihood(logprobs: Any, ids: Sequence[int]) -> float:
    """Sum over the tokens after the first, in nats."""
    import torch

    following = torch.tensor(ids[1:]).unsqueeze(1)
    return -float(logprobs.gather(1, following).double().sum())


def perplexity(loss: float, positions: int) -> float:
    """exp of the mean of a negative log-likelihood over so many positions; infinite where that is too large for a number."""
    try:
        return math.exp(loss / positions)
    except OverflowError:
        return math.inf


class Divergence:
    """KL(theirs || ours) in nats at each position over the full vocabulary, and how often the likeliest tokens agree."""

    def __init__(self) -> None:
        self._klds: list[Any] = []
        self._agreeing = 0

    def add(self, theirs: Any, ours: Any) -> None:
        """Further positions: two tensors of the same shape, or a `reference.Stored` for theirs."""
        for start in range(0, len(ours), CHUNK):
            p, q = theirs[start : start + CHUNK].double(), ours[start : start + CHUNK].double()
            shares = p.exp()
            # float32 probabilities sum to 1 within 1e-7 only: the last two terms take that out, so that no divergence is below 0
            self._klds.append((shares * (p - q)).sum(dim=1) - shares.sum(dim=1) + q.exp().sum(dim=1))
            self._agreeing += int((p.argmax(dim=1) == q.argmax(dim=1)).sum())

    def values(self) -> dict[str, float]:
        """kld_mean, kld_p99 (linear interpolation) and top1_agreement of all positions so far, of which there is at least one."""
        import torch

        klds = torch.cat(self._klds).clamp(min=0)
        return {
            "kld_mean": float(klds.mean()),
            "kld_p99": float(torch.quantile(klds, 0.99)),
            "top1_agreement": self._agreeing / len(klds),
        }
