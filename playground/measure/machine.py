"""What this machine has, found without importing torch: host, CPU, memory, GPUs through NVML, installed packages.

Reads the system; writes nothing. Example::

    machine = probe()
    machine.device, machine.no_cuda        # ("cpu", "torch 2.13.0+cpu is a CPU build")
    provenance(machine)["versions"]["transformers"]
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import platform
import re
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from playground import __version__
from playground.core.machine import Gpu, Machine
from playground.core.places import ROOT
from playground.measure import nvml

# By import name: what every result tells the version of, where it is installed. Others need not be here to be asked for.
PACKAGES = (
    "torch",
    "triton",
    "transformers",
    "bitsandbytes",
    "accelerate",
    "gguf",
    "peft",
    "torchao",
    "hqq",
    "optimum.quanto",
    "flash_attn",
    "compressed_tensors",
    "gptqmodel",
    "gradio",
    "plotly",
)


class Packages(dict[str, str]):
    """Installed versions by import name. One that is asked for and not among them is looked up, and is among them from then on."""

    def __init__(self, known: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__(known)
        self._absent: set[str] = set()

    def __contains__(self, name: object) -> bool:
        if not super().__contains__(name) and name not in self._absent:
            self.look_up(str(name))
        return super().__contains__(name)

    def look_up(self, name: str) -> None:
        """Take it in where it is installed."""
        try:
            self[name] = _version(re.sub("[._]", "-", name))  # PyPI's names of all that are used here
        except importlib.metadata.PackageNotFoundError:
            self._absent.add(name)


def probe() -> Machine:
    """The facts of this machine, in some ten milliseconds. What cannot be read is absent; `no_cuda` says why there is no CUDA."""
    gpus, no_gpu = _gpus()
    no_torch = _no_cuda_in_torch()
    total, free = _memory()
    return Machine(
        host=platform.node(),
        cpu=_cpu_name(),
        cores=_cores(),
        memory_bytes=total,
        free_bytes=free,
        device="cuda" if gpus and not no_torch else "cpu",
        gpus=gpus,
        no_cuda="; ".join(reason for reason in (no_gpu, no_torch) if reason),
        packages=_packages(),
    )


def provenance(machine: Machine) -> dict[str, Any]:
    """Where and with what a run is made, as plain JSON values; `started_at` is now, in UTC."""
    first = machine.gpus[0] if machine.gpus else None
    return {
        "host": machine.host,
        "cpu": machine.cpu,
        "cores": machine.cores,
        "memory_bytes": machine.memory_bytes,
        "gpu": first.name if first else "",
        "driver": first.driver if first else "",
        "versions": {"python": platform.python_version(), **machine.packages},
        "platform": platform.platform(),
        "commit": _commit(ROOT),
        "playground": __version__,
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _cpu_name() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def _cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _memory(group: Path = Path("/sys/fs/cgroup")) -> tuple[int, int]:
    """Total and free bytes: the machine's, or this container's where its limit is lower. File cache counts as free."""
    machine = psutil.virtual_memory()
    total, free = int(machine.total), int(machine.available)
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        cached = re.search(r"^inactive_file (\d+)$", (group / "memory.stat").read_text(), re.MULTILINE)
    except (OSError, ValueError):
        return total, free
    used -= int(cached.group(1)) if cached else 0
    return min(total, limit), min(free, max(limit - used, 0))


def _gpus() -> tuple[tuple[Gpu, ...], str]:
    """The visible GPUs, or why there is none."""
    found = nvml.visible()
    lib = found.nvml
    if not found.handles:
        found.close()
        return (), found.reason
    try:
        driver = nvml.text(lib.nvmlSystemGetDriverVersion())
        return tuple(_gpu(lib, handle, driver) for handle in found.handles), ""
    except lib.NVMLError as error:
        return (), f"the NVIDIA driver could not describe its GPUs ({error})"
    finally:
        found.close()


def _gpu(lib: Any, handle: Any, driver: str) -> Gpu:
    memory = lib.nvmlDeviceGetMemoryInfo(handle)
    return Gpu(
        name=nvml.text(lib.nvmlDeviceGetName(handle)),
        uuid=nvml.text(lib.nvmlDeviceGetUUID(handle)),
        capability=tuple(lib.nvmlDeviceGetCudaComputeCapability(handle)),
        memory_bytes=int(memory.total),
        free_bytes=int(memory.free),
        driver=driver,
    )


def _no_cuda_in_torch() -> str:
    """Why the installed torch cannot use CUDA, "" where it can; reads the text of torch/version.py."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return "torch is not installed"
    try:
        version = (Path(next(iter(spec.submodule_search_locations))) / "version.py").read_text()
    except OSError as error:
        return f"torch's build cannot be read ({error})"
    number = re.search(r"^__version__\s*=\s*['\"]([^'\"]+)", version, re.MULTILINE)
    if re.search(r"^cuda\b[^=\n]*=\s*['\"]\d", version, re.MULTILINE):
        return ""
    return f"torch {number.group(1) if number else ''} is a CPU build".replace("  ", " ")


def _packages() -> Packages:
    found = Packages()
    for name in PACKAGES:
        found.look_up(name)
    return found


@functools.cache  # what is not installed raises and is looked for again
def _version(distribution: str) -> str:
    return importlib.metadata.version(distribution)


def _commit(root: Path) -> str:
    """The commit of the product's own checkout, with "-dirty" where files differ from it; "" elsewhere."""
    if not (root / ".git").exists():
        return ""
    commit = _git(root, "rev-parse", "HEAD")
    changed = commit and _git(root, "status", "--porcelain")
    return f"{commit}-dirty" if changed else commit


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
