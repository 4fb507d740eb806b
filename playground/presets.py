"""Load and validate presets: workloads and experiments are TOML files in `presets/`, data and never code.

An experiment file is also what `python -m playground run FILE.toml` takes: a baseline spec and `[[variant]]` tables with what differs::

    title = "Precision ladder"
    about = "What to look for."
    [baseline]
    model = "smollm2-135m-instruct"
    knobs = { precision = "fp32" }
    [[variant]]
    precision = "bf16"
    [[claim]]                        # see results/claims.py
    sentence = "Half precision halves memory."
    source = "where that is written"
    variant = "bf16"                 # a label, or a number from 1; left out: each variant
    metric = "weights_bytes"
    direction = "down"               # up, down or same
    factor = 0.5                     # may be left out, as may bound: about, at least or at most

A sweep's file is an experiment's with a table of axes, the first of which is drawn along; each variant is a line::

    [axes]
    batch_size = [1, 2, 4, 8]        # or a range: "1:64:x2", "128:1024:128"; its claims are those of results/growth.py
"""

from __future__ import annotations

import copy
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from playground.core.places import PRESETS
from playground.core.plan import Defaults, complete, engine_defaults, vary
from playground.core.problem import Problem, did_you_mean
from playground.core.spec import RunSpec, Workload
from playground.core.sweep import PROTOCOL, SweepSpec, axes_from
from playground.engines import engines
from playground.engines.replay import specs_of, truly_run
from playground.measure.machine import probe
from playground.models.recording import Recording, read, recordings
from playground.results.claims import Claim, claims_from, judge
from playground.results.growth import Growth, growths_from
from playground.techniques import techniques

EXPERIMENT_FIELDS = ("title", "about", "baseline", "variant")
_ONE_RUN = "--engine replay --model recording:{}#0"
LIST_FIELDS = ("title", "about", "variants")


@dataclass(frozen=True)
class WorkloadPreset:
    """Named prompts and lengths."""

    name: str
    title: str
    about: str
    workload: Workload


@dataclass(frozen=True)
class ExperimentPreset:
    """A named comparison: `about` is one paragraph of what to look for; `specs[0]` is the baseline; `names_engine`: whether it asks for
    engines, so that no other is taken in their place; `claims`: what texts say of it."""

    name: str
    title: str
    about: str
    specs: tuple[RunSpec, ...]
    names_engine: bool = True
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True)
class SweepPreset:
    """A named sweep: `plan` has its title and one paragraph of what to look for; `names_engine`: as of an experiment; `claims`: what texts
    say of growth along its first axis."""

    name: str
    plan: SweepSpec
    names_engine: bool = True
    claims: tuple[Growth, ...] = ()


def workloads(folder: Path = PRESETS / "workloads") -> list[WorkloadPreset]:
    """All workload presets, by file name."""
    return [_workload(path) for path in sorted(folder.glob("*.toml"))]


def experiments(folder: Path = PRESETS / "experiments") -> list[ExperimentPreset]:
    """All experiment presets, by file name."""
    return [experiment(path) for path in sorted(folder.glob("*.toml"))]


def sweeps(folder: Path = PRESETS / "sweeps") -> list[SweepPreset]:
    """All sweep presets, by file name."""
    return [sweep(path) for path in sorted(folder.glob("*.toml"))]


def recorded() -> list[ExperimentPreset]:
    """The recordings that are shipped and those that were imported, as experiments which the replay engine plays."""
    found = [item for item in _recorded() if item.sweep is None]
    return [ExperimentPreset(item.name, f"{item.title} · {item.machine}, {item.date}", item.about, tuple(specs_of(item))) for item in found]


def recorded_sweeps() -> list[Recording]:
    """The recorded sweeps among them, without their events."""
    return [item for item in _recorded() if item.sweep is not None]


def is_sweep(name: str) -> bool:
    """Whether that is a recorded sweep."""
    return any(item.name == name for item in recorded_sweeps())


def _recorded() -> list[Recording]:
    return [item for path in recordings().values() if (item := _readable(path))]


