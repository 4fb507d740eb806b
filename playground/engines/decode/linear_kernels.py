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

from playground.engines.decode import product_kernels as kernels
from playground.engines.decode.packing import group_of, multiply

MOST_ROWS = 64
COLUMNS = 32  # the kernels take weights with multiples of so many
COUNTERS = 4096


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
        return multiply(x, weight, scales, bias, kind, silu_pairs)
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
        (kernels.reduce_int4 if kind == "int4" else kernels.reduce)[(blocks,)](*arguments, *sizes, **common)
        return out
    parts = counters = None
    if chosen.split_k > 1:
        size = (chosen.split_k, 2 if silu_pairs else 1, blocks * chosen.block_n, common["MP"])
        parts, counters = torch.empty(size, dtype=torch.float32, device=x.device), counters_of(x.device, blocks)
    kernels.dot[(blocks, chosen.split_k)](*arguments, parts, counters, *sizes, SPLIT=chosen.split_k, **common)
    return out


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
