"""The fast engine: a static KV cache and one CUDA graph for the decode step, around the model that transformers loaded.

A step is captured once for each number of rows, size of cache and way of sampling, and replayed: the host launches one graph a token in
place of a thousand kernels, and reads tokens one step behind, so that the GPU never waits for it. Rows are padded on the right: each
begins at position 0, a causal prompt then needs no mask, and a row's padding is overwritten as it grows. On a CPU the same step runs
uncaptured. Example::

    engine = GraphEngine(); engine.load(plan, emit); engine.setup(plan)
    for tick in engine.generate(Batch(((1, 2, 3), (4,)), max_new_tokens=8)): print(tick.tokens)
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from playground.core.engine import Batch, Emit
from playground.core.events import Profile, Tick
from playground.core.knobs import KnobValue
from playground.core.plan import Plan
from playground.core.problem import Problem
from playground.core.technique import Footprint, Knobs
from playground.engines.sampling import Sampler, kind_of
from playground.engines.transformers import TransformersEngine
from playground.measure.buckets import bucket

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "smollm3")  # what the tests hold to transformers' own output


class GraphEngine(TransformersEngine):
    """transformers' model, each layer its own code, in a step that is captured and replayed."""

    name = "graph"
    title = "graph"
    about = (
        "A static KV cache and one CUDA graph for each decode step, with fused kernels: what a GPU can do. On a CPU the same step runs "
        "uncaptured, and is no faster than with transformers."
    )
    hooks: ClassVar[tuple[str, ...]] = ("transformers",)
    usual_on: ClassVar[tuple[str, ...]] = ("cuda",)

    compiled = False  # whether the compiled layer has run
    keeps_cache = True
    ahead = 0  # steps launched before the tokens of the one before are read

    @classmethod
    def defaults(cls, device: str) -> Mapping[str, KnobValue]:
        """A fixed cache, and on a GPU its own attention, fused layers, and int8 without the search for outliers, which stops a capture."""
        on_gpu: Mapping[str, KnobValue] = {"attention": "split_kv", "fusion": "compile", "int8_threshold": 0.0}
        return {"kv_cache": "static", **(on_gpu if device == "cuda" else {})}

    @classmethod
    def footprint(cls, knobs: Knobs, device: str, footprint: Footprint) -> Footprint:
        """A cache comes in buckets, and on a GPU a step with one is captured; on a CPU packed weights are written out in every step."""
        kept, always = footprint.kv_share > 0, device == "cpu" and knobs["weight_only"] != "none"
        above = 0 if always else footprint.unpack_above
        return replace(footprint, kv_bucketed=kept, captured=kept and device == "cuda", unpack_above=above)

    @classmethod
    def refuses_model(cls, config: Mapping[str, Any]) -> str | None:
        """Only families whose layers this engine has been held to."""
        kind = config.get("model_type")
        if kind not in FAMILIES:
            return f"The engine graph runs the families {', '.join(FAMILIES)}, not {kind}."
        if config.get("quantization_config"):
            return "The weights of this model come quantized, in layers that the engine graph has not been held to."
        sliding = "sliding_attention" in (config.get("layer_types") or ()) or config.get("use_sliding_window")
        if sliding or (kind == "mistral" and config.get("sliding_window", True)):  # a config that leaves it out has one
            return "Layers of this model see a sliding window, which the engine graph does not have."
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        if rope.get("rope_type", rope.get("type")) in ("dynamic", "longrope"):
            return "This model's rotary positions change with the length of the text, which a captured step cannot follow."
        return None

    def load(self, plan: Plan, emit: Emit) -> Mapping[str, Any]:
        """As the transformers engine, then layers are joined, packed and wrapped."""
        import torch

        from playground.engines.decode import attention
        from playground.engines.decode.layers import Layers, keep_compiled
        from playground.engines.decode.linear import install

        keep_compiled()
        attention.register()
        facts = super().load(plan, emit)
        started = time.perf_counter()
        fused = self.options.fusion == "compile"
        with torch.inference_mode():
            install(self.model, join=fused, kind=self.options.weight_only)
            self.layers = Layers(self.model, fused)
            if fused and "quantization_config" in self.options.load:  # bitsandbytes' layers change at first use: before they are compiled
                self.model(torch.zeros(1, 1, dtype=torch.long, device=plan.device), use_cache=False)
        self._synchronize()
        self.ahead = 1 if plan.device == "cuda" else 0
        self.steps: dict[tuple[Any, ...], Any] = {}
        self.stale: set[tuple[Any, ...]] = set()
        return {**facts, "load_s": facts["load_s"] + time.perf_counter() - started}

    def setup(self, plan: Plan) -> None:
        """The steps of earlier runs are kept until one of another shape is wanted."""
        self.keeps_cache = plan.spec.knobs["kv_cache"] != "off"
        if not self.keeps_cache:
            self.steps.clear()
        self.stale = set(self.steps)
        super().setup(plan)
        run = self.options.run
        if run.contexts or run.fill or run.decode:  # a technique that did not say so itself
            raise Problem("unsupported", "A setting changes forward passes in a way that captured steps do not have.")

    def compiles(self, plan: Plan) -> bool:
        """A captured step needs a cache at a fixed address."""
        return self.keeps_cache

    def compile(self, batch: Batch) -> float | None:
        """Compile and capture the step for batches of this shape."""
        import torch

        ready = self._key(batch) in self.steps
        started = time.perf_counter()
        with torch.inference_mode():
            self._step(batch)  # in use from now on, ready or not
        self._synchronize()
        return None if ready else time.perf_counter() - started

    def generate(self, batch: Batch) -> Generator[Tick, None, None]:
        """A prompt's pass, then steps: on a GPU each is launched before the tokens of the one before are read."""
        import torch

        if not self.keeps_cache:
            yield from self._again(batch)
            return
        eos = () if batch.ignore_eos else tuple(sorted(self.tokenizer.eos_ids))
        with torch.inference_mode():
            step = self._step(batch)
            step.sampler.set(batch)
            ids, lengths = self._right_padded(batch)
            chosen = step.sampler.choose(self._logits(ids, lengths, past_key_values=step.cache.prompt()))
            tokens = chosen.tolist()
            now = time.perf_counter_ns()
            step.begin(chosen, lengths, eos)
        yield Tick(now, tuple((token,) for token in tokens))
        self.last_step_tokens = 1 if batch.max_new_tokens > 1 else None
        ended = [token in eos for token in tokens]
        flights: deque[Any] = deque()
        left = batch.max_new_tokens - 1
        while (left or flights) and not all(ended):
            while left and len(flights) <= self.ahead:
                with torch.inference_mode():
                    flights.append(step.launch())
                left -= 1
            stamp, tokens = flights.popleft().land()
            yield Tick(stamp, tuple(() if done else (token,) for token, done in zip(tokens, ended, strict=True)))
            ended = [done or token in eos for done, token in zip(ended, tokens, strict=True)]
        for flight in flights:  # all rows ended while it was under way: the next pass is not to wait for it
            flight.land()

    def _again(self, batch: Batch) -> Generator[Tick, None, None]:
        """Without a cache."""
        from playground.engines.decode.recompute import recompute

        self.cache = None
        ids, lengths = self._right_padded(batch)
        eos = frozenset() if batch.ignore_eos else self.tokenizer.eos_ids
        for number, tick in enumerate(recompute(self._logits, ids, lengths, batch, eos)):
            self.last_step_tokens = ids.shape[1] + number if number else None
            yield tick

    def _logits(self, ids: Any, lengths: Any, **options: Any) -> Any:
        """Logits [rows, vocabulary] after the last token of each row of `ids` [rows, tokens], padded on the right."""
        import torch

        hidden = self.model.get_decoder()(input_ids=ids, position_ids=torch.arange(ids.shape[1], device=ids.device)[None], **options)
        last = hidden.last_hidden_state[torch.arange(ids.shape[0], device=ids.device), lengths - 1]
        return self.model.get_output_embeddings()(last)

    def _right_padded(self, batch: Batch) -> tuple[Any, Any]:
        """Token ids [rows, longest prompt] and the lengths [rows] of the prompts, on the device."""
        import torch

        lengths = [len(row) for row in batch.token_ids]
        ids = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
        for number, row in enumerate(batch.token_ids):
            ids[number, : len(row)] = torch.tensor(row)
        self.first_input = self.first_input or (len(lengths), max(lengths), max(lengths) * len(lengths) - sum(lengths))
        return ids.to(self.options.device), torch.tensor(lengths, device=self.options.device)

    def _key(self, batch: Batch) -> tuple[Any, ...]:
        """What a captured step is good for."""
        tokens = max(len(row) for row in batch.token_ids) + batch.max_new_tokens - 1
        eos = 0 if batch.ignore_eos else len(self.tokenizer.eos_ids)
        return len(batch.token_ids), bucket(tokens), kind_of(batch), eos

    def _step(self, batch: Batch) -> Any:
        """The step for this batch, made ready where it is not; steps that only earlier runs used are dropped then."""
        key = self._key(batch)
        if key not in self.steps:
            self._drop_stale()
            self.steps[key] = self._made(*key)
        self.stale.discard(key)
        self.cache = self.steps[key].cache
        self.kv_cache_bytes = max(self.kv_cache_bytes, self.cache.bytes)
        return self.steps[key]

    def _drop_stale(self) -> None:
        for old in self.stale:
            self.steps.pop(old, None)
        self.stale = set()

    def _made(self, rows: int, capacity: int, kind: Any, eos: int) -> Any:
        import torch

        from playground.engines.decode.cache import FixedCache
        from playground.engines.decode.step import Step

        device = self.options.device
        cache = FixedCache(self.model.config.get_text_config(), rows, capacity, getattr(torch, self.options.dtype), device)
        step = Step(self._forward, cache, Sampler(kind, device), device, eos)
        step.rehearse()
        self.compiled = self.layers.compiled()
        if device == "cuda":
            self._capture(step)
        return step

    def _capture(self, step: Any) -> None:
        import torch

        shared = next((other.graph.pool() for other in self.steps.values()), None)  # a pool ends with the last graph in it
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        step.capture(shared)
        step.graph_bytes = torch.cuda.max_memory_allocated() - torch.cuda.memory_allocated()

    def _forward(self, ids: Any, positions: Any, slots: Any, **options: Any) -> Any:
        """Logits [rows, vocabulary] of a step."""
        return self.model(input_ids=ids, position_ids=positions, past_key_values=slots, use_cache=True, **options).logits[:, -1]

    def score(self, token_ids: Sequence[int], stepwise: bool = False) -> Any:
        """All at once as the prompt's pass does it, or token by token through the captured step."""
        import torch

        if not stepwise or not self.keeps_cache:
            return super().score(token_ids)
        with torch.inference_mode():
            step = self._step(Batch((tuple(token_ids[:1]),), max_new_tokens=len(token_ids)))
            rows = []
            for place, token in enumerate(token_ids[:-1]):
                at = torch.tensor([[token], [place]], device=self.options.device)
                step.begin(at[0], at[1])
                step.launch().land()
                rows.append(torch.log_softmax(step.logits, dim=-1, dtype=torch.float32).cpu())
        return torch.cat(rows)

    def profile(self, batch: Batch) -> Profile:
        """Kernels and their time from a replayed step. Its parts from one that was launched kernel by kernel, since only then it is known
        what launched them."""
        ahead, self.ahead = self.ahead, 0  # a step that is under way already would be counted as well
        try:
            whole = super().profile(batch)
            return self._with_parts(whole, batch) if self.options.device == "cuda" and self.keeps_cache else whole
        finally:
            self.ahead = ahead

    def _with_parts(self, whole: Profile, batch: Batch) -> Profile:
        step = self._step(replace(batch, ignore_eos=True))  # the one that is profiled
        graph, logits = step.graph, step.logits
        step.graph = None
        try:
            return replace(whole, parts=super().profile(batch).parts)
        finally:
            step.graph, step.logits = graph, logits  # those that the graph writes to

    def memory(self) -> Mapping[str, float]:
        """The graphs' own memory is live whenever a step runs, though the allocator counts it as free then."""
        values = dict(super().memory())
        if "peak_allocated_bytes" in values:
            import torch

            own = max((step.graph_bytes for step in self.steps.values()), default=0)
            values["peak_allocated_bytes"] = max(values["peak_allocated_bytes"], torch.cuda.memory_allocated() + own)
        return values

    def reset_peaks(self) -> None:
        """What the warm-up did not use is of earlier runs, and does not count for this one."""
        self._drop_stale()
        if self.options.device == "cuda":
            import torch

            torch.cuda.empty_cache()
        super().reset_peaks()

    def close(self) -> None:
        """Graphs before the model that they point into."""
        self.steps = {}
        super().close()


ENGINE = GraphEngine
