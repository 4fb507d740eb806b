"""The table of techniques in Markdown: what each does, which engine has it, where it pays, and what recorded runs measured of it.

Everything comes from the registries and from recordings, nothing from this machine, so the same files give the same table. The effect is
that of recorded variants which differ from their baseline, or else from a variant before them, in this technique's knobs alone. Example::

    print(table(techniques(), engines(), [read(path) for path in recordings(FOLDER).values()]))
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from playground.core.engine import Engine
from playground.core.plan import SPEC_FIELDS, Techniques, chosen, describe, full_knobs, ordered, relevant
from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.core.technique import Knobs, Technique
from playground.models.recording import Recording
from playground.results.numbers import change, digits, value_of
from playground.results.result import result

BEGIN = "<!-- techniques: made by `python -m playground techniques --write README.md` -->"
END = "<!-- end of techniques -->"
ENGINES = ("transformers", "graph")
DEVICES = ("cuda", "cpu")
HEAD = ("Technique", "What it does", *(f"`{name}`" for name in ENGINES), "Where it pays", "Measured, against the baseline")
ABBREVIATIONS = ("e.g.", "i.e.", "vs.", "etc.")
# What the last column tells of a change, in this order, where the technique speaks of it; time per token always.
TOLD = {
    "itl_s": "time per token",
    "ttft_s": "time to first token",
    "request_ttft_p95_s": "p95 of the wait for the first token",
    "output_tokens_per_s": "throughput",
    "weights_bytes": "weights",
    "kv_cache_bytes": "KV cache",
}


def table(techniques: Techniques, engines: Mapping[str, type[Engine]], recorded: Iterable[Recording]) -> str:
    """A row a technique, in the order in which they apply."""
    effects = _effects(techniques, engines, recorded)
    rows = [_row(technique, techniques, engines, effects.get(technique.name, ())) for technique in ordered(techniques)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (HEAD, ("---",) * len(HEAD), *rows))


def renewed(text: str, made: str) -> str:
    """`text` with the table `made` between the two marks; raises Problem("user") where it has no such place."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise Problem("user", f"There is no place for the table: it goes between a line {BEGIN} and a line {END}.")
    return f"{before}{BEGIN}\n{made}\n{END}{after}"


def _row(technique: Technique, techniques: Techniques, engines: Mapping[str, type[Engine]], effects: Sequence[str]) -> tuple[str, ...]:
    support = (_support(technique, techniques, engines[name]) for name in ENGINES)
    explain = technique.explain
    cells = (f"**{technique.title}**", first_sentence(explain.what), *support, first_sentence(explain.helps), "<br>".join(effects))
    return tuple(cell.replace("|", "\\|") for cell in cells)


def first_sentence(text: str) -> str:
    """Up to the first full stop, without it; that of an abbreviation ends nothing."""
    words = text.split()
    ends = (number for number, word in enumerate(words, 1) if word.endswith(".") and word not in ABBREVIATIONS)
    return " ".join(words[: next(ends, len(words))]).removesuffix(".")


def _support(technique: Technique, techniques: Techniques, engine: type[Engine]) -> str:
    """yes, no, or what of the technique's cases the engine refuses, and where: what a machine lacks is not asked. One that is at work only
    in cases of another stands and falls with that."""
    if not engine.supports(technique):
        return "no"
    if user := _user(technique, techniques):
        return _support(user, techniques, engine)
    if (refuses := engine.method(technique, "refuses")) is None:
        return "yes"
    refused: dict[str, list[str]] = {}  # by the name of a case: devices
    active = 0
    for device in DEVICES:
        full = [full_knobs(case, techniques, engine.defaults(device)) for case in technique.cases]
        allowed = [knobs for knobs in full if not refuses(knobs, device)]
        active += sum(technique.active(knobs) for knobs in allowed)
        for knobs in full:
            name = _told_apart(technique, knobs, allowed, techniques)
            if knobs not in allowed and device not in refused.setdefault(name, []):
                refused[name].append(device)
    if not active:
        return "no"
    said = [name for name, devices in refused.items() if devices == list(DEVICES)]
    for device in DEVICES:
        names = " or ".join(name for name, devices in refused.items() if devices == [device])
        said += [f"{names} on {device}"] * bool(names)
    return f"yes, but not {', '.join(said)}" if said else "yes"


def _user(technique: Technique, techniques: Techniques) -> Technique | None:
    """The technique in whose cases this one is at work, where it is in none of its own."""

    def works_in(cases: Iterable[Knobs]) -> bool:
        return any(technique.active(full_knobs(case, techniques)) for case in cases)

    others = (other for other in ordered(techniques) if other is not technique and works_in(other.cases))
    return None if works_in(technique.cases) else next(others, None)


