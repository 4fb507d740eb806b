"""Meters against physics on a CUDA device: a known tensor, twice the work, one profiled step, the device's ceilings."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from playground.core.engine import Batch
from playground.core.plan import plan_for
from playground.core.spec import RunSpec
from playground.engines import engine_class
from playground.measure.ceilings import measure_ceilings
from playground.measure.energy import EnergyMeter, energy_window
from playground.measure.machine import probe
from playground.measure.step_profile import PARTS
from playground.measure.torch_memory import cuda_peaks, reset_cuda_peaks
from playground.techniques import techniques

MACHINE = probe()
BATCH = Batch((tuple(range(5, 25)),), 32)


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    spec = RunSpec(model="shape:qwen3-0.6b", device="cuda", knobs={"precision": "bf16"})
    plan = plan_for(spec, techniques(), engine_class("transformers"), MACHINE)
    loaded = engine_class("transformers")()
    loaded.load(plan, lambda event: None)
    loaded.setup(plan)
    yield loaded
    loaded.close()


def step_s(engine: Any) -> float:
    """Median gap between two tokens."""
    stamps = [tick.t_ns for tick in engine.generate(BATCH)]
    return statistics.median(after - before for before, after in itertools.pairwise(stamps)) / 1e9


def test_a_known_tensor_is_seen_in_the_allocators_peak() -> None:
    import torch

    reset_cuda_peaks()
    before = torch.cuda.memory_allocated()
    known = torch.empty(300 << 20, dtype=torch.uint8, device="cuda")
    del known
    peaks = cuda_peaks()
    assert 300 << 20 <= peaks["peak_allocated_bytes"] - before <= 302 << 20
    assert peaks["peak_reserved_bytes"] >= peaks["peak_allocated_bytes"]


def matmuls(count: int) -> Callable[[], int]:
    import torch

    left = torch.randn(4096, 4096, device="cuda", dtype=torch.float16)
    right, target = torch.randn_like(left), torch.empty_like(left)

    def work() -> int:
        for _ in range(count):
            torch.mm(left, right, out=target)
        torch.cuda.synchronize()
        return 1

    return work


def test_twice_the_work_takes_twice_the_energy() -> None:
    meter = EnergyMeter.open("cuda")
    if meter.reason:
        pytest.skip(meter.reason)
    work = matmuls(100)
    work()
    started = time.perf_counter()
    work()
    count = max(1, round(100 * 1.0 / (time.perf_counter() - started)))  # about a second of them
    once, twice = matmuls(count), matmuls(2 * count)
    energy_window(meter, once, lambda: None)  # until clocks and temperature have settled
    joules = []
    for work in (once, twice):
        found = energy_window(meter, work, lambda: None, min_s=4.0)
        assert found.joules is not None, found.reason
        assert 4.0 <= found.seconds < 8.0
        joules.append(found.joules / found.passes)
    meter.close()
    assert joules[1] / joules[0] == pytest.approx(2, rel=0.1)


def test_a_profiled_step_names_its_kernels_and_they_fit_into_the_step(engine: Any) -> None:
    step_s(engine)
    wall_s = step_s(engine)
    found = engine.profile(BATCH)
    assert (found.device, found.rows, found.cached_tokens) == ("cuda", 1, 20 + 16 - 1)
    assert found.kernels is not None
    assert found.kernels > 100
    assert found.kernel_s is not None
    assert 0 < found.kernel_s < wall_s
    assert tuple(found.parts) == PARTS
    assert all(seconds > 0 for seconds in found.parts.values()), found.parts
    assert sum(found.parts.values()) == pytest.approx(found.kernel_s, rel=0.02), "one stream: no two kernels run at once"
    assert found.parts["everything else"] < found.kernel_s / 3


def test_a_profile_does_not_change_what_follows(engine: Any) -> None:
    before = [tick.tokens for tick in engine.generate(BATCH)]
    engine.profile(BATCH)
    assert [tick.tokens for tick in engine.generate(BATCH)] == before


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_ceilings_of_a_gpu_are_plausible_quick_and_leave_no_memory_behind(dtype: str) -> None:
    import torch

    torch.cuda.empty_cache()
    reserved = torch.cuda.memory_reserved()
    measure_ceilings("cuda", dtype, MACHINE)  # the first one pays for the libraries' start
    started = time.perf_counter()
    found = measure_ceilings("cuda", dtype, MACHINE)
    assert time.perf_counter() - started < 3
    assert 5e10 < found.copy_bytes_per_s < 2e13
    assert 5e11 < found.matmul_flops < 5e15
    assert 5e-7 < found.launch_s < 1e-4
    assert 5e10 < found.matvec_bytes_per_s < 2e13
    assert torch.cuda.memory_reserved() <= reserved + (64 << 20), "the matrix library keeps a workspace, and nothing else stays"
