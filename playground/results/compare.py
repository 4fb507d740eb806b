"""Stored runs of one or several experiments, put side by side as if they had been run together, with what makes that doubtful.

Pure. Every run is derived anew from its events against the first one. Figures that the worker computed against another baseline, which
cannot be computed again, are not available then, unless both were measured against equal baselines on the same text. Example::

    found = side_by_side([picked(store.load("k3x9abcd"), 0), picked(store.load("m7p2efgh"), 1)])
    found.results, found.names, found.warnings    # "Machine differs: NVIDIA H200 (Baseline, B) and AMD EPYC (C)."
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from playground.core.events import Event
from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.measure.agreement import IS_BASELINE
from playground.measure.quality import COMPARISONS
from playground.results.drawing import LETTERS, variant_names
from playground.results.result import result
from playground.results.store import StoredExperiment

Document = Mapping[str, Any]
FEWEST, MOST = 2, 8
SHOWN_VALUE = 60
SPOKEN = {
    "prompts": "Set of prompts",
    "max_new_tokens": "Number of new tokens",
    "ignore_eos": "Ignoring the end of text",
    "chat": "Chat template",
    "warmups": "Number of warm-ups",
    "repeats": "Number of repeats",
    "rounds": "Number of rounds",
    "text": "Evaluation text",
}
UNEXPLAINED = "It is not explained against the first of these runs, since its events cannot be read."


@dataclass(frozen=True)
class Picked:
    """A stored run. `events`: None where they cannot be read; `experiment`: its title; `baseline`: the first spec of its experiment, which
    is the run's own where it was the baseline; `document`: its stored result."""

    spec: RunSpec
    events: Sequence[Event] | None
    experiment: str
    baseline: RunSpec
    document: Document


@dataclass(frozen=True)
class Compared:
    """Result documents to show, the first as the baseline, their names, and sentences on what differs besides the settings."""

    results: list[dict[str, Any]]
    names: list[str]
    warnings: list[str]


def picked(stored: StoredExperiment, index: int) -> Picked:
    """A run of a stored experiment; raises Problem("user") for one that has no result."""
    run = stored.runs[index]
    if run.result is None:
        raise Problem("user", f"Run {index + 1} of “{stored.title}” has no result: it did not end.")
    try:
        events: Sequence[Event] | None = run.events
    except Problem:
        events = None
    return Picked(run.spec, events, stored.title, stored.runs[0].spec, run.result)


def side_by_side(runs: Sequence[Picked]) -> Compared:
    """Two to eight runs; raises Problem("user") for another number."""
    if not FEWEST <= len(runs) <= MOST:
        raise Problem("user", f"Choose {FEWEST} to {MOST} runs to compare; {len(runs)} {'is' if len(runs) == 1 else 'are'} chosen.")
    results = [_derived(run, runs[0] if index else None) for index, run in enumerate(runs)]
    return Compared(results, _names(runs), [*_differences(runs), *_quality_note(runs)])


def _names(runs: Sequence[Picked]) -> list[str]:
    """As in an experiment, with the experiment's title where labels are the same."""
    labels = [run.spec.label or run.spec.model for run in runs]
    twice = Counter(labels)
    return variant_names(
        [f"{label} ({run.experiment})" if twice[label] > 1 and run.experiment else label for label, run in zip(labels, runs, strict=True)]
    )


def _derived(run: Picked, first: Picked | None) -> dict[str, Any]:
    """A run's document against the first run (None: it is the first)."""
    own = run.document
    if run.events is None or (first is not None and first.events is None):
        found = {**own, "departures": [], "expectations": []}
        if first is not None:
            found["verdict"] = {**(own.get("verdict") or {}), "sentence": UNEXPLAINED}
            found["metrics"] = {**own.get("metrics", {}), "matching_tokens": _absent(own, "matching_tokens", UNEXPLAINED)}
    else:
        against = None if first is None or first.events is None else (first.spec, first.events)
        found = result(run.spec, run.events, against)
    reason = "" if first is None else _not_comparable(run, first)
    metrics = dict(found.get("metrics", {}))
    for name in COMPARISONS:
        metrics[name] = _absent(own, name, reason) if reason else own.get("metrics", {}).get(name) or metrics.get(name) or {}
    if first is not None and not _same(run.baseline, first.spec):
        found["departures"] = []  # their probabilities are those of another baseline
    return {**found, "metrics": metrics}


def _absent(document: Document, name: str, reason: str) -> dict[str, Any]:
    unit = (document.get("metrics", {}).get(name) or {}).get("unit", "")
    return {"value": None, "unit": unit, "n": 0, "ci95": None, "cv": None, "kind": "not_available", "reason": reason, "grade": ""}


