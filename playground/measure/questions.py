"""Multiple-choice questions of our own, answered by likelihood: the option with the largest sum of its tokens' log-probabilities after the
question is the model's answer.

Pure but for reading `assets/eval/questions.toml`; log-probabilities come from the function that is passed in. Example::

    asked = [encode(engine, question) for question in questions()]
    right = sum(is_right(item, engine.score) for item in asked)
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from playground.core.engine import Engine
from playground.core.places import ASSETS
from playground.core.problem import Problem
from playground.measure.agreement import common_prefix

Score = Callable[[tuple[int, ...]], Any]


@dataclass(frozen=True)
class Question:
    """`answer` is the index of the right one of `options`."""

    ask: str
    options: tuple[str, ...]
    answer: int

    @property
    def prompt(self) -> str:
        """What the model reads; an option follows after a space."""
        return f"Question: {self.ask}\nAnswer:"


@dataclass(frozen=True)
class Asked:
    """A question in tokens. `options`: the ids of prompt and option together; `start`: from where on they are the option's; `sources[i]`:
    the option in whose forward pass the probabilities of option i can be read, as its tokens but the last begin that one's too."""

    answer: int
    start: int
    options: tuple[tuple[int, ...], ...]
    sources: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Tokens to score, all passes together."""
        return sum(len(self.options[source]) for source in set(self.sources))


def questions() -> tuple[Question, ...]:
    """All questions, in the file's order."""
    data = tomllib.loads((ASSETS / "eval" / "questions.toml").read_text(encoding="utf-8"))
    return tuple(Question(item["ask"], tuple(item["options"]), item["answer"]) for item in data["question"])


def encode(engine: Engine, question: Question) -> Asked:
    """The question in this engine's tokens. Where the tokenizer merges across the border of prompt and option, the option begins with the
    first token in which any of them departs from the prompt: the same place for all, so that their sums compare."""
    prompt = tuple(engine.prepare(question.prompt, False)[1])
    options = tuple(tuple(engine.prepare(f"{question.prompt} {option}", False)[1]) for option in question.options)
    start = min(common_prefix(prompt, ids) for ids in options)
    return Asked(question.answer, max(start, 1), options, _sources(options))


def _sources(options: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    sources = [-1] * len(options)
    chosen: list[int] = []
    for option in sorted(range(len(options)), key=lambda index: -len(options[index])):
        before = options[option][:-1]
        source = next((one for one in chosen if options[one][: len(before)] == before), option)
        sources[option] = source
        chosen += [option] if source == option else []
    return tuple(sources)


def likelihoods(asked: Asked, score: Score) -> list[float]:
    """Log-probability of each option after the question, in nats. Raises Problem("unsupported") where one is not finite."""
    totals = [0.0] * len(asked.options)
    for source in dict.fromkeys(asked.sources):
        logprobs = score(asked.options[source])
        for option, ids in enumerate(asked.options):
            if asked.sources[option] == source:
                totals[option] = math.fsum(float(logprobs[place - 1, ids[place]]) for place in range(asked.start, len(ids)))
    if not all(math.isfinite(total) for total in totals):
        raise Problem("unsupported", "the model's log-probabilities of an answer are not finite (numbers overflowed)")
    return totals


def is_right(asked: Asked, score: Score) -> bool:
    """Whether the right option is likelier than every other one."""
    totals = likelihoods(asked, score)
    return all(totals[asked.answer] > total for option, total in enumerate(totals) if option != asked.answer)
