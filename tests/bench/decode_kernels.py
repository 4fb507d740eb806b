"""Times the decode kernels on a GPU: linear layers of two Llama shapes in every kind of weights, and attention over a filled cache.

Every call is timed inside a captured CUDA graph of many calls on different weights (more in all than the L2 cache holds), after its result
was compared with float32. Prints the best configuration of each case; --out keeps every one that was tried::

    python tests/bench/decode_kernels.py --quick --out kernels.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch.nn import functional

from playground.engines.decode import attention_kernels, linear_kernels
from playground.engines.decode.packing import pack, unpack

LLAMA_8B = ((6144, 4096, False), (4096, 4096, False), (28672, 4096, True), (4096, 14336, False), (128256, 4096, False))
LLAMA_1B = ((3072, 2048, False), (2048, 2048, False), (16384, 2048, True), (2048, 8192, False), (128256, 2048, False))
KINDS = ("plain", "int8", "int4", "fp8")
ROWS = (1, 8, 64)
COLD_BYTES = 400e6  # of different weights or caches in one graph: several times the L2 of an H200
ATTENTION = (
    (1, 200, 256),
    (1, 2048, 4096),
    (1, 8192, 8192),
    (8, 200, 256),
    (8, 2048, 4096),
    (8, 8192, 8192),
    (64, 200, 256),
    (64, 2048, 4096),
)
REACHABLE = 4.27e12  # bytes a second, what copies reached on an H200
SOURCE = torch.bfloat16

# block_n, block_k, warps, stages of each class of rows
REDUCE = {
    "plain": ((2, 1024, 4), (4, 1024, 4), (8, 512, 4), (2, 2048, 4), (4, 512, 2), (1, 1024, 2), (4, 2048, 8), (8, 1024, 4)),
    "int8": ((2, 1024, 4), (4, 1024, 4), (4, 2048, 4), (8, 1024, 4), (4, 1024, 2), (1, 2048, 4), (2, 2048, 4)),
    "int4": ((2, 2048, 4), (4, 2048, 4), (8, 2048, 4), (4, 4096, 4), (4, 1024, 2), (2, 1024, 2)),
}
DOT_FEW = {
    "plain": ((16, 256, 4, 4), (32, 128, 4, 5), (32, 256, 4, 3), (64, 128, 4, 3), (64, 64, 4, 5), (16, 256, 2, 4)),
    "int8": ((16, 256, 4, 4), (32, 256, 4, 4), (64, 128, 4, 4), (64, 256, 4, 3), (32, 128, 2, 5)),
    "int4": ((32, 128, 4, 5), (64, 128, 4, 4), (64, 128, 4, 6), (128, 128, 4, 4), (32, 128, 2, 5), (16, 128, 2, 6)),
}
DOT_MANY = {
    "plain": ((64, 128, 4, 3), (64, 64, 4, 4), (128, 64, 4, 4), (128, 128, 8, 3), (128, 64, 8, 4)),
    "int8": ((64, 128, 4, 3), (128, 64, 4, 4), (128, 128, 4, 3), (128, 128, 8, 3)),
    "int4": ((64, 128, 4, 3), (64, 128, 4, 4), (128, 128, 4, 3), (128, 128, 8, 3)),
}


def candidates(rows: int, outputs: int, inputs: int, kind: str, pairs: bool, quick: bool) -> list[linear_kernels.Config]:
    """What to try, the product's own choice first."""
    found = [linear_kernels.config(rows, outputs, inputs, kind, pairs)]
    family = "int8" if kind == "fp8" else kind
    if rows == 1:
        found += [linear_kernels.Config("reduce", *each) for each in REDUCE[family][: 4 if quick else None] if each[1] <= inputs]
    if rows > 1 or kind == "int4":
        table = DOT_MANY if rows > 16 else DOT_FEW
        for n, k, warps, stages in table[family][: 3 if quick else None]:
            splits = [1]
            while -(-outputs // n) * splits[-1] < 264 and splits[-1] < 16 and inputs // (splits[-1] * 2) >= 2 * k:
                splits.append(splits[-1] * 2)
            found += [linear_kernels.Config("dot", n, k, warps, stages, split) for split in splits[-2:]]
    return list(dict.fromkeys(found))


def compile_one(case: tuple[int, int, bool, str, linear_kernels.Config]) -> str | None:
    """Compile in a process of its own, into Triton's cache on disk, by one call on a small weight. The reason where that fails."""
    rows, inputs, pairs, kind, chosen = case
    outputs = 2 * chosen.block_n * (2 if pairs else 1)
    with torch.inference_mode():
        weight = torch.randn(max(outputs, 32), inputs, dtype=SOURCE, device="cuda") * 0.02
        packed, scales = (weight, None) if kind == "plain" else pack(weight, kind)
        try:
            linear_kernels.small_linear(torch.randn(rows, inputs, dtype=SOURCE, device="cuda"), packed, scales, None, kind, pairs, chosen)
            torch.cuda.synchronize()
        except Exception as error:  # a configuration that does not fit this GPU is a result, not a failure
            return f"{type(error).__name__}: {error}"[:200]
    return None


def seconds(call: Callable[[int], Any], copies: int) -> float:
    """Median time of one call in a graph of `copies` calls."""
    calls = max(20, copies)
    for index in range(min(2, copies)):
        call(index)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = [call(index % copies) for index in range(calls)]
    times = []
    graph.replay()
    for _ in range(7):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3 / calls)
    del kept
    return sorted(times)[3]


