"""Gauges on this machine as it is, and with a stand-in for the NVIDIA driver."""

import os
import subprocess
import sys
import time

import psutil
import pytest
from fake_nvml import NVMLError, fake_nvml

from playground.measure.gauges import Gauges


@pytest.fixture
def no_gpu(monkeypatch):
    def fails():
        raise NVMLError("NVML Shared Library Not Found")

    lib = fake_nvml()
    lib.nvmlInit = fails
    monkeypatch.setitem(sys.modules, "pynvml", lib)


@pytest.fixture
def gauges_of(monkeypatch):
    opened = []

    def open_gauges(pid, lib=None):
        if lib is not None:
            monkeypatch.setitem(sys.modules, "pynvml", lib)
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        opened.append(Gauges(pid))
        return opened[-1]

    yield open_gauges
    for gauges in opened:
        gauges.close()


def test_without_a_gpu_only_what_can_be_read_has_a_key(no_gpu, gauges_of):
    gauges = gauges_of(os.getpid())
    time.sleep(0.05)
    before = time.perf_counter_ns()
    sample = gauges.sample()
    assert before <= sample.t_ns <= time.perf_counter_ns()
    assert sample.source == "parent"
    assert set(sample.values) <= {"cpu_percent", "ram_used_bytes", "rss_bytes"}
    assert sample.values["rss_bytes"] == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)
    assert 0 < sample.values["ram_used_bytes"] < psutil.virtual_memory().total


def test_cpu_load_follows_the_work_that_is_done(no_gpu, gauges_of):
    gauges = gauges_of(None)
    until = time.perf_counter() + 0.4
    while time.perf_counter() < until:
        sum(range(1000))
    busy = gauges.sample().values["cpu_percent"]
    assert 100 / (os.cpu_count() or 1) * 0.5 < busy <= 100


def test_a_process_that_has_gone_is_left_out(no_gpu, gauges_of):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    gauges = gauges_of(child.pid)
    assert gauges.sample().values["rss_bytes"] > 0
    child.communicate(b"\n")
    assert "rss_bytes" not in gauges.sample().values
    assert "rss_bytes" not in gauges_of(child.pid).sample().values


def test_gpu_figures_have_their_units(gauges_of):
    values = gauges_of(4321, fake_nvml(processes=[(1, 5), (4321, 12_000)])).sample().values
    assert values["gpu_util"] == 0.4
    assert values["device_used_bytes"] == 30_000
    assert values["process_bytes"] == 12_000
    assert values["power_w"] == 310.5
    assert values["temperature_c"] == 51


def test_the_visible_gpu_is_the_one_that_is_read(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    gauges = Gauges(None)
    assert gauges.sample().values["device_used_bytes"] == 30_001
    gauges.close()


@pytest.mark.parametrize("processes", [[], [(4321, None)]])
def test_a_process_that_the_driver_does_not_show_has_no_figure(gauges_of, processes):
    assert "process_bytes" not in gauges_of(4321, fake_nvml(processes=processes)).sample().values


def test_what_the_driver_refuses_is_left_out_and_the_rest_stays(gauges_of):
    values = gauges_of(4321, fake_nvml(unreadable=True)).sample().values
    assert "power_w" not in values
    assert "process_bytes" not in values
    assert values["gpu_util"] == 0.4


def test_closing_gives_the_driver_back(monkeypatch):
    lib = fake_nvml()
    monkeypatch.setitem(sys.modules, "pynvml", lib)
    gauges = Gauges(None)
    assert lib.users == 1
    gauges.close()
    gauges.close()
    assert lib.users == 0
    assert "gpu_util" not in gauges.sample().values
