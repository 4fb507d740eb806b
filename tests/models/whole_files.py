"""Small weight files that are whole."""

from __future__ import annotations

import json
import struct


def safetensors_bytes(values: int = 4) -> bytes:
    """A safetensors file with one float32 tensor."""
    header = json.dumps({"x": {"dtype": "F32", "shape": [values], "data_offsets": [0, 4 * values]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4 * values)
