"""Offloaded layers: the same output, weights that are really away, a predicted cost, and a disk that fills."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from playground.core.engine import Batch
from playground.core.events import BatchEnd, BatchStart, Counts, Done, Event, Phase, Tick
from playground.core.plan import Plan, complete, footprint_of, plan_for, refusal
from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.core.technique import Footprint, away_layers
from playground.engines import engines
from playground.engines.transformers import TransformersEngine
from playground.measure.estimate import estimate, parameters
from playground.measure.machine import probe
from playground.measure.offload import METRICS
from playground.measure.roofline import decode_work
from playground.measure.trace import Trace
from playground.measure.values import Missing
from playground.models.recording import find, read
from playground.results.result import result
from playground.techniques import techniques
from playground.techniques.away import AwayOnDisk, AwayPinned
from playground.techniques.setup import TransformersSetup

TECHNIQUE = techniques()["offloading"]
MEASURE = {metric.name: metric.measure for metric in METRICS}
CONFIG = {
    "model_type": "llama", "hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 16, "vocab_size": 32,
}  # fmt: skip
ROWS = Batch(((7, 8, 9), (4,)), 8)
LAYER_BYTES = 4 * (64 * (64 + 2 * 32) + 64 * 64 + 3 * 64 * 192 + 2 * 64)  # of shape:tiny in fp32: attention, MLP, two norms


def plan(**knobs: Any) -> Plan:
    spec = RunSpec(model="shape:tiny", device="cpu", knobs={"precision": "fp32", "batch_size": 2, **knobs})
    return plan_for(spec, techniques(), TransformersEngine, probe())


def loaded(**knobs: Any) -> TransformersEngine:
    engine = TransformersEngine()
    engine.load(plan(**knobs), lambda event: None)
    return engine


@pytest.fixture(scope="module")
def whole() -> Iterator[TransformersEngine]:
    engine = loaded()
    yield engine
    engine.close()


def output(engine: TransformersEngine, **knobs: Any) -> tuple[list[Any], torch.Tensor]:
    engine.setup(plan(**knobs))
    return [tick.tokens for tick in engine.generate(ROWS)], engine.score((7, 8, 9, 10, 11))


@pytest.mark.parametrize(
    ("random_weights", "knobs", "held"),
    [(True, {}, ("", "cpu")), (False, {}, ("cpu", "cpu")), (True, {"prune": "mlp_width", "prune_share": 0.5}, ("cpu", "cpu"))],
)
def test_random_weights_are_drawn_to_where_they_stay_unless_something_changes_them(
    random_weights: bool, knobs: dict[str, Any], held: tuple[str, str]
) -> None:
    setup = TransformersSetup(device="cuda", config={"num_hidden_layers": 80}, random_weights=random_weights)
    full = complete(RunSpec(knobs={"offload": "pinned", "offload_share": 0.2, **knobs}), techniques()).knobs
    for name in ("pruning", "offloading"):
        techniques()[name].for_transformers(full, setup)  # type: ignore[attr-defined]
    where = setup.load["held_on"]
    stay, go = ("model.embed_tokens", "model.layers.63.mlp.up_proj", "lm_head"), ("model.layers.64", "model.layers.79.mlp.up_proj")
    assert [{where if isinstance(where, str) else where(path) for path in paths} for paths in (stay, go)] == [{held[0]}, {held[1]}]


@pytest.mark.parametrize(("share", "away"), [(0.5, 1), (1.0, 2)])
def test_a_model_with_layers_on_disk_gives_the_same_output_bit_for_bit(whole: TransformersEngine, share: float, away: int) -> None:
    engine = loaded(offload="disk", offload_share=share)
    for kv_cache in ("dynamic", "static", "off"):
        tokens, logits = output(engine, offload="disk", offload_share=share, kv_cache=kv_cache)
        wanted, wanted_logits = output(whole, kv_cache=kv_cache)
        assert tokens == wanted
        assert torch.equal(logits, wanted_logits)
    layers = engine.model.get_decoder().layers
    assert [all(weight.is_meta for weight in layer.parameters()) for layer in layers] == [False] * (2 - away) + [True] * away
    assert engine.memory()["weights_bytes"] == whole.memory()["weights_bytes"] - away * LAYER_BYTES
    counted = engine.counts(TECHNIQUE, plan(offload="disk"))
    assert counted["offloaded_bytes"] == away * LAYER_BYTES
    assert counted["link_bytes_per_s"] > 0
    assert engine.evidence(TECHNIQUE, plan(offload="disk", offload_share=share)).ok
    assert not engine.evidence(TECHNIQUE, plan()).ok
    engine.close()


def test_a_layer_that_kept_its_weights_is_no_proof() -> None:
    engine = loaded(offload="disk", offload_share=1.0)
    norm = engine.model.get_decoder().layers[0].input_layernorm
    norm.weight = torch.nn.Parameter(torch.ones(64))
    found = engine.evidence(TECHNIQUE, plan(offload="disk", offload_share=1.0))
    assert (found.ok, found.text[:6]) == (False, "1 of 2")
    engine.close()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_comes_back_from_disk_is_what_went_there(playground_home: Path, dtype: torch.dtype) -> None:
    before = sorted(playground_home.iterdir())
    tensors = {"a": torch.randn(3, 5).to(dtype), "b": torch.randn(2, 2, 2).to(dtype).transpose(0, 2), "c": torch.ones(1, dtype=dtype)}
    away = AwayOnDisk(tensors)
    for name in ("c", "a", "b", "a"):
        assert torch.equal(away[name], tensors[name])
    assert sorted(playground_home.iterdir()) == before  # the file has no name, so nobody needs to remove it


def test_pinned_weights_are_those_that_torch_calls_so(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[int] = []  # a machine without a GPU can pin nothing

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        copy = tensor.clone()
        pinned.append(copy.data_ptr())
        return copy

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda tensor: tensor.data_ptr() in pinned)
    tensors = {"a": torch.ones(2), "b": torch.zeros(3)}
    away = AwayPinned(tensors)
    assert (away.kept(), dict(away)["b"].tolist()) == (True, [0.0, 0.0, 0.0])
    pinned.pop()
    assert not away.kept()


def test_fewer_and_nearer_layers_promise_shorter_steps() -> None:
    def effect(kind: str, share: float, before: str, was: float) -> Any:
        one, other = (complete(RunSpec(knobs={"offload": how, "offload_share": part}), techniques()).knobs
                      for how, part in ((kind, share), (before, was)))  # fmt: skip
        return TECHNIQUE.expect(one, other).get("itl_s")

    assert (effect("cpu", 0.5, "none", 0.5), effect("pinned", 0.5, "cpu", 0.5), effect("disk", 0.5, "cpu", 0.5)) == ("up", "down", "up")
    assert effect("pinned", 1.0, "cpu", 0.5) is None, "more, from a faster place"


def test_a_full_disk_is_a_sentence_and_leaves_nothing_behind(playground_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full, a file on which every write finds the disk full")
    before = sorted(playground_home.iterdir())
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **options: Path("/dev/full").open("r+b", buffering=0))  # noqa: SIM115
    with pytest.raises(Problem, match=r"The disk is full: offloading writes 0\.00 GB into .* offload a smaller share\.") as caught:
        loaded(offload="disk")
    assert caught.value.kind == "user"
    assert sorted(playground_home.iterdir()) == before


def test_an_error_of_the_disk_that_is_not_a_full_one_is_not_called_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **options: (tmp_path / "file").open("rb", buffering=0))
    with pytest.raises(OSError, match="not open for writing"):
        AwayOnDisk({"a": torch.ones(2)})


@pytest.mark.parametrize(
    ("knobs", "way_out"),
    [
        ({"quantization": "nf4"}, "Set one of them to none."),
        ({"compile": "default", "kv_cache": "static"}, "Set compile to off, or offload to none."),
    ],
)
def test_what_the_hooks_cannot_move_is_refused_with_the_way_out(knobs: dict[str, Any], way_out: str) -> None:
    with pytest.raises(Problem) as caught:
        complete(RunSpec(knobs={"offload": "disk", **knobs}), techniques())
    assert caught.value.message.endswith(way_out)


def test_host_memory_on_a_cpu_and_weights_that_move_under_a_captured_step_are_refused() -> None:
    away = [("transformers", kind, "choose disk.") for kind in ("cpu", "pinned")]
    for engine, kind, words in (*away, ("graph", "disk", "choose the engine transformers.")):
        spec = complete(RunSpec(engine=engine, device="cpu", knobs={"offload": kind}), techniques(), engines()[engine].defaults("cpu"))
        assert str(refusal(spec, techniques(), engines()[engine], probe())).endswith(words)


def test_the_estimate_leaves_offloaded_layers_out_and_keeps_room_for_the_one_that_runs() -> None:
    linear = parameters(CONFIG).linear
    kept, away = (estimate(CONFIG, Footprint(weight_bits=16, away_share=share), 10, 10) for share in (0.0, 0.7))
    assert away_layers(3, 0.7) == 2
    assert kept.weights_bytes - away.weights_bytes == linear * 2 * 2 // 3
    assert away.activation_bytes - kept.activation_bytes == linear * 2 // 3
    spec = RunSpec(knobs={"offload": "disk", "offload_share": 0.7})
    assert footprint_of(spec, techniques()).away_share == 0.7
    assert footprint_of(RunSpec(), techniques()).away_share == 0.0
    steps = [decode_work(CONFIG, Footprint(weight_bits=16, away_share=share), 10).bytes for share in (0.0, 0.7)]
    assert steps[1] - steps[0] == pytest.approx(linear * 2 * 2 / 3)  # written to the device before they are read there
    assert [away_layers(30, share) for share in (0.0, 0.01, 0.5, 1.0)] == [0, 1, 15, 30]


def timed(gap_ms: int) -> list[Event]:
    """One timed pass of one row and three tokens."""
    ticks = [Tick(at * 1_000_000, ((5,),)) for at in (50, 50 + gap_ms, 50 + 2 * gap_ms)]
    return [Phase(0, "timed"), BatchStart(0, "timed", 0, (0,), (3,)), *ticks, BatchEnd(10**9), Phase(10**9, "energy")]


def test_a_weight_has_as_many_bits_wherever_it_is_and_whatever_is_beside_it() -> None:
    recording = read(find("epyc-smollm2-135m-offloading"))
    found = [result(spec, events)["metrics"] for spec, events in zip(recording.specs, recording.events, strict=True)]
    assert len({metrics["weights_bytes"]["value"] for metrics in found}) == 3
    assert [metrics["bits_per_weight"]["value"] for metrics in found] == [pytest.approx(32, rel=1e-3)] * 4
    drafted = read(find("h200-smollm2-135m-speculative-own-draft"))
    assert result(drafted.specs[1], drafted.events[1])["metrics"]["bits_per_weight"]["value"] == pytest.approx(32, rel=1e-3)


def trace(gap_ms: int, **counts: float) -> Trace:
    return Trace.of(RunSpec(), [*([Counts(0, counts)] if counts else []), *timed(gap_ms), Done(10**12)])


def test_the_cost_of_a_token_is_predicted_from_the_link_and_measured_against_the_baseline() -> None:
    own = trace(25, offloaded_bytes=2e9, link_bytes_per_s=1e11)
    assert MEASURE["predicted_offload_s"](own, None) == pytest.approx(0.020)
    assert MEASURE["offload_s"](own, trace(10)) == pytest.approx(0.015)
    for baseline, reason in ((None, "needs a baseline"), (own, "the baseline offloads layers too")):
        found = MEASURE["offload_s"](own, baseline)
        assert isinstance(found, Missing)
        assert reason in found.reason
    for metric in METRICS:
        assert isinstance(metric.measure(trace(10), trace(10)), Missing)
