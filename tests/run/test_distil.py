"""Distillation: what the student learns, that the result is a model like any other, and that nothing half is ever there."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from full_disk import files_end_at

from playground import cli
from playground.core.events import Event, Score
from playground.core.making import Made, TrainStep
from playground.core.plan import plan_for
from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.engines import engine_class
from playground.measure.divergence import Divergence
from playground.measure.machine import probe
from playground.models import made
from playground.models.catalogue import find
from playground.models.resolve import resolve
from playground.run import train_distilled, training
from playground.run.passes import Stopped
from playground.run.train_distilled import DistilJob
from playground.techniques import techniques

TEXT = "Red boats go out. Blue boats come in. " * 40
JOB = DistilJob("pocket", TEXT, model="shape:tiny", keep_layers=1, steps=12, learning_rate=0.003, device="cpu")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, playground_home: Path) -> Iterator[Path]:
    """An empty home whose models are those of the session; arithmetic in float32, so that figures can be compared."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "models").symlink_to(playground_home / "models")
    monkeypatch.setenv("PLAYGROUND_HOME", str(folder))
    monkeypatch.setattr(train_distilled, "faster_dtype", lambda device: "float32")
    monkeypatch.setattr(training, "SCORED_TOKENS", 300)  # a window and a part of one
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for so small a model more only wait for each other
    yield folder
    torch.set_num_threads(threads)


def distilled(check: Any = lambda: None, **fields: Any) -> list[Event]:
    """Events of a distillation in this process."""
    events: list[Event] = []
    train_distilled.make({**JOB.to_dict(), **fields}, events.append, check)
    return events


def left(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "made").iterdir()) if (home / "made").is_dir() else []


def loaded(model: str, **knobs: Any) -> Any:
    spec = RunSpec(model=model, engine="transformers", device="cpu", knobs={"precision": "fp32", **knobs})
    kind = engine_class("transformers")
    plan, engine = plan_for(spec, techniques(), kind, probe()), kind()
    engine.facts = engine.load(plan, lambda event: None)
    engine.setup(plan)
    engine.plan = plan
    return engine


class Fixed:
    """A model that says the same probabilities everywhere."""

    def __init__(self, *probabilities: float) -> None:
        self.said = torch.tensor(probabilities).log()

    def get_input_embeddings(self) -> Any:
        return SimpleNamespace(weight=self.said)

    def __call__(self, input_ids: torch.Tensor, use_cache: bool) -> Any:
        return SimpleNamespace(logits=self.said.expand(*input_ids.shape, -1))


def test_the_loss_is_the_mean_divergence_of_the_teachers_distribution_from_the_students() -> None:
    rows = [[0, 1, 0], [1, 1, 1]]
    loss = train_distilled.distance(Fixed(0.75, 0.25), Fixed(0.5, 0.5), "float32", 1.0, rows)
    assert float(loss) == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    flat = train_distilled.distance(Fixed(0.9, 0.1), Fixed(0.5, 0.5), "float32", 2.0, rows)  # square roots of 9 and 1: 3 to 1
    assert float(flat) == pytest.approx(4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5)))


def test_a_pruned_copy_comes_nearer_to_its_teacher_and_its_provenance_says_how(home: Path) -> None:
    events = distilled()
    steps = [event for event in events if isinstance(event, TrainStep)]
    assert [event.step for event in steps] == list(range(1, 13))
    assert [event.about for event in events if isinstance(event, Score)] == [
        "of the teacher", "of the pruned copy", "of the distilled model",
    ]  # fmt: skip
    facts = json.loads((home / "made" / "pocket" / "provenance.json").read_text())
    assert isinstance(events[-1], Made)
    assert {**events[-1].facts, "name": "pocket"} == facts
    teacher, before, after = facts["compared"].values()
    assert [one["layers"] for one in (teacher, before, after)] == [2, 1, 1]
    assert after["kld_mean"]["held-out"] < 0.5 * before["kld_mean"]["held-out"]
    assert after["kld_mean"]["held-out"] == pytest.approx(steps[-1].loss, rel=0.5)
    assert after["top1_agreement"]["held-out"] > before["top1_agreement"]["held-out"]
    assert teacher["parameters"] - after["parameters"] == 4 * 64 * 64 - 2 * 64 * 32 + 3 * 64 * 192 + 2 * 64  # one layer of shape:tiny
    assert after["weights_bytes"] == 4 * after["parameters"]
    assert facts["source"].startswith("layer-pruned and distilled from shape:tiny in 12 steps (1 of 2 layers kept)")
    assert (facts["kind"], facts["model"], facts["steps"], len(facts["losses"])) == ("model", "shape:tiny", 12, 12)
    gone = set(loaded("shape:tiny", prune="layers", prune_share=0.5).model.config.pruned_layers)
    assert facts["kept_layers"] == [layer for layer in (0, 1) if layer not in gone]  # the technique and the job agree


