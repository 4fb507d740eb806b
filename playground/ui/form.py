"""The form as plain data: what a person has set (`Draft`) and the specs that it means, in both directions. No Gradio here.

Example::

    draft = Draft(knobs={"precision": "fp32"}, variants=({"precision": "bf16"},))
    specs_of(draft, world)        # [RunSpec baseline, RunSpec B]
    draft_of(specs, world)        # the form again, for presets and for reloaded pages
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from playground.core.plan import (
    NONE,
    SPEC_FIELDS,
    Techniques,
    chosen,
    complete,
    describe,
    full_knobs,
    idle_knobs,
    knob_index,
    relevant,
    vary,
)
from playground.core.problem import Problem
from playground.core.spec import DEFAULT_MODEL, DEFAULT_PROMPT, NAMED_FIELDS, PROTOCOLS, Protocol, RunSpec, Workload
from playground.engines.replay import ReplayEngine, truly_run
from playground.results import drawing
from playground.ui.availability import World

LINE_BREAK = "⏎"
LETTERS = drawing.LETTERS[:4]  # of as many columns as the page has
CUSTOM = "custom"
FIELD_LABELS = {"model": "Model", "engine": "Engine", "device": "Device"}


@dataclass(frozen=True)
class Draft:
    """`knobs`: the baseline's; `variants`: for each further column only what differs. `prompts`: one a line. `price_per_hour`: None for
    none; `evaluation_text`: a text of the person's own to score quality on."""

    model: str = DEFAULT_MODEL
    engine: str = "transformers"
    device: str = "auto"
    knobs: Mapping[str, Any] = field(default_factory=dict)
    variants: tuple[Mapping[str, Any], ...] = ()
    prompts: str = DEFAULT_PROMPT
    prompt_tokens: Any = 0
    max_new_tokens: Any = 64
    temperature: Any = 0.0
    top_k: Any = 0
    top_p: Any = 1.0
    seed: Any = 0
    ignore_eos: bool = True
    chat: bool = True
    warmups: Any = 1
    repeats: Any = 3
    rounds: Any = 1
    quality: bool = True
    evaluation: str = "short"
    energy: bool = True
    profile: bool = True
    price_per_hour: Any = None
    evaluation_text: str = ""


def setting_labels(techniques: Techniques) -> dict[str, str]:
    """What a variant can differ in: every knob, then model, engine and device, with labels for people."""
    knobs = {name: knob.label for name, (_, knob) in knob_index(techniques).items()}
    return {**knobs, **FIELD_LABELS}


def workload_of(draft: Draft) -> Workload:
    """The workload; raises Problem("user") for what cannot be."""
    prompts = tuple(line.replace(LINE_BREAK, "\n") for line in (draft.prompts or "").splitlines() if line.strip())
    if not prompts:
        raise Problem("user", "There is no prompt. Write at least one line of text to continue.")
    drawn: dict[str, Any] = {}
    if not is_greedy(draft):
        drawn = {"top_k": _whole("Top k", draft.top_k or 0), "top_p": draft.top_p if draft.top_p is not None else 1.0}
    return Workload(
        prompts=prompts,
        prompt_tokens=_whole("Prompt length", draft.prompt_tokens or 0),
        max_new_tokens=_whole("Output length", draft.max_new_tokens),
        ignore_eos=draft.ignore_eos,
        temperature=draft.temperature if draft.temperature is not None else 0.0,
        seed=_whole("Seed", draft.seed),
        chat=draft.chat,
        **drawn,
    )


def is_greedy(draft: Draft) -> bool:
    """Whether no token is drawn, so that top_k and top_p have no effect (their controls are disabled, with the reason)."""
    return not draft.temperature


