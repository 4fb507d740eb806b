"""What the config of a checkpoint says of weights that come packed: how many bits one of its linear weights takes in memory.

Pure arithmetic on a Hugging Face config. Example::

    packed_bits({"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}})   # 4.156
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SCALE_BITS = 16


def packed_bits(config: Mapping[str, Any]) -> float | None:
    """Bits of a weight with its share of scales and zero points, as it stays packed in memory; a group of -1 is a whole row, whose scale is
    not counted. None where it is plain, is unpacked before the first pass (compressed-tensors, or fp8 for want of kernels), or where its
    method is not counted here."""
    found = config.get("quantization_config")
    if not isinstance(found, Mapping):
        return None
    method, bits, group = found.get("quant_method"), found.get("bits"), found.get("group_size")
    if method in ("gptq", "awq") and isinstance(bits, int) and isinstance(group, int):
        return bits + (SCALE_BITS + bits) / group if group > 0 else float(bits)
    if found.get("load_in_8bit"):
        return 8.0
    if found.get("load_in_4bit"):
        return 4.127 if found.get("bnb_4bit_use_double_quant") else 4.5
    return None
