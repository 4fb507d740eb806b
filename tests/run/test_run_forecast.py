"""What is said of a run before anything is loaded."""

from dataclasses import asdict, replace

import pytest

from playground.core.engine import Engine
from playground.core.events import Ceilings
from playground.core.machine import Machine
from playground.core.plan import complete
from playground.core.spec import RunSpec, Workload
from playground.engines import engines
from playground.measure.ceilings import device_key
from playground.models.model import ModelFacts
from playground.run.forecast import ceilings_of, estimate_of, foreseen, prediction_of
from playground.techniques import techniques

FACTS = ModelFacts(
    "a shape", "shape",
    {
        "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256, "tie_word_embeddings": True,
    },
)  # fmt: skip
CPU = Machine("host", "cpu", 2, 8, 4)
CEILINGS = Ceilings(0, "a GPU", "cuda", "bfloat16", 1e12, 1e15, 1e-7, "2026-01-01T00:00:00+00:00")


def spec(**knobs):
    return complete(RunSpec(knobs=knobs, workload=Workload(("word " * 20,), max_new_tokens=32, chat=False)), techniques())


def test_speed_and_memory_are_predicted_before_the_run():
    found = prediction_of(spec(), FACTS, techniques(), CEILINGS)
    # 100 characters are 26 tokens, with 15 more in the middle of the output; 2.47 GB of weights at 1 TB/s decide
    assert found.decode_bound == "memory"
    assert found.step_s == pytest.approx(2.4716e-3, rel=0.01)
    assert found.output_tokens_per_s == pytest.approx(32 / (found.ttft_s + 31 * found.step_s))
    estimated = estimate_of(spec(), lambda name: FACTS, techniques(), CPU)
    assert (found.weights_bytes, found.kv_cache_bytes) == (estimated.weights_bytes, estimated.kv_cache_bytes)


def test_fewer_bits_are_predicted_to_be_faster_where_memory_decides():
    plain, packed = (prediction_of(spec(quantization=kind), FACTS, techniques(), CEILINGS) for kind in ("none", "nf4"))
    assert packed.step_s < 0.5 * plain.step_s


def test_nothing_is_predicted_of_an_unknown_model_or_device():
    assert prediction_of(spec(), None, techniques(), CEILINGS) is None
    assert prediction_of(spec(), FACTS, techniques(), None) is None
    assert prediction_of(spec(), ModelFacts("odd", "hub", {"hidden_size": 8}), techniques(), CEILINGS) is None


SMALL = ModelFacts("small", "hub", {**FACTS.config, "num_hidden_layers": 4})


def test_a_draft_counts_with_its_weights_and_cache_and_nobody_predicts_what_it_gains():
    one = spec(speculative="draft", draft_model="small")
    plain, small = (estimate_of(spec(), lambda name, facts=facts: facts, techniques(), CPU) for facts in (FACTS, SMALL))
    found = estimate_of(one, {"small": SMALL, one.model: FACTS}.get, techniques(), CPU)
    assert found.weights_bytes == plain.weights_bytes + small.weights_bytes
    assert found.kv_cache_bytes == plain.kv_cache_bytes * 20 / 16  # layers
    assert found.total_bytes == found.weights_bytes + found.kv_cache_bytes + plain.activation_bytes
    unknown = estimate_of(one, {one.model: FACTS}.get, techniques(), CPU)
    assert (unknown.total_bytes, "small is not counted" in unknown.note) == (plain.total_bytes, True)
    assert prediction_of(one, FACTS, techniques(), CEILINGS) is None


def test_an_adapter_beside_the_model_counts_and_a_merged_one_does_not():
    plain, merged, beside = (
        estimate_of(spec(**knobs), lambda name: FACTS, techniques(), CPU).weights_bytes
        for knobs in ({}, {"adapter": "random:8"}, {"adapter": "random:8, nowhere", "adapter_mode": "unmerged"})
    )
    # 16 layers of rank 8: queries and output 2 x (2048 + 2048), keys and values 2 x (2048 + 512), MLP 3 x (2048 + 8192); 2 bytes each
    assert (merged, beside) == (plain, plain + 16 * 8 * (8192 + 5120 + 30720) * 2)


def test_the_engine_has_its_say_on_the_device_that_is_meant(monkeypatch):
    class Packed(Engine):
        @classmethod
        def footprint(cls, knobs, device, footprint):
            return replace(footprint, kv_bits=8.0) if device == "cuda" else footprint

    monkeypatch.setitem(engines(), "packed", Packed)
    one, plain = spec().replace(engine="packed"), prediction_of(spec(), FACTS, techniques(), CEILINGS)
    assert prediction_of(one, FACTS, techniques(), CEILINGS).kv_cache_bytes == plain.kv_cache_bytes / 2
    assert estimate_of(one, lambda name: FACTS, techniques(), CPU).kv_cache_bytes == plain.kv_cache_bytes
    assert estimate_of(one, lambda name: FACTS, techniques(), replace(CPU, device="cuda")).kv_cache_bytes == plain.kv_cache_bytes / 2


def test_runs_that_have_not_begun_are_foreseen_where_device_and_model_are_known():
    machine = Machine("h", "cpu", 2, 10**10, 10**9, packages={"torch": "2.11"})
    measured = Ceilings(0, "", "cpu", "float32", 1e10, 1e11, 1e-6, "now", matvec_bytes_per_s=1e10)
    known = {device_key(machine, "cpu", "float32"): asdict(measured)}
    tiny = complete(RunSpec("shape:tiny", workload=Workload(prompt_tokens=64), knobs={"precision": "fp32"}), techniques())
    specs = {
        3: tiny,
        5: tiny.replace(workload=Workload(prompt_tokens=512)),
        7: tiny.replace(model="nowhere"),
        8: tiny.replace(device="cuda"),
    }
    found = foreseen(specs, techniques(), machine, known)
    assert set(found) == {3, 5}
    assert ceilings_of(tiny, techniques(), machine, known).matmul_flops == 1e11
    assert ceilings_of(tiny.replace(knobs={**tiny.knobs, "autocast": "bf16"}), techniques(), machine, known) is None
    assert found[5]["ttft_s"] > 2 * found[3]["ttft_s"] > 0


def test_a_step_with_offloaded_weights_is_not_foreseen_since_their_link_is_measured_when_they_are_loaded():
    machine = Machine("h", "cpu", 2, 10**10, 10**9, packages={"torch": "2.11"})
    known = {
        device_key(machine, "cpu", "float32"): asdict(Ceilings(0, "", "cpu", "float32", 1e10, 1e11, 1e-6, "now", matvec_bytes_per_s=1e10))
    }
    one = complete(RunSpec("shape:tiny", workload=Workload(prompt_tokens=64), knobs={"precision": "fp32", "offload": "disk"}), techniques())
    assert foreseen({1: one}, techniques(), machine, known) == {}
