"""What pruning takes away: the numbers it zeroes, the layers and channels that are left, and what it refuses."""

from __future__ import annotations

import weakref
from types import SimpleNamespace
from typing import Any

import pytest

from playground.core.engine import Batch
from playground.core.events import Counts
from playground.core.plan import complete, footprint_of, plan_for
from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.core.technique import Footprint
from playground.engines import engines
from playground.measure.estimate import estimate
from playground.measure.machine import probe
from playground.measure.metrics import derive
from playground.measure.trace import Trace
from playground.models.resolve import resolve
from playground.techniques import techniques

torch = pytest.importorskip("torch")

# shape:tiny: 2 layers of q 64 x 64, k and v 32 x 64, o 64 x 64 and three MLP matrices of 64 x 192; embedding and head of 512 x 64.
ATTENTION, MLP_CHANNEL, REST = 2 * 64 * 64 + 2 * 32 * 64, 3 * 64, 2 * 512 * 64 + 64


def load(engine: str = "transformers", **knobs: Any) -> Any:
    spec = RunSpec(model="shape:tiny", engine=engine, device="cpu", knobs={"precision": "fp32", **knobs})
    plan = plan_for(spec, techniques(), engines()[engine], probe())
    loaded = engines()[engine]()
    loaded.load(plan, lambda event: None)
    loaded.setup(plan)
    loaded.plan = plan
    return loaded


def found(engine: Any) -> Any:
    return engine.evidence(techniques()["pruning"], engine.plan)


def test_magnitude_zeroes_exactly_the_smallest_of_each_matrix_and_shrinks_nothing() -> None:
    plain, pruned = load(), load(prune="magnitude", prune_share=0.3)
    before, after = (engine.model.model.layers[1].mlp.up_proj.weight for engine in (plain, pruned))
    gone = after == 0
    assert int(gone.sum()) == round(0.3 * 192 * 64)
    assert before[gone].abs().max() <= before[~gone].abs().min()
    assert torch.equal(after[~gone], before[~gone])
    assert pruned.memory()["weights_bytes"] == plain.memory()["weights_bytes"]
    assert torch.equal(pruned.model.lm_head.weight, plain.model.lm_head.weight)
    assert found(pruned).text == "30.0 % of 0.0983 M weights of 14 linear layers are zero, in dense matrices as large as before"


def test_as_many_are_zeroed_as_asked_for_where_many_have_the_same_size() -> None:
    from playground.techniques.pruned_model import zero_smallest, zeros

    weight = torch.ones(4, 4)
    zero_smallest(weight, 0.25)
    assert zeros([weight]) == (4, 16)


def test_zeros_of_sparse_layers_are_counted_with_one_dense_matrix_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from playground.techniques import pruning

    dense: list[weakref.ref[torch.Tensor]] = []
    most = 0

    class SparseSemiStructuredTensor:
        def to_dense(self) -> torch.Tensor:
            nonlocal most
            made = torch.tensor([[0.0, 0.0, 1.0, 2.0]])
            dense.append(weakref.ref(made))
            most = max(most, sum(one() is not None for one in dense))
            return made

    layers = [SimpleNamespace(weight=SparseSemiStructuredTensor()) for _ in range(3)]
    monkeypatch.setattr(pruning, "linear_layers", lambda model: layers)
    assert pruning._zero_text(None)[:2] == (6, 12)
    assert most == 1


def test_two_of_each_four_are_kept_and_they_are_the_largest() -> None:
    from playground.techniques.pruned_model import two_of_four

    assert two_of_four(torch.tensor([[1.0, -4.0, 3.0, 2.0, 0.1, 0.2, -0.4, 0.3]])).tolist() == [
        [0.0, -4.0, 3.0, 0.0, 0.0, 0.0, pytest.approx(-0.4), pytest.approx(0.3)]
    ]


def test_the_layer_that_changes_its_input_least_goes_and_the_others_compute_as_before() -> None:
    from playground.techniques.pruned_model import block_similarities, drop_layers, least_useful

    engine = load()
    ids = torch.tensor([3, 5, 7, 9])
    idle = engine.model.model.layers[0]  # adds nothing: its output is its input
    idle.self_attn.o_proj.weight.data.zero_()
    idle.mlp.down_proj.weight.data.zero_()
    similarities = block_similarities(engine.model, ids)
    assert similarities[0] == pytest.approx(1.0)
    assert similarities[1] < 0.999
    assert least_useful(similarities, 1) == [0]
    before = engine.score((3, 5, 7, 9))
    drop_layers(engine.model, [0])
    assert torch.allclose(engine.score((3, 5, 7, 9)), before, atol=1e-6)


@pytest.mark.parametrize("name", ["transformers", "graph"])
def test_fewer_layers_are_fewer_bytes_and_a_smaller_cache_and_the_estimate_knows(name: str) -> None:
    engine = load(name, prune="layers", prune_share=0.5)
    list(engine.generate(Batch(((7, 8, 9),), 4)))
    assert len(engine.model.model.layers) == 1
    assert engine.cache.layers[0].keys.shape[1:2] == (2,)
    assert len(engine.cache.layers) == 1
    finding = found(engine)
    assert finding.ok
    assert finding.text.startswith("1 of 2 layers are left, without ")
    expected = 4 * (ATTENTION + 192 * MLP_CHANNEL + 2 * 64 + REST)
    assert engine.memory()["weights_bytes"] == pytest.approx(expected, abs=200)  # and the rotary frequencies
    guess = estimate(engine.options.config, footprint_of(engine.plan.spec, techniques()), 3, 4)
    assert guess.weights_bytes == expected
    assert guess.kv_cache_bytes == 2 * 1 * 2 * 16 * 4 * 7  # keys and values x layers x heads x size x bytes x tokens