def protocol_of(draft: Draft) -> Protocol:
    """How to measure; raises Problem("user") for what cannot be."""
    return Protocol(
        warmups=_whole("Warm-ups", draft.warmups),
        repeats=_whole("Repeats", draft.repeats),
        rounds=_whole("Rounds", draft.rounds),
        energy=draft.energy,
        quality=draft.quality,
        evaluation=draft.evaluation,
        text=(draft.evaluation_text or "").strip(),
        profile=draft.profile,
        price_per_hour=draft.price_per_hour if draft.price_per_hour is not None else 0.0,
    )


def protocol_name(draft: Draft) -> str:
    """The named protocol whose passes and evaluation the form holds; "custom" where it is none of them."""
    given = tuple(getattr(draft, name) for name in NAMED_FIELDS)
    named = {name: tuple(getattr(protocol, field) for field in NAMED_FIELDS) for name, protocol in PROTOCOLS.items()}
    return next((name for name, wanted in named.items() if wanted == given), CUSTOM)


def named_protocol(name: str) -> dict[str, Any]:
    """What choosing a protocol fills in, by field of the draft; nothing for "custom"."""
    return {field: getattr(PROTOCOLS[name], field) for field in NAMED_FIELDS} if name in PROTOCOLS else {}


def moved(draft: Draft, place: Sequence[str], world: World) -> Draft:
    """`draft`, whose engine and device were `place` before, with every knob that was at its default there at its default here."""
    if (draft.engine, draft.device) == tuple(place):
        return draft
    before, now = (RunSpec(engine=engine, device=device) for engine, device in (place, (draft.engine, draft.device)))
    kept = chosen(draft.knobs, world.techniques, world.defaults(before))
    return replace(draft, knobs=full_knobs(kept, world.techniques, world.defaults(now)))


def specs_of(draft: Draft, world: World) -> list[RunSpec]:
    """The baseline and its variants, complete; raises Problem("user") that names the column at fault."""
    baseline = RunSpec(
        model=(draft.model or "").strip(),
        engine=draft.engine,
        device=draft.device,
        workload=workload_of(draft),
        protocol=protocol_of(draft),
    )
    baseline = baseline.replace(knobs=relevant(draft.knobs, world.techniques, world.defaults(baseline)))
    specs = [_complete(LETTERS[0], baseline, world)]
    for letter, changes in zip(LETTERS[1:], draft.variants, strict=False):
        try:
            varied = vary(baseline, changes, world.techniques, world.defaults)
        except Problem as problem:
            raise Problem(problem.kind, f"{letter}: {problem.message}", problem.detail) from None
        specs.append(_complete(letter, varied, world))
    return [spec.replace(label=label) for spec, label in zip(specs, labels(specs, world), strict=True)]


def labels(specs: Sequence[RunSpec], world: World) -> list[str]:
    """A short label for each spec: its values of everything in which the specs differ, or "same settings" where nothing does; of played
    recordings those they were recorded with. What an engine has by default and another engine has not goes without saying."""
    if len(specs) == 1:
        return ["this run"]
    replayed = all(spec.engine == ReplayEngine.name for spec in specs)  # each plays another part of its recording: nothing to read off that
    recorded = [truly_run(spec).label for spec in specs] if replayed else []
    if recorded and len({*recorded, ""}) > len(recorded):  # each has one, and its own
        return recorded
    settings = [name for name in setting_labels(world.techniques) if not (replayed and name == "model")]
    values = [_values(spec, world) for spec in specs]
    usual = [_values(spec.replace(knobs={}), world) for spec in specs]
    names = [name for name in settings if _differs(name, values)]
    follow = [name for name in knob_index(world.techniques) if _differs(name, usual)]
    found = []
    for one, own in zip(values, usual, strict=True):
        unsaid = {*idle_knobs(one, world.techniques), *(name for name in follow if one[name] == own[name])}
        found.append(", ".join(_described(name, one[name], world.techniques) for name in names if name not in unsaid))
    return [label or "same settings" for label in found]


