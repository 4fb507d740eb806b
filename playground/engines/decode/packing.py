"""Weights in few bits for the decode kernels: how they are rounded and laid out, in plain torch (no triton), on any device.

=====  ==========================  ===================================  =====================================================
kind   packed                      scales                               value of column k of row n
=====  ==========================  ===================================  =====================================================
int8   [N, K] int8                 [N] float32                          packed[n, k] * scales[n], packed in -127..127
fp8    [N, K] float8_e4m3fn        [N] float32                          packed[n, k] * scales[n]
int4   [N, K/2] uint8              [N, K/group] bfloat16 or float16     (nibble - 8) * scales[n, k // group]
=====  ==========================  ===================================  =====================================================

A group is 128 columns, or 64 or 32 where these divide K and 128 does not. int4: byte c (0..63) of a group of 128 holds column c in its
low half and column 64 + c in its high half, so that a run of bytes is two runs of columns; smaller groups alike.

Rounding is to the nearest; the scale of a group is the one of a few candidates that leaves the smallest squared error. Every candidate
maps the entry of largest size, shrunk a little or not, to -8 by a scale of either sign (llama.cpp's Q4_0 does so): -8..7 has one step
more below zero than above. On normal weights the error is 17 % below that of absmax / 7::

    packed, scales = pack(linear.weight, "int4")
    error = (unpack(packed, scales, "int4", torch.float32) - linear.weight.float()).norm()
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from playground.techniques.weight_only import GROUPS

if TYPE_CHECKING:
    import torch

KINDS = ("int8", "int4", "fp8")
SHRINK = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75)
CHUNK = 1 << 24  # weights at a time, so that what is computed in float32 stays small


def group_of(columns: int) -> int:
    """Columns of a group for weights with so many: 128, 64 or 32; 0 where none of these divides them."""
    return next((group for group in GROUPS if columns % group == 0), 0)


def pack(weight: torch.Tensor, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(packed, scales) of a weight [N, K] in any float type, on its device. ValueError: unknown kind, or groups that do not divide K."""
    import torch

    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; known: {', '.join(KINDS)}")
    rows, columns = weight.shape
    if kind == "int4" and not group_of(columns):
        raise ValueError(f"int4 needs a number of input columns that {GROUPS[-1]} divides; this weight has {columns}")
    one = {"int8": _int8, "fp8": _fp8, "int4": _int4}[kind]
    step = max(1, CHUNK // columns)
    parts = [one(weight[start : start + step].detach()) for start in range(0, rows, step)]
    return torch.cat([packed for packed, _ in parts]), torch.cat([scales for _, scales in parts])


def unpack(packed: torch.Tensor, scales: torch.Tensor, kind: str, dtype: torch.dtype) -> torch.Tensor:
    """The weight [N, K] that `pack` kept, in `dtype` (computed in float32, some rows at a time: see CHUNK)."""
    import torch

    rows, columns = packed.shape[0], packed.shape[1] * (2 if kind == "int4" else 1)
    weight = torch.empty(rows, columns, dtype=dtype, device=packed.device)
    step = max(1, CHUNK // columns)
    for start in range(0, rows, step):
        part = slice(start, start + step)
        weight[part] = _values(packed[part], scales[part], kind)
    return weight


def _values(packed: torch.Tensor, scales: torch.Tensor, kind: str) -> torch.Tensor:
    """In float32."""
    import torch

    if kind != "int4":
        return packed.float() * scales[:, None]
    rows, half = packed.shape
    groups = packed.reshape(rows, -1, group_of(half * 2) // 2)
    values = torch.cat((groups & 15, groups >> 4), dim=2).float() - 8
    return (values * scales.float()[:, :, None]).reshape(rows, half * 2)


def multiply(
    x: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor | None, bias: torch.Tensor | None, kind: str, pairs: bool
) -> torch.Tensor:
    """x [..., K] times a weight, plain (scales None) or as `pack` gave it, by torch -> [..., N]; pairs: silu(first half) * second half."""
    from torch.nn import functional

    both = functional.linear(x, weight if scales is None else unpack(weight, scales, kind, x.dtype), bias)
    if not pairs:
        return both
    gate, up = both.chunk(2, dim=-1)
    return functional.silu(gate) * up


def _int8(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    values = weight.float()
    scales = _nonzero(values.abs().amax(1) / 127)
    return (values / scales[:, None]).round_().clamp_(-127, 127).to(torch.int8), scales


def _fp8(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    values = weight.float()
    scales = _nonzero(values.abs().amax(1) / 448)
    return (values / scales[:, None]).clamp_(-448, 448).to(torch.float8_e4m3fn), scales


def _int4(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    kept = weight.dtype if weight.dtype in (torch.float16, torch.bfloat16) else torch.bfloat16
    values = weight.float().reshape(weight.shape[0], -1, group_of(weight.shape[1]))
    extreme = values.gather(2, values.abs().argmax(2, keepdim=True))
    best_error = best_scale = None
    for part in SHRINK:
        scale = _nonzero((extreme * (part / -8)).to(kept).float())
        error = (_rounded(values, scale) * scale - values).square_().sum(2, keepdim=True)
        if best_error is None or best_scale is None:
            best_error, best_scale = error, scale
        else:
            best_scale = torch.where(error < best_error, scale, best_scale)
            best_error = torch.minimum(error, best_error)
    assert best_scale is not None
    codes = (_rounded(values, best_scale) + 8).to(torch.uint8)
    low, high = codes.chunk(2, dim=2)
    return (low | (high << 4)).reshape(weight.shape[0], -1), best_scale[:, :, 0].to(kept)


def _rounded(values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return (values / scale).round_().clamp_(-8, 7)


def _nonzero(scales: torch.Tensor) -> torch.Tensor:
    """Scales with 1 where a row or group is all zeros (or rounds to that), so that nothing is divided by zero."""
    import torch

    return torch.where(scales == 0, 1.0, scales)
