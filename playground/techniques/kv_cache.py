"""KV cache: keep the keys and values of earlier tokens, whole, in few bits, in host memory or of the last ones only, or compute them again
at every step.

The caches are transformers' own (`cache_utils`). Two give back something else than was put in: a quantized one rounds, a window forgets;
so texts are scored through them. Example::

    RunSpec(knobs={"kv_cache": "quantized", "kv_bits": "2"})
    RunSpec(knobs={"kv_cache": "window", "kv_window": 128})
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from playground.core.knobs import Choice, Range
from playground.core.machine import Machine
from playground.core.technique import Effect, Explanation, Finding, Footprint, Knobs, Technique
from playground.techniques import caches
from playground.techniques.caches import GROUP, RESIDUAL
from playground.techniques.setup import TransformersSetup

CLASSES = {"static": "StaticCache", "quantized": "QuantizedCache", **dict.fromkeys(("dynamic", "offloaded", "window"), "DynamicCache")}
GRAPH_CLASSES = {"static": "FixedCache"}
PACKAGES = {"hqq": ("hqq", "hqq"), "quanto": ("optimum.quanto", "optimum-quanto")}  # import name, name for pip
BACKENDS = {"hqq": "HQQQuantizedLayer", "quanto": "QuantoQuantizedLayer", "fp8": "Fp8QuantizedLayer"}
SCORED = 64  # tokens a forward pass where texts are scored through a window, which comes out the same for any number
NO_MASK = ("sdpa_flash", "flash_attention_2")  # of attention, on a GPU
LOSSY = ("quantized", "window")
# Levels of what a person expects to differ, by kind: a higher one is up. Of two lossy kinds it depends on their settings which holds less.
HELD = {"off": 0, "quantized": 1, "window": 1, "dynamic": 2, "static": 2, "offloaded": 2}
SLOW = {"window": 0, "dynamic": 1, "static": 2, "offloaded": 3, "quantized": 4, "off": 5}


class KVCache(Technique):
    """No cache, or one that grows, is allocated once at full length, keeps few bits, lies in host memory or forgets."""

    name = "kv_cache"
    title = "KV cache"
    group = "Caching"
    order = 30
    phase = "run"
    common = True
    knobs = (
        Choice(
            "kv_cache",
            "KV cache",
            ("off", "dynamic", "static", "quantized", "offloaded", "window"),
            "dynamic",
            "Keep keys and values of earlier tokens: off computes the whole sequence at every step; quantized keeps them in few bits, "
            "offloaded in host memory, window only those of the last tokens.",
        ),
        Choice("kv_bits", "KV bits", ("4", "2"), "4", "Bits of a number in the quantized cache, without its scales.", True),
        Choice(
            "kv_backend",
            "KV quantizer",
            ("hqq", "quanto", "fp8"),
            "hqq",
            "What quantizes the cache: the packages hqq or quanto in 4 or 2 bits with a scale and a zero point for each 32 numbers, or a "
            "plain cast to 8-bit floats (fp8) with one scale for all.",
            True,
        ),
        Range(
            "kv_window",
            "KV window",
            4,
            32768,
            1,
            256,
            "How many tokens each token attends to, itself counted; older ones are forgotten.",
            unit="tokens",
            advanced=True,
        ),
    )
    explain = Explanation(
        what="Keeps the keys and values of earlier tokens, which attention needs again at every step. dynamic grows by one token a step, "
        "static is allocated once at full length and filled in place, quantized packs all but the newest 32 tokens into 4 or 2 "
        "bits, offloaded holds them in host memory and brings each layer's to the GPU when it is needed, window keeps only those of "
        "the last tokens.",
        helps="A step then costs one token instead of the whole sequence; the longer the text, the larger the gain. Static shapes are what "
        "CUDA graphs and compilation need. Quantized, offloaded and window are for long texts and large batches, whose cache would not "
        "fit.",
        costs="Memory that grows with layers, tokens and batch. A static cache takes its full size from the first token on, and attention "
        "reads its unused part too. A quantized one is unpacked in every step, so it is slower and its output departs, at 2 bits by much. "
        "An offloaded one moves over the bus in every step. A window loses what it forgets, and most models also lose their fluency when "
        "the very first tokens go, on which their attention rests.",
    )
    cases = (
        {"kv_cache": "off"},
        {"kv_cache": "dynamic"},
        {"kv_cache": "static"},
        {"kv_cache": "quantized"},
        {"kv_cache": "quantized", "kv_bits": "2"},
        {"kv_cache": "quantized", "kv_backend": "quanto"},
        {"kv_cache": "quantized", "kv_backend": "fp8"},
        {"kv_cache": "offloaded"},
        {"kv_cache": "window", "kv_window": 4},
    )

    def requires(self, knobs: Knobs, machine: Machine, device: str) -> str | None:
        """The package that quantizes; a GPU beside host memory; an attention that takes the mask of a window."""
        kind, backend = knobs["kv_cache"], str(knobs["kv_backend"])
        if kind == "window" and device == "cuda" and knobs["attention"] in NO_MASK:
            return f"a window is a mask, and {knobs['attention']} takes none on a GPU: set attention to sdpa."
        if kind == "offloaded" and device == "cpu":
            return "offloaded moves the cache from the GPU to host memory; on a CPU it lies there already: choose dynamic."
        if kind == "quantized" and backend in PACKAGES and PACKAGES[backend][0] not in machine.packages:
            return f"needs the package {PACKAGES[backend][1]}, which is not installed: pip install {PACKAGES[backend][1]}."
        return None

    def conflicts(self, knobs: Knobs) -> str | None:
        """fp8 under autocast, which torch cannot join: seen as an error in the second step."""
        fp8 = knobs["kv_cache"] == "quantized" and knobs["kv_backend"] == "fp8"
        if fp8 and knobs.get("autocast", "off") != "off":
            return (
                f"kv_backend fp8 and autocast {knobs['autocast']} exclude each other: autocast brings what is joined to one format, "
                "and torch has no rule for 8-bit floats. Set kv_backend to hqq, or autocast to off."
            )
        return None

    def irrelevant(self, knobs: Knobs) -> Mapping[str, str]:
        """The advanced knobs belong to one kind of cache each."""
        reasons = {}
        if knobs["kv_cache"] != "quantized":
            reasons["kv_bits"] = reasons["kv_backend"] = "it applies to the quantized KV cache."
        elif knobs["kv_backend"] == "fp8":
            reasons["kv_bits"] = "fp8 has 8 bits."
        if knobs["kv_cache"] != "window":
            reasons["kv_window"] = "it applies to the window."
        return reasons

    def expect(self, knobs: Knobs, baseline: Knobs) -> Mapping[str, Effect]:
        """Without a cache each step computes everything again; fewer bits and fewer tokens are fewer bytes and other output; what is not
        stored as it is read takes time."""
        kind, before = str(knobs["kv_cache"]), str(baseline["kv_cache"])
        effects: dict[str, Effect] = {}
        if kind == before:
            now, was = _own_bytes(knobs), _own_bytes(baseline)
            if now != was:
                effects["kv_cache_bytes"] = "down" if now < was else "up"
        else:
            if not {kind, before} <= set(LOSSY):
                effects["kv_cache_bytes"] = _level(HELD[kind], HELD[before])
            effects["itl_s"] = _level(SLOW[kind], SLOW[before])
            if "off" in (kind, before):
                effects["output_tokens_per_s"] = _level(SLOW[before], SLOW[kind])
            if {kind, before} == {"dynamic", "offloaded"}:
                effects["peak_allocated_bytes"] = "down" if kind == "offloaded" else "up"
        if {kind, before} & set(LOSSY) and (kind != before or "kv_cache_bytes" in effects):
            effects |= {"kld_mean": "up", "top1_agreement": "down"}
        return effects

    def footprint(self, knobs: Knobs, footprint: Footprint) -> Footprint:
        """No cache, no bytes. Kernels a layer (transformers 5, cache_utils): dynamic joins old and new keys, and values, in a copy each;
        static writes both in place, after it has worked out and counted up the positions (8 more than dynamic in the profile of a GPU).

        quantized: the bits, and where they are packed a scale and a zero point in the cache's precision for each 32 numbers; new tokens
        are whole until 32 of them have come. Each step unpacks all of it: for keys and for values 5 kernels at 4 bits and 11
        at 2 (three or two for each number in a byte), then zero point and scale; beside them two pairs of joins. fp8 has 3 to unpack, 4
        to pack the new tokens, and one pair of joins.
        """
        kind, full = knobs["kv_cache"], footprint.kv_bits
        if kind == "off":
            return replace(footprint, kv_share=0.0)
        if kind == "static":
            return replace(footprint, kv_padded=True, layer_kernels=footprint.layer_kernels + 10)
        if kind == "quantized":
            fp8 = knobs["kv_backend"] == "fp8"
            bits = 8.0 if fp8 else int(knobs["kv_bits"]) + 2 * full / GROUP
            extra = 16 if fp8 else 18 if knobs["kv_bits"] == "4" else 30
            kernels, residual = footprint.layer_kernels + extra, 0 if fp8 else RESIDUAL
            return replace(footprint, kv_bits=bits, kv_unpacked_bits=full, kv_residual=residual, layer_kernels=kernels)
        window = int(knobs["kv_window"]) if kind == "window" else None
        copied = replace(footprint, kv_copied=True, layer_kernels=footprint.layer_kernels + 2)
        return replace(copied, kv_window=window, kv_offloaded=kind == "offloaded")

    def for_transformers(self, knobs: Knobs, setup: TransformersSetup) -> None:
        """A factory of transformers' own cache classes; for a window also the mask that keeps a prompt's own pass within it."""
        kind, run = str(knobs["kv_cache"]), setup.run
        if kind == "quantized":
            run.make_cache, run.score_tokens = partial(caches.quantized, str(knobs["kv_backend"]), int(knobs["kv_bits"])), RESIDUAL
        elif kind == "window":
            window = int(knobs["kv_window"])
            run.make_cache, run.score_tokens = partial(caches.window, window), SCORED
            run.contexts.append(partial(caches.banded, window))
        else:
            run.make_cache = {"off": None, "dynamic": caches.dynamic, "static": caches.static, "offloaded": caches.offloaded}[kind]

    def evidence_for_transformers(self, knobs: Knobs, engine: Any) -> Finding:
        """Looks at the cache object that the first pass used, at its tensors and at the tokens of its last forward call."""
        if paged := engine.options.run.seen.get("paged_cache"):  # that of continuous batching: see techniques.serving
            return Finding(knobs["kv_cache"] == "dynamic", paged)
        found = _found(engine, str(knobs["kv_cache"]), CLASSES)
        look = {"quantized": _packed, "offloaded": _moved, "window": _within}.get(str(knobs["kv_cache"]))
        if look is None or not found.ok:
            return found
        more = look(knobs, engine)
        return Finding(more.ok, f"{found.text}; {more.text}")

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
        why = {
            "dynamic": "it cannot grow",
            "quantized": "it cannot be packed anew every 32 tokens",
            "offloaded": "it cannot wait in host memory",
            "window": "it cannot drop its oldest token in every step",
        }.get(str(knobs["kv_cache"]))
        return f"a captured graph reads its cache at a fixed address, so {why}: choose static, or off." if why else None


def _level(now: int, before: int) -> Effect:
    return "same" if now == before else "down" if now < before else "up"


def _own_bytes(knobs: Knobs) -> int:
    """What grows with the bytes of a cache of the same kind."""
    if knobs["kv_cache"] == "window":
        return int(knobs["kv_window"])
    return 0 if knobs["kv_cache"] != "quantized" else 8 if knobs["kv_backend"] == "fp8" else int(knobs["kv_bits"])


def _found(engine: Any, wanted: str, classes: Mapping[str, str]) -> Finding:
    if wanted == "off":
        again = f"the last step ran all {engine.last_step_tokens} tokens of the row again" if engine.last_step_tokens else "1 step ran"
        return Finding(engine.cache is None, f"no cache was kept: {again}")
    if engine.cache is None:
        return Finding(False, "no cache object exists")
    kind = type(engine.cache).__name__
    keys = engine.cache.layers[0].keys
    sizes = " x ".join(str(size) for size in keys.shape)
    shape = f"keys {sizes} (rows x heads x tokens x head size)" if keys.dim() == 4 else "no keys unpacked"
    text = f"cache is {kind}: {len(engine.cache.layers)} layers, {shape}"
    return Finding(kind == classes.get(wanted) and engine.last_step_tokens in (None, 1), text)


def _packed(knobs: Knobs, engine: Any) -> Finding:
    """Each layer's class and the bits that its packed numbers really take."""
    layers, backend = engine.cache.layers, str(knobs["kv_backend"])
    bits = 8 if backend == "fp8" else int(knobs["kv_bits"])
    kinds = [any(base.__name__ == BACKENDS[backend] for base in type(layer).__mro__) for layer in layers]
    seen = [caches.packed_bits(layer) for layer in layers]
    right = sum(kind and found == bits for kind, (found, _) in zip(kinds, seen, strict=True))
    total = layers[0].get_seq_length()
    text = f"{right} of {len(layers)} are {backend} with {bits} bits a number, {seen[0][1]} of {total} tokens a row packed"
    return Finding(right == len(layers), text)


def _moved(knobs: Knobs, engine: Any) -> Finding:
    """Where each layer's keys lie between two passes: all on the host but those that were fetched ahead."""
    layers = engine.cache.layers
    away = sum(layer.keys.device.type == "cpu" for layer in layers)
    ok = engine.cache.offloading and engine.options.device == "cuda" and away >= len(layers) - 2 and away > 0
    return Finding(ok, f"{away} of {len(layers)} layers lie in host memory, the others are on their way to the next pass")


def _within(knobs: Knobs, engine: Any) -> Finding:
    """What each layer keeps, and what the mask shows to the last of a longer text."""
    layers, size = engine.cache.layers, int(knobs["kv_window"])
    right = sum(getattr(layer, "sliding_window", None) == size and layer.keys.shape[-2] < size for layer in layers)
    with engine.passing():
        seen = caches.seen_by_last(engine.model, size + 8)
    total = layers[0].get_seq_length()
    text = f"{right} of {len(layers)} keep at most {size - 1} tokens for the next, of {total} so far; "
    return Finding(right == len(layers) and seen == size, f"{text}of a text of {size + 8} the mask shows the last token {seen}")


TECHNIQUE = KVCache()
