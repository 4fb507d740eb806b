"""torchao's packed weights in transformers' layers, and checkpoints whose weights come packed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from playground.core.engine import Batch
from playground.core.machine import Gpu, Machine
from playground.core.plan import complete, footprint_of, plan_for, refusal
from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.engines import engines
from playground.measure.machine import probe
from playground.measure.roofline import decode_work
from playground.models.resolve import resolve
from playground.techniques import techniques

torch = pytest.importorskip("torch")
pytest.importorskip("torchao")

LINEAR_WEIGHTS = 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 192)
LINEAR_ROWS = 2 * (64 + 32 + 32 + 64 + 192 + 192 + 64)  # one scale each
TEXT = (1, 2, 3, 4, 5, 6)


def load(model: str = "shape:tiny", **knobs: Any) -> Any:
    spec = RunSpec(model=model, engine="transformers", device="cpu", knobs={"precision": "fp32", **knobs})
    plan = plan_for(spec, techniques(), engines()["transformers"], probe())
    loaded = engines()["transformers"]()
    loaded.load(plan, lambda event: None)
    loaded.setup(plan)
    loaded.plan = plan
    return loaded


def text_of(engine: Any, technique: str) -> str:
    finding = engine.evidence(techniques()[technique], engine.plan)
    assert finding.ok, finding.text
    return str(finding.text)


@pytest.fixture
def plain() -> Any:
    return load()


@pytest.mark.parametrize(("kind", "activations"), [("int8_weight_only", "kept"), ("int8_dynamic", "rounded for each token")])
def test_linear_weights_take_a_quarter_of_fp32_and_the_output_stays_close(plain: Any, kind: str, activations: str) -> None:
    engine = load(torchao=kind)
    assert text_of(engine, "torchao") == (
        f"14 of 14 linear layers have weights of torchao's class Int8Tensor (int8, activations {activations})"
    )
    saved = plain.memory()["weights_bytes"] - engine.memory()["weights_bytes"]
    assert saved == 3 * LINEAR_WEIGHTS - 5 * LINEAR_ROWS  # a float32 scale and an int8 zero point a row
    difference = (engine.score(TEXT) - plain.score(TEXT)).abs().max()
    assert 0 < difference < 0.05
    assert len(list(engine.generate(Batch((TEXT, TEXT[:3]), 4)))) == 4


def test_int8_weight_only_computes_what_its_rounded_weights_say(plain: Any) -> None:
    engine = load(torchao="int8_weight_only")
    for layer, packed in zip(plain.model.model.layers, engine.model.model.layers, strict=True):
        for name in ("gate_proj", "up_proj", "down_proj"):
            weight = getattr(layer.mlp, name).weight
            scale = weight.abs().amax(dim=1, keepdim=True) / 127.5  # 255 steps from -128 to 127
            assert (getattr(packed.mlp, name).weight.dequantize() - weight).abs().max() <= scale.max()
    assert type(engine.model.lm_head.weight) is torch.nn.Parameter


def test_torchs_global_settings_are_left_alone() -> None:
    before = torch.get_float32_matmul_precision()
    load(torchao="int8_dynamic")
    assert torch.get_float32_matmul_precision() == before == "highest"


def test_fewer_layers_and_narrow_mlps_are_packed_after_they_were_pruned() -> None:
    engine = load(torchao="int8_weight_only", prune="mlp_width", prune_share=0.5)
    assert text_of(engine, "pruning") == "96 of 192 MLP channels are left in each of 2 layers"
    assert text_of(engine, "torchao").startswith("14 of 14")


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"torchao": "int8_dynamic", "quantization": "nf4"}, "both pack the same weights. Set one of them to none."),
        ({"torchao": "fp8", "precision": "fp32"}, "its kernels take bf16. Set precision to bf16."),
        ({"torchao": "int8_dynamic", "adapter": "random:4", "adapter_mode": "merged"}, "Set adapter_mode to unmerged."),
    ],
)
def test_what_excludes_itself_is_refused_with_the_way_out(knobs: dict[str, Any], words: str) -> None:
    with pytest.raises(Problem, match=words):
        complete(RunSpec(knobs=knobs), techniques())


@pytest.mark.parametrize(("kind", "capability"), [("int4_weight_only", "8.0"), ("fp8", "8.9")])
def test_what_a_cpu_has_no_kernels_for_is_refused(kind: str, capability: str) -> None:
    with pytest.raises(Problem, match=f"capability {capability}: its products have no CPU kernels. Choose int8"):
        load(torchao=kind, precision="bf16")


def test_integer_products_of_one_row_are_not_compiled_on_a_gpu() -> None:
    gpu = Machine("h", "cpu", 2, 8, 4, "cuda", (Gpu("H200", "u", (9, 0), 1, 1, "1"),), packages=probe().packages)
    knobs = {"torchao": "int8_dynamic", "precision": "bf16", "kv_cache": "static", "compile": "reduce_overhead"}
    requires = techniques()["torchao"].requires
    assert "needs more than 16 rows there, and a step may have one. Set compile to off" in str(requires(knobs, gpu, "cuda"))
    for allowed in ({"compile": "off"}, {"torchao": "fp8"}, {"torchao": "int8_weight_only"}):
        assert requires({**knobs, **allowed}, gpu, "cuda") is None
    assert requires({**knobs, "compile": "default"}, gpu, "cpu") is None


def test_a_compiled_step_joins_the_operators_around_integer_products() -> None:
    def launches(**knobs: Any) -> float:
        spec = complete(RunSpec(knobs={"torchao": "int8_dynamic", "precision": "fp32", "kv_cache": "static", **knobs}), techniques())
        return decode_work(resolve("shape:tiny", lambda event: None).config, footprint_of(spec, techniques()), 10).launches

    assert launches(compile="default") == 2 * 15 + 21  # two layers of 15 kernels, and those of no layer
    assert launches() == 2 * (39 + 10 + 7 * 35) + 21  # the static cache has 10 more, each of the 7 products 35


def test_the_engine_graph_refuses_it_and_names_what_it_has_instead() -> None:
    spec = complete(RunSpec(engine="graph", device="cpu", knobs={"torchao": "int8_dynamic", "kv_cache": "static"}), techniques())
    assert "choose weight_only with this engine" in str(refusal(spec, techniques(), engines()["graph"], probe()))


@pytest.fixture
def checkpoint(plain: Any, tmp_path: Path) -> Any:
    """A function that writes the tiny model as a folder: plain weights that say they are quantized so, or packed by a configuration."""

    def write(method: dict[str, Any] | None = None, config: Any = None) -> str:
        from playground.models.weights import load_pretrained

        plain.model.save_pretrained(tmp_path)
        if config is not None:
            load_pretrained(tmp_path, torch.float32, "cpu", config).save_pretrained(tmp_path)
        elif method is not None:
            path = tmp_path / "config.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": method}))
        return str(tmp_path)

    return write


def loaded_with(config: Any, write: Any, monkeypatch: pytest.MonkeyPatch, **knobs: Any) -> Any:
    from playground.models import tokenizer

    monkeypatch.setattr(tokenizer, "load_tokenizer", lambda resolved: tokenizer.ByteTokenizer(512))
    return load(write(config=config), **knobs)


def test_a_checkpoint_packed_by_bitsandbytes_loads_as_it_is_and_says_what_it_is(checkpoint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    engine = loaded_with(config, checkpoint, monkeypatch)
    says = "the checkpoint comes quantized (bitsandbytes): 14 of 14 linear layers are Linear4bit (nf4, 4 bits)"
    assert text_of(engine, "quantization") == says
    assert all(engine.evidence(each, engine.plan).ok for each in engine.plan.techniques if each.phase == "load")


def test_a_checkpoint_packed_by_torchao_loads_as_it_is_and_says_what_it_is(checkpoint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    engine = loaded_with(TorchAoConfig(Int8WeightOnlyConfig(set_inductor_config=False)), checkpoint, monkeypatch)
    says = "the checkpoint comes quantized (torchao): 14 of 14 linear layers are Linear with Int8Tensor (int8)"
    assert text_of(engine, "quantization") == says
    with pytest.raises(Problem, match=r"comes quantized \(torchao\), and torchao int8_dynamic needs plain weights"):
        load(engine.plan.spec.model, torchao="int8_dynamic")


def test_packed_weights_that_transformers_does_not_know_are_refused_and_not_left_out(checkpoint: Any) -> None:
    from playground.models.weights import load_pretrained

    with pytest.raises(Problem, match="comes quantized by nosuch, which transformers does not know"):
        load_pretrained(Path(checkpoint({"quant_method": "nosuch"})), torch.float32, "cpu")
