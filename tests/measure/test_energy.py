"""The energy window with a scripted counter and clock, and its metrics by hand."""

import sys
from dataclasses import replace

import pytest
from fake_nvml import NVMLError, fake_nvml
from scripted_runs import batch, run

from playground.core.events import Done, Energy
from playground.core.spec import Protocol, RunSpec
from playground.measure import energy
from playground.measure.energy import EnergyMeter, energy_window
from playground.measure.trace import Trace
from playground.measure.values import Missing

METRICS = {metric.name: metric.measure for metric in energy.METRICS}
PRICED = RunSpec(protocol=Protocol(price_per_hour=3.6))


class Bench:
    """A clock that only sleeping and passes move, and a GPU that draws `working_w` in passes and `idle_w` else; its counter shows the
    energy as of the last multiple of 0.1 s."""

    def __init__(self, working_w=300.0, idle_w=100.0):
        self.now, self.working_w, self.idle_w = 0.03, working_w, idle_w
        self.history = [(0.0, 0.0)]

    def clock(self):
        return self.now

    def spend(self, seconds, watts):
        self.now += seconds
        self.history.append((self.now, self.history[-1][1] + seconds * watts))

    def sleep(self, seconds):
        self.spend(seconds, self.idle_w)

    def a_pass(self, seconds=0.7, tokens=10):
        def work():
            self.spend(seconds, self.working_w)
            return tokens

        return work

    def millijoules(self, gpu=0):
        """Exact up to the last tick of the counter."""
        tick = int((self.now + 1e-9) * 10) / 10
        (t0, e0) = next((point for point in reversed(self.history) if point[0] <= tick), (0.0, 0.0))
        later = next(((t, e) for t, e in self.history if t > tick), (tick, e0))
        joules = e0 if later[0] == tick else e0 + (later[1] - e0) * (tick - t0) / (later[0] - t0)
        return round(joules * 1000)


@pytest.fixture
def lib(monkeypatch):
    module = fake_nvml()
    monkeypatch.setitem(sys.modules, "pynvml", module)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("SPACES_ZERO_GPU", raising=False)
    module.nvmlDeviceGetTotalEnergyConsumption = lambda gpu: 5_000_000 + gpu
    return module


def window(lib, bench, work, min_s=2.0, check=lambda: None):
    lib.nvmlDeviceGetTotalEnergyConsumption = bench.millijoules
    meter = EnergyMeter.open("cuda")
    assert meter.reason == ""
    return energy_window(meter, work, check, min_s, bench.clock, bench.sleep)


def test_the_window_lies_between_two_steps_of_the_counter(lib):
    bench = Bench()
    found = window(lib, bench, bench.a_pass(seconds=0.73, tokens=10))
    # Three passes of 0.73 s from 0.1 s on end at 2.29 s, and the counter moves next at 2.3 s.
    assert (found.passes, found.output_tokens, found.reason) == (3, 30, "")
    assert found.seconds == pytest.approx(2.2, abs=0.003)
    assert found.joules == pytest.approx(3 * 0.73 * 300 + 0.01 * 100, abs=1.5)


def test_the_idle_tail_is_at_most_one_step_of_the_counter(lib):
    bench = Bench()
    found = window(lib, bench, bench.a_pass(seconds=0.701))
    assert found.passes == 3
    assert found.seconds - 3 * 0.701 <= 0.1 + 0.005
    assert found.joules == pytest.approx(3 * 0.701 * 300 + (found.seconds - 3 * 0.701) * 100, abs=1.5)


def test_twice_the_work_takes_twice_the_energy(lib):
    one, two = Bench(), Bench()
    once = window(lib, one, one.a_pass(seconds=1.05), min_s=1.0)
    twice = window(lib, two, two.a_pass(seconds=2.1), min_s=1.0)
    assert (once.passes, twice.passes) == (1, 1)
    assert twice.joules / once.joules == pytest.approx(2, rel=0.03)


def test_a_long_pass_runs_once_and_a_short_one_often(lib):
    bench = Bench()
    assert window(lib, bench, bench.a_pass(seconds=5)).passes == 1
    bench = Bench()
    assert window(lib, bench, bench.a_pass(seconds=0.01)).passes in (200, 201)


def test_a_stop_ends_the_window(lib):
    bench, passes = Bench(), []

    def check():
        if len(passes) == 2:
            raise KeyboardInterrupt

    def work():
        passes.append(1)
        bench.spend(0.5, 300)
        return 1

    with pytest.raises(KeyboardInterrupt):
        window(lib, bench, work, check=check)
    assert len(passes) == 2


