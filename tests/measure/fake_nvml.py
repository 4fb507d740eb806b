"""A stand-in for the pynvml module: scripted GPUs, processes and failures."""

import types
from collections.abc import Sequence


class NVMLError(Exception):
    """NVML's error."""


def fake_nvml(uuids: Sequence[str] = ("GPU-aaaa", "GPU-bbbb"), processes: Sequence[tuple[int, int | None]] = (), unreadable: bool = False):
    """A module object with two GPUs; `unreadable`: power and processes are refused. `.users` counts open uses."""

    def refuse(*_: object) -> None:
        raise NVMLError("Not Supported")

    module = types.ModuleType("pynvml")
    module.users = 0

    def opened(change: int) -> None:
        module.users += change

    module.__dict__.update(
        NVMLError=NVMLError,
        NVML_TEMPERATURE_GPU=0,
        nvmlInit=lambda: opened(1),
        nvmlShutdown=lambda: opened(-1),
        nvmlDeviceGetCount=lambda: len(uuids),
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetUUID=lambda gpu: uuids[gpu],
        nvmlDeviceGetName=lambda gpu: f"Test GPU {gpu}".encode(),
        nvmlSystemGetDriverVersion=lambda: "570.1",
        nvmlDeviceGetCudaComputeCapability=lambda gpu: (9, 0),
        nvmlDeviceGetMemoryInfo=lambda gpu: types.SimpleNamespace(total=80_000, free=50_000, used=30_000 + gpu),
        nvmlDeviceGetUtilizationRates=lambda gpu: types.SimpleNamespace(gpu=40),
        nvmlDeviceGetPowerUsage=refuse if unreadable else lambda gpu: 310_500,
        nvmlDeviceGetTemperature=lambda gpu, sensor: 51,
        nvmlDeviceGetComputeRunningProcesses=refuse
        if unreadable
        else lambda gpu: [types.SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in processes],
    )
    return module
