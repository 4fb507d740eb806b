"""What all jobs that train on a text share: their fields and checks, the text in tokens, the device, and what their provenance says.

A kind of job is a dataclass on `TrainingJob` in a module with a function `make(job, emit, check)`, see `run.making`. Example::

    material = material_of(job, load_tokenizer(resolved))
    facts = {"kind": "adapter", **asked(job, material), "machine": told(machine)}
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

from playground.core.events import Progress
from playground.core.knobs import Knob, Range
from playground.core.machine import Machine
from playground.core.problem import Problem
from playground.core.spec import DEFAULT_MODEL
from playground.measure.agreement import common_prefix
from playground.measure.evaluation import evaluation_text
from playground.measure.machine import provenance
from playground.models.made import check_name
from playground.models.tokenizer import Tokenizer
from playground.run.training import ROWS, SCORED_TOKENS, SCORED_WINDOW, WINDOW, Check, Emit, Material

LEAST_HELD_OUT = 32
TITLES = {"held-out": "your text, held out", "english": "other English text", "chinese": "other Chinese text"}
TOLD = ("cpu", "cores", "gpu", "versions", "playground", "started_at")  # what a provenance keeps of the machine


@dataclass(frozen=True)
class TrainingJob:
    """What to train on. `model`: what is trained, or learned from; `steps` of 256 tokens each; `held_out`: share of the text, from its end,
    that is not learned from; `device`: auto, cpu or cuda."""

    name: str
    text: str
    model: str = DEFAULT_MODEL
    steps: int = 30
    learning_rate: float = 2e-3
    held_out: float = 0.15
    seed: int = 0
    device: str = "auto"

    def check(self) -> None:
        """Raises Problem("user") for what cannot be trained, as far as it shows without the model."""
        check_name(self.name)
        within("steps", self.steps, 1, 100_000)
        within("learning rate", self.learning_rate, 1e-6, 1.0)
        within("held-out share", self.held_out, 0.01, 0.5)
        if not self.text.strip():
            raise Problem("user", "There is no text to learn from: give some pages of it.")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def training_knobs(job: type[TrainingJob]) -> tuple[Knob, ...]:
    """The settings of every training, with the defaults of `job`."""
    return (
        Range("steps", "Steps", 1, 100_000, 1, job.steps, f"Steps of {WINDOW * ROWS} tokens each."),
        Range("learning_rate", "Learning rate", 1e-6, 1.0, 1e-5, job.learning_rate, "At its highest."),
        Range("held_out", "Held out", 0.01, 0.5, 0.01, job.held_out, "Share of the text, from its end, to be tested on."),
        Range("seed", "Seed", 0, 2**31, 1, job.seed, "Of the first numbers and of the order of the text."),
    )


def within(what: str, value: float, least: float, most: float) -> None:
    """Raises Problem("user") for a number that is out of its range."""
    if not least <= value <= most:
        raise Problem("user", f"The number for {what} must be between {least:,g} and {most:,g}, got {value:,g}.")


def device_of(job: TrainingJob, machine: Machine) -> str:
    """cpu or cuda; raises Problem("unsupported") for a CUDA device that is not there."""
    device = machine.resolve(job.device)
    if device == "cuda" and machine.device != "cuda":
        raise Problem("unsupported", f"No CUDA device: {machine.no_cuda or 'none was found'}.")
    return device


def stoppable(emit: Emit, check: Check) -> Callable[[Progress], None]:
    """What tells of a download's progress and ends it once a person has stopped the job."""

    def told(event: Progress) -> None:
        check()
        emit(event)

    return told


def material_of(job: TrainingJob, tokenizer: Tokenizer) -> Material:
    """The text in tokens, cut in two; raises Problem("user") where either part is too short."""
    ids, nothing = tokenizer.encode(job.text), tokenizer.encode("")
    head = ids[: common_prefix(ids, nothing)]
    body = ids[len(head) :]
    cut = len(body) - round(len(body) * job.held_out)
    if cut <= WINDOW or len(body) - cut < LEAST_HELD_OUT:
        parts = f"{cut:,} to learn from and {len(body) - cut:,} to be tested on"
        least = f"at least {WINDOW + 1} and {LEAST_HELD_OUT} are needed"
        raise Problem("user", f"The text is too short: its {len(body):,} tokens are {parts}, and {least}. Give a longer text.")
    others = {name: tokenizer.encode(evaluation_text(name))[len(head) :] for name in ("english", "chinese")}
    return Material(head, body[:cut], body[cut:], others)


def asked(job: TrainingJob, material: Material) -> dict[str, Any]:
    """What a provenance says of the job and its text: every field but the text itself, which it describes."""
    text = {
        "sha256": hashlib.sha256(job.text.encode()).hexdigest(),
        "characters": len(job.text),
        "learned_tokens": len(material.learned),
        "held_out_tokens": len(material.held_out),
        "scored": f"windows of {SCORED_WINDOW} tokens without overlap, at most {SCORED_TOKENS} tokens of a text",
    }
    own = {field.name: getattr(job, field.name) for field in fields(job) if field.name not in ("name", "text", "device")}
    return {"name": job.name, "text": text, "tokens_a_step": WINDOW * ROWS, **own}


def told(machine: Machine) -> dict[str, Any]:
    """What a provenance says of the machine."""
    return {name: value for name, value in provenance(machine).items() if name in TOLD}
