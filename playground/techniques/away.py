"""Where offloaded weights lie: in host memory, in pages of it that a GPU reads by itself, or in a file; and how fast they come.

Example::

    away = AWAY["disk"]({"0.mlp.up_proj.weight": tensor}); away["0.mlp.up_proj.weight"]; copy_rate(away, "cpu")
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any

from playground.core.places import home, no_room
from playground.core.problem import Problem


class Away(Mapping[str, Any]):
    """Tensors by name, kept as they are in host memory; `bytes_per_s`: of one copy of all of them to the device."""

    kind = "cpu"

    def __init__(self, tensors: Mapping[str, Any]) -> None:
        self.bytes_per_s = 0.0
        self._tensors: Mapping[str, Any] = tensors

    def __getitem__(self, name: str) -> Any:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def kept(self) -> bool:
        """Whether they lie where they should."""
        return True


class AwayPinned(Away):
    """Tensors in pages that the system may not move, so that a GPU reads them by itself and not through a buffer of the driver."""

    kind = "pinned"

    def __init__(self, tensors: Mapping[str, Any]) -> None:
        """Raises torch's RuntimeError where that much memory cannot be pinned."""
        super().__init__({name: tensor.pin_memory() for name, tensor in tensors.items()})

    def kept(self) -> bool:
        """As torch says of each."""
        return all(tensor.is_pinned() for tensor in self.values())


class AwayOnDisk(Away):
    """Tensors in one file that has no name, so that its room on the disk is free again when this process ends, however it ends.

    accelerate's own files are mapped while they are written, where a full disk kills the process; these are written, which says so."""

    kind = "disk"

    def __init__(self, tensors: Mapping[str, Any]) -> None:
        """Raises Problem("user") where the disk is full."""
        import torch

        super().__init__(tensors)
        places, end = {}, 0
        self._file = tempfile.TemporaryFile(dir=home(), buffering=0)  # noqa: SIM115 (open as long as the model is)
        try:
            for name, tensor in tensors.items():
                raw = memoryview(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy())
                places[name] = (end, tensor.shape, tensor.dtype, len(raw))
                end += len(raw)
                while raw:
                    raw = raw[self._file.write(raw) :]
        except OSError as error:
            self._file.close()
            if not (why := no_room(error)):
                raise
            raise Problem("user", f"{why}: {_needs(sum(tensor.nbytes for tensor in tensors.values()))}") from error
        self._tensors = places

    def __getitem__(self, name: str) -> Any:
        import torch

        start, shape, dtype, size = self._tensors[name]
        raw = torch.empty(size, dtype=torch.uint8)
        self._file.seek(start)
        view = memoryview(raw.numpy())
        while view:
            count = self._file.readinto(view)
            if not count:
                raise Problem("crash", f"The file with the offloaded weights ended before {name}.")
            view = view[count:]
        return raw.view(dtype).view(shape)


AWAY: Mapping[str, type[Away]] = {place.kind: place for place in (Away, AwayPinned, AwayOnDisk)}


def copy_rate(away: Away, device: str) -> float:
    """Bytes a second of one copy of everything to the device, after one tensor to warm up."""
    import torch

    names, moved = list(away), 0
    for name in names[:1] + names:
        if name == names[0]:
            _wait(device)
            started, moved = time.perf_counter(), 0
        moved += away[name].to(torch.device(device)).nbytes
    _wait(device)
    return moved / (time.perf_counter() - started)


def _wait(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def _needs(needed: int) -> str:
    free = shutil.disk_usage(home()).free
    return (
        f"offloading writes {needed / 1e9:.2f} GB into {home()}, and {free / 1e9:.2f} GB are free there now. "
        "Free some room, or offload a smaller share."
    )
