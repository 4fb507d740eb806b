"""Claims about growth along the axis of a sweep: what they need, and how a sweep bears them out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.core.sweep import Axis, SweepSpec, cells
from playground.presets import growths, sweep
from playground.results.growth import growths_from, judge_growth
from playground.results.html.claims import claims_html
from playground.results.sweeps import StoredCell
from playground.results.table import claims_text
from playground.techniques import techniques

FASTER = {"sentence": "It grows.", "source": "a text", "metric": "ttft_s", "exponent_above": 1, "why": "It is short."}


def swept(*seconds: tuple[float, float] | None, axis: str = "prompt_tokens") -> tuple[SweepSpec, list[StoredCell]]:
    """A sweep over 64, 128 and so on, one value (mean, half of its interval) each, of three repeats; None: not run."""
    plan = SweepSpec((RunSpec("shape:tiny"),), (Axis(axis, tuple(64 * 2**step for step in range(len(seconds)))),)).checked(techniques())
    made = []
    for cell, given in zip(cells(plan, techniques()), seconds, strict=True):
        if given is None:
            made.append(StoredCell(cell))
            continue
        mean, half = given
        value = {"value": mean, "unit": "s", "n": 3, "ci95": [mean - half, mean + half], "cv": 0.01, "kind": "measured"}
        made.append(StoredCell(cell, status="done", result={"metrics": {"ttft_s": value}}))
    return plan, made


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([(1, 0.01), (2, 0.01), (8, 0.01)], "supported"),  # the last doubling takes 4 times as long: a power of 2
        ([(1, 0.01), (4, 0.01), (7, 0.01)], "contradicted"),  # 1.75 times: a power of 0.81, whatever it was before
        ([(1, 0.01), (2, 0.2), (4.2, 0.4)], "not decided"),  # 2.1 times, give or take a fifth
        ([(1, 1.5), (1, 1.5), (4, 5)], "not decided"),  # any ratio is possible
    ],
)
def test_the_last_two_points_decide_with_their_interval(seconds: list[tuple[float, float]], expected: str) -> None:
    (found,) = judge_growth(growths_from([FASTER], "prompt_tokens"), *swept(*seconds))
    assert found["outcome"] == expected
    assert found["why"] == ("It is short." if expected == "contradicted" else "")
    assert "between 128 and 256" in found["text"]


def test_the_text_has_power_interval_and_claim_and_stands_on_page_and_terminal() -> None:
    found = judge_growth(growths_from([FASTER], "prompt_tokens"), *swept((1, 0.0), (4, 0.0)))
    text = "Time to first token claimed to grow by a power above 1; measured 2 between 64 and 128 (95 % interval 2 to 2)."
    assert found[0]["text"] == text
    assert "supported" in claims_html(found)
    assert f"supported. {text}" in claims_text(found)


def test_short_prompts_that_take_as_long_as_a_later_token_decide_nothing() -> None:
    plan, cells = swept((1.0, 0.01), (1.1, 0.01))
    for cell in cells:
        cell.result["metrics"]["itl_s"] = {"value": 0.95, "unit": "s", "n": 3, "ci95": None, "cv": None, "kind": "measured"}
    (found,) = judge_growth(growths_from([FASTER], "prompt_tokens"), plan, cells)
    assert found["outcome"] == "not decided"
    assert found["text"].endswith("The shorter of these prompts decides little.")


def test_claims_on_a_change_are_an_experiments_and_those_on_growth_need_an_axis_that_grows() -> None:
    assert growths_from([{"sentence": "It is faster.", "source": "a text", "metric": "itl_s", "direction": "up"}], "prompt_tokens") == ()
    with pytest.raises(Problem, match="first axis, and attention is none that grows: batch_size"):
        growths_from([FASTER], "attention")


def test_a_claim_is_judged_along_its_own_axis_and_where_there_are_two_points() -> None:
    own = growths_from([FASTER], "prompt_tokens")
    assert judge_growth(own, *swept((1, 0.01), None)) == []
    assert judge_growth(own, *swept((1, 0.01), (4, 0.01), axis="max_new_tokens")) == []


def test_the_overviews_claim_on_attention_is_judged_in_sweeps_over_the_prompt() -> None:
    (one,) = [claim for claim in growths() if claim.axis == "prompt_tokens"]
    assert "square of the length" in one.sentence
    assert "大模型推理效率与精度" in one.source


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"exponent_above": True}, "a claim of a sweep needs a number as its exponent_above, got True"),
        ({"metric": "itl"}, "a claim: there is no metric 'itl'"),
        ({"source": " "}, "a claim needs a text as its source"),
        ({"variant": 1}, "a claim of a sweep has no setting 'variant'"),
    ],
)
def test_a_claim_that_cannot_be_names_its_file_and_what_is_wrong(fields: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    table = "\n".join(f"{name} = {str(value).lower() if value is True else repr(value)}" for name, value in {**FASTER, **fields}.items())
    path.write_text(f"[axes]\nprompt_tokens = '64:128:x2'\n[[claim]]\n{table}\n")
    with pytest.raises(Problem, match=f"^mine.toml: {sentence}"):
        sweep(path)
