"""GGUF blocks kept in memory: the numbers that they stand for, the bytes that they take, and what has none."""

from __future__ import annotations

import dataclasses
from typing import Any

import gguf
import numpy as np
import pytest
import tiny_gguf as tiny

from playground.core.engine import Batch
from playground.core.plan import complete, footprint_of, plan_for
from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.engines import engines
from playground.measure.estimate import estimate
from playground.measure.machine import probe
from playground.models.resolve import peek, resolve
from playground.techniques import techniques

torch = pytest.importorskip("torch")

TEXT = (5, 70, 71, 72, 259, 80)
LINEAR_WEIGHTS = 4 * 32 * 32 + 3 * 32 * 64  # of the tiny file's one layer
OTHERS = 2 * 260 * 32 + 3 * 32


def load(model: str, **knobs: Any) -> Any:
    spec = RunSpec(model=model, engine="transformers", device="cpu", knobs={"precision": "fp32", **knobs})
    plan = plan_for(spec, techniques(), engines()["transformers"], probe())
    engine = engines()["transformers"]()
    engine.load(plan, lambda event: None)
    engine.setup(plan)
    engine.finding = engine.evidence(techniques()["gguf_blocks"], plan)
    return engine


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"])
def test_blocks_are_unpacked_to_the_numbers_of_ggufs_own_reference(kind: str) -> None:
    from playground.engines.decode.gguf import unpack

    of_type = gguf.GGMLQuantizationType[kind]
    size, size_bytes = gguf.GGML_QUANT_SIZES[of_type]
    blocks = np.random.default_rng(3).integers(0, 256, (6, 512 // size * size_bytes), dtype=np.uint8)
    with np.errstate(all="ignore"):  # random scales: some of them are no numbers
        expected = gguf.dequantize(blocks, of_type)
    found = unpack(torch.from_numpy(blocks), kind).numpy()
    assert found.shape == expected.shape == (6, 512)
    assert np.array_equal(found, expected, equal_nan=True)
    assert np.isfinite(expected).mean() > 0.5


def test_a_layer_multiplies_in_parts_and_adds_its_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    from playground.engines.decode import gguf as blocks_of

    plain = torch.nn.Linear(64, 48).requires_grad_(False)
    packed = gguf.quants.quantize(plain.weight.numpy(), gguf.GGMLQuantizationType.Q5_1)
    plain.weight.copy_(torch.from_numpy(gguf.dequantize(packed, gguf.GGMLQuantizationType.Q5_1)))
    monkeypatch.setattr(blocks_of, "AT_ONCE", 20 * 64)  # 20, 20 and 8 rows
    layer = blocks_of.GgufLinear(plain, "Q5_1", torch.from_numpy(packed))
    x = torch.randn(2, 3, 64)
    assert torch.allclose(layer(x), plain(x), atol=1e-6)


@pytest.mark.parametrize(("precision", "size"), [("fp32", 4), ("bf16", 2)])
def test_the_output_is_that_of_the_dequantised_model_and_the_blocks_take_their_bytes(home, tiny_gguf, precision, size) -> None:
    plain, packed = (load(str(tiny_gguf), precision=precision, gguf_blocks=kept) for kept in (False, True))
    assert packed.finding.text == "7 of 7 Linear layers keep their GGUF blocks (Q8_0 7): 8.5 bits a weight"
    assert plain.finding.text == "0 of 7 Linear layers keep GGUF blocks"
    batch = Batch((TEXT, TEXT[2:]), 12)
    assert [tick.tokens for tick in packed.generate(batch)] == [tick.tokens for tick in plain.generate(batch)]
    assert torch.equal(packed.score(TEXT), plain.score(TEXT))
    saved = plain.memory()["weights_bytes"] - packed.memory()["weights_bytes"]
    assert saved == LINEAR_WEIGHTS * size - LINEAR_WEIGHTS * 34 // 32


def test_the_estimate_before_loading_counts_the_bits_of_the_file(home, tiny_gguf) -> None:
    spec = complete(RunSpec(model=str(tiny_gguf), knobs={"precision": "fp32", "gguf_blocks": True}), techniques())
    footprint = footprint_of(spec, techniques())
    wanted = LINEAR_WEIGHTS * 34 // 32 + OTHERS * 4
    for config in (peek(str(tiny_gguf)).config, resolve(str(tiny_gguf), lambda event: None).config):
        assert estimate(config, footprint, 10, 10).weights_bytes == wanted


def test_a_model_without_a_gguf_file_is_refused_and_one_whose_file_is_gone(home, tiny_gguf) -> None:
    from playground.engines.decode.gguf import load_blocks

    model = resolve(str(tiny_gguf), lambda event: None)
    with pytest.raises(Problem, match=r"does not come from a GGUF file: .* give the path of a .gguf file\.") as caught:
        load(str(model.folder), gguf_blocks=True)
    assert caught.value.kind == "user"
    with pytest.raises(Problem, match="is not there any more"):
        load_blocks(dataclasses.replace(model, gguf=tiny_gguf.with_name("gone.gguf")), torch.float32, "cpu")


def test_blocks_that_are_not_those_of_the_dequantised_weights_are_refused(home, tiny_gguf, monkeypatch) -> None:
    from transformers import modeling_gguf_pytorch_utils as library

    resolve(str(tiny_gguf), lambda event: None)
    monkeypatch.setitem(library.TENSOR_PROCESSORS, "llama", library.TensorProcessor)  # leaves the rows of q and k in GGUF's order
    with pytest.raises(Problem, match=r"[qk]_proj\.weight are not those of the dequantised weights"):
        load(str(tiny_gguf), gguf_blocks=True)


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"quantization": "nf4"}, "both pack the same weights"),
        ({"prune": "magnitude"}, "prune to layers"),
        ({"adapter": "random:4", "adapter_mode": "merged"}, "Set adapter_mode to unmerged"),
    ],
)
def test_what_excludes_blocks_is_refused_with_the_way_out(knobs: dict[str, Any], words: str) -> None:
    with pytest.raises(Problem, match=words):
        complete(RunSpec(knobs={"gguf_blocks": True, **knobs}), techniques())


def test_a_file_written_for_these_tests_has_the_sizes_counted_here() -> None:
    sizes = {name: tensor.size for name, tensor in tiny.weights().items()}
    assert sum(size for name, size in sizes.items() if name.startswith("blk.") and "norm" not in name) == LINEAR_WEIGHTS
    assert sum(sizes.values()) == LINEAR_WEIGHTS + OTHERS