def draft_of(specs: Sequence[RunSpec], world: World) -> Draft:
    """The form that would give these specs (further ones than four, and other workloads than the baseline's, do not fit in it)."""
    baseline = specs[0]
    work, protocol = baseline.workload, baseline.protocol
    return Draft(
        model=baseline.model,
        engine=baseline.engine,
        device=baseline.device,
        knobs=full_knobs(baseline.knobs, world.techniques, world.defaults(baseline)),
        variants=tuple(differences(baseline, spec, world) for spec in specs[1 : len(LETTERS)]),
        prompts="\n".join(LINE_BREAK.join(prompt.splitlines()) for prompt in work.prompts),
        prompt_tokens=work.prompt_tokens,
        max_new_tokens=work.max_new_tokens,
        temperature=work.temperature,
        top_k=work.top_k,
        top_p=work.top_p,
        seed=work.seed,
        ignore_eos=work.ignore_eos,
        chat=work.chat,
        warmups=protocol.warmups,
        repeats=protocol.repeats,
        rounds=protocol.rounds,
        quality=protocol.quality,
        evaluation=protocol.evaluation,
        energy=protocol.energy,
        profile=protocol.profile,
        price_per_hour=protocol.price_per_hour or None,
        evaluation_text=protocol.text,
    )


def differences(baseline: RunSpec, spec: RunSpec, world: World) -> dict[str, Any]:
    """Settings of `spec` that differ from the baseline's, without those that have no effect there or follow from another engine."""
    known = world.techniques
    fields = {name: getattr(spec, name) for name in SPEC_FIELDS if getattr(spec, name) != getattr(baseline, name)}
    whole = baseline.replace(knobs=full_knobs(baseline.knobs, known, world.defaults(baseline)))
    values, inherited = _values(spec, world), _values(vary(whole, fields, known, world.defaults), world)
    idle = idle_knobs(values, known)
    changed = [name for name in setting_labels(known) if name in fields or values[name] != inherited[name]]
    return {name: values[name] for name in changed if name not in idle}


def column_names(specs: Sequence[RunSpec]) -> list[str]:
    """Names for legends: "Baseline: fp32", "B: bf16"."""
    return drawing.variant_names([spec.label for spec in specs])


def changed_in_words(
    changes: Mapping[str, Any], baseline: Mapping[str, Any], techniques: Techniques, follows: Mapping[str, Any] = NONE
) -> str:
    """One line for a column: "Precision bf16 instead of fp32", and what `follows` from another engine or device."""
    known = setting_labels(techniques)
    real = {name: value for name, value in changes.items() if value != baseline.get(name)}
    parts = [f"{known[name]} {_plain(value)} instead of {_plain(baseline.get(name))}" for name, value in real.items()]
    if follows:
        parts.append("with it " + ", ".join(f"{known[name]} {_plain(value)}" for name, value in follows.items()))
    return "; ".join(parts) or "Same as the baseline: shows how much two equal runs differ."


def _complete(letter: str, spec: RunSpec, world: World) -> RunSpec:
    try:
        return complete(spec, world.techniques, world.defaults(spec))
    except Problem as problem:
        raise Problem(problem.kind, f"{letter}: {problem.message}", problem.detail) from None


def _values(spec: RunSpec, world: World) -> dict[str, Any]:
    """Every setting of a spec: all knobs, model, engine, device."""
    fields = {name: getattr(spec, name) for name in SPEC_FIELDS}
    return {**full_knobs(spec.knobs, world.techniques, world.defaults(spec)), **fields}


def _differs(name: str, values: Sequence[Mapping[str, Any]]) -> bool:
    return len({str(one[name]) for one in values}) > 1


def _described(name: str, value: Any, techniques: Techniques) -> str:
    return str(value) if name in SPEC_FIELDS else describe(name, value, techniques)


def _plain(value: Any) -> str:
    return {True: "on", False: "off"}.get(value, str(value)) if isinstance(value, bool) else str(value) or "none"


def _whole(what: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise Problem("user", f"{what} must be a whole number, got {'nothing' if value is None else repr(value)}.")
    return int(value)
