"""The kernels behind decode.linear_kernels, in Triton: products of few rows of activations with large weights, with float32 sums.

`reduce` (one row, or a few): each program takes some rows of the weight and multiplies and adds on the ordinary units. `dot` (up to 64
rows): the weight is the large operand of the tensor cores and the activations the small one; where there are too few blocks of rows to
fill the GPU the columns are split as well, and the last program of a block to arrive adds the parts in their order, so that results do
not vary. Weights are laid out as `decode.packing` says. They are launched by `linear_kernels.small_linear`::

    kernels.reduce[(blocks,)](x, weight, scales, bias, out, rows, outputs, x.stride(0), **options)
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

from __future__ import annotations

import triton
import triton.language as tl

from playground.engines.decode.unpack_kernels import HIGH_OFFSET, LOW_OFFSET, float_nibbles, half_nibbles, to_float, to_half

WIDTH = tl.constexpr(8)  # elements of a row that a thread reads at once: as many weights as activations, so that they meet in its registers


@triton.jit
def reduce(
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
def reduce_int4(
    x, weight, scales, bias, out, M, N, stride_x,
    KIND: tl.constexpr, PAIRS: tl.constexpr, BIAS: tl.constexpr, MP: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    K: tl.constexpr, GROUP: tl.constexpr, ASM: tl.constexpr,
):  # fmt: skip
    """As reduce, for int4 and one row: tiles are [groups, BLOCK_N, bytes of half a group], x has as many low and high columns."""
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
def dot(
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
    if SPLIT > 1:
        sums, ups, last = _joined(sums, ups, parts, counters, m, PAIRS, BLOCK_N, MP, SPLIT)
        if last:
            _finish(sums, ups, scales, bias, out, m[None, :], rows[:, None], M, N, KIND, PAIRS, BIAS)
    else:
        _finish(sums, ups, scales, bias, out, m[None, :], rows[:, None], M, N, KIND, PAIRS, BIAS)


@triton.jit
def _joined(sums, ups, parts, counters, m, PAIRS: tl.constexpr, BLOCK_N: tl.constexpr, MP: tl.constexpr, SPLIT: tl.constexpr):
    """Leave this part; the last program of a block to come gets the sums of all parts, in their order, and leaves its counter at 0."""
    block, split = tl.program_id(0), tl.program_id(1)
    spot = tl.arange(0, BLOCK_N)[:, None] * MP + m[None, :]
    size = tl.num_programs(0) * BLOCK_N * MP
    part = parts + block * BLOCK_N * MP + spot
    tl.store(part + split * (1 + PAIRS) * size, sums)
    if PAIRS:
        tl.store(part + (split * 2 + 1) * size, ups)
    tl.debug_barrier()
    last = tl.atomic_add(counters + block, 1, sem="acq_rel") == SPLIT - 1
    if last:
        sums = tl.zeros((BLOCK_N, MP), tl.float32)
        ups = tl.zeros((BLOCK_N, MP), tl.float32)
        for s in range(SPLIT):
            sums += tl.load(part + s * (1 + PAIRS) * size, cache_modifier=".cg")
            if PAIRS:
                ups += tl.load(part + (s * 2 + 1) * size, cache_modifier=".cg")
        tl.store(counters + block, 0)
    return sums, ups, last


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
