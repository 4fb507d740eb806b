"""Attention of one new token a row over a cache of fixed size, in Triton: reads what is filled and nothing else.

As in flash-decoding, the filled part of a row's cache is split among several programs, each of which handles all query heads of one KV
head and keeps an online softmax in float32; the parts are then joined, in their order. How much is filled is read on the device, so that
a captured graph serves every length; how many parts there are is chosen from the shapes alone::

    out = split_kv_attention(query, keys, values, lengths, scaling)
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from playground.engines.decode.linear_kernels import counters_of, processors_of

SHARED_BYTES = 72 << 10  # for two blocks of keys and two of values, on every GPU since Ampere


@dataclass(frozen=True)
class Config:
    """splits: programs for each pair of row and KV head; block: positions read at a time; joined: the last program of a pair joins the
    parts (else a second kernel does)."""

    splits: int
    block: int = 64
    warps: int = 4
    stages: int = 3
    joined: bool = True


def config(rows: int, kv_heads: int, capacity: int, entry_bytes: int = 256, processors: int = 132) -> Config:
    """One program a processor where there is work for so many (that was fastest on an H200); blocks that leave room in shared memory for
    entries of that size."""
    splits = max(1, min(processors // (rows * kv_heads), triton.cdiv(capacity, 32)))
    block = 64 if splits > 1 else 32
    while block > 16 and 4 * block * entry_bytes > SHARED_BYTES:
        block //= 2
    return Config(splits, block)


def split_kv_attention(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, lengths: torch.Tensor, scaling: float, chosen: Config | None = None
) -> torch.Tensor:
    """query [rows, heads, 1, d] over keys, values [rows, kv heads, capacity, d], of which a row's first `lengths` [rows] positions are
    filled -> [rows, 1, heads, d]; zeros for a row of length 0. bfloat16, float16 or float32, all of one type; lengths in any integer type,
    on the device. Rows, heads and positions may lie at any distance; the d entries of one must be adjacent (ValueError)."""
    rows, heads, _, size = query.shape
    kv_heads, capacity = keys.shape[1], keys.shape[2]
    if heads % kv_heads or keys.stride(3) != 1 or values.stride(3) != 1:
        raise ValueError(f"no kernel for {heads} heads over {kv_heads}, or for a cache whose heads' entries are not adjacent")
    query = query if query.stride(3) == 1 else query.contiguous()
    wide = max(16, triton.next_power_of_2(size))
    chosen = chosen or config(rows, kv_heads, capacity, wide * query.element_size(), processors_of(query.device))
    group, splits = heads // kv_heads, chosen.splits
    padded = 1 if group == 1 else max(16, triton.next_power_of_2(group))
    out = torch.empty((rows, 1, heads, size), dtype=query.dtype, device=query.device)
    parts = stats = counters = None
    if splits > 1:
        parts = torch.empty((rows * kv_heads, splits, padded, wide), dtype=torch.float32, device=query.device)
        stats = torch.empty((rows * kv_heads, splits, 2, padded), dtype=torch.float32, device=query.device)
        counters = counters_of(query.device, rows * kv_heads) if chosen.joined else None
    strides = (query.stride(0), query.stride(1), *keys.stride()[:3], *values.stride()[:3])
    shape = {"KV_HEADS": kv_heads, "SPLITS": splits, "GROUP": group, "GP": padded, "D": size, "DP": wide}
    _attend[(rows * kv_heads, splits)](
        query, keys, values, lengths, out, parts, stats, counters, scaling * 1.4426950408889634, *strides,
        **shape, BLOCK=chosen.block, JOINED=chosen.joined, num_warps=chosen.warps, num_stages=chosen.stages,
    )  # fmt: skip
    if splits > 1 and not chosen.joined:
        _combine[(rows * heads,)](parts, stats, out, **shape, SP=triton.next_power_of_2(splits), num_warps=4)
    return out


@triton.jit
def _attend(
    query, keys, values, lengths, out, parts, stats, counters, scaling,
    q_row, q_head, k_row, k_head, k_place, v_row, v_head, v_place,
    KV_HEADS: tl.constexpr, SPLITS: tl.constexpr, GROUP: tl.constexpr, GP: tl.constexpr, D: tl.constexpr, DP: tl.constexpr,
    BLOCK: tl.constexpr, JOINED: tl.constexpr,
):  # fmt: skip
    """One part of one row's cache, for the query heads of one KV head; scaling includes log2(e)."""
    pair, split = tl.program_id(0), tl.program_id(1)
    row, head = (pair // KV_HEADS).to(tl.int64), pair % KV_HEADS
    length = tl.load(lengths + row).to(tl.int32)
    share = tl.cdiv(tl.cdiv(length, SPLITS), BLOCK) * BLOCK
    begin = split * share
    end = tl.minimum(begin + share, length)
    g, d, place = tl.arange(0, GP), tl.arange(0, DP), tl.arange(0, BLOCK)
    inside = (g[:, None] < GROUP) & (d[None, :] < D)
    q = tl.load(query + row * q_row + (head * GROUP + g[:, None]) * q_head + d[None, :], mask=inside, other=0.0)
    k_at = keys + row * k_row + head.to(tl.int64) * k_head + place[:, None] * k_place + d[None, :]
    v_at = values + row * v_row + head.to(tl.int64) * v_head + place[:, None] * v_place + d[None, :]
    high = tl.full((GP,), float("-inf"), tl.float32)
    total = tl.zeros((GP,), tl.float32)
    sums = tl.zeros((GP, DP), tl.float32)
    for start in range(begin, end, BLOCK):
        filled = start + place < end
        mask = filled[:, None] & (d[None, :] < D)
        k = tl.load(k_at + start * k_place, mask=mask, other=0.0)
        v = tl.load(v_at + start * v_place, mask=mask, other=0.0)
        scores = tl.where(filled[None, :], _scores(q, k, GROUP) * scaling, float("-inf"))
        higher = tl.maximum(high, tl.max(scores, 1))
        shrink = tl.exp2(high - higher)
        weights = tl.exp2(scores - higher[:, None])
        total = total * shrink + tl.sum(weights, 1)
        sums = sums * shrink[:, None] + _weighted(weights, v, GROUP)
        high = higher
    place_out = out + (row * KV_HEADS * GROUP + head * GROUP + g[:, None]) * D + d[None, :]
    if SPLITS == 1:
        tl.store(place_out, (sums / tl.where(total == 0, 1.0, total)[:, None]).to(out.dtype.element_ty), mask=inside)
    else:
        stat = stats + pair * SPLITS * 2 * GP + g
        part = parts + pair.to(tl.int64) * SPLITS * GP * DP + g[:, None] * DP + d[None, :]
        tl.store(stat + split * 2 * GP, high)
        tl.store(stat + split * 2 * GP + GP, total)
        if begin < end:
            tl.store(part + split * GP * DP, sums)
        if JOINED:
            tl.debug_barrier()
            if tl.atomic_add(counters + pair, 1, sem="acq_rel") == SPLITS - 1:
                tl.store(counters + pair, 0)
                joined = _join(part, stat, tl.cdiv(length, tl.maximum(share, 1)), GP, DP)
                tl.store(place_out, joined.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _scores(q, k, GROUP: tl.constexpr):
    """q [GP, DP], k [BLOCK, DP] -> [GP, BLOCK] float32."""
    if GROUP == 1:
        return tl.sum(q.to(tl.float32) * k.to(tl.float32), 1)[None, :]
    else:
        return tl.dot(q, tl.trans(k), input_precision="ieee")


@triton.jit
def _weighted(weights, v, GROUP: tl.constexpr):
    """weights [GP, BLOCK] float32, v [BLOCK, DP] -> [GP, DP] float32."""
    if GROUP == 1:
        return tl.sum(tl.trans(weights) * v.to(tl.float32), 0)[None, :]
    else:
        return tl.dot(weights.to(v.dtype), v, input_precision="ieee")


@triton.jit
def _join(part, stat, count, GP: tl.constexpr, DP: tl.constexpr):
    """The first `count` parts of a pair, in their order -> [GP, DP]."""
    high = tl.full((GP,), float("-inf"), tl.float32)
    total = tl.zeros((GP,), tl.float32)
    sums = tl.zeros((GP, DP), tl.float32)
    for s in range(0, count):
        other = tl.load(stat + s * 2 * GP, cache_modifier=".cg")
        higher = tl.maximum(high, other)
        shrink, grow = tl.exp2(high - higher), tl.exp2(other - higher)
        total = total * shrink + tl.load(stat + s * 2 * GP + GP, cache_modifier=".cg") * grow
        sums = sums * shrink[:, None] + tl.load(part + s * GP * DP, cache_modifier=".cg") * grow[:, None]
        high = higher
    return sums / tl.where(total == 0, 1.0, total)[:, None]


@triton.jit
def _combine(
    parts, stats, out,
    KV_HEADS: tl.constexpr, SPLITS: tl.constexpr, GROUP: tl.constexpr, GP: tl.constexpr, D: tl.constexpr, DP: tl.constexpr,
    SP: tl.constexpr,
):  # fmt: skip
    """All parts of one query head of one row at once; what has no weight is not read."""
    index = tl.program_id(0)
    pair, g = index // GROUP, index % GROUP
    s, d = tl.arange(0, SP), tl.arange(0, DP)
    stat = stats + (pair * SPLITS + s) * 2 * GP + g
    highs = tl.load(stat, mask=s < SPLITS, other=float("-inf"))
    high = tl.max(highs, 0)
    weights = tl.where(highs > float("-inf"), tl.exp2(highs - high), 0.0)
    total = tl.sum(weights * tl.load(stat + GP, mask=s < SPLITS, other=0.0), 0)
    place = parts + ((pair.to(tl.int64) * SPLITS + s[:, None]) * GP + g) * DP + d[None, :]
    sums = tl.sum(weights[:, None] * tl.load(place, mask=(highs > float("-inf"))[:, None] & (d[None, :] < D), other=0.0), 0)
    tl.store(out + index.to(tl.int64) * D + d, (sums / tl.where(total == 0, 1.0, total)).to(out.dtype.element_ty), mask=d < D)
