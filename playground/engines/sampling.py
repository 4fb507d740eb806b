"""From logits to the next token: the most likely one, or one drawn at a temperature, of all tokens or of the likeliest.

Pure functions on tensors, for every engine that picks its own tokens. Nothing here waits for the device and no shape depends on the
data, so that a CUDA graph can hold them; temperature, top_k and top_p are tensors, so that a captured graph follows when they are filled
with other values (its generator has to be registered with it, and can then be seeded again). Example::

    sampler = Sampler(kind_of(batch), "cuda")
    sampler.set(batch)
    ids = sampler.choose(logits)
"""

from __future__ import annotations

import functools
from typing import Any, Literal

from playground.core.engine import Batch

Kind = Literal["greedy", "all", "narrowed"]
PARTS = 512  # of a vocabulary, searched side by side
LEAST_TEMPERATURE = 1e-30  # below, logits / temperature overflow, and a softmax of infinities is no number


class Sampler:
    """How the tokens of a batch are chosen, with the settings at fixed addresses and a generator of its own, so that a captured graph can
    hold it."""

    def __init__(self, kind: Kind, device: str) -> None:
        import torch

        self.kind = kind
        self.generator = None if kind == "greedy" else torch.Generator(device)
        self.temperature, self.top_p = (torch.ones((), device=device) for _ in range(2))
        self.top_k = torch.zeros((), dtype=torch.long, device=device)

    def set(self, batch: Batch) -> None:
        """The settings of this batch, and its seed."""
        self.temperature.fill_(batch.temperature)
        self.top_k.fill_(batch.top_k)
        self.top_p.fill_(batch.top_p)
        if self.generator is not None:
            self.generator.manual_seed(batch.seed)

    def choose(self, logits: Any) -> Any:
        """[rows, vocabulary] -> ids [rows]."""
        if self.kind == "greedy":
            return greedy(logits)
        if self.kind == "all":
            return sample_all(logits, self.temperature, self.generator)
        return sample(logits, self.temperature, self.top_k, self.top_p, self.generator)


def kind_of(batch: Batch) -> Kind:
    """Which function a batch needs: `greedy`, `sample_all` (which saves the sort of the vocabulary) or `sample`."""
    if batch.temperature == 0:
        return "greedy"
    return "all" if batch.top_k == 0 and batch.top_p == 1 else "narrowed"


def greedy(logits: Any) -> Any:
    """Logits [rows, vocabulary] -> the most likely ids [rows], int64; the lowest id of equal ones."""
    rows, vocabulary = logits.shape
    parts = _parts(vocabulary) if logits.is_cuda else 1
    if parts == 1:
        return logits.argmax(dim=-1)
    best, place = logits.reshape(rows, parts, -1).max(dim=-1)  # a GPU would give a whole row to one of its processors
    part = best.argmax(dim=-1, keepdim=True)
    return (part * (vocabulary // parts) + place.gather(-1, part)).squeeze(-1)


@functools.cache
def _parts(vocabulary: int) -> int:
    """The largest number up to PARTS that divides it."""
    return next(parts for parts in range(PARTS, 0, -1) if vocabulary % parts == 0)


def sample_all(logits: Any, temperature: Any, generator: Any = None) -> Any:
    """Logits [rows, vocabulary] -> ids [rows], int64, drawn from the softmax at `temperature` (float32, 0-d or [1])."""
    return _draw(_heated(logits, temperature).softmax(dim=-1), generator)


def sample(logits: Any, temperature: Any, top_k: Any, top_p: Any, generator: Any = None) -> Any:
    """Logits [rows, vocabulary] -> ids [rows], int64, drawn from what `narrowed` keeps.

    Each token has the noise that it has in `sample_all`, so one seed draws the same there and here wherever that token is kept.
    """
    return _draw(narrowed(logits, temperature, top_k, top_p), generator)


def narrowed(logits: Any, temperature: Any, top_k: Any, top_p: Any) -> Any:
    """Logits [rows, vocabulary] -> weights [rows, vocabulary], float32: the probability at `temperature` of the tokens kept, 0 for others.

    Kept are the `top_k` most likely tokens (int64, 0: all; of equal ones those with the lowest ids), and of these the fewest whose
    share reaches `top_p` (float32, 1: all), at least one: the nucleus of Holtzman et al. 2020, "The Curious Case of Neural Text
    Degeneration". The order temperature, top_k, top_p is that of transformers. The sum of a row is not made 1 again: a draw does not
    need it. The three settings are 0-d or [1], on the device of the logits.
    """
    import torch

    ordered, ids = torch.sort(logits.float(), dim=-1, descending=True, stable=True)
    rank = torch.arange(ids.shape[-1], device=ids.device)
    cut = (rank >= top_k) & (top_k > 0)
    shares = _heated(ordered, temperature).masked_fill(cut, float("-inf")).softmax(dim=-1)
    before = torch.nn.functional.pad(shares.cumsum(dim=-1)[:, :-1], (1, 0))  # of all likelier tokens together
    kept = (before < top_p) | (top_p >= 1) | (rank == 0)
    return torch.zeros_like(shares).scatter(-1, ids, shares * kept)


def _heated(logits: Any, temperature: Any) -> Any:
    return logits.float() / temperature.clamp(min=LEAST_TEMPERATURE)


def _draw(weights: Any, generator: Any) -> Any:
    """Weights [rows, vocabulary] -> ids [rows], each with a probability in proportion to its weight.

    Exact: of exponential variables with these rates the first to happen is token i with probability weight i / sum. It is what
    torch.multinomial does for one draw, less its checks, which wait for the device; torch's exponential_ never gives 0.
    """
    import torch

    return (weights / torch.empty_like(weights).exponential_(1, generator=generator)).argmax(dim=-1)
