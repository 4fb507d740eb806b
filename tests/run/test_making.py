"""Training an adapter: what is made, what it does to perplexity, and that nothing half is ever there."""

from __future__ import annotations

import errno
import json
import math
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from playground import cli
from playground.core.events import Cancelled, Event, Failed, Phase, Progress, Score, from_json, to_json
from playground.core.making import Made, TrainStep
from playground.core.problem import Problem
from playground.models import made
from playground.models.made import check_name, find_made, making
from playground.run import train_adapter, training
from playground.run.making import make
from playground.run.train_adapter import MODULE, AdapterJob

TEXT = "Red boats go out. Blue boats come in. " * 40
JOB = AdapterJob("song", TEXT, model="shape:tiny", steps=25, rank=8, learning_rate=0.02, device="cpu")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, playground_home: Path) -> Path:
    """An empty home whose models are those of the session."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "models").symlink_to(playground_home / "models")
    monkeypatch.setenv("PLAYGROUND_HOME", str(folder))
    monkeypatch.setattr(training, "SCORED_TOKENS", 300)  # a window and a part of one
    monkeypatch.setattr(train_adapter, "faster_dtype", lambda device: "float32")  # on a busy machine what is faster varies
    return folder


def changed(**fields: Any) -> dict[str, Any]:
    return {**JOB.to_dict(), **fields}


def trained(**fields: Any) -> list[Event]:
    """Events of a training in this process."""
    events: list[Event] = []
    train_adapter.make(changed(**fields), events.append, lambda: None)
    return events


def left(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "made").iterdir()) if (home / "made").is_dir() else []


def test_a_model_learns_a_repeated_text_and_the_held_out_part_of_it_gets_likelier(home: Path) -> None:
    events = trained()
    steps = [event for event in events if isinstance(event, TrainStep)]
    assert [event.step for event in steps] == list(range(1, 26))
    assert steps[0].loss == pytest.approx(math.log(512), rel=0.1)  # nothing is known of 512 byte tokens yet
    assert steps[-1].left_s == 0
    before, after = (event.values for event in events if isinstance(event, Score))
    assert after["held-out"] < 0.75 * before["held-out"]  # random weights cannot say much more: their output head stays as it is
    assert after["held-out"] < after["english"]
    assert set(before) == {"held-out", "english", "chinese"}
    assert isinstance(events[-1], Made)
    assert events[-1].facts["perplexity"]["held-out"] == {"before": before["held-out"], "after": after["held-out"]}


def test_what_was_made_runs_by_its_name_and_says_how_it_was_made(home: Path) -> None:
    from playground.core.plan import plan_for
    from playground.core.spec import RunSpec
    from playground.engines import engine_class
    from playground.measure.machine import probe
    from playground.techniques import techniques

    events = trained()
    facts = json.loads((home / "made" / "song" / "provenance.json").read_text())
    assert facts["base"]["model"] == "shape:tiny"
    assert (facts["steps"], facts["rank"], len(facts["losses"])) == (25, 8, 25)
    assert len(facts["text"]["sha256"]) == 64
    assert facts["machine"]["versions"]["peft"]
    assert {path.name for path in (home / "made" / "song").iterdir()} >= {"adapter_model.safetensors", "adapter_config.json"}
    kind = engine_class("transformers")
    scores = {}
    for adapter in ("", "made:song"):
        spec = RunSpec(model="shape:tiny", engine="transformers", device="cpu", knobs={"precision": "fp32", "adapter": adapter})
        engine, plan = kind(), plan_for(spec, techniques(), kind, probe())
        engine.load(plan, lambda event: None)
        engine.setup(plan)
        ids = engine.prepare(TEXT[-190:], False)[1]
        logprobs = engine.score(ids)
        scores[adapter] = math.exp(-sum(float(logprobs[at, token]) for at, token in enumerate(ids[1:])) / (len(ids) - 1))
    after = next(event for event in reversed(events) if isinstance(event, Score)).values["held-out"]
    assert scores["made:song"] < 0.75 * scores[""]
    assert scores["made:song"] == pytest.approx(after, rel=0.05)  # nearly the same characters, another window


def test_the_same_seed_trains_the_same_adapter(home: Path) -> None:
    first, second = ([event.loss for event in trained(name=name, steps=4) if isinstance(event, TrainStep)] for name in ("one", "two"))
    assert first == second
    assert made.made("adapter").keys() >= {"one", "two"}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"rank": 0}, "rank must be between 1 and 512, got 0"),
        ({"steps": 0}, "steps must be between 1"),
        ({"text": "Short."}, "The text is too short: its 6 tokens are 5 to learn from and 1 to be tested on"),
        ({"text": " \n"}, "no text to learn from"),
        ({"model": "smolm2-135m-instruct"}, "did you mean 'smollm2-135m-instruct'"),
        ({"held_out": 0.9}, "held-out share"),
        ({"learning_rate": 0.0}, "learning rate"),
        ({"name": "../outside"}, "cannot be used"),
    ],
)
def test_bad_input_is_refused_in_a_sentence_and_leaves_nothing(home: Path, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(Problem, match=says) as caught:
        trained(**fields)
    assert caught.value.message.endswith((".", "?"))
    assert left(home) == []


def test_a_name_that_is_taken_is_refused_before_the_work_and_what_is_there_stays(home: Path) -> None:
    trained(steps=1)
    before = (home / "made" / "song" / "adapter_model.safetensors").read_bytes()
    with pytest.raises(Problem, match="was made before: choose another name"):
        trained(steps=1, seed=3)
    assert (home / "made" / "song" / "adapter_model.safetensors").read_bytes() == before


def test_a_disk_that_fills_is_a_sentence_and_leaves_nothing(home: Path) -> None:
    with pytest.raises(Problem, match="The disk is full: nothing of made:song was kept"), making("song"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert left(home) == []


def test_too_little_room_is_said_before_the_training(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    events: list[Event] = []
    with pytest.raises(Problem, match="no room for what is to be made"):
        train_adapter.make(changed(), events.append, lambda: None)
    assert not any(isinstance(event, TrainStep) for event in events)


def test_what_is_half_made_is_neither_offered_nor_in_the_way(home: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    half = home / "made" / f".song.part-{dead.pid}"
    half.mkdir(parents=True)
    (half / "provenance.json").write_text("{}")
    assert "song" not in made.made()
    with pytest.raises(Problem, match="Nothing was made under the name 'song'"):
        find_made("made:song")
    check_name("song")
    with making("song", {"kind": "adapter"}) as folder:
        (folder / "some").write_text("whole")
        assert "song" not in made.made()
    assert left(home) == ["song"]
    assert made.made("adapter")["song"]["name"] == "song"


def started(until: type) -> tuple[Any, threading.Event]:
    """A long training in a process of its own, up to its first event of that type."""
    cancel = threading.Event()
    events = make(MODULE, changed(steps=100_000), cancel=cancel)
    first = next(event for event in events if isinstance(event, until | Failed))
    assert isinstance(first, until), first
    return events, cancel


def test_stop_ends_a_training_and_keeps_nothing(home: Path) -> None:
    events, cancel = started(TrainStep)
    cancel.set()
    ending = [event for event in events if event is not None][-1]
    assert isinstance(ending, Cancelled)
    assert left(home) == []
    check_name("song")


def test_a_training_whose_process_is_killed_fails_in_a_sentence_and_keeps_nothing(home: Path) -> None:
    events, _ = started(Phase)
    mine = [child for child in psutil.Process().children() if "playground.run.making" in " ".join(child.cmdline())]
    assert len(mine) == 1
    mine[0].kill()
    ending = [event for event in events if event is not None][-1]
    assert isinstance(ending, Failed)
    assert "killed" in ending.message
    assert left(home) == []


def test_a_model_that_a_training_has_ruined_is_a_sentence_and_no_crash() -> None:
    import torch

    from playground.run.training import Material, perplexities

    class Sure(torch.nn.Module):
        """Gives all to one token."""

        def __init__(self) -> None:
            super().__init__()
            self.logits = torch.nn.Parameter(torch.tensor([1e4, 0.0, 0.0]))

        def get_input_embeddings(self) -> Any:
            return SimpleNamespace(weight=self.logits)

        def forward(self, input_ids: Any, use_cache: bool) -> Any:
            return SimpleNamespace(logits=self.logits.expand(*input_ids.shape, 3))

    with pytest.raises(Problem, match=r"held-out text is 1e\+04 nats a token after training.*lower learning rate"):
        perplexities(Sure(), "float32", Material((), (), (1, 2, 1, 2), {}), lambda event: None, lambda: None, "after training")


def test_events_of_a_training_travel_as_lines() -> None:
    for event in (TrainStep(1, 2, 3, 2.5, 4.0), Made(1, "made:song", {"kind": "adapter"})):
        assert from_json(to_json(event)) == event


def test_the_command_prints_the_loss_and_the_table_of_perplexities(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "song.txt").write_text(TEXT)
    given = ("adapt", "--text", str(tmp_path / "song.txt"), "--model", "shape:tiny", "--steps", "3", "--rank", "2", "--name", "song")
    status, done = cli.main(given), capsys.readouterr()
    assert status == 0, done.err
    assert "step 3 of 3: loss " in done.err
    for title in ("your text, held out", "other English text", "Use it with --set adapter=made:song"):
        assert title in done.out
    assert cli.main(given) == 2
    assert "was made before" in capsys.readouterr().err


def test_the_command_tells_wrong_usage_from_a_training_that_failed(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(("adapt", "--name", "a", "--rank", "0")) == 2
    assert cli.main(("adapt", "--name", "a", "--text", str(tmp_path / "none.txt"))) == 2
    assert "cannot be read as a text" in capsys.readouterr().err
    assert cli.main(("adapt", "--name", "a", "--json", str(tmp_path))) == 2
    assert f"{tmp_path} cannot be written: its folder must exist" in capsys.readouterr().err
    assert cli.main(("adapt", "--name", "a", "--model", "shape:tin")) == 1
    assert "did you mean 'shape:tiny'" in capsys.readouterr().err


@pytest.mark.slow
def test_the_default_model_learns_from_a_few_steps_of_the_products_text(home: Path) -> None:
    from playground.run.train_adapter import RECIPE

    events: list[Event] = []
    job = AdapterJob("few", RECIPE.text.read_text(encoding="utf-8"), steps=5, learning_rate=2e-3, device="cpu")
    train_adapter.make(job.to_dict(), events.append, lambda: None)
    before, after = (event.values for event in events if isinstance(event, Score))
    assert after["held-out"] < 0.8 * before["held-out"]
    assert not any(isinstance(event, Progress) and event.unit == "B" for event in events)