def test_a_counter_that_stands_still_gives_its_reason_and_no_zero(lib):
    bench = Bench(working_w=0, idle_w=0)
    found = window(lib, bench, bench.a_pass())
    assert found.joules is None
    assert "did not move" in found.reason
    assert bench.now < 1.1


def test_a_counter_that_fails_on_the_way_gives_its_reason(lib):
    bench = Bench()

    def work():
        def refuse(gpu):
            raise NVMLError("GPU is lost")

        lib.nvmlDeviceGetTotalEnergyConsumption = refuse
        bench.spend(3, 300)
        return 1

    found = window(lib, bench, work)
    assert found.joules is None
    assert "GPU is lost" in found.reason


def test_a_counter_that_was_reset_gives_its_reason(lib):
    bench = Bench()

    def work():
        lib.nvmlDeviceGetTotalEnergyConsumption = lambda gpu: round((bench.now - 3) * 1000)
        bench.spend(3, 300)
        return 1

    assert "reset" in window(lib, bench, work).reason


@pytest.mark.parametrize(
    ("device", "zero_gpu", "expected"),
    [("cpu", "", "on a CPU"), ("cuda", "true", "on ZeroGPU the counter is of a shared GPU")],
)
def test_where_there_is_no_counter_of_ones_own_the_meter_says_why(lib, monkeypatch, device, zero_gpu, expected):
    if zero_gpu:
        monkeypatch.setenv("SPACES_ZERO_GPU", zero_gpu)
    assert expected in EnergyMeter.open(device).reason
    assert lib.users == 0


def test_a_gpu_without_a_counter_is_a_reason_and_gives_the_driver_back(lib):
    def refuse(gpu):
        raise NVMLError("Not Supported")

    lib.nvmlDeviceGetTotalEnergyConsumption = refuse
    assert "Not Supported" in EnergyMeter.open("cuda").reason
    assert lib.users == 0


def test_without_a_driver_the_meter_says_so(lib):
    def fails():
        raise NVMLError("Driver Not Loaded")

    lib.nvmlInit = fails
    assert "Driver Not Loaded" in EnergyMeter.open("cuda").reason


def test_the_counter_is_that_of_the_first_visible_gpu(lib, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    meter = EnergyMeter.open("cuda")
    assert meter.joules() == 5000.001
    meter.close()
    assert lib.users == 0


def traced(*events, spec=PRICED):
    return Trace.of(
        spec, [*run(batch("timed", 0, 0, [100, 300, 100]), batch("timed", 1, 1000, [500, 250, 250]))[:-1], *events, Done(10**12)]
    )


def test_energy_metrics_by_hand():
    trace = traced(Energy(0, 600.0, 2.5, 150, 3))
    assert METRICS["energy_j"](trace, None) == 600
    assert METRICS["avg_power_w"](trace, None) == 240
    assert METRICS["j_per_token"](trace, None) == 4


def test_the_cost_of_tokens_by_hand():
    # 3 tokens in 0.5 s and in 1 s: 6 and 3 tokens a second; 0.001 $ a second.
    assert METRICS["cost_per_million"](traced(), None) == pytest.approx([1e6 * 0.001 / 6, 1e6 * 0.001 / 3])


def test_a_cost_needs_a_price_and_a_throughput():
    assert METRICS["cost_per_million"](traced(spec=RunSpec()), None) == Missing("no price per hour was given")
    assert isinstance(METRICS["cost_per_million"](Trace.of(PRICED, [Done(0)]), None), Missing)


@pytest.mark.parametrize("name", ["energy_j", "avg_power_w", "j_per_token"])
def test_without_a_reading_energy_is_missing_with_its_reason(name):
    no_counter = traced(Energy(0, None, 0.0, 0, 0, "no energy counter is read on a CPU"))
    assert METRICS[name](no_counter, None) == Missing("no energy counter is read on a CPU")
    off = replace(PRICED, protocol=Protocol(energy=False))
    assert "set not to measure" in METRICS[name](traced(spec=off), None).reason
    assert "ended before" in METRICS[name](traced(), None).reason


def test_a_window_without_tokens_has_no_energy_of_a_token():
    assert isinstance(METRICS["j_per_token"](traced(Energy(0, 600.0, 2.5, 0, 3)), None), Missing)
