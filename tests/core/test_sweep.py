"""A plan of a sweep: its cells and their order, what is refused and with which sentence, and its round trip."""

from __future__ import annotations

import json
from typing import Any

import pytest

from playground.core.problem import Problem
from playground.core.spec import RunSpec, Workload
from playground.core.sweep import Axis, SweepSpec, cells, larger, line_names, values_from
from playground.techniques import techniques

BASE = RunSpec(model="shape:tiny", workload=Workload(prompts=("one",)))


def plan(*specs: RunSpec, **axes: Any) -> SweepSpec:
    made = tuple(Axis(name, values_from(values, name)) for name, values in axes.items())
    return SweepSpec(specs or (BASE,), made).checked(techniques())


def points(made: SweepSpec) -> list[tuple[Any, ...]]:
    return [cell.point for cell in cells(made, techniques())]


def test_a_cell_is_a_whole_spec_and_the_smaller_ones_come_first() -> None:
    made = cells(plan(batch_size=[8, 1, "2"]), techniques())
    assert [(cell.index, cell.point, cell.spec.knobs["batch_size"], cell.label) for cell in made] == [
        (0, (1,), 1, "Batch size 1"),
        (1, (2,), 2, "Batch size 2"),
        (2, (8,), 8, "Batch size 8"),
    ]
    lengths = cells(plan(prompt_tokens="100:300:100", max_new_tokens=[4, 2]), techniques())
    assert [(cell.spec.workload.prompt_tokens, cell.spec.workload.max_new_tokens) for cell in lengths] == [
        (100, 2), (200, 2), (300, 2), (100, 4), (200, 4), (300, 4),
    ]  # fmt: skip


def test_cells_that_one_loaded_model_serves_run_together() -> None:
    assert points(plan(precision=["fp32", "bf16"], batch_size=[1, 2])) == [("fp32", 1), ("fp32", 2), ("bf16", 1), ("bf16", 2)]
    assert points(plan(batch_size=[1, 2], precision=["fp32", "bf16"])) == [(1, "fp32"), (2, "fp32"), (1, "bf16"), (2, "bf16")]


def test_variants_and_a_second_axis_make_lines_with_names() -> None:
    with_cache, without = BASE.replace(label="cache"), BASE.replace(label="no cache", knobs={"kv_cache": "off"})
    made = plan(with_cache, without, max_new_tokens=[2, 4], precision=["fp32", "bf16"])
    assert line_names(made, techniques()) == ["cache, fp32", "cache, bf16", "no cache, fp32", "no cache, bf16"]
    lines = {(cell.line, cell.spec.knobs["kv_cache"], cell.spec.knobs["precision"]) for cell in cells(made, techniques())}
    assert lines == {(0, "dynamic", "fp32"), (1, "dynamic", "bf16"), (2, "off", "fp32"), (3, "off", "bf16")}
    assert line_names(plan(batch_size=[1, 2]), techniques()) == ["shape:tiny"]


def test_what_takes_more_memory_is_larger_on_a_growing_axis_of_the_same_variant() -> None:
    made = plan(BASE, BASE.replace(label="b"), batch_size=[1, 2], prompt_tokens=[10, 20])
    first = {(cell.line // 2, *cell.point): cell for cell in cells(made, techniques())}
    small = first[0, 1, 20]
    assert [key for key, cell in first.items() if larger(cell, small, made.axes)] == [(0, 2, 20)]
    other = plan(precision=["fp32", "bf16"], batch_size=[1, 2])
    fp32 = {cell.point: cell for cell in cells(other, techniques())}
    assert [point for point, cell in fp32.items() if larger(cell, fp32["fp32", 1], other.axes)] == [("fp32", 2)]


@pytest.mark.parametrize(
    ("axes", "sentence"),
    [
        ({"batchsize": [1, 2]}, "There is no axis 'batchsize'; did you mean 'batch_size'?"),
        ({"batch_size": [1, 512]}, "batch_size: 512 is outside 1 to 256."),
        ({"batch_size": [2, 2]}, "batch_size: an axis needs at least two different values."),
        ({"quantization": ["none", "int9"]}, "quantization: there is no option 'int9'; did you mean 'int8'?"),
        ({"prompt_tokens": [0, 4]}, "prompt_tokens: a prompt on an axis has at least 1 token."),
        ({"max_new_tokens": ["x", 4]}, "max_new_tokens: expected a whole number, got 'x'."),
        ({"max_new_tokens": "1:300:1"}, "That is 201 runs; a sweep has at most 200."),
        ({"max_new_tokens": [1, 2], "prompt_tokens": "1:9:1"}, "That is 9 lines in one chart, and at most 8 can be told apart"),
        ({"batch_size": "64:1:x2"}, "batch_size: a range is FIRST:LAST:STEP or FIRST:LAST:xFACTOR"),
        ({}, "A sweep varies one or two settings, not 0"),
    ],
)
def test_what_cannot_be_swept_is_refused_with_a_sentence(axes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Problem) as caught:
        plan(**axes)
    assert caught.value.kind == "user"
    assert caught.value.message.startswith(sentence)


def test_one_setting_is_not_two_axes() -> None:
    with pytest.raises(Problem, match="Both axes are batch_size"):
        SweepSpec((BASE,), (Axis("batch_size", (1, 2)), Axis("batch_size", (4, 8)))).checked(techniques())


def test_a_batch_size_that_leaves_a_smaller_last_batch_is_refused() -> None:
    eight = BASE.replace(workload=Workload(prompts=("p",) * 8))
    assert points(plan(eight, batch_size=[1, 2, 8, 16])) == [(1,), (2,), (8,), (16,)]
    with pytest.raises(Problem, match="batch_size=3 would leave 2 of the 8 prompts for a smaller last batch"):
        plan(eight, batch_size=[1, 3])


@pytest.mark.parametrize(
    ("text", "values"),
    [("1:64:x2", (1, 2, 4, 8, 16, 32, 64)), ("128:512:128", (128, 256, 384, 512)), ("1:50:x4", (1, 4, 16)), ("none, nf4", ("none", "nf4"))],
)
def test_values_may_be_a_range_or_a_list_in_a_text(text: str, values: tuple[Any, ...]) -> None:
    assert values_from(text, "batch_size") == values


def test_a_plan_and_its_cells_come_back_from_json() -> None:
    made = plan(precision=["fp32", "bf16"], batch_size=[1, 2])
    assert SweepSpec.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    cell = cells(made, techniques())[2]
    assert type(cell).from_dict(json.loads(json.dumps(cell.to_dict()))) == cell
    with pytest.raises(Problem, match="the sweep: there is no setting 'axis'; did you mean 'axes'"):
        SweepSpec.from_dict({"axis": {}})


def test_a_length_of_prompts_is_part_of_a_specs_fingerprint_only_where_it_is_set() -> None:
    assert BASE.fingerprint() == RunSpec(model="shape:tiny", workload=Workload(prompts=("one",), prompt_tokens=0)).fingerprint()
    long = BASE.replace(workload=Workload(prompts=("one",), prompt_tokens=512))
    assert long.fingerprint() != BASE.fingerprint()
    assert not long.workload.chat
    assert RunSpec.from_dict(long.to_dict()) == long
