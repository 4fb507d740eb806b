"""The commands that share results, as a person uses them: report, export and import."""

from __future__ import annotations

import csv
import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from playground.cli import main
from playground.core.places import home
from playground.models.recording import find, read
from playground.results.result import result
from playground.results.store import open_store
from playground.results.sweeps import Sweeps

NAME = "h200-llama-3.2-1b-kv-cache-long"


@pytest.fixture(scope="module")
def runs() -> tuple[Any, list[dict[str, Any]]]:
    recording = read(find(NAME))
    baseline = (recording.specs[0], recording.events[0])
    pairs = enumerate(zip(recording.specs, recording.events, strict=True))
    return recording, [result(spec, events, baseline if index else None) for index, (spec, events) in pairs]


@pytest.fixture
def stored(runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of an experiment in the store of a fresh home, which is the current folder as well."""
    monkeypatch.setenv("PLAYGROUND_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    recording, results = runs
    store = open_store(home() / "results.sqlite")
    experiment = store.create("Long contexts", recording.specs)
    for index, events in enumerate(recording.events):
        store.begin(experiment, index)
        store.append(experiment, index, events)
        store.finish(experiment, index, results[index])
    store.close()
    return experiment


def test_a_stored_experiment_becomes_a_report_a_table_and_a_file_that_another_home_plays(
    stored: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", stored, "--csv", "m.csv", "--json", "m.json"]) == 0
    assert not Path("report.html").exists()
    lines = list(csv.DictReader(Path("m.csv").read_text(encoding="utf-8").splitlines()))
    rows = {row["metric"]: row for row in json.loads(Path("m.json").read_text(encoding="utf-8"))}
    assert {line["metric"] for line in lines} == set(rows)
    assert main(["report", stored, "--title", "Mine"]) == 0
    html = Path("report.html").read_text(encoding="utf-8")
    assert "<title>Mine</title>" in html
    assert re.search(r'<pre id="line">python -m playground run --model shape:llama-3.2-1b --engine transformers ', html)
    assert main(["export", stored, "long.jsonl.gz"]) == 0
    monkeypatch.setenv("PLAYGROUND_HOME", str(tmp_path / "elsewhere"))
    assert main(["import", "long.jsonl.gz"]) == 0
    assert "python -m playground run long" in capsys.readouterr().out
    assert read(find("long")).title == "Long contexts"


def test_a_file_of_results_becomes_a_report_and_other_files_a_sentence(
    runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("one.json").write_text(json.dumps(runs[1][0]), encoding="utf-8")
    assert main(["report", "one.json", "--out", "one.html"]) == 0
    assert "<title>one</title>" in Path("one.html").read_text(encoding="utf-8")
    for text in ("[]", "{}", '{"results": []}', '{"results": [{"spec": 1}]}', "nonsense", "[" * 100_000):
        Path("bad.json").write_text(text, encoding="utf-8")
        assert main(["report", "bad.json"]) == 2
    assert main(["report", "nowhere.json"]) == 2
    assert main(["report", "one.json", "--out", "no/such/folder.html"]) == 2
    assert main(["report", "zzzzzzzz"]) == 2
    assert main(["export", "zzzzzzzz", "x.jsonl.gz"]) == 2
    assert main(["export", "zzzzzzzz", "x.zip"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert all(line.startswith("playground: ") for line in said)
    assert len(said) == 11


def test_a_socket_is_no_place_for_a_report_a_table_or_an_export_and_stays(stored: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = "socket.jsonl.gz"  # to open it fails, where to open a pipe would wait for a reader
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(name)
    told = dict.fromkeys(("--out", "--csv", "--json"), "cannot be written: No such device or address.")
    told |= dict.fromkeys(("--write", stored), "is there already and is not a file: choose another name.")
    commands = (["report", stored, "--out"], ["report", stored, "--csv"], ["report", stored, "--json"], ["techniques", "--write"])
    for arguments in (*commands, ["export", stored]):
        assert main([*arguments, name]) == 2
        said = capsys.readouterr()
        assert (said.out, said.err) == ("", f"playground: {name} {told[arguments[-1]]}\n")
    assert Path(name).is_socket()


def test_a_sweep_is_recorded_when_it_runs_when_it_goes_on_and_by_its_id_and_another_home_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PLAYGROUND_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    flags = [
        "--engine",
        "fake",
        "--model",
        "script:step_ms=1,prefill_ms=1",
        "--axis",
        "batch_size=1,2",
        "--repeats",
        "1",
        "--title",
        "Rows",
    ]
    assert main(["sweep", *flags, "--record", "ran.jsonl.gz"]) == 0
    store = open_store()
    (head,) = Sweeps(store).history()
    store.close()
    assert main(["sweep", "--resume", head["id"], "--record", "resumed.jsonl.gz"]) == 0
    assert main(["export", head["id"], "exported.jsonl.gz"]) == 0
    assert "Exported “Rows” (2 runs)" in capsys.readouterr().out
    ran, resumed, exported = (read(Path(f"{name}.jsonl.gz")) for name in ("ran", "resumed", "exported"))
    assert (ran.events, ran.sweep) == (resumed.events, resumed.sweep) == (exported.events, exported.sweep)
    assert all(ran.events)
    monkeypatch.setenv("PLAYGROUND_HOME", str(tmp_path / "elsewhere"))
    assert main(["import", "ran.jsonl.gz"]) == 0
    assert "Imported as ran. The tab Sweep shows it." in capsys.readouterr().out
    assert main(["run", "ran"]) == 2
    assert "ran is a recorded sweep" in capsys.readouterr().err
    assert main(["sweep", *flags, "--record", "no/such/folder.jsonl.gz"]) == 2
