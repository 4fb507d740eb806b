"""A device's ceilings, on this machine's CPU."""

import dataclasses
import time
from datetime import UTC, datetime, timedelta

import pytest
import torch

from playground.core.events import Ceilings
from playground.core.machine import Gpu, Machine
from playground.measure.ceilings import device_key, known_ceilings, measure_ceilings
from playground.measure.machine import probe

MACHINE = Machine(
    "host", "Test CPU", 8, 10**10, 10**10, "cuda", (Gpu("Test GPU", "GPU-a", (9, 0), 1, 1, "570.1"),), "", {"torch": "2.13.0"}
)


def test_the_key_names_what_ceilings_depend_on():
    assert device_key(MACHINE, "cuda", "bfloat16") == "Test GPU, driver 570.1, host Test CPU, torch 2.13.0, bfloat16"
    assert device_key(MACHINE, "cpu", "float32") == "Test CPU, 8 cores, torch 2.13.0, float32"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_ceilings_of_a_cpu_are_plausible_and_say_what_they_hold_for(dtype):
    machine = probe()
    found = measure_ceilings("cpu", dtype, machine)
    assert (found.device, found.dtype, found.fresh, found.key) == ("cpu", dtype, True, device_key(machine, "cpu", dtype))
    assert 1e8 < found.copy_bytes_per_s < 1e12
    assert 1e7 < found.matmul_flops < 1e14
    assert 1e8 < found.matvec_bytes_per_s < 1e12
    assert 1e-7 < found.launch_s < 1e-3
    assert found.graph_kernel_s is None, "there are no CUDA graphs on a CPU"
    assert abs(datetime.now(UTC) - datetime.fromisoformat(found.measured_at)) < timedelta(minutes=1)


def test_what_another_version_stored_is_measured_again():
    found = dataclasses.asdict(Ceilings(1, "a key", "cpu", "float32", 1e10, 1e11, 1e-6, "2026-01-01", matvec_bytes_per_s=5e9))
    assert known_ceilings({"a key": found}, "a key").fresh is False
    assert known_ceilings({"a key": found}, "another key") is None
    assert known_ceilings({"a key": {**found, "matvec_bytes_per_s": None}}, "a key") is None
    assert known_ceilings({"a key": {**found, "of a later version": 1}}, "a key") is None
    of_a_gpu = known_ceilings({"a key": {**found, "device": "cuda", "graph_kernel_s": 1.3e-6}}, "a key")
    assert of_a_gpu is not None
    assert of_a_gpu.graph_kernel_s == 1.3e-6
    before_graphs = {name: value for name, value in found.items() if name != "graph_kernel_s"}
    assert known_ceilings({"a key": before_graphs}, "a key") is None


def test_the_copy_is_as_fast_as_a_plain_one_of_the_same_size():
    """Independent: numpy's copy of as many bytes, counted the same way."""
    import numpy as np

    source = np.ones(1 << 28, dtype=np.uint8)
    target = np.ones_like(source)
    seconds = []
    for _ in range(4):
        started = time.perf_counter()
        np.copyto(target, source)
        seconds.append(time.perf_counter() - started)
    plain = 2 * source.nbytes / min(seconds)
    found = (measure_ceilings("cpu", "float32", probe()).copy_bytes_per_s for _ in range(3))
    assert any(rate > 0.5 * plain for rate in found)  # a busy machine may hold one up


def test_measuring_leaves_the_threads_and_the_gradient_mode_as_they_were():
    threads = torch.get_num_threads()
    measure_ceilings("cpu", "float32", MACHINE)
    assert torch.get_num_threads() == threads
    assert not torch.is_inference_mode_enabled()
