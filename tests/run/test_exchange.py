"""Export and import of an experiment: the same numbers elsewhere, as recorded ones; and what is not let in."""

import gzip
import json

import pytest

from playground import presets
from playground.core.events import Done
from playground.core.problem import Problem
from playground.engines.replay import specs_of
from playground.models import recording as recording_module
from playground.models.recording import find, own_folder, read, recordings
from playground.results.result import result
from playground.results.store import Store
from playground.run.exchange import give_out, take_in

NAME = "h200-llama-3.2-1b-kv-cache-long"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("PLAYGROUND_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def recorded():
    return read(find(NAME))


def stored(recorded, path, specs=None, finished=True):
    """A store with that experiment in it, and its id."""
    store = Store(path)
    specs = specs or recorded.specs
    experiment = store.create("Ladder: 3 / 4", specs)
    for index, events in enumerate(recorded.events):
        store.begin(experiment, index)
        store.append(experiment, index, events)
        if finished:
            store.finish(experiment, index, result(specs[index], events))
    return store, experiment


@pytest.mark.parametrize("replayed", [False, True])
def test_an_exported_experiment_is_played_elsewhere_with_the_same_numbers(home, tmp_path, recorded, replayed):
    store, experiment = stored(recorded, tmp_path / "a.sqlite", specs_of(recorded) if replayed else None)
    file = tmp_path / "My Ladder (1).jsonl.gz"
    give_out(store.load(experiment), file)
    name = take_in(file)
    assert name == "my-ladder-1"
    found = read(find(name))
    assert (found.title, found.machine, found.date, found.name) == ("Ladder: 3 / 4", "NVIDIA H200", recorded.date, name)
    assert (found.specs, found.events) == (recorded.specs, recorded.events)  # of a replay what was recorded
    played = result(specs_of(found)[1], found.events[1], (specs_of(found)[0], found.events[0]))["metrics"]["itl_s"]
    truth = result(recorded.specs[1], recorded.events[1])["metrics"]["itl_s"]
    assert (played["kind"], played["value"]) == ("recorded", truth["value"])
    assert name in {preset.name for preset in presets.recorded()}
    assert take_in(file) == name  # the same again is the same
    assert [path.name for path in own_folder().iterdir()] == [f"{name}.jsonl.gz"]


def test_a_name_that_is_taken_gets_a_number_and_a_damaged_import_costs_only_itself(home, tmp_path, recorded):
    store, experiment = stored(recorded, tmp_path / "a.sqlite")
    for taken in ("h200-llama-3.1-8b-kv-cache", "quantization"):
        file = tmp_path / f"{taken}.jsonl.gz"
        give_out(store.load(experiment), file)
        assert take_in(file) == f"{taken}-2"
    (own_folder() / "quantization-2.jsonl.gz").write_bytes(b"gone bad")
    names = {preset.name for preset in presets.recorded()}
    assert "h200-llama-3.1-8b-kv-cache-2" in names
    assert "quantization-2" not in names
    assert "quantization-2" in recordings()
    assert "quantization-2" not in recordings(recording_module.FOLDER)


def test_what_goes_on_or_has_no_events_is_not_exported(tmp_path, recorded):
    store, experiment = stored(recorded, tmp_path / "a.sqlite", finished=False)
    with pytest.raises(Problem, match="is not over yet"):
        give_out(store.load(experiment), tmp_path / "x.jsonl.gz")
    empty = store.create("Nothing", recorded.specs[:1])
    store.finish(empty, 0, result(recorded.specs[0], ()))
    with pytest.raises(Problem, match="has no events"):
        give_out(store.load(empty), tmp_path / "x.jsonl.gz")


def lines(recorded, **header):
    head = {"title": "t", "machine": "m", "date": "d", "about": "", "specs": [recorded.specs[0].to_dict()]} | header
    return [json.dumps(head), '{"v":0,"e":{"type":"Loaded","t_ns":1,"seconds":1.0}}', '{"v":0,"e":{"type":"Done","t_ns":2}}']


def test_a_foreign_or_hostile_file_is_refused_with_a_sentence_and_nothing_is_kept(home, tmp_path, recorded, monkeypatch):
    monkeypatch.setattr(recording_module, "MOST_BYTES", 200_000)
    unknown = recorded.specs[0].to_dict() | {"knobs": {"warp": 9}}
    event = '{"v":0,"e":{"type":"%s","t_ns":%s%s}}'
    cases = {
        "no gzip": (b"hello", "is not a recording, or it is damaged"),
        "cut": (gzip.compress(b"x" * 9000)[:40], "is not a recording"),
        "pickle": (gzip.compress(b"\x80\x04\x95\x00"), "is not a recording"),
        "bomb": (gzip.compress(b"[" * 5_000_000), "is not a recording"),
        "deep": (gzip.compress("\n".join([*lines(recorded), "[" * 100_000]).encode()), "is not a recording"),
        "knob": (packed(lines(recorded, specs=[unknown])), "another version: There is no knob 'warp'"),
        "nothing": (packed(lines(recorded, specs=[])[:1]), "holds 0 variants"),
        "no events": (packed(lines(recorded)[:1]), "is not a recording"),
        "stamp": (packed([*lines(recorded), event % ("Done", "NaN", "")]), "is not a recording"),
        "years": (packed([*lines(recorded), event % ("Done", "1e20", "")]), "is not a recording"),
        "types": (packed([*lines(recorded), event % ("Memory", 3, ',"stage":"timed","values":7')]), "is not a recording"),
    }
    for name, (data, sentence) in cases.items():
        path = tmp_path / f"{name.replace(' ', '-')}.jsonl.gz"
        path.write_bytes(data)
        with pytest.raises(Problem, match=sentence):
            take_in(path)
    with pytest.raises(Problem, match="cannot be read: No such file"):
        take_in(tmp_path / "nowhere.jsonl.gz")
    monkeypatch.setattr("playground.run.exchange.MOST_FILE_BYTES", 4)
    with pytest.raises(Problem, match="is not imported"):
        take_in(tmp_path / "no-gzip.jsonl.gz")
    assert not own_folder().exists()


def packed(texts):
    return gzip.compress("\n".join(texts).encode())


def test_the_smallest_recording_is_let_in(home, tmp_path, recorded):
    path = tmp_path / "Ж.jsonl.gz"
    path.write_bytes(packed(lines(recorded)))
    assert take_in(path) == "recording"
    assert read(find("recording")).events[0][-1] == Done(2)
