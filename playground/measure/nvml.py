"""The GPUs that this program may use, through NVML: no torch, no CUDA context.

`CUDA_VISIBLE_DEVICES` is respected by index and by UUID, in its order and up to its first unknown entry, as CUDA does. Indices are NVML's,
which are CUDA's where `CUDA_DEVICE_ORDER=PCI_BUS_ID` or all GPUs are alike. Example::

    gpus = visible()          # Visible(handles=(...), reason="")
    gpus.nvml.nvmlDeviceGetName(gpus.handles[0])
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Visible:
    """The NVML module, opened (None where it is missing), handles of the visible GPUs, and why there is none."""

    nvml: Any = None
    handles: tuple[Any, ...] = ()
    reason: str = ""

    def close(self) -> None:
        """Give the library back; NVML counts its users."""
        if self.nvml is not None:
            self.nvml.nvmlShutdown()


def visible() -> Visible:
    """Open NVML and find the visible GPUs. Never raises: what is missing is the `reason`."""
    try:
        import pynvml
    except ImportError:
        return Visible(reason="the package nvidia-ml-py is not installed, so GPUs cannot be seen")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return Visible(reason=f"no NVIDIA driver answers ({error})")
    try:
        every = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        handles = _selected(pynvml, every, os.environ.get("CUDA_VISIBLE_DEVICES"))
    except pynvml.NVMLError as error:
        pynvml.nvmlShutdown()
        return Visible(reason=f"the NVIDIA driver could not list its GPUs ({error})")
    if handles:
        return Visible(pynvml, handles)
    return Visible(pynvml, (), "CUDA_VISIBLE_DEVICES hides every GPU" if every else "the NVIDIA driver reports no GPU")


def _selected(nvml: Any, every: list[Any], wanted: str | None) -> tuple[Any, ...]:
    if wanted is None:
        return tuple(every)
    chosen = []
    for entry in (part.strip() for part in wanted.split(",")):
        handle = _named(nvml, every, entry)
        if handle is None:
            break
        chosen.append(handle)
    return tuple(chosen)


def _named(nvml: Any, every: list[Any], entry: str) -> Any:
    """The GPU of an index or of a UUID (its beginning is enough); a MIG instance by its UUID; None for an unknown entry."""
    if entry.isdigit():
        return every[int(entry)] if int(entry) < len(every) else None
    if entry.startswith("MIG-"):
        try:
            return nvml.nvmlDeviceGetHandleByUUID(entry)
        except nvml.NVMLError:
            return None
    if not entry.startswith("GPU-"):
        return None
    return next((handle for handle in every if text(nvml.nvmlDeviceGetUUID(handle)).startswith(entry)), None)


def text(value: str | bytes) -> str:
    """NVML's strings, which older bindings give as bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value
