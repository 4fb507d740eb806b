"""The exact command: whatever the specs, what the command line makes of it are runs with equal fingerprints."""

import random
import shlex

import pytest

from playground.cli import parser
from playground.cli.run import wanted
from playground.core.knobs import Choice, Range, Toggle
from playground.core.plan import SPEC_FIELDS, knob_index, plan_for, vary
from playground.core.problem import Problem
from playground.core.spec import DEFAULT_PROMPT, PROTOCOLS, Protocol, RunSpec, Workload
from playground.engines import engine_class, engines
from playground.engines.replay import specs_of
from playground.measure.machine import probe
from playground.models.recording import find, read
from playground.results.command import command, spec_toml
from playground.techniques import techniques

EVIL = (
    'it\'s $HOME `ls` \\ "x"', "-5 = a, b", "two\nlines\tand\x7f", "Ж 東京 😀\u2028", "--x", "=", DEFAULT_PROMPT,
)  # fmt: skip


def planned(spec):
    return plan_for(spec, techniques(), engine_class(spec.engine), probe()).spec


def rerun(found, folder, monkeypatch):
    """What the command line of the product makes of the command, run in a folder with its files."""
    for name, text in found.files.items():
        (folder / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(folder)
    words = shlex.split(found.line)
    assert words[:3] == ["python", "-m", "playground"]
    return list(wanted(parser().parse_args(words[3:])).specs)


def drawn_value(rng, knob):
    if isinstance(knob, Choice):
        return rng.choice(knob.options)
    if isinstance(knob, Toggle):
        return rng.random() < 0.5
    if isinstance(knob, Range):
        low, high = knob.minimum, min(knob.maximum, knob.minimum + 8 * knob.step)
        return rng.randint(int(low), int(high)) if isinstance(knob.step, int) else rng.uniform(low, high)
    return rng.choice(("", "made:logbook", "shape:tiny"))


def drawn_spec(rng):
    temperature = rng.choice((0.0, 0.0, 0.7, 1e-05))
    work = Workload(
        prompts=tuple(rng.choices(EVIL, k=rng.randint(1, 3))), max_new_tokens=rng.choice((64, 1, 300)), ignore_eos=rng.random() < 0.7,
        temperature=temperature, seed=rng.choice((0, 2**63 - 1)), chat=rng.random() < 0.7,
        top_k=40 if temperature and rng.random() < 0.5 else 0, top_p=0.9 if temperature and rng.random() < 0.5 else 1.0,
    )  # fmt: skip
    protocol = rng.choice((Protocol(), *PROTOCOLS.values(), Protocol(0, 7, 2, energy=False, text="own\n\ntext"), Protocol(quality=False)))
    engine = rng.choice(("transformers", "graph", "fake"))
    model = "script:step_ms=1" if engine == "fake" else rng.choice(("shape:tiny", RunSpec.model, "./a folder/model.gguf"))
    return RunSpec(model, engine, rng.choice(("auto", "cpu")), {}, work, protocol)


def legal(spec, changes):
    """`spec` with those of the changes that are legal after each other, planned."""
    for name, value in changes:
        try:
            spec = planned(vary(spec, {name: value}, techniques()))
        except Problem:
            continue
    return spec


@pytest.mark.parametrize("seed", range(30))
def test_parsing_the_command_gives_equal_fingerprints(seed, tmp_path, monkeypatch):
    rng = random.Random(seed)
    index = knob_index(techniques())

    def changes(count):
        names = rng.sample(sorted(index), count)
        return [(name, drawn_value(rng, index[name][1])) for name in names]

    baseline = legal(drawn_spec(rng), changes(rng.randint(0, 6)))
    specs = [planned(baseline), *(planned(legal(baseline, changes(rng.randint(0, 4)))) for _ in range(rng.randint(0, 3)))]
    if rng.random() < 0.3:
        specs.append(planned(specs[0].replace(engine="fake", model="script:", knobs={})))
    if seed % 10 == 0:  # no flag gives a variant a workload of its own
        specs.append(specs[0].replace(workload=Workload(prompts=("another",))))
    found = command(specs, techniques(), engines())
    assert ("experiment.toml" in found.files) == (seed % 10 == 0), found.line
    again = rerun(found, tmp_path, monkeypatch)
    assert [spec.fingerprint() for spec in again] == [spec.fingerprint() for spec in specs]
    assert again[0].protocol.price_per_hour == specs[0].protocol.price_per_hour


def test_only_what_differs_from_the_defaults_is_said():
    base = planned(RunSpec(engine="transformers", device="cpu", knobs={"precision": "fp32"}))
    specs = [base, *(planned(vary(base, change, techniques())) for change in ({"batch_size": 4}, {"precision": "bf16", "kv_cache": "off"}))]
    specs = [spec.replace(protocol=Protocol(3, 10, 2, evaluation="full", price_per_hour=1.5)) for spec in specs]
    assert command(specs, techniques(), engines()).line == (
        "python -m playground run --engine transformers --device cpu --protocol careful --price-per-hour 1.5 --set precision=fp32 "
        "--variant batch_size=4 --variant precision=bf16,kv_cache=off"
    )


def test_a_knob_whose_default_depends_on_the_device_is_named_and_a_recording_needs_no_more_than_its_name():
    defaults = {device: engines()["graph"].defaults(device) for device in ("cpu", "cuda")}
    apart = [name for name in defaults["cuda"] if defaults["cuda"][name] != defaults["cpu"].get(name)]
    line = command([planned(RunSpec(engine="graph"))], techniques(), engines()).line
    assert apart
    assert all(f"--set {name}=" in line for name in apart)
    assert "kv_cache" not in line  # static on either
    specs = [planned(spec) for spec in specs_of(read(find("h200-llama-3.1-8b-graph-kv-cache")))]
    line = command(specs, techniques(), engines()).line
    assert line.endswith("#0' --engine replay --variant 'model=recording:h200-llama-3.1-8b-graph-kv-cache#1'")


def test_a_variant_with_several_adapters_is_said_and_understood(tmp_path, monkeypatch):
    base = planned(RunSpec(engine="transformers", knobs={"precision": "fp32"}))
    both = planned(vary(base, {"adapter": "random:4,random:8", "adapter_mode": "unmerged"}, techniques()))
    found = command([base, both], techniques(), engines())
    assert "--variant adapter=random:4,random:8,adapter_mode=unmerged" in found.line
    assert rerun(found, tmp_path, monkeypatch)[1].fingerprint() == both.fingerprint()


def test_a_file_says_what_the_line_cannot(tmp_path, monkeypatch):
    text = "a\r\nb"
    odd = [RunSpec(model="shape:tiny,x", label='the "first"'), RunSpec(knobs={"adapter": "a,b"}), RunSpec(protocol=Protocol(text=text))]
    for specs in (
        [odd[0], odd[0].replace(model="a,b=c")],
        [odd[2]],
        [RunSpec(workload=Workload(("--",)))],
        [RunSpec(), odd[1].replace(workload=Workload(("x\0\x01y",)))],
    ):
        found = command(specs, techniques(), engines())
        assert found.line == "python -m playground run experiment.toml"
        assert found.files == {"experiment.toml": spec_toml(specs)}
    full = [planned(odd[0]), planned(odd[2].replace(workload=Workload(EVIL)))]
    (tmp_path / "experiment.toml").write_text(spec_toml(full), encoding="utf-8", newline="")
    monkeypatch.chdir(tmp_path)
    again = wanted(parser().parse_args(["run", "experiment.toml"])).specs
    assert list(again) == full  # labels as well
    assert set(SPEC_FIELDS) < set(full[0].to_dict())
