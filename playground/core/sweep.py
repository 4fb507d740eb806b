"""A sweep: one or two settings that vary over a grid, with all else from one or several variants. Its cells are ordinary specs.

The first axis is the one that is drawn along; each value of the second one, for each variant, is a line. Example::

    plan = SweepSpec((RunSpec(),), (Axis("batch_size", (1, 2, 4)),)).checked(techniques())
    for cell in cells(plan, techniques()): print(cell.label, cell.spec)
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from playground.core.knobs import KnobValue
from playground.core.plan import NONE, SPEC_FIELDS, Defaults, Techniques, complete, describe, knob_index, load_key, vary
from playground.core.problem import Problem, did_you_mean
from playground.core.spec import Protocol, RunSpec, Workload

PROTOCOL = Protocol(warmups=1, repeats=3, quality=False, profile=False)  # of a sweep that names none
WORK_AXES: Mapping[str, tuple[str, str]] = {"prompt_tokens": ("Prompt tokens", "tokens"), "max_new_tokens": ("Output tokens", "tokens")}
GROWING = ("batch_size", *WORK_AXES)  # more of it takes more memory, so what has not fit at one value will not fit at a larger one
MOST_AXES = 2
MOST_LINES = 8
MOST_CELLS = 200
FIELDS = ("title", "about", "variants", "axes")


@dataclass(frozen=True)
class Axis:
    """One setting and its values: a knob, prompt_tokens, max_new_tokens, model, engine or device."""

    name: str
    values: tuple[KnobValue, ...]

    @property
    def grows(self) -> bool:
        """Whether more of it takes more memory."""
        return self.name in GROWING

    @property
    def numeric(self) -> bool:
        """Whether all values are numbers."""
        return all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.values)


@dataclass(frozen=True)
class Cell:
    """One run of a sweep. index: its place in the order in which they run; line: of the lines; point: the value of each axis."""

    index: int
    line: int
    point: tuple[KnobValue, ...]
    spec: RunSpec
    label: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**vars(self), "point": list(self.point), "spec": self.spec.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Cell:
        """The cell that `to_dict` gave."""
        return cls(**{**data, "point": tuple(data["point"]), "spec": RunSpec.from_dict(data["spec"])})


@dataclass(frozen=True)
class SweepSpec:
    """What to vary. specs: the variants that the rest comes from; axes: one or two; title, about: for people."""

    specs: tuple[RunSpec, ...]
    axes: tuple[Axis, ...]
    title: str = ""
    about: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; also what a sweep's file may hold."""
        specs = [spec.to_dict() for spec in self.specs]
        axes = [{"name": axis.name, "values": list(axis.values)} for axis in self.axes]
        return json.loads(json.dumps({"title": self.title, "about": self.about, "variants": specs, "axes": axes}))  # type: ignore[no-any-return]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SweepSpec:
        """The plan that `to_dict` gave; raises Problem("user") for what is none."""
        for name in data:
            if name not in FIELDS:
                raise Problem("user", "the sweep: " + did_you_mean("there is no setting", str(name), FIELDS))
        specs = tuple(RunSpec.from_dict(item) for item in data.get("variants", ()))
        return cls(specs, axes_from(data.get("axes", ())), str(data.get("title", "")), str(data.get("about", "")))

    def checked(self, techniques: Techniques) -> SweepSpec:
        """The same with typed values, ascending where more of it takes more memory; raises Problem("user") for what cannot be swept."""
        if not self.specs:
            raise Problem("user", "A sweep needs a variant that the rest comes from.")
        if not 1 <= len(self.axes) <= MOST_AXES:
            raise Problem("user", f"A sweep varies one or two settings, not {len(self.axes)}: name them as axes.")
        if len({axis.name for axis in self.axes}) < len(self.axes):
            raise Problem("user", f"Both axes are {self.axes[0].name}: let them be two different settings, or put all values on one.")
        plan = dataclasses.replace(self, axes=tuple(_checked(axis, techniques) for axis in self.axes))
        lines = len(self.specs) * math.prod(len(axis.values) for axis in plan.axes[1:])
        if lines > MOST_LINES:
            raise Problem("user", f"That is {lines} lines in one chart, and at most {MOST_LINES} can be told apart: take fewer values.")
        number = lines * len(plan.axes[0].values)
        if number > MOST_CELLS:
            raise Problem("user", f"That is {number} runs; a sweep has at most {MOST_CELLS}. Take fewer values.")
        for spec, axis in itertools.product(plan.specs, plan.axes):
            if axis.name == "batch_size":
                _check_rows(spec.workload, axis)
        return plan


