"""Every metric has a unit, a direction and a formula; every preset loads and says what to look for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from playground.core.knobs import KnobValue
from playground.core.machine import Machine
from playground.core.places import ASSETS
from playground.core.plan import complete, plan_for, relevant
from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.core.sweep import cells
from playground.engines.replay import ReplayEngine, recorded_spec
from playground.measure.metrics import METRICS
from playground.models.catalogue import find
from playground.models.made import PREFIX
from playground.presets import ExperimentPreset, SweepPreset, WorkloadPreset, experiments, recorded, sweeps, workloads
from playground.techniques import techniques


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_has_a_title_a_unit_a_direction_and_a_formula(name: str) -> None:
    metric = METRICS[name]
    assert metric.name == name
    assert metric.title
    assert metric.unit
    assert metric.direction in ("lower", "higher", "none")
    assert len(metric.formula) > 5


def test_the_presets_of_the_main_job_are_there() -> None:
    assert {"precision-ladder", "quantization", "kv-cache", "batch-size", "launch-bound"} <= {preset.name for preset in experiments()}


@pytest.mark.parametrize("preset", [*experiments(), *recorded()], ids=lambda p: p.name)
def test_an_experiment_preset_compares_and_says_what_to_look_for(preset: ExperimentPreset) -> None:
    assert preset.title
    assert len(preset.about) > 150
    assert 2 <= len(preset.specs) <= 4
    assert len({complete(spec, techniques()).fingerprint() for spec in preset.specs}) == len(preset.specs)
    assert all(spec.label for spec in preset.specs)


@pytest.mark.parametrize("preset", recorded(), ids=lambda p: p.name)
def test_a_recorded_experiment_can_be_played_here_whatever_its_engine_has_by_default(preset: ExperimentPreset) -> None:
    machine = Machine("h", "cpu", 2, 10**10, 10**9)
    for spec in preset.specs:
        planned, original = plan_for(spec, techniques(), ReplayEngine, machine).spec, recorded_spec(spec)
        assert planned.workload == original.workload
        assert relevant(original.knobs, techniques()).items() <= planned.knobs.items()


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("h200-smollm2-135m-kv-cache-kinds#1", {"kv_bits": "2"}),
        ("h200-llama-3.1-8b-graph-quantization#1", {"int8_threshold": 6.0}),
        ("h200-llama-3.2-1b-offloading#1", {"offload_share": 1.0}),
    ],
)
def test_a_recording_is_not_played_for_other_settings_than_its_own(name: str, asked: dict[str, KnobValue]) -> None:
    spec = RunSpec(f"recording:{name}", engine="replay", knobs=asked)
    with pytest.raises(Problem, match=f"This was recorded with {next(iter(asked))}="):
        plan_for(spec, techniques(), ReplayEngine, Machine("h", "cpu", 2, 10**10, 10**9))


@pytest.mark.parametrize("preset", experiments(), ids=lambda p: p.name)
def test_what_a_preset_names_is_there_or_its_text_says_how_to_make_it(preset: ExperimentPreset) -> None:
    """Models, drafts and adapters: known without network, but for a hub model's files."""
    knobs = [complete(spec, techniques()).knobs for spec in preset.specs]
    models = {spec.model for spec in preset.specs} | {str(one["draft_model"]) for one in knobs if one["draft_model"]}
    for name in models:
        if not find(name):
            assert f"python -m playground distil --name {name.removeprefix(PREFIX)}`" in preset.about, name
    adapters = {part for one in knobs for part in str(one["adapter"]).split(",") if part.startswith(PREFIX)}
    assert adapters <= {f"{PREFIX}{path.name}" for path in (ASSETS / "made").iterdir()}


@pytest.mark.parametrize("path", sorted((ASSETS / "made").iterdir()), ids=lambda path: path.name)
def test_a_shipped_adapter_was_useful_and_made_within_three_minutes_on_two_cores(path: Path) -> None:
    facts = json.loads((path / "provenance.json").read_text(encoding="utf-8"))
    assert (facts["kind"], facts["device"], facts["machine"]["cores"]) == ("adapter", "cpu", 2)
    assert facts["training_s"] < facts["seconds"] < 180
    unseen = facts["perplexity"]["held-out"]
    assert unseen["after"] < unseen["before"] / 2


@pytest.mark.parametrize("preset", sweeps(), ids=lambda p: p.name)
def test_a_sweep_preset_says_what_to_look_for_and_each_of_its_runs_is_another(preset: SweepPreset) -> None:
    assert preset.plan.title
    assert len(preset.plan.about) > 150
    made = [complete(cell.spec, techniques()) for cell in cells(preset.plan, techniques())]
    assert len({spec.fingerprint() for spec in made}) == len(made) >= 4


def test_the_sweeps_of_the_main_questions_are_there() -> None:
    axes = {preset.name: preset.plan.axes[0].name for preset in sweeps()}
    assert axes.items() >= {"batch-size": "batch_size", "prompt-length": "prompt_tokens", "output-length": "max_new_tokens"}.items()
    assert "bits-per-weight" in axes


def test_a_recorded_gpu_experiment_is_there_with_machine_and_date() -> None:
    titles = [preset.title for preset in recorded()]
    assert any("NVIDIA H200, 2026-11-22" in title for title in titles)


@pytest.mark.parametrize("workload", [*workloads(), *experiments()], ids=lambda p: p.name)
def test_each_prompt_is_one_line_since_the_page_takes_one_prompt_a_line(workload: WorkloadPreset | ExperimentPreset) -> None:
    loads = [workload.workload] if isinstance(workload, WorkloadPreset) else [spec.workload for spec in workload.specs]
    for load in loads:
        for prompt in load.prompts:
            assert "\n" not in prompt
            assert prompt == prompt.strip()