def _readable(path: Path) -> Recording | None:
    try:
        return read(path, events_too=False)
    except Problem:  # an imported file that was damaged since must not cost the page
        return None


def offered() -> list[ExperimentPreset]:
    """Everything that can be chosen by name: the experiments, then the recordings."""
    return [*experiments(), *recorded()]


def judged(results: Sequence[Mapping[str, Any]], own: Sequence[Claim] = ()) -> list[dict[str, Any]]:
    """What `results.claims.judge` finds for these results, baseline first: the claims `own`, and those of all experiments about the same
    changes. A replayed run counts as what was recorded."""
    known = dict.fromkeys([*own, *(claim for preset in experiments() for claim in preset.claims)])
    found = [{**result, "spec": truly_run(RunSpec.from_dict(result["spec"])).to_dict()} for result in results if "spec" in result]
    return judge(known, found, techniques()) if len(found) == len(results) else []


def growths() -> list[Growth]:
    """The claims of all sweep presets, for `results.growth.judge_growth`."""
    return [claim for preset in sweeps() for claim in preset.claims]


def experiment(path: Path) -> ExperimentPreset:
    """One experiment from a TOML or JSON file: a bare spec, `{"variants": [spec, ...]}`, or a baseline with `[[variant]]` tables.

    Raises Problem("user") that names the file for anything that is unknown or out of range.
    """
    data = _read(path)
    try:
        title, given = str(data.get("title", path.stem)), data.pop("claim", [])
        specs = tuple(specs_from(data))
        claims = claims_from(given, specs, techniques(), engines())
        return ExperimentPreset(path.stem, title, str(data.get("about", "")).strip(), specs, _names_engine(data), claims)
    except Problem as problem:
        raise Problem(problem.kind, f"{path.name}: {problem.message}", problem.detail) from None


def sweepable() -> dict[str, Path]:
    """The presets that a sweep can be made of, by name: the sweeps, then the experiments, of which a sweep may have the name too."""
    found: dict[str, Path] = {}
    for folder in ("sweeps", "experiments"):
        for path in sorted((PRESETS / folder).glob("*.toml")):
            found.setdefault(path.stem, path)
    return found


def sweep(path: Path) -> SweepPreset:
    """One sweep from a TOML or JSON file; see `sweep_from`. Raises Problem("user") that names the file."""
    data = _read(path)
    try:
        return sweep_from(data, path.stem)
    except Problem as problem:
        raise Problem(problem.kind, f"{path.name}: {problem.message}", problem.detail) from None


def sweep_from(given: object, name: str = "") -> SweepPreset:
    """One sweep from what its file holds, or from what `SweepSpec.to_dict` gave; what holds no axes is an experiment, and not checked as a
    sweep. Beside `preset`, the name of one of `sweepable`, stands what to take in place of that one's. What names no protocol is measured
    quickly, without quality and profile.

    Raises Problem("user") for anything that is unknown or out of range.
    """
    if not isinstance(given, Mapping):
        raise Problem("user", f"the sweep must be a table of names and values, got {given!r}.")
    data = _on_preset(copy.deepcopy(dict(given)))
    axes, title, about = axes_from(data.pop("axes", {})), str(data.pop("title", name)), str(data.pop("about", "")).strip()
    given_claims = data.pop("claim", [])
    named = "variant" in data or "baseline" in data
    whole = data.get("variants") if "variants" in data else [data.setdefault("baseline", {}) if named else data]
    for table in whole if isinstance(whole, list) else ():
        if isinstance(table, dict):
            table.setdefault("protocol", asdict(PROTOCOL))
    plan = SweepSpec(tuple(specs_from(data)), axes, title, about)
    claims = growths_from(given_claims, axes[0].name) if axes else ()  # those of an experiment are of another kind
    return SweepPreset(name, plan.checked(techniques()) if axes else plan, _names_engine(data), claims)