def axes_from(given: object) -> tuple[Axis, ...]:
    """Axes from a table {name: values} or from a list of {"name", "values"}; values may be a text, see `values_from`."""
    if isinstance(given, Mapping):
        pairs = list(given.items())
    elif isinstance(given, Sequence) and all(isinstance(item, Mapping) and set(item) == {"name", "values"} for item in given):
        pairs = [(item["name"], item["values"]) for item in given]
    else:
        raise Problem("user", f"axes must be a table of settings and their values, got {given!r}.")
    return tuple(Axis(str(name), values_from(values, str(name))) for name, values in pairs)


def values_from(given: object, name: str) -> tuple[KnobValue, ...]:
    """The values of a list, of a text with commas, or of a range: 1:64:x2 is 1, 2, 4 to 64, and 128:512:128 is 128, 256, 384, 512."""
    if isinstance(given, str):
        parts = [part.strip() for part in given.split(":")]
        if len(parts) == 3 and parts[2].removeprefix("x").isdecimal() and parts[0].isdecimal() and parts[1].isdecimal():
            return _range(name, int(parts[0]), int(parts[1]), int(parts[2].removeprefix("x")), parts[2].startswith("x"))
        return tuple(part.strip() for part in given.split(","))
    if isinstance(given, Sequence) and all(isinstance(value, str | bool | int | float) for value in given):
        return tuple(given)
    raise Problem("user", f"{name}: expected a list of values or a range such as 1:64:x2, got {given!r}.")


def cells(plan: SweepSpec, techniques: Techniques, defaults: Defaults = lambda spec: NONE) -> list[Cell]:
    """The runs of a checked plan in their order: those that one loaded model can serve together, and of a line the smaller ones first."""
    made = []
    for line, (number, rest) in enumerate(_lines(plan)):
        for value in plan.axes[0].values:
            given = dict(zip((axis.name for axis in plan.axes), (value, *rest), strict=True))
            made.append((line, (value, *rest), _varied(plan.specs[number], given, techniques, defaults)))
    keys = [_key(spec, techniques) for _, _, spec in made]
    order = sorted(range(len(made)), key=lambda place: keys.index(keys[place]))
    label = _Labels(plan, techniques)
    return [Cell(index, made[at][0], made[at][1], made[at][2], label.cell(*made[at][:2])) for index, at in enumerate(order)]


def line_names(plan: SweepSpec, techniques: Techniques) -> list[str]:
    """What each line is called: its variant, where there are several, and its value of the second axis."""
    label = _Labels(plan, techniques)
    return [label.line(number, rest) or plan.specs[number].label or plan.specs[number].model for number, rest in _lines(plan)]


def larger(cell: Cell, than: Cell, axes: Sequence[Axis]) -> bool:
    """Whether a cell of the same line, or of another that differs in no more than a growing axis, takes more memory than `than`."""
    pairs = list(zip(axes, cell.point, than.point, strict=True))
    if any(mine != theirs for axis, mine, theirs in pairs if not axis.grows):
        return False
    if any(float(mine) < float(theirs) for axis, mine, theirs in pairs if axis.grows):
        return False
    across = math.prod(len(axis.values) for axis in axes[1:])
    return cell.point != than.point and cell.line // across == than.line // across


def value_name(name: str, value: KnobValue, techniques: Techniques) -> str:
    """An axis' value for people: "1,024 prompt tokens", "Batch size 8", "nf4"."""
    if name in WORK_AXES:
        return f"{value:,} {WORK_AXES[name][0].lower()}"
    return str(value) if name in SPEC_FIELDS else describe(name, value, techniques)


def axis_title(name: str, techniques: Techniques) -> str:
    """What an axis is called in a chart."""
    if name in WORK_AXES:
        return WORK_AXES[name][0]
    return name.capitalize() if name in SPEC_FIELDS else knob_index(techniques)[name][1].label


