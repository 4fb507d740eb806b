"""Products of few rows with large weights, in Triton: decoding reads every weight once a step, so these kernels are about reading.

Two kernels, both with float32 sums and both deterministic. `reduce` (one row, or a few): each program takes some rows of the weight and
multiplies and adds on the ordinary units. `dot` (up to 64 rows): the weight is the large operand of the tensor cores and the activations
the small one; where there are too few blocks of rows to fill the GPU the columns are split as well, and the last program of a block to
arrive adds the parts in their order. `config` says which and how; weights are laid out as `decode.packing` says::

    y = small_linear(x, packed, scales, kind="int4")
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import torch
import triton
import triton.language as tl
from torch.nn import functional

from playground.engines.decode.packing import group_of, unpack
from playground.engines.decode.unpack_kernels import HIGH_OFFSET, LOW_OFFSET, float_nibbles, half_nibbles, to_float, to_half

MOST_ROWS = 64
COLUMNS = 32  # the kernels take weights with multiples of so many
COUNTERS = 4096
WIDTH = tl.constexpr(8)  # elements of a row that a thread reads at once: as many weights as activations, so that they meet in its registers


@dataclass(frozen=True)
class Config:
    """How one product is computed. kernel: reduce, dot or library (torch's own); block_n rows and block_k columns of the weight at a
    time; split_k: dot only."""

    kernel: str
    block_n: int = 0
    block_k: int = 0
    warps: int = 4
    stages: int = 1
    split_k: int = 1


def config(rows: int, outputs: int, inputs: int, kind: str, pairs: bool = False, processors: int = 132) -> Config:
    """The configuration for x [rows, inputs] times a weight of `outputs` rows (pairs: twice as many), from what was fastest on an H200."""
    if rows == 1:
        chosen = _one_row(inputs, kind, pairs)
    elif rows <= 16:
        block_k, stages = {"plain": (128, 3), "int4": (128, 4)}.get(kind, (256, 3))
        chosen = Config("dot", 64, block_k, 4, stages, 0)
    elif kind != "plain":
        chosen = Config("dot", 64, 128, 4, 3, 0)
    elif pairs:
        chosen = Config("dot", 64, 64, 4, 4)
    else:
        chosen = Config("dot", 128, 64, 8, 4) if triton.cdiv(outputs, 128) > 3 * processors else Config("library")
    if chosen.split_k == 0:
        chosen = replace(chosen, split_k=_split(chosen, outputs, inputs, kind, processors))
    step = group_of(inputs) if kind == "int4" and chosen.kernel == "dot" else triton.next_power_of_2(inputs)
    return replace(chosen, block_k=min(chosen.block_k, step))


def _one_row(inputs: int, kind: str, pairs: bool) -> Config:
    """For one row of x; split_k 0: to be found."""
    if kind == "plain":
        return Config("reduce", 2, 2048, 4)
    if kind == "int4":
        return Config("dot", 64, 128, 4, 4, 0) if pairs or inputs >= 8192 else Config("reduce", 8, 2048, 4)
    return Config("dot", 64, 128, 4, 4) if pairs else Config("reduce", 4, 1024, 2)


def _split(chosen: Config, outputs: int, inputs: int, kind: str, processors: int) -> int:
    """Parts of the columns, so that there is work for every processor; each part is long enough to be worth its sum."""
    blocks, split = triton.cdiv(outputs, chosen.block_n), 1
    most = (4 if kind == "int4" and blocks < processors else 3) * processors
    while split < 8 and blocks * split * 2 <= most and inputs // (split * 2) >= 4 * chosen.block_k:
        split *= 2
    return split


def small_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    scales: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    kind: str = "plain",
    silu_pairs: bool = False,
    chosen: Config | None = None,
) -> torch.Tensor:
    """x [M, K] (bfloat16 or float16, M up to 64, rows at any distance) times weight -> [M, N] in x's type.

    kind plain: weight [N, K] in x's type; int8, fp8, int4: `weight` and `scales` of decode.packing. bias [N]. silu_pairs: the weight's
    rows are a gate's and then as many ups', and the result is silu(gate) * up [M, N/2]. ValueError where a shape does not fit.
    """
    rows, inputs = x.shape
    outputs = weight.shape[0] // 2 if silu_pairs else weight.shape[0]
    if not 1 <= rows <= MOST_ROWS or weight.shape[1] * (2 if kind == "int4" else 1) != inputs:
        raise ValueError(f"no kernel for {tuple(x.shape)} times {tuple(weight.shape)} ({kind})")
    x = x if x.stride(1) == 1 else x.contiguous()
    chosen = chosen or config(rows, outputs, inputs, kind, silu_pairs, processors_of(x.device))
    if chosen.kernel == "library" or inputs % COLUMNS:
        return _library(x, weight, scales, bias, kind, silu_pairs)
    out = torch.empty((rows, outputs), dtype=x.dtype, device=x.device)
    common = {
        "KIND": kind,
        "PAIRS": silu_pairs,
        "BIAS": bias is not None,
        "MP": max(triton.next_power_of_2(rows), 8 if chosen.kernel == "dot" else 1),
        "BLOCK_N": chosen.block_n,
        "BLOCK_K": chosen.block_k,
        "K": inputs,
        "GROUP": group_of(inputs),
        "ASM": not triton.knobs.runtime.interpret,
        "num_warps": chosen.warps,
        "num_stages": chosen.stages,
    }
    arguments = (x, weight, scales, bias, out)
    sizes = (rows, outputs, x.stride(0))
    blocks = triton.cdiv(outputs, chosen.block_n)
    if chosen.kernel == "reduce":
        (_reduce_int4 if kind == "int4" else _reduce)[(blocks,)](*arguments, *sizes, **common)
        return out
    parts = counters = None
    if chosen.split_k > 1:
        size = (chosen.split_k, 2 if silu_pairs else 1, blocks * chosen.block_n, common["MP"])
        parts, counters = torch.empty(size, dtype=torch.float32, device=x.device), counters_of(x.device, blocks)
    _dot[(blocks, chosen.split_k)](*arguments, parts, counters, *sizes, SPLIT=chosen.split_k, **common)
    return out


def _library(
    x: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor | None, bias: torch.Tensor | None, kind: str, pairs: bool
) -> torch.Tensor:
    plain = weight if scales is None else unpack(weight, scales, kind, x.dtype)
    both = functional.linear(x, plain, bias)
    if not pairs:
        return both
    gate, up = both.chunk(2, dim=1)
    return functional.silu(gate) * up


@functools.cache
def processors_of(device: torch.device) -> int:
    """Multiprocessors of a GPU; 132 for anything else (Triton's interpreter)."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 132


@functools.cache
def _counters(device: torch.device, count: int) -> torch.Tensor:
    return torch.zeros(count, dtype=torch.int32, device=device)


def counters_of(device: torch.device, count: int) -> torch.Tensor:
    """At least `count` zeros, which every kernel leaves as zeros. One stream at a time may use them; the first call must come before a
    graph is captured (a kernel's first call does anyway, for it is compiled then)."""
    return _counters(device, max(COUNTERS, triton.next_power_of_2(count)))


@triton.jit
def _reduce(
    x, weight, scales, bias, out, M, N, stride_x,
    KIND: tl.constexpr, PAIRS: tl.constexpr, BIAS: tl.constexpr, MP: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    K: tl.constexpr, GROUP: tl.constexpr, ASM: tl.constexpr,
):  # fmt: skip
    """Rows BLOCK_N * program .. of the weight (plain, int8, fp8) times all of x, on the ordinary units."""
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    columns = tl.max_contiguous(tl.arange(0, BLOCK_K), WIDTH)[None, None, :]
    EVEN_K: tl.constexpr = K % BLOCK_K == 0
    near = tl.minimum(rows, N - 1).to(tl.int64)
    places = weight + near[None, :, None] * K + columns
    others = places + N.to(tl.int64) * K
    m = tl.arange(0, MP)
    activations = x + tl.minimum(m, M - 1)[:, None, None] * stride_x + columns
    sums = tl.zeros((MP, BLOCK_N, BLOCK_K), tl.float32)
    ups = tl.zeros((MP, BLOCK_N, BLOCK_K), tl.float32)
    for k in range(0, K, BLOCK_K):
        w = _load(places + k, columns + k, K, EVEN_K)
        if PAIRS:
            v = _load(others + k, columns + k, K, EVEN_K)
        a = _load(activations + k, columns + k, K, EVEN_K).to(tl.float32)
        sums += to_float(w, ASM) * a
        if PAIRS:
            ups += to_float(v, ASM) * a
    first = tl.sum(sums, 2)
    second = first
    if PAIRS:
        second = tl.sum(ups, 2)
    _finish(first, second, scales, bias, out, m[:, None], rows[None, :], M, N, KIND, PAIRS, BIAS)


@triton.jit
def _reduce_int4(
    x, weight, scales, bias, out, M, N, stride_x,
    KIND: tl.constexpr, PAIRS: tl.constexpr, BIAS: tl.constexpr, MP: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    K: tl.constexpr, GROUP: tl.constexpr, ASM: tl.constexpr,
):  # fmt: skip
    """As _reduce for int4 and one row: tiles are [groups, BLOCK_N, GROUP / 2 bytes], and x has [groups, GROUP / 2] low and as many high columns."""
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    EVEN_K: tl.constexpr = K % BLOCK_K == 0
    near = tl.minimum(rows, N - 1).to(tl.int64)
    group = tl.arange(0, BLOCK_K // GROUP)
    byte = tl.max_contiguous(tl.arange(0, GROUP // 2), WIDTH)[None, None, :]
    places = weight + near[None, :, None] * (K // 2) + (group * (GROUP // 2))[:, None, None] + byte
    steps = scales + near[None, :] * (K // GROUP) + group[:, None]
    activations = x + (group * GROUP)[:, None, None] + byte
    sums = tl.zeros((BLOCK_K // GROUP, BLOCK_N), tl.float32)
    ups = tl.zeros((BLOCK_K // GROUP, BLOCK_N), tl.float32)
    for k in range(0, K, BLOCK_K):
        left = K // GROUP - k // GROUP
        w = _load(places + k // 2, group[:, None, None], left, EVEN_K)
        s = _load(steps + k // GROUP, group[:, None], left, EVEN_K).to(tl.float32)
        if PAIRS:
            v = _load(places + N.to(tl.int64) * (K // 2) + k // 2, group[:, None, None], left, EVEN_K)
            t = _load(steps + N.to(tl.int64) * (K // GROUP) + k // GROUP, group[:, None], left, EVEN_K).to(tl.float32)
        low = _load(activations + k, group[:, None, None], left, EVEN_K).to(tl.float32)
        high = _load(activations + k + GROUP // 2, group[:, None, None], left, EVEN_K).to(tl.float32)
        excess = tl.sum(low * LOW_OFFSET + high * HIGH_OFFSET, 2)
        a, b = float_nibbles(w, ASM)
        sums += (tl.sum(a * low + b * high, 2) - excess) * s
        if PAIRS:
            a, b = float_nibbles(v, ASM)
            ups += (tl.sum(a * low + b * high, 2) - excess) * t
    first = tl.sum(sums, 0)
    second = first
    if PAIRS:
        second = tl.sum(ups, 0)
    _finish(first, second, scales, bias, out, tl.zeros_like(rows), rows, M, N, KIND, PAIRS, BIAS)


@triton.jit
def _dot(
    x, weight, scales, bias, out, parts, counters, M, N, stride_x,
    KIND: tl.constexpr, PAIRS: tl.constexpr, BIAS: tl.constexpr, MP: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    K: tl.constexpr, GROUP: tl.constexpr, ASM: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """A block of rows of the weight and one of SPLIT parts of the columns, times x transposed, on the tensor cores."""
    block, split = tl.program_id(0), tl.program_id(1)
    rows = block * BLOCK_N + tl.arange(0, BLOCK_N)
    near = tl.minimum(rows, N - 1).to(tl.int64)
    PACK: tl.constexpr = 2 if KIND == "int4" else 1
    columns = tl.arange(0, BLOCK_K // PACK)
    places = weight + near[:, None] * (K // PACK) + columns[None, :]
    steps = scales
    if KIND == "int4":
        steps = scales + near * (K // GROUP)
    m = tl.arange(0, MP)
    activations = x + columns[:, None] + tl.minimum(m, M - 1)[None, :] * stride_x
    sums = tl.zeros((BLOCK_N, MP), tl.float32)
    ups = tl.zeros((BLOCK_N, MP), tl.float32)
    SHARE: tl.constexpr = (K + SPLIT * BLOCK_K - 1) // (SPLIT * BLOCK_K) * BLOCK_K
    EVEN_K: tl.constexpr = K % (SPLIT * BLOCK_K) == 0
    for i in range(0, SHARE, BLOCK_K):
        k = split * SHARE + i
        w = _load(places + k // PACK, (columns + k // PACK)[None, :], K // PACK, EVEN_K)
        if PAIRS:
            v = _load(places + N.to(tl.int64) * (K // PACK) + k // PACK, (columns + k // PACK)[None, :], K // PACK, EVEN_K)
        a = _load(activations + k, (columns + k)[:, None], K, EVEN_K)
        if KIND == "int4":
            b = _load(activations + k + GROUP // 2, (columns + k)[:, None], K, EVEN_K)
            s = tl.load(steps + k // GROUP, mask=k < K, other=0.0).to(tl.float32)
            sums += _group_dot(w, a, b, ASM) * s[:, None]
            if PAIRS:
                t = tl.load(steps + N.to(tl.int64) * (K // GROUP) + k // GROUP, mask=k < K, other=0.0).to(tl.float32)
                ups += _group_dot(v, a, b, ASM) * t[:, None]
        else:
            sums = tl.dot(to_half(w, a.dtype), a, sums)
            if PAIRS:
                ups = tl.dot(to_half(v, a.dtype), a, ups)
    if SPLIT == 1:
        _finish(sums, ups, scales, bias, out, m[None, :], rows[:, None], M, N, KIND, PAIRS, BIAS)
    else:
        spot = tl.arange(0, BLOCK_N)[:, None] * MP + m[None, :]
        size = tl.num_programs(0) * BLOCK_N * MP
        part = parts + block * BLOCK_N * MP + spot
        tl.store(part + split * (1 + PAIRS) * size, sums)
        if PAIRS:
            tl.store(part + (split * 2 + 1) * size, ups)
        tl.debug_barrier()
        if tl.atomic_add(counters + block, 1, sem="acq_rel") == SPLIT - 1:
            sums = tl.zeros((BLOCK_N, MP), tl.float32)
            ups = tl.zeros((BLOCK_N, MP), tl.float32)
            for s in range(SPLIT):
                sums += tl.load(part + s * (1 + PAIRS) * size, cache_modifier=".cg")
                if PAIRS:
                    ups += tl.load(part + (s * 2 + 1) * size, cache_modifier=".cg")
            tl.store(counters + block, 0)
            _finish(sums, ups, scales, bias, out, m[None, :], rows[:, None], M, N, KIND, PAIRS, BIAS)


@triton.jit
def _group_dot(packed, a, b, ASM: tl.constexpr):
    low, high = half_nibbles(packed, a.dtype, ASM)
    return tl.dot(high, b, tl.dot(low, a))


@triton.jit
def _load(pointers, columns, K, EVEN: tl.constexpr):
    """What lies there; zeros past K, unless K is EVEN."""
    if EVEN:
        return tl.load(pointers)
    else:
        return tl.load(pointers, mask=columns < K, other=0.0)


@triton.jit
def _finish(first, second, scales, bias, out, m, n, M, N, KIND: tl.constexpr, PAIRS: tl.constexpr, BIAS: tl.constexpr):
    """Scales of rows, bias, silu(first) * second where those are PAIRS; stored at [m, n], where that is inside."""
    first = _whole(first, scales, bias, n, N, KIND, BIAS)
    if PAIRS:
        first = first * tl.sigmoid(first) * _whole(second, scales, bias, n + N, 2 * N, KIND, BIAS)
    tl.store(out + m.to(tl.int64) * N + n, first.to(out.dtype.element_ty), mask=(m < M) & (n < N))


@triton.jit
def _whole(sums, scales, bias, n, N, KIND: tl.constexpr, BIAS: tl.constexpr):
    if KIND == "int8" or KIND == "fp8":
        sums = sums * tl.load(scales + n, mask=n < N, other=0.0)
    if BIAS:
        sums = sums + tl.load(bias + n, mask=n < N, other=0.0).to(tl.float32)
    return sums
