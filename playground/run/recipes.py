"""What can be made here, such as an adapter: one module of this room each, which defines RECIPE and is found.

The page's tab "Make" and the command of the same name come from the recipe alone: fields and flags from `knobs`, the table of what was
reached from `table`, and what to compare it with from `compared`. Example::

    recipe = recipes()["adapt"]
    job = recipe.job(name="notes", text=recipe.text.read_text(), steps=30)
    for event in make(recipe.module, job.to_dict(), cancel=threading.Event()): ...
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from playground.core.knobs import Knob
from playground.core.registry import discover
from playground.core.spec import RunSpec

Facts = Mapping[str, Any]


class Job(Protocol):
    """What a recipe is asked for: a dataclass with `name`, `model`, `text`, `device`, and a field for each knob."""

    def check(self) -> None:
        """Raises Problem("user") for what cannot be made, as far as it shows without the model."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values for the module's `make`."""


@dataclass(frozen=True)
class Table:
    """What was reached: `heads` of the columns after the first; rows of (title, unit, a value or None for each head)."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, str, tuple[float | None, ...]], ...]


@dataclass(frozen=True)
class Recipe:
    """`name` is the command's too; `kind`: of what is made, as its provenance says; `model_label`: what the model is to it; `text`: a file
    of the product's to learn from where nobody gives one; `module`: has `make(job, emit, check)`; `use`: how the result is used from the
    command line, with {name}."""

    name: str
    kind: str
    title: str
    about: str
    order: int
    module: str
    job: Callable[..., Job]
    knobs: tuple[Knob, ...]
    model_label: str
    text: Path
    use: str
    table: Callable[[Facts], Table]
    compared: Callable[[Facts], Sequence[RunSpec]]


def recipes() -> dict[str, Recipe]:
    """All recipes by name, in order."""
    return {recipe.name: recipe for recipe in sorted(discover("playground.run", "RECIPE").values(), key=lambda recipe: recipe.order)}
