"""KV cache: keep the keys and values of earlier tokens, or compute them again at every step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from playground.core.knobs import Choice
from playground.core.technique import Effect, Explanation, Finding, Footprint, Knobs, Technique, flipped
from playground.techniques.setup import TransformersSetup

CLASSES = {"dynamic": "DynamicCache", "static": "StaticCache"}
GRAPH_CLASSES = {"static": "FixedCache"}


class KVCache(Technique):
    """No cache, a growing cache, or one that is allocated once at full length."""

    name = "kv_cache"
    title = "KV cache"
    group = "Caching"
    order = 30
    phase = "run"
    knobs = (
        Choice(
            "kv_cache",
            "KV cache",
            ("off", "dynamic", "static"),
            "dynamic",
            "Keep keys and values of earlier tokens: off computes the whole sequence at every step.",
        ),
    )
    explain = Explanation(
        what="Attention needs the keys and values of all earlier tokens. A cache keeps them: dynamic grows by one token a step, static is "
        "allocated once at full length and filled in place.",
        helps="A step then costs one token instead of the whole sequence; the longer the text, the larger the gain. Static shapes are what "
        "CUDA graphs and compilation need.",
        costs="Memory that grows with layers, tokens and batch. A static cache takes its full size from the first token on, and attention "
        "reads its unused part too.",
    )
    cases = ({"kv_cache": "off"}, {"kv_cache": "dynamic"}, {"kv_cache": "static"})

    def expect(self, knobs: Knobs, baseline: Knobs) -> Mapping[str, Effect]:
        """Without a cache each step computes everything again; a static cache is as large at the end and is read in full at each step."""
        kind, before = str(knobs["kv_cache"]), str(baseline["kv_cache"])
        if kind == before:
            return {}
        if "off" in (kind, before):
            off: dict[str, Effect] = {"kv_cache_bytes": "down", "itl_s": "up", "output_tokens_per_s": "down"}
            return off if kind == "off" else flipped(off)
        static: dict[str, Effect] = {"kv_cache_bytes": "same", "itl_s": "up"}
        return static if kind == "static" else flipped(static)

    def footprint(self, knobs: Knobs, footprint: Footprint) -> Footprint:
        """No cache, no bytes. Kernels a layer (transformers 5, cache_utils): dynamic joins old and new keys, and values, in a copy each;
        static writes both in place, after it has worked out and counted up the positions (8 more than dynamic in the profile of a GPU)."""
        kind = knobs["kv_cache"]
        if kind == "off":
            return replace(footprint, kv_share=0.0)
        if kind == "dynamic":
            return replace(footprint, kv_copied=True, layer_kernels=footprint.layer_kernels + 2)
        return replace(footprint, kv_padded=True, layer_kernels=footprint.layer_kernels + 10)

    def for_transformers(self, knobs: Knobs, setup: TransformersSetup) -> None:
        """A factory of transformers' own cache classes."""
        from transformers import DynamicCache, StaticCache

        def dynamic(model: Any, rows: int, tokens: int) -> Any:
            return DynamicCache(config=model.config)

        def static(model: Any, rows: int, tokens: int) -> Any:
            return StaticCache(config=model.config, max_cache_len=tokens)

        setup.run.make_cache = {"off": None, "dynamic": dynamic, "static": static}[str(knobs["kv_cache"])]

    def evidence_for_transformers(self, knobs: Knobs, engine: Any) -> Finding:
        """Looks at the cache object that the first pass used and at the tokens of its last forward call."""
        return _found(engine, str(knobs["kv_cache"]), CLASSES)

    def evidence_for_graph(self, knobs: Knobs, engine: Any) -> Finding:
        """As for transformers; the static cache is the engine's own, and on CUDA each step that reads it must be captured."""
        found = _found(engine, str(knobs["kv_cache"]), GRAPH_CLASSES)
        if engine.cache is None or engine.options.device != "cuda":
            return found
        captured = sum(step.graph is not None for step in engine.steps.values())
        text = f"{found.text}; {captured} of {len(engine.steps)} decode steps are captured in a CUDA graph"
        return Finding(found.ok and captured == len(engine.steps), text)

    def refuses_graph(self, knobs: Knobs, device: str) -> str | None:
        """No cache that moves."""
        if knobs["kv_cache"] == "dynamic":
            return "a captured graph reads its cache at a fixed address, so it cannot grow: choose static, or off."
        return None


def _found(engine: Any, wanted: str, classes: Mapping[str, str]) -> Finding:
    if wanted == "off":
        again = f"the last step ran all {engine.last_step_tokens} tokens of the row again" if engine.last_step_tokens else "1 step ran"
        return Finding(engine.cache is None, f"no cache was kept: {again}")
    if engine.cache is None:
        return Finding(False, "no cache object exists")
    kind = type(engine.cache).__name__
    keys = engine.cache.layers[0].keys
    shape = " x ".join(str(size) for size in keys.shape)
    text = f"cache is {kind}: {len(engine.cache.layers)} layers, keys {shape} (rows x heads x tokens x head size)"
    return Finding(kind == classes.get(wanted) and engine.last_step_tokens in (None, 1), text)


TECHNIQUE = KVCache()
