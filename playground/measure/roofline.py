"""Bytes, operations and kernels of prefill and decode, from a model's config and the knobs, and what they take at a device's best.

Pure. It counts what the kernels of eager transformers move to and from memory: weights once a step, the KV cache, the logits, and what a
knob adds (unpacked weights, stored scores). Activations are left out: a device's caches hold most of them. Example::

    work = decode_work(config, footprint, cached_tokens=100)
    predict(work, ceilings).bound   # "memory"
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from playground.core.events import Ceilings
from playground.core.problem import Problem
from playground.core.technique import Footprint, away_layers
from playground.measure.estimate import Shape, estimate, kv_bytes_per_token, linear_bits, parameters, reduced, shape_of, tokens_allocated

Bound = Literal["memory", "compute", "launch"]

LINEARS = 7  # linear layers of a decoder layer: q, k, v, o, gate, up, down
# Embedding, positions, final norm, head and argmax of one step, counted in transformers 5.
STEP_KERNELS = 21
ONE_ROW = 4.0  # operations a byte: one row has 0.5 in fp32, 1 in 16 bits, 3.5 in 4 bits
# Host time for each kernel of an eager model, in launches of a bare small operation: between two kernels Python also walks the modules.
# Seen on an AMD EPYC: 11 us against 3.7 us; on an H200's host: 13.9 to 15.6 us a kernel (bf16, 1B and 8B Llama shapes) against 6.6 us.
HOST_LAUNCHES = {"cpu": 3.0, "cuda": 2.2}


@dataclass(frozen=True)
class Work:
    """What must be done: bytes to and from memory, floating-point operations, kernels to launch; captured: launched by a CUDA graph."""

    bytes: float
    operations: float
    launches: float
    captured: bool = False

    def __add__(self, other: Work) -> Work:
        either = self.captured or other.captured
        return Work(self.bytes + other.bytes, self.operations + other.operations, self.launches + other.launches, either)

    def times(self, factor: float) -> Work:
        """The work `factor` times over."""
        return Work(self.bytes * factor, self.operations * factor, self.launches * factor, self.captured)


@dataclass(frozen=True)
class Times:
    """Seconds that each resource needs for a work, and `seconds` for all of it together."""

    memory_s: float
    compute_s: float
    launch_s: float
    seconds: float

    @property
    def bound(self) -> Bound:
        """What takes longest."""
        parts: dict[Bound, float] = {"memory": self.memory_s, "compute": self.compute_s, "launch": self.launch_s}
        return max(parts, key=lambda name: parts[name])


@dataclass(frozen=True)
class Prediction:
    """Of a run: a decode step in the middle of the output, the prefill, one batch from start to end, and memory."""

    step_s: float
    ttft_s: float
    output_tokens_per_s: float
    weights_bytes: int
    kv_cache_bytes: int
    decode_bound: Bound
    prefill_bound: Bound


def decode_work(config: Mapping[str, Any], footprint: Footprint, cached_tokens: float, allocated_tokens: float | None = None) -> Work:
    """One decode step of all `footprint.rows` rows with `cached_tokens` tokens each before it. Without a KV cache the whole text is run
    again. `allocated_tokens`: length of a cache that is allocated in full (None: just long enough).

    Raises Problem("model") where the config lacks a size or describes what is not counted here.
    """
    if not footprint.kv_share:
        return prefill_work(config, footprint, cached_tokens + 1)
    cached_tokens = min(cached_tokens, (footprint.kv_window or cached_tokens + 1) - 1)
    length = max(cached_tokens + 1, allocated_tokens or 0) if footprint.kv_padded else cached_tokens + 1
    moved = length + 1  # attention reads the keys and values of all tokens, the step writes those of one
    if footprint.kv_copied:
        moved += 2 * cached_tokens
    if footprint.kv_unpacked_bits:  # unpacked, shifted, scaled, joined with what is new and read: 1 + 2 + 2 + 2 + 1 times its own width
        moved += 8 * cached_tokens * footprint.kv_unpacked_bits / footprint.kv_bits
    if footprint.step_kernels is not None:  # prompts, and steps without a cache, are not compiled
        left = footprint.linear_kernels - footprint.joined_kernels
        footprint = replace(footprint, layer_kernels=footprint.step_kernels, linear_kernels=left)
    step = _pass(config, footprint, tokens=1, context=length, kv_tokens=moved)
    return replace(step, captured=footprint.captured)


def prefill_work(config: Mapping[str, Any], footprint: Footprint, prompt_tokens: float) -> Work:
    """The first forward pass over `prompt_tokens` tokens of each of `footprint.rows` rows, padding counted. Errors as `decode_work`."""
    kv_tokens = 2 * prompt_tokens if footprint.kv_share else 0
    return _pass(config, footprint, tokens=prompt_tokens, context=prompt_tokens, kv_tokens=kv_tokens)


def predict(work: Work, ceilings: Ceilings) -> Times:
    """Seconds at the device's ceilings. A GPU works while the host launches, so the slowest of the three decides; on a CPU the same cores
    do both, so launching comes on top, as does in a CUDA graph what each kernel takes to start and to end."""
    memory_s, compute_s = work.bytes / memory_rate(work, ceilings), work.operations / ceilings.matmul_flops
    launch_s = launching_s(work, ceilings)
    busy_s, on_top = max(memory_s, compute_s), work.captured or ceilings.device == "cpu"
    return Times(memory_s, compute_s, launch_s, busy_s + launch_s if on_top else max(busy_s, launch_s))


def memory_rate(work: Work, ceilings: Ceilings) -> float:
    """Bytes a second that this work can be moved at: those of the library's product with one row where the work is such products, else of
    a copy; of a copy too in a CUDA graph, whose engine has products of its own."""
    one_row = not work.captured and ceilings.matvec_bytes_per_s is not None and work.operations < ONE_ROW * work.bytes
    return ceilings.matvec_bytes_per_s if one_row and ceilings.matvec_bytes_per_s else ceilings.copy_bytes_per_s


def launching_s(work: Work, ceilings: Ceilings) -> float:
    """Seconds of host time to launch the work's kernels (GPU) or to call its operators (CPU), with the modules around them; in a CUDA
    graph the GPU's own from one small kernel to the next."""
    if work.captured:
        return work.launches * (ceilings.graph_kernel_s or 0.0)
    return work.launches * ceilings.launch_s * HOST_LAUNCHES[ceilings.device]


