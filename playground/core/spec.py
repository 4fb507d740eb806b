"""What to run: `Workload`, `Protocol` and `RunSpec` (one variant), all frozen, with a JSON and TOML round trip.

Nothing here knows which knobs exist; `core.plan.complete` checks a spec against the techniques and fills the defaults in.
Example::

    RunSpec.from_dict({"model": "shape:tiny", "knobs": {"precision": "fp32"}}).fingerprint()
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from playground.core.knobs import KnobValue
from playground.core.problem import Problem, did_you_mean

DEFAULT_MODEL = "smollm2-135m-instruct"
DEFAULT_PROMPT = "What is the capital of France? Answer in one sentence, then say why it became the capital."
MAX_NEW_TOKENS = 32_768
MAX_PROMPT_TOKENS = 131_072
MAX_TOP_K = 1_000_000  # more than any vocabulary
EVALUATIONS = ("short", "full")


NARROWING = ("top_k", "top_p")  # settings of a draw; their defaults leave nothing out
ADDED = (*NARROWING, "prompt_tokens")  # settings that came later: at their defaults a workload is what it was before them
GREEDY = "at temperature 0 the most likely token is always taken."


def _require_int(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise Problem("user", f"{name} must be a whole number from {low} to {high}, got {value!r}.")


def _require_bool(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise Problem("user", f"{name} must be true or false, got {value!r}.")


def _require_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise Problem("user", f"{name} must be a text, got {value!r}.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        code, place = ord(value[error.start]), error.start + 1
        raise Problem("user", f"{name} is not valid Unicode: U+{code:04X} at character {place} is half of a pair. Remove it.") from None


@dataclass(frozen=True)
class Workload:
    """Prompts and how to continue them.

    prompts: non-empty texts; max_new_tokens: tokens to generate for each; ignore_eos: go on after the end-of-text token, so that
    lengths match; temperature: 0 is greedy; chat: put each prompt through the model's chat template where it has one; top_k: draw from
    this many of the most likely tokens, 0 from all; top_p: and of these from the fewest that have this share of the probability;
    prompt_tokens: in place of each prompt a text of the product's own that is exactly this long for the model's tokenizer, 0 for the
    prompts as they are written. Such a text is one to go on with and no message, so `chat` is off for it.
    """

    prompts: tuple[str, ...] = (DEFAULT_PROMPT,)
    max_new_tokens: int = 64
    ignore_eos: bool = True
    temperature: float = 0.0
    seed: int = 0
    chat: bool = True
    top_k: int = 0
    top_p: float = 1.0
    prompt_tokens: int = 0

    def __post_init__(self) -> None:
        given: object = self.prompts
        if isinstance(given, bytes) or not isinstance(given, Sequence):
            raise Problem("user", f"prompts must be a text or a list of texts, got {given!r}.")
        prompts = (given,) if isinstance(given, str) else tuple(given)
        object.__setattr__(self, "prompts", prompts)
        if not prompts:
            raise Problem("user", "Write at least one prompt.")
        for number, prompt in enumerate(prompts, 1):
            _require_text(f"Prompt {number}", prompt)
            if not prompt.strip():
                raise Problem("user", f"Prompt {number} is empty: write some text to continue.")
        _require_int("max_new_tokens", self.max_new_tokens, 1, MAX_NEW_TOKENS)
        _require_bool("ignore_eos", self.ignore_eos)
        _require_bool("chat", self.chat)
        _require_int("prompt_tokens", self.prompt_tokens, 0, MAX_PROMPT_TOKENS)
        if self.prompt_tokens:
            object.__setattr__(self, "chat", False)
        _require_int("seed", self.seed, 0, 2**63 - 1)
        if isinstance(self.temperature, bool) or not isinstance(self.temperature, int | float):
            raise Problem("user", f"temperature must be a number, got {self.temperature!r}.")
        if not 0 <= self.temperature <= 10:
            raise Problem("user", f"temperature must be from 0 (greedy) to 10, got {self.temperature!r}.")
        object.__setattr__(self, "temperature", float(self.temperature))
        self._check_narrowing()

    def _check_narrowing(self) -> None:
        _require_int("top_k", self.top_k, 0, MAX_TOP_K)
        if isinstance(self.top_p, bool) or not isinstance(self.top_p, int | float):
            raise Problem("user", f"top_p must be a number, got {self.top_p!r}.")
        if not 0 < self.top_p <= 1:
            raise Problem("user", f"top_p must be above 0 and at most 1 (all tokens), got {self.top_p!r}.")
        object.__setattr__(self, "top_p", float(self.top_p))
        for name in NARROWING:
            if self.temperature == 0 and getattr(self, name) != getattr(Workload, name):
                raise Problem("user", f"{name}={getattr(self, name)} has no effect here: {GREEDY} Set a temperature above 0.")


@dataclass(frozen=True)
class Protocol:
    """How to measure: warm-up passes with the same shapes, timed repeats, and which further passes follow.

    rounds: the variants run one after the other this many times (A B A B), each time in fresh workers; the repeats are shared out among
    the rounds. energy: repeat the workload for an energy window where there is a counter. quality: score the output; evaluation: on
    "short" (512 tokens of English) or "full" (all texts and the questions); text: a text of the user's, scored in place of the product's.
    profile: one decode step under the profiler. price_per_hour: of the machine, for the cost of tokens; 0 for none.
    """

    warmups: int = 1
    repeats: int = 3
    rounds: int = 1
    energy: bool = True
    quality: bool = True
    evaluation: str = "short"
    text: str = ""
    profile: bool = True
    price_per_hour: float = 0.0

    def __post_init__(self) -> None:
        _require_int("warmups", self.warmups, 0, 100)
        _require_int("repeats", self.repeats, 1, 1000)
        _require_int("rounds", self.rounds, 1, min(10, self.repeats))
        for name in ("energy", "quality", "profile"):
            _require_bool(name, getattr(self, name))
        _require_text("The evaluation text", self.text)
        object.__setattr__(self, "text", self.text.strip())
        if self.evaluation not in EVALUATIONS:
            raise Problem("user", "evaluation: " + did_you_mean("there is no evaluation", str(self.evaluation), EVALUATIONS))
        price: object = self.price_per_hour
        if isinstance(price, bool) or not isinstance(price, int | float) or not 0 <= price < math.inf:
            raise Problem("user", f"price_per_hour must be a number of at least 0, got {price!r}.")
        object.__setattr__(self, "price_per_hour", float(price))


PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        "quick": Protocol(1, 3),
        "standard": Protocol(2, 5, evaluation="full"),
        "careful": Protocol(3, 10, rounds=2, evaluation="full"),
    }
)
NAMED_FIELDS = ("warmups", "repeats", "rounds", "evaluation")  # what these names stand for; the rest of a protocol stays as it is


@dataclass(frozen=True)
class RunSpec:
    """One variant: a model, an engine, a device, knob values, a workload and a protocol. `label` is for people only."""

    model: str = DEFAULT_MODEL
    engine: str = "transformers"
    device: str = "auto"
    knobs: Mapping[str, KnobValue] = field(default_factory=dict)
    workload: Workload = Workload()
    protocol: Protocol = Protocol()
    label: str = ""

    def __post_init__(self) -> None:
        for name in ("model", "engine", "device", "label"):
            _require_text(name, getattr(self, name))
        if not self.model.strip():
            raise Problem("user", "Choose a model.")
        if self.device not in ("auto", "cpu", "cuda"):
            raise Problem("user", "device: " + did_you_mean("there is no device", self.device, ("auto", "cpu", "cuda")))
        if not isinstance(self.knobs, Mapping):
            raise Problem("user", f"knobs must be a table of names and values, got {self.knobs!r}.")
        object.__setattr__(self, "knobs", dict(self.knobs))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        data: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RunSpec:
        """The spec that `to_dict` gave; missing fields take their defaults, unknown ones raise Problem("user")."""
        fields = _checked_fields(cls, "the experiment", data)
        if "workload" in fields:
            fields["workload"] = Workload(**_checked_fields(Workload, "workload", fields["workload"]))
        if "protocol" in fields:
            fields["protocol"] = Protocol(**_checked_fields(Protocol, "protocol", fields["protocol"]))
        return cls(**fields)

    def fingerprint(self) -> str:
        """16 hex digits of what decides the measurement; the label and the price do not, nor do settings that came later
        where they change nothing, so that a run from before there were such settings is still the same."""
        data = self.to_dict()
        del data["label"], data["protocol"]["price_per_hour"]
        for name in ADDED:
            if getattr(self.workload, name) == getattr(Workload, name):
                del data["workload"][name]
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]

    def replace(self, **changes: Any) -> RunSpec:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


def _checked_fields(cls: type, where: str, data: object) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise Problem("user", f"{where} must be a table of names and values, got {data!r}.")
    known = [f.name for f in dataclasses.fields(cls)]
    for name in data:
        if name not in known:
            raise Problem("user", f"{where}: " + did_you_mean("there is no setting", str(name), known))
    return dict(data)
