"""The arithmetic of a small training in this process: steps on windows of a text, and perplexity before and after.

It trains whatever parameters of a model want a gradient, and knows neither what they are, nor what is to be small, nor where the result
goes. Example::

    losses = train(model, partial(text_loss, model, dtype), material, Pace(steps=30, learning_rate=2e-3, seed=0), emit, check)
    perplexities(model, dtype, material, emit, check, "after training")["held-out"]
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from playground.core.events import Event, Phase, Score
from playground.core.making import TrainStep
from playground.core.problem import Problem
from playground.measure.divergence import perplexity

WINDOW, ROWS = 128, 2  # tokens a row and rows a step
SCORED_WINDOW, SCORED_TOKENS = 256, 1024  # perplexity: windows without overlap, of at most that many tokens of a text
WARM_UP = 0.1  # share of the steps in which the learning rate rises; it falls along a cosine after them

Emit = Callable[[Event], None]
Rows = Sequence[Sequence[int]]  # token ids, all rows of the same length
Loss = Callable[[Rows], Any]  # what is to be small: the mean a predicted token, a torch number
Check = Callable[[], None]  # called between any two steps; what it raises ends the work


@dataclass(frozen=True)
class Material:
    """Token ids: `head`, the tokenizer's own start tokens, which begin every window; `learned` and `held_out`, the parts of the text;
    `others`: texts that have nothing to do with it, by name."""

    head: tuple[int, ...]
    learned: tuple[int, ...]
    held_out: tuple[int, ...]
    others: Mapping[str, tuple[int, ...]]

    @property
    def scored(self) -> dict[str, tuple[int, ...]]:
        """What perplexity is measured on, by name."""
        return {name: ids[:SCORED_TOKENS] for name, ids in {"held-out": self.held_out, **self.others}.items()}


@dataclass(frozen=True)
class Pace:
    """How many steps, how large, and the seed of the windows that are drawn."""

    steps: int
    learning_rate: float
    seed: int


def tell(emit: Emit, phase: str, detail: str) -> None:
    """A new stage began."""
    emit(Phase(time.perf_counter_ns(), phase, detail))


def faster_dtype(device: str) -> str:
    """bfloat16 or float32: what multiplies faster here. Tried, since some processors have no instructions for bfloat16 and crawl."""
    import torch

    def seconds(dtype: Any) -> float:
        left, right = torch.ones(ROWS * WINDOW, 1024, dtype=dtype), torch.ones(1024, 1024, dtype=dtype)
        taken = []
        for _ in range(4):
            begun = time.perf_counter()
            left @ right
            taken.append(time.perf_counter() - begun)
        return min(taken)

    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    return "bfloat16" if seconds(torch.bfloat16) < seconds(torch.float32) else "float32"


def logits(model: Any, rows: Rows, dtype: str) -> Any:
    """What the model says before each token of each row but the first: torch float32 [rows, positions, vocabulary]. `dtype`: in which it
    multiplies, "bfloat16" or "float32"."""
    import torch

    device = model.get_input_embeddings().weight.device
    ids = torch.tensor(rows, device=device)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
        return model(input_ids=ids[:, :-1], use_cache=False).logits.float()


def text_loss(model: Any, dtype: str, rows: Rows) -> Any:
    """Mean negative log-likelihood of the tokens after the first of each row."""
    import torch

    said = logits(model, rows, dtype)
    following = torch.tensor(rows, device=said.device)[:, 1:]
    return torch.nn.functional.cross_entropy(said.flatten(0, 1), following.flatten())


def train(model: Any, loss_of: Loss, material: Material, pace: Pace, emit: Emit, check: Check) -> list[float]:
    """The loss of each step, in nats a token. Raises Problem("user") where the learning rate is so high that the loss is lost."""
    import torch

    tell(emit, "train", f"{pace.steps} steps of {ROWS * WINDOW} tokens")
    numbers = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(numbers, lr=pace.learning_rate, weight_decay=0.0, fused=True)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, _schedule(pace.steps))
    stream = torch.Generator().manual_seed(pace.seed)
    losses: list[float] = []
    started = time.perf_counter()
    for step in range(1, pace.steps + 1):
        check()
        loss = loss_of(_drawn(material, stream))
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise Problem("user", f"The loss is no number after step {step}: the learning rate {pace.learning_rate:g} is too high.")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(numbers, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        rate.step()
        left_s = (time.perf_counter() - started) / step * (pace.steps - step)
        emit(TrainStep(time.perf_counter_ns(), step, pace.steps, losses[-1], left_s))
    return losses


def perplexities(model: Any, dtype: str, material: Material, emit: Emit, check: Check, about: str) -> dict[str, float]:
    """exp of the mean negative log-likelihood a token, of each text; windows without overlap. Raises Problem("user") where a model is so
    far off that this is no number."""
    import torch

    tell(emit, "quality", f"perplexity {about}")
    sums = dict.fromkeys(material.scored, (0.0, 0))
    for name, row in scored_windows(material, check):
        with torch.no_grad():
            total = float(text_loss(model, dtype, [row])) * (len(row) - 1)
        sums[name] = sums[name][0] + total, sums[name][1] + len(row) - 1
    found = {name: perplexity(total, positions) for name, (total, positions) in sums.items()}
    if wild := next((name for name, value in found.items() if not math.isfinite(value)), None):
        loss = f"The loss on the {wild} text is {sums[wild][0] / sums[wild][1]:.3g} nats a token {about}, and its perplexity is no number"
        raise Problem("user", f"{loss}: choose a lower learning rate, or another model where it is so before training too.")
    emit(Score(time.perf_counter_ns(), found, about=about))
    return found


def scored_windows(material: Material, check: Check) -> Iterator[tuple[str, list[int]]]:
    """The name of a text and the token ids of a window of it, for each window that has something to predict."""
    for name, ids in material.scored.items():
        for start in range(0, len(ids), SCORED_WINDOW):
            check()
            row = [*material.head, *ids[start : start + SCORED_WINDOW]]
            if len(row) > 1:
                yield name, row


def _drawn(material: Material, stream: Any) -> list[list[int]]:
    """Rows of the text that begin anywhere: WINDOW positions to predict in each, from the head on."""
    import torch

    size = WINDOW + 1 - len(material.head)
    starts = torch.randint(len(material.learned) - size + 1, (ROWS,), generator=stream).tolist()
    return [[*material.head, *material.learned[start : start + size]] for start in starts]


def _schedule(steps: int) -> Callable[[int], float]:
    rising = max(1, round(steps * WARM_UP))

    def at(step: int) -> float:
        return (step + 1) / rising if step < rising else 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))

    return at