def _on_preset(data: dict[str, Any]) -> dict[str, Any]:
    if "preset" not in data:
        return data
    name, known = str(data.pop("preset")), sweepable()
    if name not in known:
        raise Problem("user", did_you_mean("There is no sweep or experiment", name, known))
    base = _read(known[name])
    for part in ("title", "claim") if "axes" in base and "axes" in data else ():
        base.pop(part, None)  # they speak of the axes that are not taken
    return {**base, **{part: value if part == "axes" else _merged(base.get(part), value) for part, value in data.items()}}


def _merged(base: object, given: object) -> object:
    if isinstance(base, Mapping) and isinstance(given, Mapping):
        return {**base, **{name: _merged(base.get(name), value) for name, value in given.items()}}
    return given


def specs_from(data: object) -> list[RunSpec]:
    """Specs from the three forms that a file or an API call may have; each is checked against the techniques.

    Raises Problem("user") for anything else.
    """
    if not isinstance(data, Mapping):
        raise Problem("user", f"the experiment must be a table of names and values, got {data!r}.")
    defaults = engine_defaults(engines(), probe())
    if "variants" in data:
        _check_fields("beside variants there is no setting", data, LIST_FIELDS)
        given = data["variants"]
        if not isinstance(given, Sequence) or isinstance(given, str) or not given:
            raise Problem("user", "variants must be a list of at least one experiment.")
        specs = [RunSpec.from_dict(item) for item in given]
    elif "baseline" in data or "variant" in data:
        specs = _with_variants(data, defaults)
    else:
        specs = [RunSpec.from_dict({name: value for name, value in data.items() if name not in ("title", "about")})]
    for spec in specs:
        complete(spec, techniques(), defaults(spec))
    return specs


def _names_engine(data: Mapping[str, Any]) -> bool:
    return any("engine" in table for table in (data, data.get("baseline", {}), *data.get("variants", ()), *data.get("variant", ())))


def _with_variants(data: Mapping[str, Any], defaults: Defaults) -> list[RunSpec]:
    _check_fields("there is no setting", data, EXPERIMENT_FIELDS)
    baseline = RunSpec.from_dict(data.get("baseline", {}))
    variants = data.get("variant", [])
    if not isinstance(variants, list) or not all(isinstance(item, Mapping) for item in variants):
        raise Problem("user", "variant must be a list of tables: write [[variant]] above each.")
    specs = [baseline]
    for changes in variants:
        label = str(changes.get("label", ""))
        varied = vary(baseline, {name: value for name, value in changes.items() if name != "label"}, techniques(), defaults)
        specs.append(varied.replace(label=label) if label else varied)
    return specs


def _check_fields(sentence: str, data: Mapping[str, Any], known: Sequence[str]) -> None:
    for name in data:
        if name not in known:
            raise Problem("user", "the experiment: " + did_you_mean(sentence, name, known))


def _workload(path: Path) -> WorkloadPreset:
    data = _read(path)
    title, about = str(data.pop("title", path.stem)), str(data.pop("about", ""))
    try:
        return WorkloadPreset(path.stem, title, about, RunSpec.from_dict({"workload": data}).workload)
    except Problem as problem:
        raise Problem(problem.kind, f"{path.name}: {problem.message}") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except FileNotFoundError:
        raise _not_there(path) from None
    except OSError as error:
        raise Problem("user", f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise Problem("user", f"{path.name} is not valid {path.suffix.lstrip('.').upper() or 'TOML'}: {error}") from None
    if not isinstance(data, dict):
        raise Problem("user", f"{path.name} must hold a table of names and values.")
    return data


def _not_there(path: Path) -> Problem:
    # Names of recordings hold version numbers, so not every full stop begins a suffix.
    if len(path.parts) > 1 or path.suffix[1:].isalpha():
        return Problem("user", f"There is no file {path}.")
    if is_sweep(str(path)):
        return Problem("user", f"{path} is a recorded sweep, which the tab Sweep shows; to play one of its runs: {_ONE_RUN.format(path)}.")
    names = [found.stem for found in (PRESETS / "experiments").glob("*.toml")]
    return Problem("user", did_you_mean("There is no file or experiment", str(path), [*names, *recordings()]))
