"""What a device can do at best, measured in the worker: a large copy, a large matrix product, a product with one row, and what it
costs to launch one operation.

About a second; torch is imported inside. Everything is given back afterwards, so that no later peak contains it. Example::

    measure_ceilings("cuda", "bfloat16", probe()).copy_bytes_per_s
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from playground.core.events import Ceilings
from playground.core.machine import Machine

MIB = 1 << 20
COPY_BYTES = {"cpu": 256 * MIB, "cuda": 1024 * MIB}  # far more than any cache holds
SIZES = {"cpu": (256, 512, 1024, 2048), "cuda": (1024, 2048, 4096, 8192)}  # rows and columns of the matrices
WIDTH = 2048  # columns of the matrix that one row is multiplied with
COPY_S = 0.25
MATMUL_S = 0.15
SLOWEST_S = 0.3  # no larger matrices where one product of them would take longer
LAUNCHES = 300  # fewer than the 1,024 that a CUDA queue takes before the host must wait
BATCHES = 7


def device_key(machine: Machine, device: str, dtype: str) -> str:
    """What ceilings hold for, as one line: the processor with its driver or cores, torch's version, the dtype."""
    if device == "cuda" and machine.gpus:
        where = f"{machine.gpus[0].name}, driver {machine.gpus[0].driver}, host {machine.cpu}"
    else:
        where = f"{machine.cpu}, {machine.cores} cores" if device == "cpu" else device
    return f"{where}, torch {machine.packages.get('torch', 'unknown')}, {dtype}"


def known_ceilings(stored: Mapping[str, Mapping[str, Any]], key: str) -> Ceilings | None:
    """What is stored under this key (fields of Ceilings); None where nothing is, or not what this version measures."""
    found = stored.get(key)
    if found is None or set(found) != {item.name for item in fields(Ceilings)} or found["matvec_bytes_per_s"] is None:
        return None
    return Ceilings(**{**found, "fresh": False})


def measure_ceilings(device: str, dtype: str, machine: Machine) -> Ceilings:
    """Measure on `device` (cpu or cuda) with numbers of `dtype` (torch's name, such as bfloat16).

    copy_bytes_per_s counts bytes read plus bytes written. Each figure is the best of several, the launch cost the median of several. At
    most an eighth of the free memory is used at a time, and less time on a slow device: smaller matrices there, which may understate it.
    """
    import torch

    kind = getattr(torch, dtype)
    free = torch.cuda.mem_get_info()[0] if device == "cuda" else machine.free_bytes
    timed = _timed_on_cuda if device == "cuda" else _timed_on_cpu
    try:
        with torch.inference_mode():
            copy = _copy_rate(device, free // 8, timed)
            matmul = _matmul_rate(device, kind, free // 8, timed)
            launch = _launch_s(device, kind)
            matvec = _matvec_rate(device, kind, free // 8, timed)
            in_graph = _graph_kernel_s(kind, timed) if device == "cuda" else None
    finally:
        if device == "cuda":
            torch.cuda.empty_cache()
    measured_at = datetime.now(UTC).isoformat(timespec="seconds")
    key = device_key(machine, device, dtype)
    return Ceilings(
        time.perf_counter_ns(), key, device, dtype, copy, matmul, launch, measured_at, matvec_bytes_per_s=matvec, graph_kernel_s=in_graph
    )


Timed = Callable[[Callable[[], Any]], float]


def _timed_on_cpu(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _timed_on_cuda(work: Callable[[], Any]) -> float:
    """Seconds between two events on the device's own clock."""
    import torch

    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    work()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000


def _best(work: Callable[[], Any], timed: Timed, budget_s: float) -> float:
    """The shortest of several runs after a first one: at least two, at most ten, for about `budget_s` seconds in all."""
    timed(work)
    times = [timed(work), timed(work)]
    while len(times) < 10 and sum(times) < budget_s:
        times.append(timed(work))
    return min(times)


def _copy_rate(device: str, room: int, timed: Timed) -> float:
    """Bytes read and written a second. The source is written first: pages that were never touched are not read from memory."""
    import torch

    size = max(min(COPY_BYTES[device], room // 2), MIB)
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / _best(lambda: target.copy_(source), timed, COPY_S)


def _matmul_rate(device: str, kind: Any, room: int, timed: Timed) -> float:
    """Operations a second, two for each multiply-add, of the size of square matrices that does best. Sizes grow until time or memory would
    run short. The right one is transposed, as the weights of a linear layer are (on a CPU in fp16 ten times as fast as without), and the
    numbers are random (a GPU multiplies zeros faster)."""
    import torch

    best = 0.0
    for size in SIZES[device]:
        if best and 3 * size * size * kind.itemsize > room:
            break
        left, right = (torch.randn(size, size, device=device).to(kind) for _ in range(2))
        target = torch.empty_like(left)
        seconds = _best(lambda: torch.mm(left, right.t(), out=target), timed, MATMUL_S)  # noqa: B023
        best = max(best, 2 * size**3 / seconds)
        if seconds * 8 > SLOWEST_S:
            break
    return best


def _matvec_rate(device: str, kind: Any, room: int, timed: Timed) -> float:
    """Bytes of weights read a second where a linear layer has one row to multiply, as a decode step has."""
    import torch

    rows = max(min(COPY_BYTES[device] // 2, room) // (WIDTH * kind.itemsize), 1)
    weights, row = torch.ones(rows, WIDTH, dtype=kind, device=device), torch.ones(1, WIDTH, dtype=kind, device=device)
    size: int = rows * WIDTH * kind.itemsize
    return size / _best(lambda: torch.nn.functional.linear(row, weights), timed, MATMUL_S)


def _launch_s(device: str, kind: Any) -> float:
    """Seconds of one eager addition to eight numbers, host time: on a GPU the launches queue up and nothing waits for their end."""
    import torch

    small = torch.zeros(8, dtype=kind, device=device)
    times = []
    for _ in range(BATCHES):
        if device == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(LAUNCHES):
            small.add_(1)
        times.append((time.perf_counter() - started) / LAUNCHES)
    return statistics.median(times[1:])


def _graph_kernel_s(kind: Any, timed: Timed) -> float:
    """Seconds from one addition to eight numbers to the next within a replayed graph, each waiting for the one before."""
    import torch

    small, graph = torch.zeros(8, dtype=kind, device="cuda"), torch.cuda.CUDAGraph()
    small.add_(1)
    with torch.cuda.graph(graph):
        for _ in range(LAUNCHES):
            small.add_(1)
    return _best(graph.replay, timed, COPY_S) / LAUNCHES