def poisoned(make: Callable[[], torch.Tensor]) -> torch.Tensor:
    """The result of a call whose output very likely lies where there were only NaNs before."""
    shape = make()
    shape.fill_(float("nan"))
    del shape
    return make()


def linear_cases(outputs: int, inputs: int, pairs: bool, kind: str, quick: bool) -> Iterator[dict[str, Any]]:
    """Every number of rows for one weight."""
    first = torch.randn(outputs, inputs, dtype=SOURCE, device="cuda") * 0.02
    packed, scales = (first, None) if kind == "plain" else pack(first, kind)
    exact = first.float() if kind == "plain" else unpack(packed, scales, kind, torch.float32)  # type: ignore[arg-type]
    size = packed.nbytes + (0 if scales is None else scales.nbytes)
    copies = max(1, min(128, int(COLD_BYTES / size)))
    weights = [packed, *(packed.clone() for _ in range(copies - 1))]
    for rows in ROWS:
        x = torch.randn(rows, inputs, dtype=SOURCE, device="cuda")
        reference = x.float() @ exact.T
        if pairs:
            gate, up = reference.chunk(2, 1)
            reference = functional.silu(gate) * up
        tried = []
        for chosen in candidates(rows, outputs // 2 if pairs else outputs, inputs, kind, pairs, quick):

            def call(index: int, x: torch.Tensor = x, chosen: linear_kernels.Config = chosen) -> torch.Tensor:
                return linear_kernels.small_linear(x, weights[index], scales, None, kind, pairs, chosen)

            try:
                result = poisoned(lambda: call(0))
                error = ((result.float() - reference).norm() / reference.norm()).item()
                same = torch.equal(result, call(0))
                tried.append({"config": vars(chosen), "error": error, "same": same, "s": seconds(call, copies)})
            except Exception as problem:  # kept, and shown
                tried.append({"config": vars(chosen), "failed": f"{type(problem).__name__}: {problem}"[:300]})
        case = {"rows": rows, "outputs": outputs, "inputs": inputs, "pairs": pairs, "kind": kind, "bytes": size, "tried": tried}
        if kind == "plain":

            def library(index: int, x: torch.Tensor = x) -> torch.Tensor:
                y = functional.linear(x, weights[index])
                return functional.silu(y[:, : outputs // 2]) * y[:, outputs // 2 :] if pairs else y

            case["library_s"] = seconds(library, copies)
        yield case


def attention_case(rows: int, length: int, capacity: int, quick: bool) -> dict[str, Any]:
    """32 heads over 8 of size 128, every row filled to `length`."""
    heads, kv_heads, size = 32, 8, 128
    filled = rows * kv_heads * length * size * 2 * 2
    copies = max(1, min(128, int(COLD_BYTES / filled), int(20e9 / (filled * capacity / length))))
    query = torch.randn(rows, heads, 1, size, dtype=SOURCE, device="cuda")
    caches = [torch.randn(2, rows, kv_heads, capacity, size, dtype=SOURCE, device="cuda") for _ in range(copies)]
    lengths = torch.full((rows,), length, dtype=torch.int64, device="cuda")
    mask = (torch.arange(capacity, device="cuda") < length)[None, None, None, :].expand(rows, 1, 1, capacity)

    def library(index: int) -> torch.Tensor:
        k, v = (each[:, :, None].expand(-1, -1, heads // kv_heads, -1, -1).reshape(rows, heads, capacity, size) for each in caches[index])
        return functional.scaled_dot_product_attention(query, k, v, attn_mask=mask, scale=size**-0.5).transpose(1, 2)

    reference = library(0).float()
    own = attention_kernels.config(rows, kv_heads, capacity)
    most = -(-capacity // 32)
    found = [own, attention_kernels.Config(own.splits, own.block, joined=False)]
    for splits in (own.splits * 2, own.splits // 2):
        found += [attention_kernels.Config(max(1, min(most, splits)), block) for block in (32, 64)]
    if not quick:
        found += [
            attention_kernels.Config(own.splits, block, warps, stages)
            for block, warps, stages in ((16, 2, 3), (32, 2, 4), (64, 8, 3), (128, 8, 2))
        ]
    tried = []
    for chosen in dict.fromkeys(found):

        def call(index: int, chosen: attention_kernels.Config = chosen) -> torch.Tensor:
            return attention_kernels.split_kv_attention(query, *caches[index], lengths, size**-0.5, chosen)

        try:
            result = poisoned(lambda: call(0))
            error = ((result.float() - reference).norm() / reference.norm()).item()
            tried.append({"config": vars(chosen), "error": error, "same": torch.equal(result, call(0)), "s": seconds(call, copies)})
        except Exception as problem:  # kept, and shown
            tried.append({"config": vars(chosen), "failed": f"{type(problem).__name__}: {problem}"[:300]})
    case = {"rows": rows, "length": length, "capacity": capacity, "kind": "attention", "bytes": filled, "tried": tried}
    return {**case, "library_s": seconds(library, min(copies, 8))}


def line(case: dict[str, Any]) -> str:
    """One line of the table: best, and the product's own choice where it is another."""
    works = sorted((each for each in case["tried"] if "s" in each), key=lambda each: each["s"])
    what = (
        f"attention rows {case['rows']:2} length {case['length']:5}/{case['capacity']}"
        if case["kind"] == "attention"
        else f"{case['kind']:5} {case['outputs']:6}x{case['inputs']:5}{'*' if case['pairs'] else ' '} M={case['rows']:2}"
    )
    failed = [each for each in case["tried"] if "failed" in each]
    wrong = [each for each in works if not (each["error"] < 8e-3 and each["same"])]
    notes = (f" FAILED {len(failed)}: {failed[0]['failed'][:90]}" if failed else "") + (f" WRONG {len(wrong)}: {wrong[0]}" if wrong else "")
    if not works:
        return f"{what} nothing works{notes}"
    best, own = works[0], next((each for each in case["tried"][:1] if "s" in each), None)
    rate = case["bytes"] / best["s"]
    named = ",".join(str(value) for value in best["config"].values())
    library = f" lib {case['library_s'] * 1e6:7.1f}" if "library_s" in case else ""
    ours = "" if own is None or own is best else f" own {own['s'] * 1e6:.1f}"
    speed = f"{best['s'] * 1e6:7.1f} us {rate / 1e9:5.0f} GB/s {rate / REACHABLE:4.0%}"
    return f"{what} {speed}{library} [{named}]{ours} err {best['error']:.0e}{notes}"


def main() -> None:
    """Compile in parallel, then measure one case after another until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer configurations, the 8B shapes only")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--kinds", nargs="*", default=KINDS)
    parser.add_argument("--only", choices=("linear", "attention"))
    parser.add_argument("--limit-s", type=float, help="stop after this long (150 with --quick, else 400)")
    options = parser.parse_args()
    limit, start = options.limit_s or (150 if options.quick else 400), time.monotonic()
    shapes = LLAMA_8B if options.quick else LLAMA_8B + LLAMA_1B
    jobs: list[tuple[int, int, bool, str, linear_kernels.Config]] = []
    for outputs, inputs, pairs in shapes if options.only != "attention" else ():
        for kind in options.kinds:
            for rows in ROWS:
                found = candidates(rows, outputs // 2 if pairs else outputs, inputs, kind, pairs, options.quick)
                jobs += [(rows, inputs, pairs, kind, chosen) for chosen in found]
    jobs = list(dict.fromkeys(jobs))
    workers = max(1, min(14, (os.cpu_count() or 2) - 2))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        reasons = [reason for reason in pool.map(compile_one, jobs, chunksize=4) if reason]
    print(f"compiled {len(jobs)} configurations in {time.monotonic() - start:.0f} s, {len(reasons)} do not work: {reasons[:2]}", flush=True)
    cases: list[dict[str, Any]] = []
    with torch.inference_mode(), contextlib.suppress(KeyboardInterrupt):
        for rows, length, capacity in ATTENTION if options.only != "linear" else ():
            cases.append(attention_case(rows, length, capacity, options.quick))
            print(line(cases[-1]), flush=True)
        for outputs, inputs, pairs in shapes if options.only != "attention" else ():
            for kind in options.kinds:
                if time.monotonic() - start > limit:
                    print(f"out of time before {kind} {outputs}x{inputs}", flush=True)
                    continue
                for case in linear_cases(outputs, inputs, pairs, kind, options.quick):
                    cases.append(case)
                    print(line(case), flush=True)
    print(f"{time.monotonic() - start:.0f} s")
    if options.out:
        options.out.write_text(json.dumps(cases, indent=1))


if __name__ == "__main__":
    main()
