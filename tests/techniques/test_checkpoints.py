"""Checkpoints whose weights come packed: what is loaded, what is said of it, and what is refused."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
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
from playground.models.weights import LIBRARIES, load_pretrained
from playground.run import train_adapter
from playground.techniques import lora, techniques

torch = pytest.importorskip("torch")

TEXT = (1, 2, 3, 4, 5, 6)
W4 = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32}
GROUP = {"targets": ["Linear"], "weights": W4, "format": "pack-quantized"}
COMPRESSED = {"quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed", "ignore": ["lm_head"]}

# Where packed weights compute, in what, and how far from their plain numbers.
ON = [("cpu", "fp32", 5e-4), ("cpu", "bf16", 0.02)]
GPU = torch.cuda.is_available()
if GPU:
    ON += [pytest.param("cuda", kind, far, marks=pytest.mark.gpu) for kind, far in (("fp32", 5e-4), ("fp16", 0.005), ("bf16", 0.02))]


def load(model: str, device: str = "cpu", **knobs: Any) -> Any:
    spec = RunSpec(model=model, engine="transformers", device=device, knobs={"precision": "fp32", **knobs})
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


def words(numbers: Any, order: Sequence[int] = range(8)) -> Any:
    """Eight 4-bit numbers of the last axis in each int32, order[i] of them i-th from its lowest bits."""
    shifts = torch.tensor([4 * list(order).index(place) for place in range(8)])
    found = (numbers.long().unflatten(-1, (-1, 8)) << shifts).sum(-1)
    return torch.where(found >= 1 << 31, found - (1 << 32), found).int().contiguous()


def pack_quantized(weight: Any) -> tuple[dict[str, Any], Any]:
    """A matrix in compressed-tensors' format of that name, 4 bits in groups of 32, and the numbers that it stands for: each has 8 added."""
    groups = weight.unflatten(1, (-1, 32))
    scale = groups.abs().amax(-1, keepdim=True) / 7
    numbers = (groups / scale).round().clamp(-8, 7)
    tensors = {"weight_packed": words(numbers.flatten(1) + 8), "weight_scale": scale.squeeze(-1).contiguous()}
    return tensors | {"weight_shape": torch.tensor(weight.shape)}, (numbers * scale).flatten(1)


def with_zeros(weight: Any) -> tuple[Any, Any, Any, Any]:
    """4 bits in groups of 32 with a zero point: numbers (inputs, outputs), zeros and scales (groups, outputs), and what they stand for."""
    groups = weight.T.unflatten(0, (-1, 32))
    low, high = groups.amin(1).clamp(max=0), groups.amax(1).clamp(min=0)
    scale = ((high - low) / 15).half().float()
    zero = (-low / scale).round().clamp(0, 15)
    numbers = (groups / scale[:, None] + zero[:, None]).round().clamp(0, 15)
    meant = (numbers - zero[:, None]) * scale[:, None]
    return numbers.flatten(0, 1), zero, scale.half(), meant.flatten(0, 1).T.contiguous()


