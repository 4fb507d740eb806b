"""The decode kernels against the plain operations in float64: on a GPU where there is one, else under Triton's interpreter.

The interpreter must be chosen before triton is first imported, so without a GPU the tests of the kernels run in a process of their own.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from playground.engines.decode import packing

CUDA = torch.cuda.is_available()
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1" and not CUDA
TRITON = importlib.util.find_spec("triton") is not None
DEVICE = "cuda" if CUDA else "cpu"
BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
BOUNDS = {
    BF16: 8e-3,
    FP16: 1e-3,
    FP32: 1e-5,
}  # of |out - exact| / |exact|; the interpreter cuts bfloat16 off

kernels = pytest.mark.skipif(not TRITON or not (CUDA or INTERPRETED), reason="runs on a GPU, or inside the test of the interpreter")
fp8 = pytest.mark.skipif(CUDA and torch.cuda.get_device_capability() < (8, 9), reason="this GPU has no fp8")


@pytest.mark.skipif(not TRITON, reason="triton is not installed")
@pytest.mark.skipif(CUDA or INTERPRETED, reason="the kernels are tested in this process")
def test_the_kernels_agree_with_float64_under_tritons_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.fixture(scope="module", autouse=True)
def mended_interpreter() -> Iterator[None]:
    """Two faults of Triton 3.6's interpreter: it multiplies bfloat16 matrices as integers, and numpy 2.4 refuses its loop bounds."""
    if not INTERPRETED or not TRITON:
        yield
        return
    import numpy
    import triton.language as tl
    from triton.runtime import interpreter

    builder, patch = interpreter.InterpreterBuilder, interpreter._patch_lang_tensor
    dot = builder.create_dot

    def widened(handle: Any) -> Any:
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        bits = handle.data.astype(numpy.uint32) << 16
        return interpreter.TensorHandle(bits.view(numpy.float32), tl.float32)

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return dot(self, widened(a), widened(b), *rest)

    def patch_tensor(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(builder, "create_dot", create_dot)
        monkeypatch.setattr(interpreter, "_patch_lang_tensor", patch_tensor)
        yield


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that the kernels are to fill holds NaN before."""
    empty = torch.empty

    def filled(*arguments: Any, **options: Any) -> torch.Tensor:
        result = empty(*arguments, **options)
        return result.fill_(float("nan")) if result.is_floating_point() else result

    monkeypatch.setattr(torch, "empty", filled)


def distance(out: torch.Tensor, exact: torch.Tensor) -> float:
    return float((out.double() - exact).norm() / exact.norm())


def linear_error(rows: int, outputs: int, inputs: int, kind: str, dtype: torch.dtype, *, pairs: bool, bias: bool, chosen: Any) -> float:
    """Distance from float64, for x with rows that lie apart; twice, for the result must not vary."""
    from playground.engines.decode.linear_kernels import small_linear

    weight = (torch.randn(outputs, inputs, device=DEVICE) * 0.1).to(dtype)
    x = torch.randn(rows, inputs + 64, device=DEVICE).to(dtype)[:, 32 : 32 + inputs]
    added = torch.randn(outputs, device=DEVICE).to(dtype) if bias else None
    packed, scales = (weight, None) if kind == "plain" else packing.pack(weight, kind)
    exact = x.double() @ (weight if scales is None else packing.unpack(packed, scales, kind, torch.float64)).double().T
    exact = exact if added is None else exact + added.double()
    if pairs:
        gate, up = exact.chunk(2, 1)
        exact = torch.nn.functional.silu(gate) * up
    out = small_linear(x, packed, scales, added, kind, pairs, chosen)
    assert out.shape == exact.shape
    assert out.dtype == dtype
    assert torch.equal(out, small_linear(x, packed, scales, added, kind, pairs, chosen))
    return distance(out, exact)


@kernels
@fp8
@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("kind", ["plain", "int8", "int4", "fp8"])
@pytest.mark.parametrize(
    ("rows", "outputs", "dtype", "pairs", "bias"),
    [
        (1, 50, BF16, False, True),
        (1, 48, FP16, True, False),
        (5, 70, FP16, True, True),
        (33, 70, BF16, False, True),
        (64, 96, BF16, True, False),
    ],
)
def test_a_product_of_few_rows_is_that_of_the_unpacked_weight(
    kind: str, rows: int, outputs: int, dtype: torch.dtype, pairs: bool, bias: bool
) -> None:
    assert linear_error(rows, outputs, 640, kind, dtype, pairs=pairs, bias=bias, chosen=None) < BOUNDS[dtype]


@kernels
@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize(
    ("kind", "split", "pairs"),
    [("plain", 1, False), ("plain", 2, False), ("plain", 5, True), ("int4", 1, True), ("int4", 2, True), ("int4", 5, False)],
)
def test_columns_split_among_programs_add_up(kind: str, split: int, pairs: bool) -> None:
    from playground.engines.decode.linear_kernels import Config, counters_of

    chosen = Config("dot", 32, 128, 4, 3, split)
    assert linear_error(9, 76, 640, kind, FP16, pairs=pairs, bias=True, chosen=chosen) < BOUNDS[FP16]
    assert not counters_of(torch.device(DEVICE, 0) if CUDA else torch.device("cpu"), 1).any()


@kernels
@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("rows", [2, 3, 4])
def test_the_reduction_takes_several_rows(rows: int) -> None:
    from playground.engines.decode.linear_kernels import Config

    assert linear_error(rows, 30, 96, "int8", FP16, pairs=True, bias=False, chosen=Config("reduce", 4, 256, 4)) < BOUNDS[FP16]


@kernels
@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize(
    ("kind", "inputs", "rows"),
    [
        ("int4", 576, 1), ("int4", 576, 20), ("int4", 224, 3), ("int8", 288, 1), ("int8", 288, 20), ("int8", 68, 3),
        ("plain", 68, 1), ("plain", 68, 20),
    ],
)  # fmt: skip
def test_columns_of_any_number_are_multiplied(kind: str, inputs: int, rows: int) -> None:
    assert linear_error(rows, 140, inputs, kind, FP16, pairs=rows == 3, bias=True, chosen=None) < BOUNDS[FP16]


@kernels
@pytest.mark.parametrize("kind", ["plain", "int4"])
def test_what_the_library_computes_is_the_same(kind: str) -> None:
    from playground.engines.decode.linear_kernels import Config

    assert linear_error(40, 96, 256, kind, FP16, pairs=True, bias=True, chosen=Config("library")) < BOUNDS[FP16]


@kernels
@pytest.mark.parametrize(("rows", "inputs", "columns"), [(65, 128, 128), (1, 128, 96)])
def test_shapes_that_do_not_fit_are_refused(rows: int, inputs: int, columns: int) -> None:
    from playground.engines.decode.linear_kernels import small_linear

    with pytest.raises(ValueError, match="no kernel"):
        small_linear(torch.zeros(rows, inputs, dtype=BF16), torch.zeros(8, columns, dtype=BF16))


def attention_error(group: int, kv_heads: int, size: int, capacity: int, lengths: list[int], dtype: torch.dtype, chosen: Any) -> float:
    """Distance from float64 over caches with NaN past each row's length, keys laid out [rows, capacity, heads, size]."""
    from playground.engines.decode.attention_kernels import split_kv_attention

    rows, heads = len(lengths), group * kv_heads
    query = torch.randn(rows, 1, heads, size, device=DEVICE).to(dtype).transpose(1, 2)
    keys = torch.randn(rows, capacity + 3, kv_heads + 1, size + 16, device=DEVICE).to(dtype)[:, 2:-1, 1:, :size].transpose(1, 2)
    values = torch.randn(rows, kv_heads, capacity, size, device=DEVICE).to(dtype)
    exact = torch.zeros(rows, 1, heads, size, dtype=torch.float64, device=DEVICE)
    for row, length in enumerate(lengths):
        keys[row, :, length:] = values[row, :, length:] = float("nan")
        if length:
            k, v = (each[row, :, :length].double().repeat_interleave(group, 0) for each in (keys, values))
            weights = torch.softmax(query[row].double() @ k.transpose(1, 2) * size**-0.5, -1)
            exact[row, 0] = (weights @ v)[:, 0]
    counts = torch.tensor(lengths, device=DEVICE)
    out = split_kv_attention(query, keys, values, counts, size**-0.5, chosen)
    assert out.shape == exact.shape
    assert out.is_contiguous()
    assert torch.equal(out, split_kv_attention(query, keys, values, counts.int(), size**-0.5, chosen))
    assert all(not out[row].any() for row, length in enumerate(lengths) if not length)
    return distance(out, exact)


@kernels
@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", [BF16, FP32])
@pytest.mark.parametrize(("group", "kv_heads", "size"), [(1, 3, 96), (3, 2, 80), (4, 2, 128), (8, 1, 64), (4, 1, 256)])
def test_attention_is_that_over_the_filled_part(group: int, kv_heads: int, size: int, dtype: torch.dtype) -> None:
    assert attention_error(group, kv_heads, size, 100, [1, 100, 0], dtype, None) < BOUNDS[dtype]


@kernels
@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize("group", [1, 4])
def test_parts_of_the_cache_join_at_every_block_edge(joined: bool, splits: int, group: int) -> None:
    from playground.engines.decode.attention_kernels import Config

    chosen = Config(splits, 16, 4, 2, joined)
    assert attention_error(group, 2, 64, 70, [0, 16, 17, 48, 70], FP16, chosen) < BOUNDS[FP16]


@kernels
def test_many_rows_are_not_split_and_one_row_fills_the_gpu() -> None:
    from playground.engines.decode.attention_kernels import config

    assert config(64, 8, 8192).splits == 1
    assert 132 - 8 < config(1, 8, 8192).splits * 8 <= 132


@pytest.mark.gpu
@pytest.mark.skipif(not CUDA, reason="no CUDA device")
def test_replays_of_a_captured_graph_follow_what_the_buffers_hold() -> None:
    from playground.engines.decode.attention_kernels import split_kv_attention
    from playground.engines.decode.linear_kernels import Config, small_linear

    x, weight = torch.randn(8, 1024, device="cuda", dtype=BF16), torch.randn(256, 1024, device="cuda", dtype=BF16)
    query, cache = torch.randn(8, 16, 1, 64, device="cuda", dtype=BF16), torch.randn(2, 8, 4, 512, 64, device="cuda", dtype=BF16)
    lengths = torch.full((8,), 512, device="cuda")

    def step() -> tuple[torch.Tensor, torch.Tensor]:
        return small_linear(x, weight, chosen=Config("dot", 64, 128, 4, 3, 4)), split_kv_attention(query, *cache, lengths, 0.125)

    step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        product, attended = step()
    for length in (1, 300, 512):
        x.normal_()
        lengths.fill_(length)
        product.fill_(float("nan"))
        attended.fill_(float("nan"))
        graph.replay()
        assert distance(product, x.double() @ weight.double().T) < BOUNDS[BF16]
        k, v = (each[:, :, :length].double().repeat_interleave(4, 1) for each in cache)
        exact = (torch.softmax(query.double() @ k.transpose(2, 3) * 0.125, -1) @ v).transpose(1, 2)
        assert distance(attended, exact) < BOUNDS[BF16]


@pytest.mark.parametrize(("kind", "bound"), [("int8", 0.012), ("fp8", 0.035), ("int4", 0.11)])
def test_packed_weights_are_near_what_they_were(kind: str, bound: float) -> None:
    weight = (torch.randn(40, 384) * 0.02).to(BF16)
    packed, scales = packing.pack(weight, kind)
    assert packed.nbytes == weight.numel() * (0.5 if kind == "int4" else 1)
    assert scales.dtype == (BF16 if kind == "int4" else FP32)
    assert 0 < distance(packing.unpack(packed, scales, kind, FP32), weight.double()) < bound


def test_int4_leaves_less_error_than_the_largest_entry_over_seven() -> None:
    weight = (torch.randn(64, 512) * 0.02).to(BF16)
    groups = weight.float().reshape(64, -1, 128)
    steps = (groups.abs().amax(2, keepdim=True) / 7).to(BF16).float()
    plain = ((groups / steps).round().clamp(-8, 7) * steps).reshape(64, 512)
    ours = packing.unpack(*packing.pack(weight, "int4"), "int4", FP32)
    assert distance(ours, weight.double()) < 0.9 * distance(plain, weight.double())


def test_a_byte_of_int4_holds_columns_64_apart() -> None:
    weight = torch.zeros(1, 256)
    weight[0, 0], weight[0, 3], weight[0, 67], weight[0, 128] = -8.0, 5.0, -2.0, -8.0
    packed, scales = packing.pack(weight, "int4")
    assert scales.float().tolist() == [[1.0, 1.0]]
    assert packed[0, 0] == 8 << 4  # column 0 is -8, and column 64 is 0
    assert packed[0, 3] == (5 + 8) | (-2 + 8) << 4
    assert packed[0, 64] == 8 << 4
    assert torch.equal(packing.unpack(packed, scales, "int4", FP32), weight)


@pytest.mark.parametrize(("columns", "groups"), [(576, 9), (224, 7), (256, 2)])
def test_groups_are_as_large_as_divides_the_columns(columns: int, groups: int) -> None:
    assert packing.pack(torch.randn(3, columns), "int4")[1].shape == (3, groups)


@pytest.mark.parametrize("kind", packing.KINDS)
def test_rows_of_zeros_stay_zeros_and_pieces_are_packed_alike(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(7, 256).to(FP16)
    weight[2] = 0
    packed, scales = packing.pack(weight, kind)
    assert not packing.unpack(packed, scales, kind, FP32)[2].any()
    monkeypatch.setattr(packing, "CHUNK", 600)
    again, same = packing.pack(weight, kind)
    assert torch.equal(again.view(torch.uint8), packed.view(torch.uint8))
    assert torch.equal(same, scales)


def test_what_cannot_be_packed_is_refused() -> None:
    with pytest.raises(ValueError, match="32 divides"):
        packing.pack(torch.zeros(4, 80), "int4")
    with pytest.raises(ValueError, match="unknown kind"):
        packing.pack(torch.zeros(4, 128), "int3")
