"""Compiled graph: the decode step of transformers' own model through torch.compile, over a static cache."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

from playground.core.engine import Batch
from playground.core.knobs import Choice
from playground.core.machine import Machine
from playground.core.places import keep_compiled
from playground.core.problem import Problem
from playground.core.technique import Effect, Explanation, Finding, Footprint, Knobs, Technique, flipped
from playground.techniques.fusion import no_compiler
from playground.techniques.setup import TransformersSetup

MODES = {"default": "default", "reduce_overhead": "reduce-overhead"}  # torch.compile's names
REHEARSED = 3  # steps: the first is compiled, the second is recorded as a CUDA graph, the third replays it
LOOPS = ("speculative", "serving")  # knobs of techniques that decode in their own way
MASKED = ("eager", "sdpa", "split_kv")  # the last is refused by the engine
SHAPES = 256  # different batches in a run, each with a graph of its own
# Of a compiled layer in a step, by what inductor can join: two norms with the residual sums before them, seven products, two for rotary
# positions, two for the cache's rows, attention, and the activation with its product.
COMPILED_KERNELS = 15.0


class Compiled(Technique):
    """Every step as transformers wrote it, or one compiled graph a step."""

    name = "compiled"
    title = "Compiled graph"
    group = "Kernels"
    order = 38  # after the KV cache, whose factory it wraps
    phase = "run"
    knobs = (
        Choice(
            "compile",
            "Compile",
            ("off", "default", "reduce_overhead"),
            "off",
            "torch.compile of the decode step over a static cache: default writes fused kernels, reduce_overhead replays them from a "
            "CUDA graph as well.",
        ),
    )
    explain = Explanation(
        what="torch.compile traces a decode step of the whole model once and writes kernels that do several small operations in one. With "
        "reduce_overhead the step becomes a CUDA graph that the host starts in one go. The prompt's pass stays as it is, as in "
        "transformers' own generate, since each prompt length would be compiled anew.",
        helps="Long outputs on a GPU, where launching hundreds of small kernels takes most of a step. The static cache is needed because a "
        "graph is made for one shape.",
        costs="Seconds to minutes before the first token, for each batch shape and length; the metric of tokens after which it has paid "
        "says when they are earned back. Graphs are kept on disk, so that the next time takes a part of it. Other rounding, so that the "
        "text may depart; to measure that, the evaluation text goes through compiled steps too, token by token, which takes its time.",
    )
    cases = (
        {"compile": "off"},
        {"compile": "default", "kv_cache": "static"},
        {"compile": "reduce_overhead", "kv_cache": "static"},
    )

    def requires(self, knobs: Knobs, machine: Machine, device: str) -> str | None:
        """What torch.compile writes its kernels with."""
        return None if knobs["compile"] == "off" else no_compiler(machine, device)

    def conflicts(self, knobs: Knobs) -> str | None:
        """A graph is made for one shape and, on a GPU, one address; and for steps of one token."""
        kind = knobs["compile"]
        if kind == "off":
            return None
        if knobs["kv_cache"] != "static":
            why = "a compiled step is made for one shape, so its cache must be allocated once at full length. Set kv_cache to static"
            return f"Compile {kind} and kv_cache {knobs['kv_cache']} exclude each other: {why}, or compile to off."
        if knobs["quantization"] == "int8":
            why = "it looks for outliers in every layer and the graph breaks at each search. Set quantization to nf4 or none"
            return f"Compile {kind} and quantization int8 exclude each other: {why}, or compile to off."
        loop = next((f"{name} {knobs[name]}" for name in LOOPS if knobs.get(name, "off") != "off"), None)
        if loop:
            return f"Compile {kind} and {loop} exclude each other: it runs steps of its own, of many shapes. Set one of them to off."
        if knobs["attention"] not in MASKED and not str(knobs["attention"]).startswith("sdpa"):
            why = "it does not take the mask of fixed shape that a compiled step has. Set attention to sdpa or eager."
            return f"Compile {kind} and attention {knobs['attention']} exclude each other: {why}"
        return None

    def expect(self, knobs: Knobs, baseline: Knobs) -> Mapping[str, Effect]:
        """The same weights in fewer kernels; a CUDA graph launches the same kernels at once."""
        kind, before = knobs["compile"], baseline["compile"]
        if kind == before:
            return {}
        if "off" not in (kind, before):
            graph: dict[str, Effect] = {"itl_s": "down", "kernels_per_token": "same", "weights_bytes": "same"}
            return graph if kind == "reduce_overhead" else flipped(graph)
        fused: dict[str, Effect] = {"itl_s": "down", "output_tokens_per_s": "up", "kernels_per_token": "down", "weights_bytes": "same"}
        return flipped(fused) if kind == "off" else fused

    def footprint(self, knobs: Knobs, footprint: Footprint) -> Footprint:
        """Fewer kernels a layer in a decode step; with reduce_overhead their launches cost the host nothing."""
        if knobs["compile"] == "off":
            return footprint
        return replace(footprint, step_kernels=COMPILED_KERNELS, captured=knobs["compile"] == "reduce_overhead")

    def refuses_transformers(self, knobs: Knobs, device: str) -> str | None:
        """CUDA graphs need CUDA."""
        if knobs["compile"] == "reduce_overhead" and device == "cpu":
            return "reduce_overhead replays CUDA graphs, which a CPU does not have: choose default."
        return None

    def refuses_graph(self, knobs: Knobs, device: str) -> str | None:
        """It compiles and captures by itself."""
        if knobs["compile"] != "off":
            return "the engine graph compiles its layers by its own setting: set fusion to compile, or choose the engine transformers."
        return None

    def for_transformers(self, knobs: Knobs, setup: TransformersSetup) -> None:
        """Takes its place around the cache's factory, and in the model once the run begins."""
        make = setup.run.make_cache
        if knobs["compile"] == "off" or make is None:
            return
        step = CompiledStep(str(knobs["compile"]), make)
        setup.run.make_cache, setup.run.score_tokens = step.cache, 1  # so that quality is that of the compiled step
        setup.run.opening.append(step.open)
        setup.run.closing.append(step.close)

    def evidence_for_transformers(self, knobs: Knobs, engine: Any) -> Finding:
        """Asks torch what it compiled, and counts the steps that went through it."""
        kind, step = str(knobs["compile"]), engine.compiled_step
        if step is None:
            return Finding(kind == "off", "0 decode steps are compiled by torch.compile")
        text = f"{step.graphs} graphs compiled (torch.compile, mode {step.mode}, {step.breaks} breaks), {step.calls} steps ran through them"
        ok = step.mode == MODES.get(kind) and step.graphs > 0 and step.calls > 0
        if kind != "reduce_overhead":
            return Finding(ok, text)
        recorded = _cuda_graphs()
        return Finding(ok and recorded > 0, f"{text}, {recorded} of them recorded as CUDA graphs")

    def counts_for_transformers(self, knobs: Knobs, engine: Any) -> Mapping[str, float]:
        """Graphs in all, and those that were compiled when passes already ran."""
        step = engine.compiled_step
        if step is None or step.rehearsed_graphs is None:
            return {}
        return {"compiled_graphs": step.graphs, "recompiles": step.graphs - step.rehearsed_graphs}


