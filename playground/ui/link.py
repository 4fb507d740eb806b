"""The form as a link: a query string with only what differs from the defaults, and the form again from such a string. No Gradio here.

Names are those of a draft's fields and of knobs; a variant's settings begin with its letter, and a variant that changes nothing is its
letter alone. Whatever a link says that is unknown or illegal here is left out, with a sentence. Example::

    link_of(Draft(knobs={"precision": "fp32"}, variants=({"precision": "bf16"}, {})), world)   # "precision=fp32&b.precision=bf16&c="
    draft, remarks = draft_from("precision=fp32&b.precison=bf16", world)                       # remarks: did you mean 'precision'?
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode

from playground.core.plan import SPEC_FIELDS, chosen, knob_index, relevant
from playground.core.problem import Problem, did_you_mean
from playground.core.spec import NARROWING, RunSpec
from playground.ui.availability import DEVICES, World
from playground.ui.form import LETTERS, Draft, is_greedy, protocol_of, workload_of

LONGEST_LINK = 8_000  # characters; servers between here and a reader cut longer addresses off or refuse them
MOST_SETTINGS = 500
LONGEST_SAID = 60
_LETTERS = tuple(letter.lower() for letter in LETTERS[1:])
_USUAL = Draft()
_FIELDS = {f.name: getattr(_USUAL, f.name) for f in fields(Draft) if f.name not in ("knobs", "variants")}
_OTHERS = ("__", "view")  # what Gradio itself puts into an address


def link_of(draft: Draft, world: World) -> str:
    """The query string of a draft, without "?"; "" for the form as it is at first. Raises Problem("user") where it gets too long."""
    place = RunSpec(engine=draft.engine, device=draft.device)
    defaults = world.defaults(place)
    unheard = NARROWING if is_greedy(draft) else ()
    pairs = {name: getattr(draft, name) for name, usual in _FIELDS.items() if getattr(draft, name) != usual and name not in unheard}
    pairs |= chosen(relevant(draft.knobs, world.techniques, defaults), world.techniques, defaults)
    for letter, changes in zip(_LETTERS, draft.variants, strict=False):
        pairs |= {f"{letter}.{name}": value for name, value in changes.items()} or {letter: ""}
    link = urlencode({name: _written(value) for name, value in pairs.items()}, errors="replace", safe=":/,")
    if len(link) > LONGEST_LINK:
        longest = max(pairs, key=lambda name: len(_written(pairs[name])))
        raise Problem(
            "user",
            f"This is too long for a link: {len(link):,} characters of at most {LONGEST_LINK:,}, where a letter other than a to z takes up "
            f"to twelve. Shorten {longest.replace('_', ' ')}.",
        )
    return link


def draft_from(query: str, world: World) -> tuple[Draft, list[str]]:
    """The form that a query string means, with or without "?", and a sentence for each thing in it that was left out."""
    try:
        given = dict(parse_qsl(query.removeprefix("?"), keep_blank_values=True, max_num_fields=MOST_SETTINGS))
    except ValueError:
        return _USUAL, [f"This link holds more than {MOST_SETTINGS} settings and was not read."]
    remarks: list[str] = []
    knobs: dict[str, Any] = {}
    variants: dict[str, dict[str, Any]] = {}
    texts: dict[str, str] = {}
    for name, text in given.items():
        letter, dot, setting = name.partition(".")
        try:
            if letter in _LETTERS:
                changes = variants.setdefault(letter, {})
                if text and not dot:
                    raise Problem("user", f"a setting of {letter.upper()} is written as {letter}.name=value.")
                if dot:
                    changes[setting] = _setting(setting, text, world)
            elif name in _FIELDS:
                texts[name] = text
            elif not name.startswith(_OTHERS):
                knobs[name] = _setting(name, text, world)
        except Problem as problem:
            remarks.append(_left_out(name, text, problem))
    count = max((_LETTERS.index(letter) + 1 for letter in variants), default=0)
    draft = Draft(knobs=knobs, variants=tuple(variants.get(letter, {}) for letter in _LETTERS[:count]))
    for name in _FIELDS:  # in their order, since what a field may be depends on earlier ones
        if name in texts:
            try:
                draft = _with(draft, name, texts[name], world)
            except Problem as problem:
                remarks.append(_left_out(name, texts[name], problem))
    return draft, remarks


def _written(value: Any) -> str:
    """A value as it stands in a link."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value)


def _setting(name: str, text: str, world: World) -> Any:
    """The typed value of a knob, or of a model, engine or device; raises Problem for an unknown name and for an illegal value."""
    index = knob_index(world.techniques)
    if name in index:
        return index[name][1].parse(text)
    if name not in SPEC_FIELDS:
        raise Problem("user", did_you_mean("there is no setting", name, [*index, *_FIELDS]))
    for field, known in (("engine", world.engines), ("device", DEVICES)):
        if name == field and text not in known:
            raise Problem("user", f"{name}: " + did_you_mean(f"there is no {name}", text, known))
    return getattr(RunSpec().replace(**{name: text.strip()}), name)


def _with(draft: Draft, name: str, text: str, world: World) -> Draft:
    """The draft with one more field; raises Problem for what it cannot be."""
    if name in SPEC_FIELDS:
        return replace(draft, **{name: _setting(name, text, world)})
    changed = replace(draft, **{name: _read(_FIELDS[name], text)})
    workload_of(replace(changed, temperature=changed.temperature or 1.0))  # so that top_k and top_p are looked at too
    protocol_of(changed)
    return changed


def _read(usual: Any, text: str) -> Any:
    """The value of a field whose default is `usual`: a text, on or off, or a number, None where it is empty."""
    if isinstance(usual, str):
        return text
    if isinstance(usual, bool):
        switches: Mapping[str, bool] = {"on": True, "off": False}
        if text not in switches:
            raise Problem("user", "expected on or off.")
        return switches[text]
    try:
        if not text:
            return None
        number = int(text) if isinstance(usual, int) else float(text)
        if not math.isfinite(number):
            raise ValueError
    except (ValueError, OverflowError):
        raise Problem("user", "expected a number.") from None
    return number


def _left_out(name: str, text: str, problem: Problem) -> str:
    said = text if len(text) <= LONGEST_SAID else f"{text[:LONGEST_SAID]}…"
    return f"Left out of this link: {name}={said}. {problem.message[:1].upper()}{problem.message[1:]}"
