"""Knobs: one setting each, with its legal values and its default. They know nothing of Gradio, of torch or of engines.

`parse` takes what a person, a TOML file or the command line gives and returns the typed value, or raises a `Problem` of kind
"user" that names the knob. Example::

    Choice("precision", "Precision", ("fp32", "bf16"), "bf16", "Number format of the weights").parse("bf16")
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from playground.core.problem import Problem, did_you_mean

KnobValue = str | bool | int | float

_TRUE = {"true", "yes", "on", "1"}
_FALSE = {"false", "no", "off", "0"}


@dataclass(frozen=True)
class Choice:
    """One of several named options."""

    name: str
    label: str
    options: tuple[str, ...]
    default: str
    help: str
    advanced: bool = False

    def parse(self, value: object) -> str:
        """The option itself; raises Problem("user") for an unknown one, with the nearest known option."""
        text = str(value).strip()
        if text not in self.options:
            raise Problem("user", f"{self.name}: " + did_you_mean("there is no option", text, self.options))
        return text


@dataclass(frozen=True)
class Toggle:
    """On or off."""

    name: str
    label: str
    default: bool
    help: str
    advanced: bool = False

    def parse(self, value: object) -> bool:
        """A bool from a bool or from true/false, yes/no, on/off, 1/0."""
        if isinstance(value, bool):
            return value
        text = str(value).strip().lower()
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        raise Problem("user", f"{self.name}: expected on or off, got {value!r}.")


@dataclass(frozen=True)
class Range:
    """A number between two ends, both included; whole numbers when `step` is an int."""

    name: str
    label: str
    minimum: float
    maximum: float
    step: float
    default: float
    help: str
    unit: str = ""
    advanced: bool = False

    def parse(self, value: object) -> int | float:
        """The number, as int where the step is one; raises Problem("user") outside the range or for no number."""
        try:
            if isinstance(value, bool):
                raise ValueError
            number = float(str(value))
            if not math.isfinite(number):
                raise ValueError
        except ValueError:
            raise Problem("user", f"{self.name}: expected a number, got {value!r}.") from None
        if isinstance(self.step, int) and number != int(number):
            raise Problem("user", f"{self.name}: expected a whole number, got {value!r}.")
        if not self.minimum <= number <= self.maximum:
            raise Problem("user", f"{self.name}: {number:g} is outside {self.minimum:g} to {self.maximum:g}.")
        return int(number) if isinstance(self.step, int) else number


@dataclass(frozen=True)
class Text:
    """A name or a path, such as that of a second model; empty by default."""

    name: str
    label: str
    help: str
    default: str = ""
    advanced: bool = False

    def parse(self, value: object) -> str:
        """One line without spaces around it; raises Problem("user") for anything but a text of one line."""
        if not isinstance(value, str) or "\n" in value.strip():
            raise Problem("user", f"{self.name}: expected a text of one line, got {value!r}.")
        return value.strip()


Knob = Choice | Toggle | Range | Text