def gptq(weight: Any) -> tuple[dict[str, Any], Any]:
    """A matrix as GPTQ's first format has it: packed along the inputs, its zeros less one."""
    numbers, zero, scale, meant = with_zeros(weight)
    group = (torch.arange(len(numbers)) // 32).int()
    return {"qweight": words(numbers.T).T.contiguous(), "qzeros": words(zero - 1), "scales": scale, "g_idx": group}, meant


def awq(weight: Any) -> tuple[dict[str, Any], Any]:
    """A matrix as AWQ's format gemm has it: packed along the outputs, the even ones of each eight first."""
    numbers, zero, scale, meant = with_zeros(weight)
    order = (0, 2, 4, 6, 1, 3, 5, 7)
    return {"qweight": words(numbers, order), "qzeros": words(zero, order), "scales": scale}, meant


def saved_packed(model: Any, folder: Path, method: dict[str, Any], pack: Callable[[Any], tuple[dict[str, Any], Any]]) -> Any:
    """`model` in `folder` with each linear layer packed; what its weights stand for, by name."""
    from safetensors.torch import load_file, save_file

    path = Path(saved(model, folder, method)) / "model.safetensors"
    packed, meant = {}, {}
    for name, tensor in load_file(path).items():
        if "_proj" in name:
            own, meant[name] = pack(tensor)
            packed |= {f"{name.removesuffix('weight')}{part}": value for part, value in own.items()}
        else:
            packed[name] = meant[name] = tensor
    save_file(packed, path, metadata={"format": "pt"})
    return meant


def needs_packages(method: dict[str, Any]) -> None:
    for package in LIBRARIES[method["quant_method"]]:
        pytest.importorskip(package)


def furthest(engine: Any, plain: Any) -> float:
    """The largest difference between the log-probabilities of the engine's model and of `plain`."""
    with torch.inference_mode():
        expected = plain(torch.tensor([TEXT])).logits[0, :-1].log_softmax(-1)
    return float((engine.score(TEXT).float().cpu() - expected).abs().max())


def test_compressed_tensors_are_loaded_unpacked_and_compute_what_their_bits_say(plain: Any, tmp_path: Path) -> None:
    pytest.importorskip("compressed_tensors")
    meant = saved_packed(plain, tmp_path, {**COMPRESSED, "config_groups": {"group_0": GROUP}}, pack_quantized)
    engine = load(str(tmp_path))
    unpacked = "all 14 linear layers were unpacked while loading (14 pack-quantized, 4 bits, groups of 32)"
    assert says(engine) == f"the checkpoint comes quantized (compressed-tensors): {unpacked}"
    before = engine.memory()["weights_bytes"]
    assert len(list(engine.generate(Batch((TEXT,), 3)))) == 3
    assert engine.memory()["weights_bytes"] == before  # nothing is left for the first pass to unpack
    assert all(engine.evidence(each, engine.plan).ok for each in engine.plan.techniques if each.phase == "load")
    plain.load_state_dict(meant)
    assert furthest(engine, plain) < 1e-5


PACKED = pytest.mark.parametrize(
    ("method", "pack"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": False, "checkpoint_format": "gptq"}, gptq),
        ({"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}, awq),
    ],
    ids=["gptq", "awq"],
)


@pytest.mark.parametrize(("device", "precision", "tolerance"), ON)
@PACKED
def test_gptq_and_awq_stay_packed_and_compute_what_their_bits_say(
    plain: Any, tmp_path: Path, method: dict[str, Any], pack: Any, device: str, precision: str, tolerance: float
) -> None:
    needs_packages(method)
    meant = saved_packed(plain, tmp_path, method, pack)
    if pack is awq and GPU and (precision == "bf16" or (precision, device) == ("fp32", "cuda")):
        with pytest.raises(Problem, match=rf"computes in fp16 here, not in {precision}: set precision to fp16\.$"):
            load(str(tmp_path), device, precision=precision)
        return
    engine = load(str(tmp_path), device, precision=precision)
    came = f"the checkpoint comes quantized ({method['quant_method']}): 14 of 14 linear layers are "
    assert says(engine).startswith(came)
    assert says(engine).endswith(" (4 bits, groups of 32)")
    assert len(list(engine.generate(Batch((TEXT,), 3)))) == 3
    findings = [finding for each in engine.plan.techniques if (finding := engine.evidence(each, engine.plan))]
    assert [finding.text for finding in findings if not finding.ok] == []
    plain.load_state_dict(meant)
    assert furthest(engine, plain) < tolerance


@PACKED
def test_an_adapter_beside_gptq_or_awq_is_on_every_packed_layer(plain: Any, tmp_path: Path, method: dict[str, Any], pack: Any) -> None:
    needs_packages(method)
    pytest.importorskip("peft")
    meant = saved_packed(plain, tmp_path, method, pack)
    engine = load(str(tmp_path), adapter="random:4", adapter_mode="unmerged")
    finding = engine.evidence(techniques()["adapters"], engine.plan)
    assert finding.ok
    # 4 x (inputs + outputs) of q, k, v, o, gate, up, down in each of 2 layers
    assert 2 * 4 * (128 + 96 + 96 + 128 + 256 + 256 + 256) == 9728
    assert "LoRA rank 4 on 14 of 14 linear layers, 9,728 numbers" in finding.text
    assert "14 of 14 linear layers are" in says(engine)
    assert len(list(engine.generate(Batch((TEXT,), 3)))) == 3
    plain.load_state_dict(meant)
    without = furthest(engine, plain)
    assert furthest(engine, lora.put_on(plain, [lora.drawn(4)], "plain", merge=False)) < min(5e-4, without / 10)


def test_layers_of_gptqmodel_are_named_with_their_bits_and_groups(plain: Any) -> None:
    class TorchLinear(torch.nn.Module):
        bits, group_size, in_features, out_features = 4, 128, 64, 64

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


def test_no_adapter_is_trained_through_layers_that_have_no_gradient(plain: Any, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    model = saved(plain, tmp_path, {"quant_method": "awq", "bits": 4, "group_size": 32})
    job = train_adapter.AdapterJob("song", "Red boats go out. Blue boats come in. " * 40, model, 3, device="cpu", rank=4)
    with pytest.raises(Problem, match=r"comes quantized \(awq\), in layers that no gradient goes through: train on the model") as caught:
        train_adapter.make(job.to_dict(), lambda event: None, lambda: None)
    assert caught.value.kind == "user"


def test_a_checkpoint_that_is_loaded_in_another_precision_than_asked_for_is_refused(
    plain: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("compressed_tensors")
    from transformers.quantizers.quantizer_compressed_tensors import CompressedTensorsHfQuantizer

    saved_packed(plain, tmp_path, {**COMPRESSED, "config_groups": {"group_0": GROUP}}, pack_quantized)
    # As transformers does with AWQ where there is a GPU.
    monkeypatch.setattr(CompressedTensorsHfQuantizer, "update_dtype", lambda self, dtype: torch.float16)
    with pytest.raises(Problem, match=r"computes in fp16 here, not in bf16: set precision to fp16\.$") as caught:
        load(str(tmp_path), precision="bf16")
    assert caught.value.kind == "user"
    assert techniques()["precision"].evidence_for_transformers({"precision": "fp16"}, load(str(tmp_path), precision="fp16")).ok


@pytest.mark.parametrize(("dtype", "name"), [(torch.float32, "fp32"), (torch.bfloat16, "bf16")])
def test_awq_on_a_gpu_is_refused_in_what_its_kernels_do_not_know_before_anything_is_loaded(
    plain: Any, tmp_path: Path, dtype: Any, name: str
) -> None:
    folder = Path(saved(plain, tmp_path, {"quant_method": "awq", "bits": 4, "group_size": 32}))
    (folder / "model.safetensors").unlink()
    with pytest.raises(Problem, match=rf"computes in fp16 here, not in {name}: set precision to fp16\.$") as caught:
        load_pretrained(folder, dtype, "cuda")
    assert caught.value.kind == "user"


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
