"""One decode step of all rows: feed each row's last token, choose the next, note which rows have ended. All on the device, at fixed
addresses, so that a CUDA graph can hold it; on a CPU the same function simply runs.

Example::

    step = Step(forward, cache, sampler, eos=2)
    step.capture(pool)                                  # on a GPU
    step.begin(tokens, positions, eos_ids); flight = step.launch(); stamp, ids = flight.land()
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from playground.engines.decode.cache import FixedCache
from playground.engines.sampling import Sampler

Forward = Callable[..., torch.Tensor]
ENDED = -1  # in place of a token: the row ended in an earlier step
WARM_UPS = 2
IN_FLIGHT = 2  # one step runs while the tokens of the one before are read


@dataclass
class Flight:
    """A launched step: where its tokens arrive; on a GPU the event that says when, and the event and moment that its clock is read
    against."""

    ids: torch.Tensor
    arrived: Any = None
    since: Any = None
    since_ns: int = 0

    def land(self) -> tuple[int, list[int]]:
        """Wait for the tokens: (perf_counter_ns at which they were on the host, the ids [rows])."""
        if self.arrived is None:
            return time.perf_counter_ns(), self.ids.tolist()
        self.arrived.synchronize()
        now = time.perf_counter_ns()
        return min(now, self.since_ns + round(self.since.elapsed_time(self.arrived) * 1e6)), self.ids.tolist()


class Step:
    """The state of all rows on the device [rows]: `tokens` to feed, their `positions`, which rows have `ended`; `logits` [rows, vocabulary]
    of the last step. `eos`: how many ids may end a row."""

    def __init__(self, forward: Forward, cache: FixedCache, sampler: Sampler, device: str, eos: int) -> None:
        rows = cache.rows
        self.forward, self.cache, self.sampler, self.device = forward, cache, sampler, device
        self.tokens, self.positions, self.emitted = (torch.zeros(rows, dtype=torch.long, device=device) for _ in range(3))
        self.ended = torch.zeros(rows, dtype=torch.bool, device=device)
        self.eos = torch.full((max(eos, 1),), ENDED, device=device)
        self.places = torch.arange(cache.capacity, device=device)
        self.slots = cache.step(self.positions)
        self.arrivals = [torch.empty(rows, dtype=torch.long, pin_memory=device == "cuda") for _ in range(IN_FLIGHT)]
        self.logits: Any = None
        self.graph: Any = None
        self.graph_bytes = 0  # in the graph's own memory, beyond what lives when it does not run
        self.since: Any = None
        self.since_ns = self.launched = 0

    def begin(self, tokens: torch.Tensor, positions: torch.Tensor, eos: tuple[int, ...] = ()) -> None:
        """Each row's next token to feed [rows] and its position; `eos`: the ids that end a row, none or as many as were announced."""
        self.tokens.copy_(tokens)
        self.positions.copy_(positions)
        self.eos.copy_(torch.tensor(eos) if eos else torch.full_like(self.eos, ENDED))
        self.ended.copy_((self.tokens[:, None] == self.eos).any(dim=1))
        self.launched = 0
        if self.device == "cuda":
            self.since = torch.cuda.Event(enable_timing=True)
            self.since.record()
            self.since.synchronize()
            self.since_ns = time.perf_counter_ns()

    def compute(self) -> None:
        """The step itself."""
        filled = (self.places <= self.positions[:, None])[:, None, None]
        torch._dynamo.maybe_mark_dynamic(filled, 3)  # another capacity compiles nothing anew
        lengths = torch.where(self.ended, 0, self.positions + 1).int()
        self.logits = self.forward(self.tokens[:, None], self.positions[:, None], self.slots, lengths=lengths, filled=filled)
        chosen = self.sampler.choose(self.logits)
        self.emitted.copy_(torch.where(self.ended, ENDED, chosen))
        self.positions.add_((~self.ended).long())
        self.ended.logical_or_((chosen[:, None] == self.eos).any(dim=1))
        self.tokens.copy_(chosen)

    def rehearse(self) -> None:
        """Run it a few times, which compiles what is to be compiled; the state is worth nothing afterwards."""
        for _ in range(WARM_UPS):
            self.positions.zero_()
            self.compute()

    def capture(self, pool: Any) -> None:
        """Hold it in a graph, whose memory comes from `pool`; after `rehearse`."""
        self.positions.zero_()
        graph = torch.cuda.CUDAGraph()
        if self.sampler.generator is not None:
            graph.register_generator_state(self.sampler.generator)
        with torch.cuda.graph(graph, pool=pool):
            self.compute()
        self.graph = graph

    def launch(self) -> Flight:
        """Start a step, and its tokens on their way to the host; on a GPU nothing is waited for."""
        if self.graph is None:
            self.compute()
        else:
            self.graph.replay()
        ids = self.arrivals[self.launched % IN_FLIGHT]
        self.launched += 1
        ids.copy_(self.emitted, non_blocking=True)
        if self.device != "cuda":
            return Flight(ids)
        arrived = torch.cuda.Event(enable_timing=True)
        arrived.record()
        return Flight(ids, arrived, self.since, self.since_ns)