class CompiledStep:
    """Takes the place of the model's `forward` for a run: passes of one token over its own caches go through torch.compile, all others
    do not. One cache a batch shape, kept for the run, since a CUDA graph reads its cache at a fixed address."""

    def __init__(self, mode: str, make_cache: Callable[[Any, int, int], Any]) -> None:
        self.mode = MODES[mode]
        self.calls = 0
        self.rehearsed_graphs: int | None = None
        self._make = make_cache
        self._caches: dict[tuple[int, int], Any] = {}
        self._ready: set[tuple[int, int]] = set()
        self._model: Any = None

    def cache(self, model: Any, rows: int, tokens: int) -> Any:
        """The cache of this shape, empty."""
        import torch

        found = self._caches.get((rows, tokens))
        if found is None:
            return self._caches.setdefault((rows, tokens), self._make(model, rows, tokens))
        with torch.inference_mode():
            found.reset()
        return found

    def open(self, engine: Any) -> None:
        """Put itself into the model of `engine`. Raises Problem("unsupported") where another technique runs the steps."""
        import torch

        run = engine.options.run
        if run.decode is not None or run.make_cache != self.cache:
            raise Problem("unsupported", "Another setting decodes in its own way or brings its own cache: set compile to off.")
        keep_compiled()
        torch.compiler.reset()
        torch._dynamo.config.recompile_limit = SHAPES
        torch._dynamo.config.fail_on_recompile_limit_hit = True  # in place of going on uncompiled
        self._began, self._broke = _graphs(), _breaks()
        self._model, plain = engine.model, engine.model.forward
        self._own = vars(self._model).get("forward")
        self._plain = plain
        self._run = torch.compile(lambda **inputs: plain(**inputs), mode=self.mode, dynamic=False)
        self._model.forward = self._forward
        engine.compiled_step = self
        self._engine = engine

    def close(self) -> None:
        """The model as it was; graphs and their memory are given back."""
        import torch

        if self._model is None:
            return
        del self._model.forward
        if self._own is not None:
            self._model.forward = self._own
        self._engine.compiled_step = self._engine = self._model = None
        self._caches.clear()
        torch.compiler.reset()

    def rehearse(self, engine: Any, batch: Batch) -> float | None:
        """Run the first steps of `batch`, in which its shape is compiled and recorded: their seconds, None for a shape that is ready.

        Raises Problem("user") where the batch has no decode step."""
        shape = len(batch.token_ids), max(len(row) for row in batch.token_ids) + batch.max_new_tokens
        if batch.max_new_tokens < 2:
            raise Problem("user", "One output token comes from the prompt's own pass: ask for two at least, or set compile to off.")
        if shape in self._ready:
            return None
        with closing(engine.generate(replace(batch, ignore_eos=True))) as steps:
            next(steps)  # the prompt's own pass
            started = time.perf_counter()
            for _ in range(min(REHEARSED, batch.max_new_tokens - 1)):
                next(steps)
            seconds = time.perf_counter() - started
        self._ready.add(shape)
        self.rehearsed_graphs = self.graphs
        return seconds

    @property
    def graphs(self) -> int:
        """Graphs that torch.compile made since the run began."""
        return _graphs() - self._began

    @property
    def breaks(self) -> int:
        """Places at which it had to end a graph and go on in Python."""
        return _breaks() - self._broke

    def _forward(self, *args: Any, **inputs: Any) -> Any:
        cache, ids = inputs.get("past_key_values"), inputs.get("input_ids")
        if args or ids is None or ids.shape[1] != 1 or not any(cache is own for own in self._caches.values()):
            return self._plain(*args, **inputs)
        import torch

        positions = inputs["position_ids"].clone(memory_format=torch.contiguous_format)
        ids = ids.clone(memory_format=torch.contiguous_format)  # a slice of all tokens so far has their strides
        fixed = {"input_ids": ids, "position_ids": positions, "attention_mask": self._mask(inputs, cache)}
        self.calls += 1
        if self.mode == "reduce-overhead":
            torch.compiler.cudagraph_mark_step_begin()
        return self._run(**{**inputs, **fixed})

    def _mask(self, inputs: Mapping[str, Any], cache: Any) -> Any:
        """The mask over the whole cache, made outside of the graph as transformers' generate does: the one that `plain` has grows."""
        import torch
        from transformers.masking_utils import create_masks_for_generate

        rows = inputs["input_ids"].shape[0]
        like = torch.empty((rows, 1, 0), dtype=self._model.dtype, device=inputs["input_ids"].device)
        config, mask, positions = self._model.config, inputs.get("attention_mask"), inputs["position_ids"]
        return create_masks_for_generate(
            config=config, inputs_embeds=like, attention_mask=mask, past_key_values=cache, position_ids=positions
        )


def _graphs() -> int:
    import torch

    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def _breaks() -> int:
    import torch

    return int(sum(torch._dynamo.utils.counters["graph_break"].values()))


def _cuda_graphs() -> int:
    """Those that torch keeps on the current device."""
    import torch
    from torch._inductor.cudagraph_trees import get_manager

    manager = get_manager(torch.cuda.current_device(), create_if_none_exists=False) if torch.cuda.is_available() else None
    return sum(len(nodes) for nodes in manager.roots.values()) if manager is not None else 0


TECHNIQUE = Compiled()