def _same(one: RunSpec, other: RunSpec) -> bool:
    return one.fingerprint() == other.fingerprint()


def _not_comparable(run: Picked, first: Picked) -> str:
    """Why a run's divergence cannot stand beside the first's; "" where both had equal baselines and the same text, or no figure."""
    ours, theirs = run.document.get("quality_about") or "", first.document.get("quality_about") or ""
    figure = run.document.get("metrics", {}).get(COMPARISONS[0]) or {}
    if figure.get("value") is None and figure.get("reason") != IS_BASELINE.reason:
        return ""  # its own reason says more
    if not _same(run.baseline, first.baseline) or _source(run) != _source(first):
        return f"measured against another baseline than the first run's: {_called(run)}, not {_called(first)}"
    return "" if ours == theirs or not ours else f"measured on another text than the first run's: {ours}, not {theirs}"


def _called(run: Picked) -> str:
    return f"{run.baseline.label or run.baseline.model} of “{run.experiment or 'its experiment'}”"


def _quality_note(runs: Sequence[Picked]) -> list[str]:
    """Where the first run was itself a variant: against what the quality figures are."""
    first = runs[0]
    if _same(first.spec, first.baseline) or not first.document.get("quality_about"):
        return []
    return [f"Quality is measured against {_called(first)}, and not against the first of these runs."]


def _source(run: Picked) -> str:
    return str((run.document.get("provenance") or {}).get("model_source") or "")


def _facts(run: Picked) -> Mapping[str, Any]:
    found: Mapping[str, Any] = run.document.get("provenance") or {}
    return found


def _version(package: str) -> Callable[[Picked], Any]:
    return lambda run: (_facts(run).get("versions") or {}).get(package)


def _workload(field: str) -> Callable[[Picked], Any]:
    return lambda run: getattr(run.spec.workload, field)


def _protocol(field: str) -> Callable[[Picked], Any]:
    return lambda run: getattr(run.spec.protocol, field)


def _differences(runs: Sequence[Picked]) -> list[str]:
    """One sentence for each fact that differs, naming every value and whose it is."""
    facts: dict[str, Callable[[Picked], Any]] = {
        "Machine": lambda run: _facts(run).get("gpu") or _facts(run).get("cpu"),
        "Processor": lambda run: _facts(run).get("cpu"),
        "Number of processor cores": lambda run: _facts(run).get("cores"),
        "Host": lambda run: _facts(run).get("host"),
        "GPU driver": lambda run: _facts(run).get("driver"),
        "Model source": _source,
        "Version of the playground": lambda run: _facts(run).get("playground"),
        "Commit": lambda run: _facts(run).get("commit"),
    }
    packages = dict.fromkeys(package for run in runs for package in _facts(run).get("versions") or {})
    facts |= {f"Version of {package}": _version(package) for package in packages}
    workload, protocol = RunSpec().workload, RunSpec().protocol
    facts |= {_spoken(field): _workload(field) for field in workload.__dataclass_fields__}
    facts |= {_spoken(field): _protocol(field) for field in protocol.__dataclass_fields__ if field != "price_per_hour"}
    found = {name: _sentence(name, [of(run) for run in runs]) for name, of in facts.items()}
    if found["Machine"]:  # what follows from another machine is no news
        for name in ("Processor", "Number of processor cores", "Host", "GPU driver"):
            found[name] = ""
    return [sentence for sentence in found.values() if sentence]


def _spoken(field: str) -> str:
    return SPOKEN.get(field, field.replace("_", " ").capitalize())


def _sentence(name: str, values: Sequence[Any]) -> str:
    """ "Machine differs: NVIDIA H200 (Baseline, B) and AMD EPYC (C)."; "" where all are the same, or known of fewer than two."""
    groups: dict[str, list[str]] = {}
    words: dict[str, str] = {}
    for letter, value in zip(LETTERS, values, strict=False):
        key = json.dumps(value)
        groups.setdefault(key, []).append(letter)
        words[key] = _in_words(value)
    if len(groups) < 2 or all(value in (None, "") for value in values):
        return ""
    if len(set(words.values())) < len(words):  # long texts that begin alike
        words = {key: f"{text} ({len(key):,} characters)" for key, text in words.items()}
    parts = [f"{words[key]} ({', '.join(letters)})" for key, letters in groups.items()]
    return f"{name} differs: {', '.join(parts[:-1])} and {parts[-1]}."


def _in_words(value: Any) -> str:
    if value in (None, ""):
        return "unknown" if value is None else "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return _in_words(value[0]) if len(value) == 1 else f"{len(value)} beginning with {_in_words(value[0])}"
    line = " ".join(str(value).split())
    return line if len(line) <= SHOWN_VALUE else f"{line[:SHOWN_VALUE]} …"