@pytest.mark.parametrize("name", ["transformers", "graph"])
def test_narrow_mlps_are_smaller_matrices_and_the_estimate_knows(name: str) -> None:
    engine = load(name, prune="mlp_width", prune_share=0.5)
    assert {layer.mlp.down_proj.in_features for layer in engine.model.model.layers} == {96}
    assert found(engine).text == "96 of 192 MLP channels are left in each of 2 layers"
    expected = 4 * (2 * (ATTENTION + 96 * MLP_CHANNEL + 2 * 64) + REST)
    assert engine.memory()["weights_bytes"] == pytest.approx(expected, abs=200)
    assert estimate(engine.options.config, Footprint(mlp_share=0.5), 3, 4).weights_bytes == expected
    assert engine.score((1, 2, 3)).shape == (2, 512)


def test_channels_that_add_nothing_are_the_first_to_go_and_the_output_stays() -> None:
    from playground.techniques.pruned_model import narrow_mlps

    engine = load()
    for layer in engine.model.model.layers:
        layer.mlp.down_proj.weight.data[:, ::2] = 0
    before = engine.score((1, 2, 3, 4))
    narrow_mlps(engine.model, torch.tensor([5, 6, 7]), 96)
    assert torch.allclose(engine.score((1, 2, 3, 4)), before, atol=1e-6)


def test_what_is_left_is_counted_once_also_where_weights_are_packed() -> None:
    whole = 2 * (ATTENTION + 192 * MLP_CHANNEL + 2 * 64) + REST
    technique = techniques()["pruning"]
    plain = load()
    assert plain.counts(technique, plain.plan)["parameters"] == whole
    packed = load(quantization="nf4", prune="layers", prune_share=0.5)
    counts = packed.counts(technique, packed.plan)
    assert (counts["parameters"], counts["decoder_layers"]) == (whole - ATTENTION - 192 * MLP_CHANNEL - 2 * 64, 1)
    values = derive(Trace.of(RunSpec(), [Counts(1, counts)]), None)
    assert values["decoder_layers"].value == 1
    assert values["weights_zero_share"].reason == "the weights are packed, so their zeros cannot be counted"


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"prune": "layers", "prune_share": 1.0}, "prune_share 1 leaves nothing of the model"),
        ({"prune": "magnitude", "prune_share": 0.0}, "prune_share 0 takes nothing away"),
        ({"prune": "mlp_width", "quantization": "nf4"}, "set quantization to none, or prune to layers"),
        ({"prune": "magnitude", "torchao": "int8_dynamic"}, "kernels that skip no zeros"),
        ({"prune": "two_four", "precision": "fp32"}, "Set precision to bf16 or fp16"),
        ({"prune_share": 0.5}, "nothing is pruned"),
        ({"prune": "two_four", "prune_share": 0.4, "precision": "bf16"}, "two_four always takes half"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs_with_the_way_out(knobs: dict[str, Any], words: str) -> None:
    with pytest.raises(Problem, match=f"(?i){words}"):
        complete(RunSpec(knobs=knobs), techniques())


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"prune": "layers", "prune_share": 0.9}, "leaves none of this model's 2 layers: give a smaller share"),
        ({"prune": "layers", "prune_share": 0.1}, "takes none of this model's 2 layers away: give a larger share"),
        ({"prune": "mlp_width", "prune_share": 0.95}, "leaves none of this model's 192 MLP channels"),
    ],
)
def test_a_share_that_this_model_cannot_have_is_refused_before_its_weights_are_loaded(
    knobs: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("playground.models.weights.build_random", lambda *args, **options: pytest.fail("weights were made"))
    with pytest.raises(Problem, match=words):
        load(**knobs)


def test_two_four_is_refused_on_a_cpu_with_the_reason() -> None:
    with pytest.raises(Problem, match="no CPU multiplies 2:4 matrices"):
        load(prune="two_four", precision="bf16")


def test_two_four_is_expected_to_save_memory_and_to_take_longer_a_step() -> None:
    dense, zeros, sparse = ({"prune": kind, "prune_share": 0.5} for kind in ("none", "magnitude", "two_four"))
    expect = techniques()["pruning"].expect
    assert (expect(sparse, dense)["weights_bytes"], expect(sparse, dense)["itl_s"]) == ("down", "up")
    assert (expect(zeros, sparse)["weights_bytes"], expect(zeros, sparse)["itl_s"]) == ("up", "down")
    assert expect(zeros, dense)["itl_s"] == "same"


def test_a_run_that_pruned_nothing_fails_its_proof() -> None:
    engine = load()
    prove = techniques()["pruning"].evidence_for_transformers
    for kind in ("magnitude", "two_four", "layers", "mlp_width"):
        assert not prove({"prune": kind, "prune_share": 0.5}, engine).ok
    assert prove({"prune": "none", "prune_share": 0.25}, engine).text == "2 of 2 layers and 192 of 192 MLP channels are there"
    assert resolve("shape:tiny", lambda event: None).config["num_hidden_layers"] == 2
