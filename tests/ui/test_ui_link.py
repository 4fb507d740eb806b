"""The form as a link and back: nothing lost, nothing that a stranger's link says can break the page."""

from __future__ import annotations

import random
import string
from dataclasses import fields
from typing import Any

import pytest
from test_ui_form import TWO, WORLD

from playground.core.knobs import Choice, Knob, Range, Toggle
from playground.core.plan import knob_index
from playground.core.problem import Problem
from playground.ui.form import Draft, draft_of, specs_of
from playground.ui.link import LONGEST_LINK, draft_from, link_of

SOME_TEXT = "aé東🎛️ &=?#%+⏎\n\t,:;.'\"<>/\\" + string.ascii_letters


def drawn(knob: Knob, chance: random.Random) -> Any:
    """A legal value."""
    if isinstance(knob, Choice):
        return chance.choice(knob.options)
    if isinstance(knob, Toggle):
        return chance.random() < 0.5
    if isinstance(knob, Range):
        steps = int((knob.maximum - knob.minimum) / knob.step)
        return knob.parse(knob.minimum + knob.step * chance.randint(0, steps))
    return "".join(chance.choices(SOME_TEXT.replace("\n", ""), k=6)).strip()


def some_draft(chance: random.Random) -> Draft:
    """A form that somebody may have filled in, conflicts included."""
    knobs = {name: knob for name, (_, knob) in knob_index(WORLD.techniques).items()}
    choices = {"model": ["shape:tiny", "a/b?c&d=e", "C:\\models\\é"], "engine": list(WORLD.engines), "device": ["auto", "cpu"]}

    def changes(most: int) -> dict[str, Any]:
        return {name: drawn(knobs[name], chance) for name in chance.sample(list(knobs), chance.randint(0, most))}

    variants = []
    for _ in range(chance.randint(0, 3)):
        place = {name: chance.choice(values) for name, values in choices.items() if chance.random() < 0.15}
        variants.append({**changes(2), **place})
    given = {name: chance.choice(values) for name, values in choices.items() if chance.random() < 0.5}
    work: dict[str, Any] = {
        "prompts": "".join(chance.choices(SOME_TEXT, k=40)),
        "max_new_tokens": chance.choice([1, 64.0, 32_768]),
        "temperature": chance.choice([0, None, 0.1 + 0.2, 1.0]),
        "top_k": chance.choice([None, 0, 40]),
        "top_p": chance.choice([0.9, 1.0]),
        "seed": chance.choice([0, 2**63 - 1]),
        "ignore_eos": chance.random() < 0.5,
        "chat": chance.random() < 0.5,
        "repeats": chance.choice([3, 10]),
        "rounds": chance.choice([1, 5, 3]),
        "quality": chance.random() < 0.5,
        "evaluation": chance.choice(["short", "full"]),
        "price_per_hour": chance.choice([None, 2.5, 0]),
        "evaluation_text": chance.choice(["", "some text\nof mine"]),
    }
    kept = {name: value for name, value in work.items() if chance.random() < 0.5}
    return Draft(**given, **kept, knobs=changes(3), variants=tuple(variants))


def test_any_form_that_can_run_comes_back_as_the_same_specs() -> None:
    chance, runnable = random.Random(7), 0
    for number in range(600):
        draft = some_draft(chance)
        try:
            wanted = specs_of(draft, WORLD)
        except Problem:
            link_of(draft, WORLD)  # what cannot run can still be shared
            continue
        runnable += 1
        link = link_of(draft, WORLD)
        assert link.isascii(), number
        assert not set(link) & set(' "<>#\n'), number
        again, remarks = draft_from(link, WORLD)
        assert remarks == [], link
        found = specs_of(again, WORLD)
        assert [spec.fingerprint() for spec in found] == [spec.fingerprint() for spec in wanted], link
        assert found == wanted, link
        assert link_of(again, WORLD) == link
    assert runnable > 150


def test_a_link_says_only_what_differs_and_can_be_read() -> None:
    assert link_of(Draft(), WORLD) == ""
    filled = draft_of(specs_of(Draft(knobs={"precision": "fp32"}, variants=({"kv_cache": "off"}, {})), WORLD), WORLD)
    assert link_of(filled, WORLD) == "precision=fp32&b.kv_cache=off&c="
    draft = Draft(model="shape:llama-3.2-1b", prompts="Warum?\n為何", max_new_tokens=8, ignore_eos=False, top_k=5)
    assert link_of(draft, WORLD) == "model=shape:llama-3.2-1b&prompts=Warum%3F%0A%E7%82%BA%E4%BD%95&max_new_tokens=8&ignore_eos=off"


