"""Checkpoints whose weights come packed: what is loaded, what is said of it, and what is refused."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from playground.core.engine import Batch
from playground.core.plan import plan_for
from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.core.technique import Footprint
from playground.engines import engines
from playground.measure.checkpoint import packed_bits
from playground.measure.estimate import estimate
from playground.measure.machine import probe
from playground.models import tokenizer
from playground.techniques import techniques

torch = pytest.importorskip("torch")

TEXT = (1, 2, 3, 4, 5, 6)
W4 = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32}
GROUP = {"targets": ["Linear"], "weights": W4, "format": "pack-quantized"}
COMPRESSED = {"quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed", "ignore": ["lm_head"]}


def load(model: str, **knobs: Any) -> Any:
    spec = RunSpec(model=model, engine="transformers", device="cpu", knobs={"precision": "fp32", **knobs})
    plan = plan_for(spec, techniques(), engines()["transformers"], probe())
    engine = engines()["transformers"]()
    engine.load(plan, lambda event: None)
    engine.setup(plan)
    engine.plan = plan
    return engine


def says(engine: Any) -> str:
    finding = techniques()["quantization"].evidence_for_transformers({"quantization": "none"}, engine)
    assert finding.ok
    return str(finding.text)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(tokenizer, "load_tokenizer", lambda resolved: tokenizer.ByteTokenizer(512))
    return load("shape:tiny").model


def saved(model: Any, folder: Path, method: dict[str, Any]) -> str:
    """`model` in `folder`, whose config says that it comes quantized so."""
    model.save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": method}))
    return str(folder)


def packed_by_hand(weight: Any) -> tuple[dict[str, Any], Any]:
    """A matrix in the format pack-quantized, 4 bits in groups of 32, and the numbers that it stands for: eight numbers of a row in each
    int32, the first in its lowest bits, each with 8 added."""
    groups = weight.unflatten(1, (-1, 32))
    scale = groups.abs().amax(-1, keepdim=True) / 7
    numbers = (groups / scale).round().clamp(-8, 7)
    nibbles = (numbers.flatten(1) + 8).long().unflatten(1, (-1, 8))
    words = (nibbles << torch.arange(0, 32, 4)).sum(-1)
    words = torch.where(words >= 1 << 31, words - (1 << 32), words).int()
    tensors = {"weight_packed": words, "weight_scale": scale.squeeze(-1).contiguous(), "weight_shape": torch.tensor(weight.shape)}
    return tensors, (numbers * scale).flatten(1)


def test_compressed_tensors_are_loaded_unpacked_and_compute_what_their_bits_say(plain: Any, tmp_path: Path) -> None:
    pytest.importorskip("compressed_tensors")
    from safetensors.torch import load_file, save_file

    folder = Path(saved(plain, tmp_path, {**COMPRESSED, "config_groups": {"group_0": GROUP}}))
    tensors = load_file(folder / "model.safetensors")
    packed, meant = {}, {}
    for name, tensor in tensors.items():
        if "_proj" in name:
            own, meant[name] = packed_by_hand(tensor)
            packed |= {f"{name.removesuffix('weight')}{part}": value for part, value in own.items()}
        else:
            packed[name] = meant[name] = tensor
    save_file(packed, folder / "model.safetensors", metadata={"format": "pt"})
    engine = load(str(folder))
    unpacked = "all 14 linear layers were unpacked while loading (14 pack-quantized, 4 bits, groups of 32)"
    assert says(engine) == f"the checkpoint comes quantized (compressed-tensors): {unpacked}"
    before = engine.memory()["weights_bytes"]
    assert len(list(engine.generate(Batch((TEXT,), 3)))) == 3
    assert engine.memory()["weights_bytes"] == before  # nothing is left for the first pass to unpack
    assert all(engine.evidence(each, engine.plan).ok for each in engine.plan.techniques if each.phase == "load")
    plain.load_state_dict(meant)
    with torch.inference_mode():
        expected = plain(torch.tensor([TEXT])).logits[0, :-1].log_softmax(-1)
    assert torch.allclose(engine.score(TEXT), expected, atol=1e-5)


def test_layers_of_gptqmodel_are_named_with_their_bits_and_groups(plain: Any) -> None:
    class TorchLinear(torch.nn.Module):
        bits, group_size, in_features = 4, 128, 64

    for layer in plain.model.layers:
        layer.mlp.gate_proj = layer.mlp.up_proj = TorchLinear()
    config = {"quantization_config": {"quant_method": "gptq"}}
    engine = SimpleNamespace(model=plain, options=SimpleNamespace(config=config))
    # 6 layers in each of 2: one module takes the places of gate and up, and is counted once
    assert says(engine) == "the checkpoint comes quantized (gptq): 2 of 12 linear layers are TorchLinear (4 bits, groups of 128)"


@pytest.mark.parametrize(
    ("method", "packages"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 64}, "optimum gptqmodel"),
        ({"quant_method": "awq", "bits": 4, "group_size": 64}, "gptqmodel"),
        ({**COMPRESSED, "config_groups": {}}, "compressed-tensors"),
    ],
)
def test_the_packages_that_a_packed_checkpoint_needs_are_named(
    plain: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: dict[str, Any], packages: str
) -> None:
    from playground.models import weights

    monkeypatch.setattr(weights, "_installed", lambda package: False)
    with pytest.raises(Problem, match=f"library that unpacks it is missing: pip install -r requirements.txt {packages}$") as caught:
        load(saved(plain, tmp_path, method))
    assert caught.value.kind == "unsupported"
    assert caught.value.message.startswith(f"This model comes quantized ({method['quant_method']})")


def test_a_method_that_has_no_cpu_kernels_is_refused_with_the_reason(plain: Any, tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"\(spqr\), and it cannot be loaded on this device \(cpu\): GPU is required") as caught:
        load(saved(plain, tmp_path, {"quant_method": "spqr", "shapes": {}}))
    assert caught.value.kind == "unsupported"


def test_what_needs_plain_weights_is_refused_before_anything_is_loaded(plain: Any, tmp_path: Path) -> None:
    folder = saved(plain, tmp_path, {"quant_method": "gptq", "bits": 4, "group_size": 64})
    for knobs in ({"quantization": "nf4"}, {"offload": "disk"}):
        name, value = next(iter(knobs.items()))
        with pytest.raises(Problem, match=rf"comes quantized \(gptq\), and {name} {value} needs plain weights\. Leave that out"):
            load(folder, **knobs)
    if importlib.util.find_spec("peft"):
        with pytest.raises(Problem, match=r"comes quantized \(gptq\), and nothing can be merged into it: set adapter_mode"):
            load(folder, adapter="random:4", adapter_mode="merged")


@pytest.mark.parametrize(
    ("method", "bits"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, 4 + 20 / 128),
        ({"quant_method": "awq", "bits": 4, "group_size": 32}, 4.625),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 4.5),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, 8),
        ({**COMPRESSED, "config_groups": {"group_0": GROUP}}, None),  # unpacked before the first pass
        (None, None),
    ],
)
def test_the_estimate_before_loading_counts_packed_bits(method: Any, bits: float | None) -> None:
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 64, "intermediate_size": 192}
    config = {"model_type": "llama", "vocab_size": 512, **sizes}
    linear = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 192)
    found = {**config, "quantization_config": method}
    assert packed_bits(found) == bits
    saves = linear * (16 - (16 if bits is None else bits)) / 8
    plain, packed = (estimate(each, Footprint(weight_bits=16), 8, 8).weights_bytes for each in (config, found))
    assert plain - packed == pytest.approx(saves, abs=1)
