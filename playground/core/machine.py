"""What a machine has, as plain facts. `measure.machine.probe` fills them in without importing torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Gpu:
    """One GPU. capability: (major, minor) of CUDA compute capability; bytes as NVML reports them."""

    name: str
    uuid: str
    capability: tuple[int, int]
    memory_bytes: int
    free_bytes: int
    driver: str


@dataclass(frozen=True)
class Machine:
    """Host facts. `device` is what "auto" means here; `packages`: installed versions by import name; `no_cuda`: why there is no CUDA."""

    host: str
    cpu: str
    cores: int
    memory_bytes: int
    free_bytes: int
    device: str = "cpu"
    gpus: tuple[Gpu, ...] = ()
    no_cuda: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)

    def resolve(self, device: str) -> str:
        """cpu or cuda for auto, cpu or cuda."""
        return self.device if device == "auto" else device
