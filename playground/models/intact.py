"""Is a weight file whole? Looks at headers and sizes before any library loads the file.

Standard library only (the GGUF type table comes from the gguf package). Example::

    check_safetensors(Path("model.safetensors"))   # silent, or Problem("model") with the bytes expected and found
"""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playground.core.problem import Problem

_AGAIN = "Delete it and fetch it again."
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MOST = 1 << 30


def check_safetensors(path: Path) -> None:
    """Raises Problem("model") if the header is broken or the data is not as long as the header says."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if len(start) < 8 or size < 8 + length:
            raise Problem("model", f"{path} is cut short: its header needs {8 + length:,} bytes, the file has {size:,}. {_AGAIN}")
        try:
            header = json.loads(file.read(length))
            ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
            expected = 8 + length + max(ends, default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise Problem("model", f"{path} is not a safetensors file: its header cannot be read. {_AGAIN}", str(error)) from error
    if size != expected:
        fault = "is cut short" if size < expected else "has bytes after its end"
        raise Problem("model", f"{path} {fault}: {expected:,} bytes expected by its header, {size:,} found. {_AGAIN}")


@dataclass(frozen=True)
class GgufHeader:
    """The part of a GGUF file before its data. `values`: metadata, arrays as their lengths; `types`: names of the tensor types;
    `parameters`: elements of all tensors; `linear_bits`: mean bits of a weight of the decoder's linear layers, 0 where there are none."""

    values: Mapping[str, Any]
    types: frozenset[str]
    parameters: int
    tensors: frozenset[str] = field(default_factory=frozenset)
    linear_bits: float = 0.0


def read_gguf(path: Path) -> GgufHeader:
    """The header of a whole GGUF file; raises Problem("model") for another format or a file that is shorter than its tensor table says."""
    size = path.stat().st_size
    if size < 24:
        raise Problem("model", f"{path} is cut short: a GGUF header needs 24 bytes, the file has {size:,}. {_AGAIN}")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        magic, version, tensors, count = struct.unpack_from("<4sIQQ", data)
        if magic != b"GGUF":
            raise Problem("model", f"{path} is not a GGUF file: it begins with {magic!r} in place of b'GGUF'.")
        if version not in (2, 3):
            raise Problem("model", f"{path} has GGUF version {version}; versions 2 and 3 (little-endian) can be read.")
        reader = _Reader(data)
        try:
            values = {reader.text(): reader.value() for _ in range(count)}
            table = [reader.tensor() for _ in range(tensors)]
        except (struct.error, _Short) as error:
            raise Problem("model", f"{path} is cut short: it ends inside its header, after {size:,} bytes. {_AGAIN}") from error
        except (UnicodeDecodeError, KeyError, RecursionError) as error:
            raise Problem("model", f"{path} has a broken GGUF header. {_AGAIN}", repr(error)) from error
    return _header(path, size, reader.at, values, table)


def _header(path: Path, size: int, at: int, values: dict[str, Any], table: list[tuple[str, int, int, int]]) -> GgufHeader:
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    alignment = values.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1:
        raise Problem("model", f"{path} has a broken GGUF header: its alignment is {alignment!r}. {_AGAIN}")
    start = -(-at // alignment) * alignment
    expected, types, weights, weight_bits = at, set(), 0, 0.0
    for name, elements, kind, offset in table:
        if kind not in GGML_QUANT_SIZES:
            raise Problem("model", f"{path}: tensor {name} has type {kind}, which the installed gguf package does not know.")
        block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        types.add(GGMLQuantizationType(kind).name)
        expected = max(expected, start + offset + elements // block * block_bytes)
        if name.startswith("blk.") and name.endswith(".weight") and "norm" not in name:
            weights, weight_bits = weights + elements, weight_bits + elements * 8 * block_bytes / block
    if size < expected:
        raise Problem("model", f"{path} is cut short: {expected:,} bytes expected by its tensor table, {size:,} found. {_AGAIN}")
    parameters, names = sum(entry[1] for entry in table), frozenset(entry[0] for entry in table)
    return GgufHeader(values, frozenset(types), parameters, names, weight_bits / weights if weights else 0.0)


class _Short(Exception):
    """The file ends before what it promises."""


class _Reader:
    """A position in the bytes of a GGUF header."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at = data, 24

    def number(self, code: str) -> Any:
        value = struct.unpack_from("<" + code, self.data, self.at)[0]
        self.at += struct.calcsize("<" + code)
        return value

    def raw(self) -> bytes:
        length = self.number("Q")
        if length > _MOST or self.at + length > len(self.data):
            raise _Short
        self.at += length
        return self.data[self.at - length : self.at]

    def text(self) -> str:
        return self.raw().decode("utf-8")

    def value(self, kind: int | None = None) -> Any:
        kind = self.number("I") if kind is None else kind
        if kind == _STRING:
            return self.raw().decode("utf-8", "replace")
        return self.array() if kind == _ARRAY else self.number(_SCALARS[kind])

    def array(self) -> int:
        kind, length = self.number("I"), self.number("Q")
        if kind in _SCALARS:
            self.at += length * struct.calcsize("<" + _SCALARS[kind])
            if self.at > len(self.data):
                raise _Short
            return int(length)
        for _ in range(length):
            if kind == _STRING:
                self.raw()
            else:
                self.value(kind)
        return int(length)

    def tensor(self) -> tuple[str, int, int, int]:
        """Name, elements, type, offset."""
        name, elements = self.text(), 1
        for _ in range(self.number("I")):
            elements *= self.number("Q")
        return name, elements, self.number("I"), self.number("Q")
