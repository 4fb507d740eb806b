"""Adapters on a real tiny model: what they do to the weights and the output, what proves it, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from playground.core.engine import Batch
from playground.core.plan import complete, plan_for
from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.engines import engine_class
from playground.measure.machine import probe
from playground.models.adapter import adapter_numbers
from playground.techniques import techniques
from playground.techniques.setup import TransformersSetup

TEXT = tuple(range(3, 43))
RANK, ALPHA = 4, 12
TOLERANCE = 1e-4  # of log-probabilities in fp32: one order of the sums is not the other's
Write = Callable[..., Path]


def loaded(engine: str = "transformers", **knobs: Any) -> Any:
    spec = RunSpec(model="shape:tiny", engine=engine, device="cpu", knobs={"precision": "fp32", **knobs})
    kind = engine_class(engine)
    plan = plan_for(spec, techniques(), kind, probe())
    made = kind()
    made.load(plan, lambda event: None)
    made.setup(plan)
    list(made.generate(Batch((TEXT[:4],), 3)))
    made.plan = plan
    return made


def proof(engine: Any, technique: str = "adapters") -> Any:
    return engine.evidence(techniques()[technique], engine.plan)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """write("style", seed=1): a PEFT folder with a LoRA for the queries and values of shape:tiny; each argument makes it another one."""

    def make(
        name: str = "style", seed: int = 1, layers: int = 2, hidden: int = 64, zero: tuple[int, ...] = (), drop: str = "", **config: Any
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        stream = torch.Generator().manual_seed(seed)
        tensors = {}
        for layer in range(layers):
            for part, out in (("q_proj", hidden), ("v_proj", hidden // 2)):
                path = f"base_model.model.model.layers.{layer}.self_attn.{part}"
                tensors[f"{path}.lora_A.weight"] = torch.randn(RANK, hidden, generator=stream) * 0.1
                tensors[f"{path}.lora_B.weight"] = torch.randn(out, RANK, generator=stream) * (0.0 if layer in zero else 0.1)
        save_file({key: value for key, value in tensors.items() if not drop or drop not in key}, folder / "adapter_model.safetensors")
        settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "target_modules": ["q_proj", "v_proj"], **config}
        (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "someone/tiny-base", **settings}))
        return folder

    return make


def delta(folder: Path, place: str) -> torch.Tensor:
    """alpha / rank times B A, as the LoRA paper has it."""
    from safetensors.torch import load_file

    tensors = load_file(folder / "adapter_model.safetensors")
    return ALPHA / RANK * (tensors[f"base_model.model.{place}.lora_B.weight"] @ tensors[f"base_model.model.{place}.lora_A.weight"])


PLACE = "model.layers.1.self_attn.v_proj"


def test_a_merged_adapter_is_the_product_of_its_matrices_added_to_the_weights(write: Write) -> None:
    folder = write()
    base, merged = loaded(), loaded(adapter=str(folder))
    before, after = base.model.get_submodule(PLACE).weight, merged.model.get_submodule(PLACE).weight
    assert torch.allclose(after, before + delta(folder, PLACE), atol=1e-6)
    other = "model.layers.1.mlp.up_proj"
    assert torch.equal(merged.model.get_submodule(other).weight, base.model.get_submodule(other).weight)
    finding = proof(merged)
    assert finding.ok
    assert "0 adapter layers are left; 4 layers' weights moved by" in finding.text


def test_merged_and_unmerged_give_the_same_output_and_another_than_the_base(write: Write) -> None:
    folder = str(write())
    modes: list[dict[str, str]] = [{}, {"adapter": folder}, {"adapter": folder, "adapter_mode": "unmerged"}]
    base, merged, beside = (loaded(**knobs).score(TEXT) for knobs in modes)
    assert torch.allclose(merged, beside, atol=TOLERANCE)
    assert (merged - base).abs().max() > 100 * TOLERANCE


def test_several_adapters_add_up_in_both_modes(write: Write) -> None:
    first, second = write("one", seed=1), write("two", seed=2)
    both = f"{first}, {second}"
    base, merged, beside = loaded(), loaded(adapter=both), loaded(adapter=both, adapter_mode="unmerged")
    wanted = base.model.get_submodule(PLACE).weight + delta(first, PLACE) + delta(second, PLACE)
    assert torch.allclose(merged.model.get_submodule(PLACE).weight, wanted, atol=1e-6)
    assert torch.allclose(merged.score(TEXT), beside.score(TEXT), atol=TOLERANCE)
    assert proof(beside).text.count("LoRA rank 4 on 4 of 14 linear layers") == 2


def test_evidence_and_bytes_count_the_adapters_own_numbers(write: Write) -> None:
    base, engine = loaded(), loaded(adapter=str(write()), adapter_mode="unmerged")
    own = 2 * (RANK * (64 + 64) + RANK * (64 + 32))  # two layers: A and B of the queries, A and B of the values
    assert engine.memory()["weights_bytes"] - base.memory()["weights_bytes"] == own * 4
    folder = str(engine.plan.spec.knobs["adapter"])
    assert [adapter_numbers(name) for name in (folder, "nowhere", "made:nobody")] == [own, None, None], "known before it is loaded"
    finding = proof(engine)
    assert finding.ok
    assert "LoRA rank 4 on 4 of 14 linear layers, 1,792 numbers (1.1 %), unmerged" in finding.text
    assert engine.counts(techniques()["adapters"], engine.plan) == {"adapter_numbers": own}
    merged = loaded(adapter=engine.plan.spec.knobs["adapter"])
    assert merged.memory()["weights_bytes"] == base.memory()["weights_bytes"]
    assert merged.counts(techniques()["adapters"], merged.plan) == {"adapter_numbers": own}


def test_the_model_stays_the_one_that_transformers_loaded(write: Write) -> None:
    base, engine = loaded(), loaded(adapter=str(write()), adapter_mode="unmerged")
    assert type(engine.model) is type(base.model)
    assert engine.model.get_decoder() is engine.model.model


def test_an_adapter_of_zeros_is_no_proof(write: Write) -> None:
    folder = str(write(zero=(0, 1)))
    for mode in ("merged", "unmerged"):
        finding = proof(loaded(adapter=folder, adapter_mode=mode))
        assert not finding.ok, finding.text


def test_an_adapter_that_leaves_one_layer_as_it_was_is_applied(write: Write) -> None:
    folder = str(write(zero=(0,)))
    beside, merged = (proof(loaded(adapter=folder, adapter_mode=mode)) for mode in ("unmerged", "merged"))
    assert beside.ok
    assert beside.text.endswith("unmerged, all zero and without effect on 2 layers")
    assert merged.ok
    assert "; 2 layers' weights moved by" in merged.text


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"layers": 5}, "10 layers that it changes are not there, first model.layers.2.self_attn.q_proj"),
        ({"hidden": 32}, "other sizes \\(model.layers.0.self_attn.q_proj has 64 inputs there and 32 here\\)"),
    ],
)
def test_an_adapter_for_another_model_names_both_and_changes_nothing(write: Write, changes: dict[str, int], says: str) -> None:
    from playground.techniques import lora

    engine = loaded()
    before = {name: value.clone() for name, value in engine.model.state_dict().items()}
    fits, other = write("fits"), write("other", **changes)
    with pytest.raises(Problem, match=says) as caught:
        lora.put_on(engine.model, [lora.read("fits", fits), lora.read("other", other)], base="shape:tiny", merge=True)
    assert "other, made for someone/tiny-base, does not fit shape:tiny" in caught.value.message
    assert caught.value.kind == "model"
    after = engine.model.state_dict()
    assert set(after) == set(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"drop": "layers.1.self_attn.v_proj.lora_B"}, "does not fit its own configuration: 1 tensors are missing"),
        ({"target_modules": ["q_proj"]}, "does not fit its own configuration"),
        ({"peft_type": "IA3"}, "an adapter of the kind IA3; LORA is what can be loaded here"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4, which changes more than single layers"),
        ({"alora_invocation_tokens": [5]}, "uses alora_invocation_tokens"),
        ({"r": 0}, "configuration|does not fit|cannot put"),
    ],
)
def test_an_adapter_that_cannot_work_is_refused_in_a_sentence(write: Write, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(Problem, match=says) as caught:
        loaded(adapter=str(write(**changes)))
    assert caught.value.kind == "model"


def test_only_safetensors_are_taken_and_what_is_no_adapter_is_named(write: Write, tmp_path: Path) -> None:
    folder = write()
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(Problem, match="only as a pickle"):
        loaded(adapter=str(folder))
    (tmp_path / "empty").mkdir()
    with pytest.raises(Problem, match=r"has no adapter_config\.json"):
        loaded(adapter=str(tmp_path / "empty"))
    with pytest.raises(Problem, match="give a PEFT folder, made:NAME or a hub id"):
        loaded(adapter="nowhere")
    with pytest.raises(Problem, match="Nothing was made under the name 'nobody'"):
        loaded(adapter="made:nobody")


def test_a_cut_file_is_refused(write: Write) -> None:
    path = write() / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-64])
    with pytest.raises(Problem, match="cut short"):
        loaded(adapter=str(path.parent))


def test_nothing_is_merged_into_quantized_weights_but_runs_beside_them() -> None:
    with pytest.raises(Problem, match="Set adapter_mode to unmerged"):
        complete(RunSpec(knobs={"adapter": "random:4", "quantization": "nf4"}), techniques())
    pytest.importorskip("bitsandbytes")
    base = loaded(precision="bf16", quantization="nf4")
    engine = loaded(precision="bf16", quantization="nf4", adapter="random:4", adapter_mode="unmerged")
    assert proof(engine).ok
    assert "14 of 14 linear layers" in proof(engine).text
    assert proof(engine, "quantization").text == proof(base, "quantization").text
    assert proof(engine, "quantization").ok
    assert not torch.equal(engine.score(TEXT), base.score(TEXT))


@pytest.mark.parametrize(
    ("name", "knobs", "says"),
    [
        ("adapters", {"adapter": "random:4"}, "nothing can be merged into it: set adapter_mode to unmerged"),
        ("offloading", {"offload": "disk"}, "offload disk needs plain weights. Leave that out"),
    ],
)
def test_a_checkpoint_that_comes_quantized_is_neither_merged_into_nor_offloaded(name: str, knobs: dict[str, Any], says: str) -> None:
    full = complete(RunSpec(knobs=knobs), techniques()).knobs
    setup = TransformersSetup(config={"quantization_config": {"quant_method": "gptq"}})
    with pytest.raises(Problem, match=f"comes quantized .gptq., and {says}"):
        techniques()[name].hook("for", "transformers")(full, setup)
    assert setup.changes == []


def test_over_int8_the_adapter_has_the_format_of_the_activations() -> None:
    pytest.importorskip("bitsandbytes")
    engine = loaded(precision="fp16", quantization="int8", adapter="random:4", adapter_mode="unmerged")
    for technique in ("adapters", "quantization", "precision"):
        assert proof(engine, technique).ok, proof(engine, technique).text


def test_the_graph_engine_runs_a_merged_adapter_as_transformers_does_and_refuses_the_other(write: Write) -> None:
    folder = str(write())
    graph, plain = loaded("graph", adapter=folder), loaded(adapter=folder)
    assert proof(graph).ok
    tokens = [[tick.tokens for tick in engine.generate(Batch((TEXT[:5], TEXT[5:12]), 6))] for engine in (graph, plain)]
    assert tokens[0] == tokens[1]
    with pytest.raises(Problem, match="set adapter_mode to merged"):
        loaded("graph", adapter=folder, adapter_mode="unmerged")


@pytest.mark.parametrize(
    ("knobs", "says"),
    [
        ({"adapter": "random:0"}, "random:0 is no adapter: random:RANK needs a whole number from 1 to 512"),
        ({"adapter": "random:8, random:8"}, "named twice"),
        ({"adapter_mode": "unmerged"}, "no adapter is chosen"),
    ],
)
def test_settings_that_make_no_sense_are_refused_before_anything_is_loaded(knobs: dict[str, str], says: str) -> None:
    with pytest.raises(Problem, match=says):
        complete(RunSpec(knobs=knobs), techniques())


def test_rows_of_different_lengths_come_out_as_if_each_ran_alone(write: Write) -> None:
    engine = loaded(adapter=str(write()), adapter_mode="unmerged", batch_size=2)
    rows = (TEXT[:3], TEXT[10:18])
    together = list(zip(*(tick.tokens for tick in engine.generate(Batch(rows, 5))), strict=True))
    alone = [[tick.tokens[0] for tick in engine.generate(Batch((row,), 5))] for row in rows]
    assert [list(row) for row in together] == alone