def test_what_was_distilled_is_a_model_like_any_other_and_drafts_for_its_teacher(home: Path) -> None:
    events = distilled()
    teacher, student = loaded("shape:tiny"), loaded("made:pocket")
    assert student.facts["source"] == events[-1].facts["source"]
    assert (student.facts["kind"], len(student.model.get_decoder().layers)) == ("made", 1)
    assert find("made:pocket").parameters == student.model.num_parameters()
    held_out = tuple(TEXT.encode())[-round(0.15 * len(TEXT)) :][:256]
    apart = Divergence()
    apart.add(teacher.score(held_out), student.score(held_out))
    assert apart.values()["kld_mean"] == pytest.approx(events[-1].facts["compared"]["after"]["kld_mean"]["held-out"], rel=0.05)
    pair = loaded("shape:tiny", speculative="draft", draft_model="made:pocket")
    finding = pair.evidence(techniques()["draft_model"], pair.plan)
    assert finding.ok
    assert "the draft made:pocket is loaded: 1 layers" in finding.text


def test_a_model_of_the_catalogue_can_be_the_student_of_another(home: Path) -> None:
    distilled(name="first", steps=1)
    facts = distilled(student="made:first", steps=2)[-1].facts
    assert facts["source"].startswith("made:first distilled from shape:tiny in 2 steps; before: layer-pruned and distilled from shape:tiny")
    assert facts["compared"]["before"]["layers"] == 1
    assert "kept_layers" not in facts


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"steps": 0}, "steps must be between 1"),
        ({"keep_layers": 0}, "whole number, or a share between 0 and 1, got 0"),
        ({"keep_layers": math.inf}, "whole number, or a share between 0 and 1, got inf"),
        ({"keep_layers": 1.5}, "whole number, or a share between 0 and 1, got 1.5"),
        ({"keep_layers": 2}, "shape:tiny has 2 layers, so a pruned copy keeps 1 to 1 of them, got 2"),
        ({"keep_layers": 0.1}, "keeps 1 to 1 of them, got 0"),
        ({"temperature": 0}, "temperature must be between"),
        ({"student": "shape:tiny"}, "shape:tiny has nothing to learn from itself"),
        ({"student": "shape:llama-3.2-1b"}, "The vocabulary of the student shape:llama-3.2-1b has .* and that of the model 512"),
        ({"student": "shape:tin"}, "did you mean 'shape:tiny'"),
        ({"model": "made:none"}, "Nothing was made under the name 'none'.*python -m playground distil --name none"),
        ({"text": "Short."}, "The text is too short"),
        ({"name": "../outside"}, "cannot be used"),
    ],
)
def test_bad_input_is_refused_in_a_sentence_and_leaves_nothing(home: Path, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(Problem, match=says) as caught:
        distilled(**fields)
    assert caught.value.message.endswith((".", "?"))
    assert left(home) == []


def test_a_name_that_is_taken_is_refused_and_what_is_there_stays(home: Path) -> None:
    (home / "made" / "pocket").mkdir(parents=True)
    with pytest.raises(Problem, match="was made before: choose another name"):
        distilled()
    assert left(home) == ["pocket"]


@pytest.mark.parametrize("when", ["step 2 of 12", "written"])
def test_a_stop_keeps_nothing_and_the_next_try_starts_clean(home: Path, when: str) -> None:
    seen: list[Event] = []

    def check() -> None:
        steps = [event.step for event in seen if isinstance(event, TrainStep)]
        if left(home) if when == "written" else steps[-1:] == [2]:
            raise Stopped

    with pytest.raises(Stopped):
        train_distilled.make(JOB.to_dict(), seen.append, check)
    assert not any(isinstance(event, Made) for event in seen)
    assert left(home) == []
    distilled(steps=1)
    assert left(home) == ["pocket"]


def test_a_disk_that_fills_while_the_weights_are_written_is_a_sentence_and_leaves_nothing(home: Path) -> None:
    with (
        files_end_at(100_000),  # the weights take 460 kB
        pytest.raises(Problem, match="The disk takes no file of that size: nothing of made:pocket was kept"),
    ):
        distilled(steps=1)
    assert left(home) == []


def test_too_little_room_is_said_before_the_training(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(Problem, match="no room for what is to be made"):
        distilled()


def test_the_command_prints_teacher_pruned_and_distilled(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "song.txt").write_text(TEXT)
    given = ("distil", "--name", "pocket", "--model", "shape:tiny", "--keep-layers", "1", "--steps", "2")
    status, done = cli.main([*given, "--text", str(tmp_path / "song.txt")]), capsys.readouterr()
    assert status == 0, done.err
    assert "step 2 of 2: loss " in done.err
    lines = {line[:40].strip(): line[40:].split() for line in done.out.splitlines()}
    assert lines[""] == ["teacher", "pruned", "distilled"]
    assert lines["Layers"] == ["2", "1", "1"]
    assert len(lines["Perplexity of other English text"]) == 3
    assert lines["KL divergence, your text, held out"][0] == "-"  # the teacher is not compared with itself
    assert "--model made:pocket" in done.out
    assert resolve("made:pocket", lambda event: None).kind == "made"


def test_wrong_usage_and_a_model_that_was_never_made_are_told_before_anything_starts(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["distil", "--name", "a", "--steps", "0"]) == 2
    assert cli.main(["run", "--model", "made:pocket"]) == 2
    said = capsys.readouterr().err
    assert "steps: 0 is outside 1 to 100000" in said
    assert "python -m playground distil --name pocket" in said
