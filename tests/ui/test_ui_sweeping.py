"""The tab "Sweep" without a browser: what cannot be swept is said in a sentence, and the strip of runs is safe to show."""

from __future__ import annotations

import pytest

from playground.core.problem import Problem
from playground.core.spec import RunSpec, Workload
from playground.core.sweep import Axis, Cell, SweepSpec
from playground.results.sweeps import StoredCell, StoredSweep
from playground.ui import sweeping
from playground.ui.form import Draft
from playground.ui.handlers import App
from playground.ui.tabs.sweep import PRESET, sources, wanted

SPEC = RunSpec("script:step_ms=1", "fake", workload=Workload(("a", "b")), label="mine")
EVIL = "<b>&\"'"
SAFE = "&lt;b&gt;&amp;&quot;&#x27;"


@pytest.mark.parametrize(
    ("pairs", "sentence"),
    [
        ([("", "")], "A sweep varies one or two settings, not 0"),
        ([("batch_size", " ")], "Batch size has no values: give some, such as 1, 2, 4 or 1:64:x2"),
        ([("batch_size", "1, many")], "many"),
        ([("batch_size", "8")], "an axis needs at least two different values"),
        ([("batch_size", "2:3:x2")], "an axis needs at least two different values"),
        ([("batch_size", "8:1:x2")], "with the smaller one first"),
        ([("batch_size", "2, 3")], "would leave 1 of the 3 prompts for a smaller last batch"),
        ([("batch_size", "2, 4"), ("batch_size", "2, 4")], "let them be two different settings"),
        ([("max_new_tokens", "1:100:1"), ("batch_size", "2, 4, 8")], "at most 200"),
    ],
)
def test_what_cannot_be_swept_is_said_in_a_sentence(app: App, pairs: list[tuple[str, str]], sentence: str) -> None:
    spec = SPEC.replace(workload=Workload(("a", "b", "c"))) if "smaller last batch" in sentence else SPEC
    with pytest.raises(Problem, match=sentence):
        sweeping.plan_of(app, [spec], "Title", pairs)


def test_a_sweep_of_which_nothing_can_run_here_gives_the_reason_of_its_first_run(app: App) -> None:
    with pytest.raises(Problem, match="no engine 'fak'"):
        sweeping.plan_of(app, [SPEC.replace(engine="fak")], "Title", [("batch_size", "2, 4")])
    plan = sweeping.plan_of(app, [SPEC], "Title", [("engine", "fake, fak")])
    assert plan.axes[0].values == ("fake", "fak"), "one of two can run, and the other says why when its turn comes"


def test_axes_are_of_typed_values_in_order_and_what_has_no_name_is_none(app: App) -> None:
    plan = sweeping.plan_of(app, [SPEC], "Title", [("batch_size", "8, 2, 4"), ("", "9")])
    assert plan.axes == (Axis("batch_size", (2, 4, 8)),)
    titles, names = zip(*sweeping.axis_choices(app), strict=True)
    assert names[:3] == ("batch_size", "prompt_tokens", "max_new_tokens")
    assert titles[:3] == ("Batch size", "Prompt tokens", "Output tokens")
    assert len(set(names)) == len(names)


def stored(*statuses: str) -> StoredSweep:
    cells = tuple(
        StoredCell(Cell(index, 0, (index + 1,), SPEC, f"{EVIL} {index + 1}"), status, f"e{index}", None, reason=EVIL)
        for index, status in enumerate(statuses)
    )
    return StoredSweep("s1", EVIL, "2026-01-01", "running", SweepSpec((SPEC,), (Axis("batch_size", (1, 2, 3)),), EVIL), cells)


def test_the_strip_escapes_titles_labels_and_reasons_and_says_how_far_it_is() -> None:
    html = sweeping.sweep_html(stored("done", "running", "waiting"), "running", ahead=0)
    assert "<b>" not in html
    places = "in the line of what runs, in its cell, in the cell's tooltip, with its reason, and in the table"
    assert html.count(f"{SAFE} 2") == 5, places
    assert f"{SAFE} 1: done. {SAFE}" in html
    assert "Running · 1 of 3 runs" in html
    assert 'aria-valuenow="33"' in html
    waiting = sweeping.sweep_html(stored("waiting", "waiting", "waiting"), "waiting", ahead=2)
    assert "Waiting · 2 before it · 0 of 3 runs" in waiting


def test_what_ended_a_sweep_beside_its_runs_is_said_in_it() -> None:
    html = sweeping.sweep_html(stored("done", "waiting", "waiting"), "stopped", fault=f"The disk is full {EVIL}.")
    assert f'<p class="problem" role="alert">The disk is full {SAFE}.</p>' in html
    assert "time left" not in html


def test_a_question_keeps_its_name_as_long_as_its_axes_are_asked(app: App) -> None:
    def title(values: str) -> str:
        draft = Draft("script:step_ms=1", "fake")
        return wanted(app, ("batch-size", PRESET, "batch_size", values, "", "", True), draft)[0].title

    assert title("1, 2, 4, 8, 16, 32, 64") == "Batch size: 1 to 64"
    assert title("1, 2") == "Batch size · script:step_ms=1"


def test_the_rest_of_a_sweep_comes_from_one_variant_or_from_each(app: App) -> None:
    draft = Draft("script:step_ms=1", "fake", knobs={"precision": "bf16"}, variants=({"precision": "fp32"}, {"precision": "fp16"}))

    def precisions(source: str) -> list[str]:
        return [spec.knobs["precision"] for spec in wanted(app, ("", source, "batch_size", "1, 2", "", "", True), draft)[0].specs]

    assert sources(3) == ["the baseline in Compare", "variant B in Compare", "variant C in Compare", "all variants in Compare"]
    assert [precisions(source) for source in sources(3)] == [["bf16"], ["fp32"], ["fp16"], ["bf16", "fp32", "fp16"]]
    asked = ("", "variant B in Compare", "batch_size", "1, 2", "", "", True)
    assert wanted(app, asked, draft)[0].title == "Batch size · script:step_ms=1 · fp32"
    with pytest.raises(Problem, match="Compare has no variant D any more: choose another source"):
        precisions("variant D in Compare")


def test_only_runs_that_are_done_can_be_explored() -> None:
    assert sweeping.picks(stored("done", "oom", "done")) == ("e0:0", "e2:0")
