"""Events of making something, such as a trained adapter or a distilled model; they travel with all others (see `core.events`).

Example::

    TrainStep(t_ns=12, step=3, steps=60, loss=2.9, left_s=57.0)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TrainStep:
    """A training step is done: `loss` is the mean a token, in nats, of what it was shown: the negative log-likelihood, or in distillation
    the KL divergence from the teacher; `left_s`: seconds that the remaining steps take at the pace so far."""

    t_ns: int
    step: int
    steps: int
    loss: float
    left_s: float


@dataclass(frozen=True)
class Made:
    """Something was made that can be chosen by its `name`, such as "made:logbook"; `facts`: its provenance, which says its "kind",
    "adapter" or "model"."""

    t_ns: int
    name: str
    facts: Mapping[str, Any]
