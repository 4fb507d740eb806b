"""Packed weights to floats, in Triton: bit tricks instead of conversions, for packed weights arrive faster than conversions run.

The exponent of a fixed power of two is joined to a number's bits as mantissa, so that 0..15 reads as 2^n .. 2^n + 15; what is too much is
taken off later. ASM (PTX for four bytes at a time) is off under Triton's interpreter, which then does the same in plain arithmetic::

    low, high = half_nibbles(packed, tl.bfloat16, ASM)  # uint8 [.., C] -> two of [.., C]
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

from __future__ import annotations

import triton
import triton.language as tl

LOW_OFFSET = tl.constexpr(128 + 8)  # what float_nibbles adds to the value of a low nibble
HIGH_OFFSET = tl.constexpr(2048 + 8)

FLOAT = tl.constexpr("""{
.reg .b32 w, r, l, h;
mov.b32 w, $8;
prmt.b32 r, w, w, 0x1032;
shl.b32 l, w, 8;
shr.u32 h, w, 8;
lop3.b32 $0, r, 0x000f0000, 0x43000000, 0xEA;
lop3.b32 $1, l, 0x000f0000, 0x43000000, 0xEA;
lop3.b32 $2, w, 0x000f0000, 0x43000000, 0xEA;
lop3.b32 $3, h, 0x000f0000, 0x43000000, 0xEA;
lop3.b32 $4, l, 0x0000f000, 0x45000000, 0xEA;
lop3.b32 $5, w, 0x0000f000, 0x45000000, 0xEA;
lop3.b32 $6, h, 0x0000f000, 0x45000000, 0xEA;
lop3.b32 $7, r, 0x0000f000, 0x45000000, 0xEA;
}""")

# Bytes 0, 1 and 2, 3 to the low bytes of half words; low nibbles, high nibbles; times one less the offset.
TWO_AND_TWO = """{
.reg .b32 a, b, t, one, off;
mov.b32 one, ONE;
mov.b32 off, OFFSET;
prmt.b32 a, $4, 0, 0x4140;
prmt.b32 b, $4, 0, 0x4342;
lop3.b32 t, a, 0x000f000f, BITS, 0xEA;
fma.rn.TYPE $0, t, one, off;
lop3.b32 t, b, 0x000f000f, BITS, 0xEA;
fma.rn.TYPE $1, t, one, off;
shr.u32 a, a, 4;
shr.u32 b, b, 4;
lop3.b32 t, a, 0x000f000f, BITS, 0xEA;
fma.rn.TYPE $2, t, one, off;
lop3.b32 t, b, 0x000f000f, BITS, 0xEA;
fma.rn.TYPE $3, t, one, off;
}"""


def _typed(**words: str) -> tl.constexpr:
    text = TWO_AND_TWO
    for name, value in words.items():
        text = text.replace(name, value)
    return tl.constexpr(text)


BFLOAT16 = _typed(ONE="0x3F803F80", OFFSET="0xC308C308", BITS="0x43004300", TYPE="bf16x2")
FLOAT16 = _typed(ONE="0x3C003C00", OFFSET="0xE408E408", BITS="0x64006400", TYPE="f16x2")


# A byte with its sign turned is 0..255; 2^23 + that, less 2^23 + 128.
INT8 = tl.constexpr("""{
.reg .b32 w, t;
xor.b32 w, $4, 0x80808080;
prmt.b32 t, w, 0x4B000000, 0x7440;
add.f32 $0, t, 0fCB000080;
prmt.b32 t, w, 0x4B000000, 0x7441;
add.f32 $1, t, 0fCB000080;
prmt.b32 t, w, 0x4B000000, 0x7442;
add.f32 $2, t, 0fCB000080;
prmt.b32 t, w, 0x4B000000, 0x7443;
add.f32 $3, t, 0fCB000080;
}""")


@triton.jit
def to_float(w, ASM: tl.constexpr):
    """Plain, int8 or fp8 weights -> float32."""
    if ASM and w.dtype == tl.int8:
        return tl.inline_asm_elementwise(INT8, "=f,=f,=f,=f,r", [w], tl.float32, True, 4)
    else:
        return w.to(tl.float32)


@triton.jit
def to_half(w, dtype: tl.constexpr):
    """Plain, int8 or fp8 weights -> bfloat16 or float16, by the ways that convert fastest."""
    if w.dtype == tl.float8e4nv:
        w = w.to(tl.float16).to(tl.float32)
    elif w.dtype == tl.int8:
        w = w.to(tl.float32)
    return w.to(dtype)


@triton.jit
def float_nibbles(packed, ASM: tl.constexpr):
    """Bytes -> float32: value of the low nibble + LOW_OFFSET, value of the high one + HIGH_OFFSET; values are -8..7."""
    if ASM:
        low, high = tl.inline_asm_elementwise(FLOAT, "=r,=r,=r,=r,=r,=r,=r,=r,r", [packed], (tl.int32, tl.int32), True, 4)
        return low.to(tl.float32, bitcast=True), high.to(tl.float32, bitcast=True)
    else:
        return (packed & 15).to(tl.float32) + 128, (packed >> 4).to(tl.float32) + 2048


@triton.jit
def half_nibbles(packed, dtype: tl.constexpr, ASM: tl.constexpr):
    """Bytes -> bfloat16 or float16: the values -8..7 of the low and of the high nibbles, exactly."""
    if ASM:
        if dtype == tl.bfloat16:
            low, high = tl.inline_asm_elementwise(BFLOAT16, "=r,=r,=r,=r,r", [packed], (tl.bfloat16, tl.bfloat16), True, 4)
        else:
            low, high = tl.inline_asm_elementwise(FLOAT16, "=r,=r,=r,=r,r", [packed], (tl.float16, tl.float16), True, 4)
        return low, high
    else:
        return ((packed & 15).to(tl.float32) - 8).to(dtype), ((packed >> 4).to(tl.float32) - 8).to(dtype)
