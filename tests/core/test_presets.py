"""Experiments from files, names and API calls: what is taken, and the sentence for what is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from playground.core.engine import Engine
from playground.core.plan import complete
from playground.core.problem import Problem
from playground.core.spec import Protocol
from playground.engines import engines
from playground.models.recording import recordings
from playground.presets import experiment, experiments, recorded, specs_from, sweep, sweep_from
from playground.techniques import techniques


def refused(data: object) -> str:
    with pytest.raises(Problem) as caught:
        specs_from(data)
    assert caught.value.kind == "user"
    return caught.value.message


@pytest.mark.parametrize("data", [None, 5, "shape:tiny", [{"model": "shape:tiny"}]])
def test_a_payload_that_is_no_table_is_refused(data: object) -> None:
    assert refused(data) == f"the experiment must be a table of names and values, got {data!r}."


def test_a_list_of_variants_may_have_a_title_and_a_text() -> None:
    specs = specs_from({"title": "T", "about": "A", "variants": [{"model": "shape:tiny"}, {"model": "m"}]})
    assert [spec.model for spec in specs] == ["shape:tiny", "m"]


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ({"titel": "T"}, "the experiment: beside variants there is no setting 'titel'; did you mean 'title'?"),
        ({"model": "m"}, "the experiment: beside variants there is no setting 'model'; known: about, title, variants."),
        ({"baseline": {}}, "the experiment: beside variants there is no setting 'baseline'; known: about, title, variants."),
    ],
)
def test_settings_beside_variants_are_refused_and_not_dropped(extra: dict[str, Any], sentence: str) -> None:
    assert refused({"variants": [{"model": "shape:tiny"}], **extra}) == sentence


@pytest.mark.parametrize("given", [[], "shape:tiny", {"model": "m"}, None, 3])
def test_variants_that_are_no_list_are_refused(given: object) -> None:
    assert refused({"variants": given}) == "variants must be a list of at least one experiment."


def test_a_variant_that_is_no_table_is_refused() -> None:
    assert refused({"variants": [5]}) == "the experiment must be a table of names and values, got 5."


def missing(name: str) -> str:
    with pytest.raises(Problem) as caught:
        experiment(Path(name))
    assert caught.value.kind == "user"
    return caught.value.message


def test_a_misspelt_preset_gets_the_nearest_experiment_or_recording() -> None:
    assert missing("quantisation") == "There is no file or experiment 'quantisation'; did you mean 'quantization'?"
    for name in recordings():
        assert missing(name[:-1]).endswith(f"did you mean {name!r}?")


def test_a_name_far_from_all_gets_the_list() -> None:
    sentence = missing("zzzz")
    assert all(preset.name in sentence for preset in experiments())
    assert all(name in sentence for name in recordings())


@pytest.mark.parametrize("name", ["nowhere.toml", "quantisation.json", "mine/quantisation"])
def test_a_path_that_is_not_there_is_a_missing_file(name: str) -> None:
    assert missing(name) == f"There is no file {Path(name)}."


def test_a_file_with_both_forms_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text('{"variants": [{"model": "shape:tiny"}], "protocol": {"repeats": 1}}')
    assert missing(str(path)).startswith("mine.json: the experiment: beside variants there is no setting 'protocol'")


def test_a_variant_with_another_engine_takes_that_engines_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fixed(Engine):
        @classmethod
        def defaults(cls, device: str) -> dict[str, str]:
            return {"kv_cache": "static"}

    monkeypatch.setitem(engines(), "fixed", Fixed)
    there = {"baseline": {"knobs": {"kv_cache": "dynamic", "precision": "fp32"}}, "variant": [{"engine": "fixed"}]}
    assert [spec.knobs for spec in specs_from(there)] == [{"kv_cache": "dynamic", "precision": "fp32"}, {"precision": "fp32"}]
    back = {"baseline": {"engine": "fixed", "knobs": {"kv_cache": "dynamic"}}, "variant": [{"engine": "transformers"}]}
    assert [spec.knobs for spec in specs_from(back)] == [{"kv_cache": "dynamic"}] * 2


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('{"model": "shape:tiny"}', False),
        ('{"model": "shape:tiny", "engine": "transformers"}', True),
        ('{"variants": [{"model": "shape:tiny"}, {"engine": "transformers"}]}', True),
        ('{"variants": [{"model": "shape:tiny"}, {}]}', False),
        ('{"baseline": {"engine": "transformers"}}', True),
        ('{"baseline": {}, "variant": [{"precision": "fp32"}]}', False),
        ('{"baseline": {}, "variant": [{"engine": "graph"}]}', True),
    ],
)
def test_an_experiment_knows_whether_it_asks_for_engines(text: str, names: bool, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(text)
    assert experiment(path).names_engine is names


def test_recordings_and_the_story_of_launches_ask_for_their_engines_and_the_other_presets_for_none() -> None:
    assert {preset.name for preset in experiments() if preset.names_engine} == {"launch-bound"}
    assert all(preset.names_engine for preset in recorded())


def test_the_story_of_launches_is_one_model_without_and_with_captured_steps() -> None:
    specs = next(preset for preset in experiments() if preset.name == "launch-bound").specs
    assert {spec.model for spec in specs} == {"shape:llama-3.2-1b"}
    full = [complete(spec, techniques()).knobs for spec in specs]
    shown = [
        (spec.engine, knobs["precision"], knobs["quantization"], knobs["weight_only"]) for spec, knobs in zip(specs, full, strict=True)
    ]
    assert shown == [
        ("transformers", "bf16", "none", "none"),
        ("transformers", "bf16", "nf4", "none"),
        ("graph", "bf16", "none", "none"),
        ("graph", "bf16", "none", "int4"),
    ]


def test_a_sweeps_file_is_an_experiments_with_axes_and_measures_quickly_unless_it_says_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('title = "T"\n[baseline]\nmodel = "shape:tiny"\n[[variant]]\nkv_cache = "off"\n[axes]\nmax_new_tokens = "4:16:x2"\n')
    found = sweep(path)
    assert (found.plan.title, [spec.label for spec in found.plan.specs]) == ("T", ["", "KV cache off"])
    assert [(axis.name, axis.values) for axis in found.plan.axes] == [("max_new_tokens", (4, 8, 16))]
    assert {(spec.protocol.quality, spec.protocol.profile) for spec in found.plan.specs} == {(False, False)}
    again = tmp_path / "again.json"
    again.write_text(json.dumps(found.plan.to_dict()))
    assert sweep(again).plan == found.plan
    path.write_text("protocol = { repeats = 7 }\n[axes]\nbatch_size = [1, 2]\n")
    assert sweep(path).plan.specs[0].protocol == Protocol(repeats=7)
    path.write_text("[axes]\nbatchsize = [1, 2]\n")
    with pytest.raises(Problem, match=r"mine\.toml: There is no axis 'batchsize'; did you mean 'batch_size'"):
        sweep(path)
    path.write_text("variants = [5]\naxes = { batch_size = [1, 2] }\n")
    with pytest.raises(Problem, match="must be a table of names and values, got 5"):
        sweep(path)


def test_beside_a_preset_stands_what_a_sweep_takes_in_its_place() -> None:
    own = {"model": "shape:tiny", "workload": {"prompt_tokens": 8}}
    plan = sweep_from({"preset": "output-length", "baseline": own, "axes": {"max_new_tokens": [4, 8]}}).plan
    assert [(spec.model, spec.workload.prompt_tokens, spec.knobs["kv_cache"]) for spec in plan.specs] == [
        ("shape:tiny", 8, "dynamic"), ("shape:tiny", 8, "off"),
    ]  # fmt: skip
    assert (plan.axes[0].values, plan.title) == ((4, 8), "")  # not the title of other axes
    plan = sweep_from({"preset": "kv-cache", "axes": {"batch_size": "1:4:x2"}}).plan
    assert [spec.label for spec in plan.specs] == ["dynamic", "KV cache static", "KV cache off"]
    assert plan.axes[0].values == (1, 2, 4)


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        ({"preset": "batchsize"}, "There is no sweep or experiment 'batchsize'; did you mean 'batch-size'?"),
        ({"preset": "batch-size", "axis": {}}, "the experiment: there is no setting 'axis'"),
        ({"variants": 5, "axes": {"batch_size": [1, 2]}}, "variants must be a list of at least one experiment."),
        ({"baseline": {}, "axes": {"batch_size": 4}}, "batch_size: expected a list of values or a range such as 1:64:x2, got 4."),
        ([], "the sweep must be a table of names and values, got []."),
    ],
)
def test_a_plan_that_is_no_sweep_is_refused_with_a_sentence(plan: object, sentence: str) -> None:
    with pytest.raises(Problem) as caught:
        sweep_from(plan)
    assert caught.value.message.startswith(sentence)
