"""The reference engine: a transformers model driven by our own token loop (prefill, then one forward pass a step).

The model's class, weights, attention and cache objects are transformers' own; the loop only picks the next token and stamps it, so its
greedy output equals `model.generate` token for token in fp32. Batches are padded on the left, with position ids that do not count the
padding. Example::

    engine = TransformersEngine(); engine.load(plan, emit); engine.setup(plan)
    for tick in engine.generate(Batch(((1, 2, 3),), max_new_tokens=8)): print(tick.tokens)
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from typing import Any

from playground.core.engine import Batch, Emit, Engine
from playground.core.events import Profile, Tick
from playground.core.machine import Machine
from playground.core.plan import Plan
from playground.core.problem import Problem
from playground.engines.draft import load_draft
from playground.engines.loading import load_model
from playground.engines.padding import left_padded
from playground.engines.sampling import Sampler, kind_of
from playground.engines.scoring import log_probabilities
from playground.techniques.setup import RunSetup, TransformersSetup

SETTLE_S = 0.6  # on a CPU: time for the page, which shares the cores, to draw before the clock starts
STEPS_BEFORE_PROFILE = 16  # at most: the middle of a long output would cost half a pass


class TransformersEngine(Engine):
    """One loaded transformers model and its tokenizer."""

    name = "transformers"
    title = "transformers"
    about = "Hugging Face transformers in eager PyTorch: what most people run first, and the reference for the output."

    model: Any = None
    tokenizer: Any = None
    draft: Any = None  # a second model that drafts tokens, where `options.draft` names one
    cache: Any = None
    prompts: tuple[tuple[int, ...], ...] = ()  # of the workload
    first_input: tuple[int, int, int] | None = None  # of the run's first batch: rows, tokens a row with padding, padded places
    last_step_tokens: int | None = None  # tokens a row that the last decode step ran; None before there was one
    kv_cache_bytes = 0  # of the largest batch since `reset_peaks`

    @classmethod
    def refuses(cls, machine: Machine, device: str) -> str | None:
        """torch and transformers must be installed."""
        for package in ("torch", "transformers"):
            if package not in machine.packages:
                return f"The engine transformers needs the package {package}: pip install {package}"
        return None

    def load(self, plan: Plan, emit: Emit) -> Mapping[str, Any]:
        """Resolve, fetch if needed, load with the load-phase techniques."""
        import torch
        import transformers

        from playground.models.adapter import resolve_adapter
        from playground.models.resolve import resolve
        from playground.models.tokenizer import load_tokenizer
        from playground.models.weights import import_architecture

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        resolved = resolve(plan.spec.model, emit)
        self.admit(resolved.config)
        self.settle_s = SETTLE_S if plan.device == "cpu" else 0.0
        import_architecture(resolved.config)  # neither this nor a device that wakes up is loading the model
        if plan.device == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        self.tokenizer = load_tokenizer(resolved)
        self.options = TransformersSetup(
            device=plan.device, config=dict(resolved.config), random_weights=resolved.random_weights, tokenizer=self.tokenizer
        )
        self.options.model, self.options.find_adapter = resolved.name, functools.partial(resolve_adapter, progress=emit)
        self._apply(plan, "load")
        self.model = load_model(resolved, self.options)
        with torch.no_grad():
            for change in self.options.changes:
                self.model = change(self.model)
        self.draft = load_draft(self, emit) if self.options.draft else None
        self._synchronize()
        return {
            "name": resolved.name,
            "source": resolved.source,
            "kind": resolved.kind,
            "random_weights": resolved.random_weights,
            "config": dict(resolved.config),
            "context_length": getattr(self.model.config.get_text_config(), "max_position_embeddings", None),
            "dtype": self.options.dtype,
            "load_s": time.perf_counter() - started,
        }

    def setup(self, plan: Plan) -> None:
        """Run-phase techniques; the cache of an earlier run is dropped, and what its passes left in the allocator."""
        self.cache = self.first_input = self.last_step_tokens = None
        self.kv_cache_bytes = 0
        self._forget_run()
        self.prompts = ()
        self._apply(plan, "run")
        for begin in self.options.run.opening:
            begin(self)
        if plan.device == "cuda":
            import torch

            torch.cuda.empty_cache()

    def _forget_run(self) -> None:
        with ExitStack() as stack:  # the last first, and each even where another fails
            for close in self.options.run.closing:
                stack.callback(close)
            self.options.run = RunSetup()

    def _apply(self, plan: Plan, phase: str) -> None:
        for technique in plan.techniques:
            if technique.phase == phase:
                self.method(technique, "for")(plan.spec.knobs, self.options)

    def know(self, prompts: Sequence[tuple[int, ...]]) -> None:
        """Kept for techniques that look at all of them; what these compute ahead is in no pass."""
        self.prompts = tuple(prompts)
        for learn in self.options.run.knowing:
            learn(self)

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Inference mode, and what techniques enter around every forward pass."""
        import torch

        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            for enter in (*self.options.contexts, *self.options.run.contexts):
                stack.enter_context(enter())
            yield

    def prepare(self, prompt: str, chat: bool) -> tuple[str, tuple[int, ...]]:
        """The chat template where there is one, then the tokenizer."""
        text = self.tokenizer.chat(prompt) if chat else None
        if text is None:
            return prompt, self.tokenizer.encode(prompt)
        return text, self.tokenizer.encode_chat(text)

    def pieces(self) -> Callable[[int], str]:
        """A fresh detokeniser."""
        stream: Callable[[int], str] = self.tokenizer.pieces()
        return stream

    def generate(self, batch: Batch) -> Generator[Tick, None, None]:
        """Prefill, then a step a token; inference mode is entered for each step, so that the consumer's code is outside of it."""
        decode = self.options.run.decode or type(self).plain
        yield from decode(self, batch)

    def plain(self, batch: Batch) -> Generator[Tick, None, None]:
        """One token of each row a forward pass."""
        length = max(len(row) for row in batch.token_ids)
        rows, total = len(batch.token_ids), length + batch.max_new_tokens
        self.cache = self._fresh_cache(rows, total - 1)  # the last token is never fed back
        start = self._filled(batch)
        ids, mask, positions = left_padded(batch, start, self.options.device)
        self.first_input = self.first_input or (rows, length - start, rows * length - sum(len(row) for row in batch.token_ids))
        pick = self._picker(batch)
        eos = frozenset() if batch.ignore_eos else self.tokenizer.eos_ids
        finished = [False] * rows
        for end in range(length, total):
            if end > length:
                self.last_step_tokens = end - start
            with self.passing():
                logits = self.model(
                    input_ids=ids[:, start:end],
                    attention_mask=None if mask is None else mask[:, :end],
                    position_ids=positions[:, start:end],
                    past_key_values=self.cache,
                    use_cache=self.cache is not None,
                    logits_to_keep=1,
                ).logits
                chosen = pick(logits[:, -1])
                ids[:, end] = chosen
                tokens = chosen.tolist()  # waits for the device: the stamp below is when the tokens are on the host
            yield Tick(time.perf_counter_ns(), tuple(() if done else (token,) for token, done in zip(tokens, finished, strict=True)))
            finished = [done or token in eos for done, token in zip(finished, tokens, strict=True)]
            if all(finished):
                break
            start = end if self.cache is not None else 0
        self.count_cache()

    def count_cache(self) -> None:
        """Remember the bytes of this batch's cache where no batch had a larger one."""
        from playground.measure.torch_memory import cache_bytes

        self.kv_cache_bytes = max(self.kv_cache_bytes, cache_bytes(self.cache))

    def _filled(self, batch: Batch) -> int:
        """How many tokens of each row the fresh cache holds already."""
        fill = self.options.run.fill
        if fill is None or self.cache is None:
            return 0
        with self.passing():
            return fill(self, self.cache, batch)

    def _fresh_cache(self, rows: int, tokens: int) -> Any:
        """The cache for this batch; one of fixed size is used again when its shape still fits, as a warm-up is meant to show."""
        import torch

        make, old = self.options.run.make_cache, self.cache
        self.cache = None
        if make is None:
            return None
        if old is not None and old.is_compileable and old.layers[0].keys.shape[0::2] == (rows, tokens):
            with torch.inference_mode():
                old.reset()
            return old
        return make(self.model, rows, tokens)

    def _picker(self, batch: Batch) -> Callable[[Any], Any]:
        """Logits [rows, vocabulary] -> token ids [rows]: the most likely, or drawn as the batch says by a generator with its seed."""
        sampler = Sampler(kind_of(batch), self.options.device)
        sampler.set(batch)
        return sampler.choose

    def score(self, token_ids: Sequence[int], stepwise: bool = False) -> Any:
        """As the run's techniques say: see engines.scoring."""
        return log_probabilities(self, token_ids, stepwise)

    def profile(self, batch: Batch) -> Profile:
        """The step after half of the new tokens, 16 at most, of a fresh pass that is then given up; the tokens before it are counted with
        padding, and without a cache that step computes them again."""
        from playground.measure.step_profile import profile_step

        if batch.arrivals_s:
            raise Problem("unsupported", "Requests arrive over time, so no step stands for the others and none is profiled.")
        before = min(batch.max_new_tokens // 2, STEPS_BEFORE_PROFILE)
        if before == 0:
            raise Problem("unsupported", "One output token comes from the prompt's own pass, so there is no decode step to profile.")
        given: list[int] = []  # tokens of a row, by step
        with closing(self.generate(replace(batch, ignore_eos=True))) as steps:

            def step() -> None:
                tick = next(steps, None)
                if tick is None:
                    raise Problem("unsupported", "The output was complete before the step that was to be profiled: ask for more tokens.")
                given.append(len(tick.tokens[0]))

            while sum(given) < before - 1:
                step()
            found = profile_step(self.model, step, self.options.device, rows=len(batch.token_ids), cached_tokens=0)
        return replace(found, cached_tokens=max(len(row) for row in batch.token_ids) + sum(given[:-1]) - 1)

    def memory(self) -> Mapping[str, float]:
        """Real tensors, and on CUDA the allocator's peaks."""
        from playground.measure.torch_memory import cache_facts, cuda_peaks, module_bytes

        values: dict[str, float] = {"weights_bytes": module_bytes(self.model), "kv_cache_bytes": self.kv_cache_bytes}
        if self.draft is not None:
            values["weights_bytes"] += module_bytes(self.draft)
        if self.cache is not None:
            values |= cache_facts(self.cache, self.options.device)
        return {**values, **(cuda_peaks() if self.options.device == "cuda" else {})}

    def reset_peaks(self) -> None:
        """CUDA's allocator peaks, the largest KV cache, and what techniques counted so far."""
        from playground.measure.torch_memory import reset_cuda_peaks

        self.kv_cache_bytes = 0
        self.options.run.counts.clear()
        if self.options.device == "cuda":
            reset_cuda_peaks()

    def _synchronize(self) -> None:
        import torch

        if self.options.device == "cuda":
            torch.cuda.synchronize()

    def close(self) -> None:
        """The worker ends after this; references are dropped for callers that stay."""
        if self.model is not None:
            self._forget_run()
        self.model = self.draft = self.tokenizer = self.cache = None


ENGINE = TransformersEngine
