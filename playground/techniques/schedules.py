"""How requests that arrive over time are put into forward passes: one by one, in static batches, or continuously. In the worker.

Each schedule is a generator of ticks over all rows of one `Batch`, whose `arrivals_s` count from its first step. One by one and in batches
the engine's own token loop runs on a part of the rows; the other hands the requests to transformers' continuous batching. Example::

    setup.run.decode = lambda engine, batch: in_batches(engine, batch, work, size=4)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from playground.core.engine import Batch
from playground.core.events import Tick
from playground.core.problem import Problem

NAP_S = 0.02  # between two looks at what has arrived or was answered
PAGE = 16  # tokens a page of the cache of continuous batching holds


class Work:
    """What was done, in the run's own `counts`: forward passes, token places that they computed (padding too), those of them that were of
    use (each prompt, and each token but the last of its row), and the most requests that were being answered at a time."""

    def __init__(self, counts: dict[str, float]) -> None:
        self.counts = counts

    @property
    def passes(self) -> int:
        """Forward passes."""
        return int(self.counts.get("served_passes", 0))

    @property
    def most_rows(self) -> int:
        """Most requests at a time."""
        return int(self.counts.get("rows_together", 0))

    def saw(self, rows: int, tokens: int) -> None:
        """One forward pass over `rows` rows of `tokens` tokens."""
        self.counts["served_passes"] = self.passes + 1
        self.counts["places_computed"] = self.counts.get("places_computed", 0) + rows * tokens

    def used(self, places: int) -> None:
        """So many of the places were of use."""
        self.counts["places_useful"] = self.counts.get("places_useful", 0) + places

    def together(self, rows: int) -> None:
        """So many requests were being answered."""
        self.counts["rows_together"] = max(self.most_rows, rows)


def count_places(model: Any, work: Work) -> Callable[[], None]:
    """Let `work` see every forward pass of the decoder; returns what ends that."""

    def look(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = kwargs.get("input_ids", args[0] if args else None)
        if given is None:
            given = kwargs["inputs_embeds"]
        work.saw(given.shape[0], given.shape[1])

    handle = model.get_decoder().register_forward_pre_hook(look, with_kwargs=True)
    remove: Callable[[], None] = handle.remove
    return remove


def in_batches(engine: Any, batch: Batch, work: Work, size: int) -> Iterator[Tick]:
    """As many requests as are there, at most `size`, run together until the longest is done; who comes meanwhile waits for all of them.
    With a size of 1 each runs alone, in the order in which they came."""
    started, begun = time.perf_counter(), 0
    wanted, arrivals = _wanted(batch), batch.arrivals_s or (0.0,) * len(batch.token_ids)
    while begun < len(wanted):
        _wait(started + arrivals[begun], engine.check)
        now = time.perf_counter() - started
        here = [row for row in range(begun, min(begun + size, len(wanted))) if arrivals[row] <= now]
        part = replace(
            batch, token_ids=tuple(batch.token_ids[row] for row in here), max_new_tokens=max(wanted[row] for row in here), row_tokens=(),
            arrivals_s=(),
        )  # fmt: skip
        work.together(len(here))
        yield from _spread(engine.plain(part), here, wanted, batch, work)
        begun += len(here)


def _spread(ticks: Any, here: Sequence[int], wanted: Sequence[int], batch: Batch, work: Work) -> Iterator[Tick]:
    """Ticks of some rows as ticks of all: what a row computes beyond its own length is nobody's token."""
    given = dict.fromkeys(here, 0)
    work.used(sum(len(batch.token_ids[row]) - 1 for row in here))
    with closing(ticks):
        for tick in ticks:
            tokens: list[tuple[int, ...]] = [()] * len(wanted)
            for row, own in zip(here, tick.tokens, strict=True):
                tokens[row] = own[: wanted[row] - given[row]]
                given[row] += len(tokens[row])
            work.used(sum(len(own) for own in tokens))
            yield Tick(tick.t_ns, tuple(tokens))


def _wanted(batch: Batch) -> tuple[int, ...]:
    return batch.row_tokens or (batch.max_new_tokens,) * len(batch.token_ids)


def _wait(until: float, check: Callable[[], None]) -> None:
    while (left := until - time.perf_counter()) > 0:
        check()
        time.sleep(min(left, NAP_S))