def _told_apart(technique: Technique, knobs: Knobs, allowed: Sequence[Knobs], techniques: Techniques) -> str:
    """A case by its first knob; with what differs besides, where another case with the same first knob is allowed."""
    first, *others = (knob.name for knob in technique.knobs)
    alike = next((other for other in allowed if other[first] == knobs[first]), knobs)
    return " with ".join(describe(name, knobs[name], techniques) for name in (first, *(n for n in others if alike[n] != knobs[n])))


def _effects(techniques: Techniques, engines: Mapping[str, type[Engine]], recorded: Iterable[Recording]) -> dict[str, list[str]]:
    """By technique: a line a recording that shows it."""
    found: dict[str, list[str]] = {}
    for recording in recorded:
        if recording.sweep:  # its first run is no baseline of the others
            continue
        lines: dict[tuple[str, str], list[tuple[int, str]]] = {}  # what each effect is against, and its text
        specs = recording.specs
        results = [result(spec, events) for spec, events in zip(specs, recording.events, strict=True)]
        for number, spec in enumerate(specs):
            pairs = ((other, technique) for other in range(number) if (technique := _alone(spec, specs[other], techniques)))
            before, technique = next(pairs, (0, None))
            if technique:
                text = _effect(results[number], results[before], technique, techniques)
                lines.setdefault((technique.name, spec.engine), []).append((before, text))
        what = specs[0].model.removeprefix("shape:")
        if tokens := value_of(results[0], "prompt_tokens"):
            what += f", {tokens:,.0f} tokens in"
        for (name, engine), told in lines.items():
            texts = "; ".join(f"{text}, against {specs[before].label}" if before else text for before, text in told)
            first = next(spec for spec in specs if spec.engine == engine)
            own = techniques[name] if any(before for before, _ in told) else None
            how = ", ".join([engine, *_settings(first, own, techniques, engines)])
            found.setdefault(name, []).append(f"{texts} ({what}, {how}, {recording.machine}, {recording.date})")
    return found


def _settings(spec: RunSpec, but: Technique | None, techniques: Techniques, engines: Mapping[str, type[Engine]]) -> list[str]:
    """What the baseline of a recording has that its engine has by default on no device; without the settings of `but`."""
    kept = relevant(full_knobs(spec.knobs, techniques), techniques)
    for device in DEVICES:
        kept = chosen(kept, techniques, engines[spec.engine].defaults(device))
    left_out = {knob.name for knob in but.knobs} if but else set()
    return [describe(name, value, techniques) for name, value in kept.items() if name not in left_out]


def _alone(spec: RunSpec, baseline: RunSpec, techniques: Techniques) -> Technique | None:
    """The one technique in whose knobs the variant differs from its baseline; None where more than that differs."""
    ours, theirs = full_knobs(spec.knobs, techniques), full_knobs(baseline.knobs, techniques)
    differing = {name for name in ours if ours[name] != theirs[name]}
    places = any(getattr(spec, name) != getattr(baseline, name) for name in SPEC_FIELDS)
    owners = [technique for technique in ordered(techniques) if differing & {knob.name for knob in technique.knobs}]
    return owners[0] if len(owners) == 1 and not places and spec.workload == baseline.workload else None


def _effect(one: Mapping[str, Any], baseline: Mapping[str, Any], technique: Technique, techniques: Techniques) -> str:
    """ "int8: time per token × 0.678, weights × 0.566"."""
    ours, theirs = (full_knobs(result["spec"]["knobs"], techniques) for result in (one, baseline))
    differing = (knob.name for knob in technique.knobs if ours[knob.name] != theirs[knob.name])
    changed = [describe(name, ours[name], techniques) for name in differing if name in relevant(ours, techniques)]
    for document, said in ((one, ""), (baseline, "runs where the baseline ")):
        if document["error"]:
            return f"{', '.join(changed)}: {said}{'runs out of memory' if document['error']['kind'] == 'oom' else 'fails'}"
    spoken = {"itl_s", *(name for name, effect in technique.expect(ours, theirs).items() if effect != "same")}
    parts = (_times(name, one, baseline) for name in TOLD if name in spoken)
    return f"{', '.join(changed)}: {', '.join(filter(None, parts))}"


def _times(name: str, one: Mapping[str, Any], baseline: Mapping[str, Any]) -> str:
    new, old = value_of(one, name), value_of(baseline, name)
    if new is None or not old:
        return ""
    differs = change(one["metrics"][name], baseline["metrics"][name])
    if differs and differs.shown is False:
        return f"no difference in {TOLD[name]} shown"
    return f"{TOLD[name]} × {digits(new / old)}"