def predict_run(
    config: Mapping[str, Any], footprint: Footprint, ceilings: Ceilings, prompt_tokens: int, new_tokens: int, link_s: float = 0.0
) -> Prediction:
    """One batch of `footprint.rows` rows: a prefill, then new_tokens - 1 decode steps. `link_s`: for which each of them waits until the
    weights that are kept off the device have come, on top. Errors as `decode_work`."""
    allocated = tokens_allocated(footprint, prompt_tokens + new_tokens)
    step = predict(decode_work(config, footprint, middle(prompt_tokens, new_tokens), allocated), ceilings)
    prefill = predict(prefill_work(config, footprint, prompt_tokens), ceilings)
    memory = estimate(config, footprint, prompt_tokens, new_tokens)
    step_s, ttft_s = step.seconds + link_s, prefill.seconds + link_s
    return Prediction(
        step_s=step_s,
        ttft_s=ttft_s,
        output_tokens_per_s=footprint.rows * new_tokens / (ttft_s + (new_tokens - 1) * step_s),
        weights_bytes=memory.weights_bytes,
        kv_cache_bytes=memory.kv_cache_bytes,
        decode_bound=step.bound,
        prefill_bound=prefill.bound,
    )


def middle(prompt_tokens: float, new_tokens: int) -> float:
    """Tokens cached before the mean decode step: the first step has the prompt before it, the last all but one of the new tokens."""
    return prompt_tokens + max(new_tokens - 2, 0) / 2


def _pass(config: Mapping[str, Any], footprint: Footprint, *, tokens: float, context: float, kv_tokens: float) -> Work:
    """A forward pass over `tokens` of each row, each attending over `context`; `kv_tokens`: tokens of each row whose keys and values are
    moved. Of the logits only the last token's are computed."""
    config = reduced(config, footprint)
    shape, count = shape_of(config), parameters(config)
    if "experts" in count.note:
        raise Problem("model", "This model has several experts a layer, and how many of them a step uses is not counted here.")
    rows, width = footprint.rows, footprint.weight_bits / 8
    at_once = rows * tokens
    unpacks = footprint.unpack_above is not None and at_once > footprint.unpack_above
    stored = linear_bits(config, footprint)
    weights = count.linear * (stored + (2 * footprint.unpacked_bits if unpacks else 0)) / 8 + count.norm * width
    away = away_layers(shape.layers, footprint.away_share) / shape.layers
    weights += away * count.linear * stored / 8  # written to the device before they are read there
    head = shape.vocabulary * shape.hidden
    head_bits = footprint.bits_of_head if count.head else footprint.weight_bits
    lookup, logits = at_once * shape.hidden, 2 * rows * shape.vocabulary
    kv = kv_bytes_per_token(config, footprint.kv_bits / 8) * kv_tokens * rows
    scores = _scores(shape, footprint, tokens, context)
    attention = 4 * shape.heads * shape.head_dim * at_once * context * shape.layers
    linear_kernels = footprint.linear_kernels + (footprint.unpack_kernels if unpacks else 0)
    return Work(
        bytes=weights + head * head_bits / 8 + (lookup + logits) * width + kv + scores,
        operations=2 * count.linear * at_once + 2 * head * rows + attention,
        launches=shape.layers * (footprint.layer_kernels + LINEARS * (linear_kernels - 1)) + STEP_KERNELS,
    )


def _scores(shape: Shape, footprint: Footprint, tokens: float, context: float) -> float:
    """Bytes of attention scores that are stored, in the precision of the weights and in float32: each written and read once."""
    if not footprint.score_matrix:
        return 0.0
    return 2 * footprint.rows * shape.heads * tokens * context * shape.layers * (footprint.weight_bits / 8 + 4)