class Continuous:
    """transformers' continuous batching, kept between passes: its thread and its paged cache end with `close`."""

    def __init__(self, engine: Any, most_rows: int) -> None:
        self.engine, self.most_rows = engine, most_rows
        self.manager: Any = None
        self.room = 0
        self.passes = 0
        self.sent: set[int] = set()  # rows that were handed over and are not answered in full
        self.live: set[int] = set()  # those of them that are being answered, as far as their answers were seen

    def __call__(self, engine: Any, batch: Batch, work: Work) -> Iterator[Tick]:
        """Ticks of all rows; each holds the tokens that were answered since the last. What is not answered when the consumer stops is
        given up."""
        if batch.temperature:
            raise Problem("user", "Continuous batching is measured with greedy decoding: set the temperature to 0.")
        wanted, arrivals = _wanted(batch), batch.arrivals_s or (0.0,) * len(batch.token_ids)
        self._ready(max(len(ids) + new for ids, new in zip(batch.token_ids, wanted, strict=True)))
        self.passes += 1
        self.sent.clear()
        self.live.clear()
        try:
            yield from self._served(batch, wanted, arrivals, work)
        finally:
            for row in self.sent:
                self.manager.cancel_request(self._name(row))
        cache = self.manager.batch_processor.cache
        engine.kv_cache_bytes = max(engine.kv_cache_bytes, cache.cache_tensor.nbytes)
        engine.options.run.seen["paged_cache"] = f"cache is {type(cache).__name__}: {cache.num_blocks} blocks of {PAGE} tokens"

    def _served(self, batch: Batch, wanted: Sequence[int], arrivals: Sequence[float], work: Work) -> Iterator[Tick]:
        """Hand each request over when it arrives, until all are answered."""
        engine = self.engine
        eos = -1 if batch.ignore_eos else sorted(engine.tokenizer.eos_ids)
        started, coming = time.perf_counter(), 0
        given = [0] * len(wanted)
        while coming < len(wanted) or self.sent:
            engine.check()
            while coming < len(wanted) and arrivals[coming] <= time.perf_counter() - started:
                ids, self.sent = batch.token_ids[coming], {*self.sent, coming}
                self.manager.add_request(list(ids), self._name(coming), wanted[coming], streaming=True, eos_token_id=eos)
                work.used(len(ids) - 1)
                coming += 1
            tokens = self._answers(given, work)
            now = time.perf_counter_ns()
            if tokens:
                work.used(sum(len(own) for own in tokens.values()))
                yield Tick(now, tuple(tokens.get(row, ()) for row in range(len(wanted))))

    def _name(self, row: int) -> str:
        return f"{self.passes}:{row}"

    def _answers(self, given: list[int], work: Work) -> dict[int, tuple[int, ...]]:
        """New tokens of each row that has some, waiting a moment for the first. Raises what ended the thread."""
        tokens: dict[int, tuple[int, ...]] = {}
        answer = self.manager.get_result(timeout=NAP_S)
        while answer is not None:
            number, _, name = answer.request_id.partition(":")
            if answer.error:  # its text says whether memory ran out, as that of any error does
                raise RuntimeError(f"Continuous batching gave up a request: {answer.error}")
            if int(number) == self.passes:  # else of a pass that was stopped
                row, new = int(name), tuple(answer.generated_tokens[given[int(name)] :])
                given[row] += len(new)
                tokens[row] = (*tokens.get(row, ()), *new)
                self.live.add(row)
                work.together(len(self.live))
                if answer.is_finished():
                    self.live.discard(row)
                    self.sent.discard(row)
            answer = self.manager.get_result(timeout=0)
        if not self.manager.is_running():
            ended = Problem("crash", "The thread of continuous batching ended before all requests were answered.")
            raise self.manager.background_thread_status.fatal_error or ended
        return tokens

    def _ready(self, longest: int) -> None:
        """A manager with room for most_rows rows of `longest` tokens."""
        if self.manager is not None and longest <= self.room:
            return
        self.close()
        from transformers import ContinuousBatchingConfig, GenerationConfig

        pages = -(-longest // PAGE) + 1
        settings = ContinuousBatchingConfig(
            page_size=PAGE, num_blocks=pages * self.most_rows, max_batch_tokens=max(256, longest), max_requests_per_batch=self.most_rows,
            allow_block_sharing=False, auto_switch_to_flash=False,
        )  # fmt: skip
        greedy = GenerationConfig(do_sample=False, max_new_tokens=longest, eos_token_id=-1, pad_token_id=0)
        self.manager = self.engine.model.init_continuous_batching(generation_config=greedy, continuous_batching_config=settings)
        self.manager.start()
        self.room = longest

    def close(self) -> None:
        """End the thread and free the cache."""
        if self.manager is not None:
            self.manager.stop(block=True, hard_stop=True)
            self.manager.destroy()
        self.manager = None