def test_no_name_in_a_link_means_two_things() -> None:
    own = [field.name for field in fields(Draft) if field.name not in ("knobs", "variants")]
    names = [*own, *knob_index(WORLD.techniques), *"bcd"]
    assert len(set(names)) == len(names)
    assert not [name for name in names if "." in name or name.startswith("_")]


def test_an_engines_own_defaults_are_not_said_and_come_from_the_engine_again() -> None:
    draft = draft_of(specs_of(Draft(engine="fixed", knobs={"precision": "fp32"}), TWO), TWO)
    assert draft.knobs["kv_cache"] == "static"
    assert link_of(draft, TWO) == "engine=fixed&precision=fp32"
    assert specs_of(draft_from("engine=fixed&precision=fp32", TWO)[0], TWO)[0].knobs["kv_cache"] == "static"


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("precison=fp32", "Left out of this link: precison=fp32. There is no setting 'precison'; did you mean 'precision'?"),
        ("precision=fp99", "precision=fp99. Precision: there is no option 'fp99'"),
        ("b.batch_size=1e9", "b.batch_size=1e9. Batch_size: "),
        ("b.nothing=1", "b.nothing=1. There is no setting 'nothing'"),
        ("c=precision:bf16", "c=precision:bf16. A setting of C is written as c.name=value."),
        ("e.precision=bf16", "There is no setting 'e.precision'"),
        ("engine=onnx", "There is no engine 'onnx'"),
        ("d.device=tpu", "There is no device 'tpu'"),
        ("model=", "Choose a model"),
        ("max_new_tokens=-4", "max_new_tokens=-4. Max_new_tokens must be a whole number from 1"),
        ("max_new_tokens=many", "expected a number"),
        ("max_new_tokens=", "max_new_tokens=. Output length must be a whole number, got nothing"),
        ("max_new_tokens=" + "9" * 5000, "9…. Expected a number"),
        ("temperature=nan", "expected a number"),
        ("price_per_hour=1e999", "expected a number"),
        ("top_k=-1", "Top_k must be"),
        ("chat=maybe", "expected on or off"),
        ("rounds=4", "rounds must be"),
        ("evaluation=long", "there is no evaluation 'long'"),
        ("prompts=%0A", "There is no prompt"),
        ("knobs=x", "There is no setting 'knobs'"),
        ("variants=2", "There is no setting 'variants'"),
        ("&".join(f"x{i}=1" for i in range(501)), "more than 500 settings"),
    ],
)
def test_what_a_link_says_that_cannot_be_is_left_out_with_a_sentence(query: str, sentence: str) -> None:
    draft, remarks = draft_from(f"?{query}", WORLD)
    assert len(remarks) == 1
    assert sentence.casefold() in remarks[0].casefold()
    assert len(remarks[0]) < 1000
    assert all(spec == specs_of(Draft(), WORLD)[0].replace(label=spec.label) for spec in specs_of(draft, WORLD))


def test_the_rest_of_a_link_with_a_mistake_in_it_still_counts() -> None:
    draft, remarks = draft_from("precision=fp32&b.kv_cache=of&b.precision=bf16&c.kv_cache=off&seed=5&seed2=1", WORLD)
    assert (draft.knobs, draft.variants, draft.seed) == ({"precision": "fp32"}, ({"precision": "bf16"}, {"kv_cache": "off"}), 5)
    assert len(remarks) == 2


def test_a_variant_after_a_gap_keeps_its_letter_and_what_gradio_adds_is_no_mistake() -> None:
    draft, remarks = draft_from("?__theme=dark&view=api&c.precision=fp32", WORLD)
    assert (draft.variants, remarks) == (({}, {"precision": "fp32"}), [])


def test_broken_escapes_and_half_characters_do_not_break_anything() -> None:
    assert draft_from("?%=%zz&&=&prompts=%ff%fe", WORLD)[0].prompts == "\ufffd\ufffd"
    assert link_of(Draft(prompts="half \ud800"), WORLD) == "prompts=half+%3F"


def test_prompts_that_are_too_long_for_a_link_are_said_with_both_lengths() -> None:
    assert len(link_of(Draft(prompts="a" * (LONGEST_LINK - 10)), WORLD)) <= LONGEST_LINK
    with pytest.raises(Problem, match=r"9,008 characters of at most 8,000.* Shorten prompts"):
        link_of(Draft(prompts="東" * 1000), WORLD)