@dataclass(frozen=True)
class _Labels:
    plan: SweepSpec
    techniques: Techniques

    def line(self, spec: int, rest: Sequence[KnobValue]) -> str:
        names = [value_name(axis.name, value, self.techniques) for axis, value in zip(self.plan.axes[1:], rest, strict=True)]
        several = len(self.plan.specs) > 1
        own = self.plan.specs[spec].label or f"variant {spec + 1}"
        return ", ".join([own, *names] if several else names)

    def cell(self, line: int, point: Sequence[KnobValue]) -> str:
        across = math.prod(len(axis.values) for axis in self.plan.axes[1:])
        value = value_name(self.plan.axes[0].name, point[0], self.techniques)
        return ", ".join(filter(None, (self.line(line // across, point[1:]), value)))


def _lines(plan: SweepSpec) -> list[tuple[int, tuple[KnobValue, ...]]]:
    """Of each line the number of its variant, and its values of the axes but the first."""
    return list(itertools.product(range(len(plan.specs)), itertools.product(*(axis.values for axis in plan.axes[1:]))))


def _checked(axis: Axis, techniques: Techniques) -> Axis:
    index = knob_index(techniques)
    known = [*index, *WORK_AXES, *SPEC_FIELDS]
    if axis.name not in known:
        raise Problem("user", did_you_mean("There is no axis", axis.name, known))
    if axis.name in WORK_AXES:
        values: list[Any] = [_work_value(axis.name, value) for value in axis.values]
    elif axis.name in SPEC_FIELDS:
        values = [getattr(RunSpec().replace(**{axis.name: str(value)}), axis.name) for value in axis.values]
    else:
        values = [index[axis.name][1].parse(value) for value in axis.values]
    unique = list(dict.fromkeys(values))
    if len(unique) < 2:
        raise Problem("user", f"{axis.name}: an axis needs at least two different values.")
    return Axis(axis.name, tuple(sorted(unique) if axis.grows else unique))


def _work_value(name: str, value: object) -> int:
    try:
        number = value if isinstance(value, int) else int(str(value))
    except ValueError:
        raise Problem("user", f"{name}: expected a whole number, got {value!r}.") from None
    if name == "prompt_tokens" and number == 0:
        raise Problem("user", "prompt_tokens: a prompt on an axis has at least 1 token.")
    work: dict[str, Any] = {name: number}
    dataclasses.replace(Workload(), **work)  # raises outside the range
    return number


def _check_rows(workload: Workload, axis: Axis) -> None:
    """A last batch with fewer rows than the others would mix two batch sizes in one point."""
    prompts = len(workload.prompts)
    for size in axis.values:
        if (left := max(prompts, int(size)) % int(size)) != 0:
            message = f"batch_size={size} would leave {left} of the {prompts} prompts for a smaller last batch"
            raise Problem("user", f"{message}: take sizes that divide {prompts} or are not below it, or a workload with one prompt.")


def _range(name: str, first: int, last: int, step: int, times: bool) -> tuple[int, ...]:
    if step < (2 if times else 1) or first < (1 if times else 0) or last < first:
        raise Problem("user", f"{name}: a range is FIRST:LAST:STEP or FIRST:LAST:xFACTOR, such as 1:64:x2, with the smaller one first.")
    values = [first]
    while (following := values[-1] * step if times else values[-1] + step) <= last and len(values) <= MOST_CELLS:
        values.append(following)
    return tuple(values)


def _varied(spec: RunSpec, given: Mapping[str, KnobValue], techniques: Techniques, defaults: Defaults) -> RunSpec:
    changes = {name: value for name, value in given.items() if name not in WORK_AXES}
    work: dict[str, Any] = {name: value for name, value in given.items() if name in WORK_AXES}
    varied = vary(spec, changes, techniques, defaults) if changes else spec
    varied = varied.replace(workload=dataclasses.replace(spec.workload, **work))
    names = (value_name(name, value, techniques) for name, value in given.items())
    varied = varied.replace(label=", ".join(filter(None, (spec.label, *names))))
    try:
        return complete(varied, techniques, defaults(varied))
    except Problem:  # it cannot run, and will say why when its turn comes
        return varied


def _key(spec: RunSpec, techniques: Techniques) -> str:
    """Equal for specs that one loaded model can serve; of a spec that cannot run, its own."""
    return load_key(spec, techniques) if set(spec.knobs) >= set(knob_index(techniques)) else spec.fingerprint()
