"""The contract of an engine: it loads a model and yields ticks; it computes no metric.

An engine is one file in `playground/engines/` that defines `ENGINE = ThatClass` (the class: importing the file must stay cheap, so torch is
imported inside methods). The worker calls, in this order::

    engine.load(plan, emit); engine.setup(plan); engine.prepare(prompt, chat); engine.know(prompts); engine.compile(batch)
    for tick in engine.generate(batch): ...
    engine.close()
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from playground.core.events import Event, Profile, Tick
from playground.core.knobs import KnobValue
from playground.core.machine import Machine
from playground.core.plan import Plan
from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.core.technique import Footprint, Knobs, Technique

Emit = Callable[[Event], None]


@dataclass(frozen=True)
class Batch:
    """Tokenised rows of one batch and how to continue them (see spec.Workload).

    row_tokens: output tokens of each row where they differ (else max_new_tokens each); arrivals_s: when each row's request arrives, in
    seconds after the start, where they do not all wait there.
    """

    token_ids: tuple[tuple[int, ...], ...]
    max_new_tokens: int
    ignore_eos: bool = True
    temperature: float = 0.0
    seed: int = 0
    top_k: int = 0
    top_p: float = 1.0
    row_tokens: tuple[int, ...] = ()
    arrivals_s: tuple[float, ...] = ()


class Engine:
    """Base of all engines. Every method that fails raises `Problem` with the kind that fits, or lets the library's error through."""

    name: ClassVar[str]
    title: ClassVar[str]
    about: ClassVar[str]
    any_technique: ClassVar[bool] = False  # takes every technique without applying it, so it needs nothing that they require
    hooks: ClassVar[tuple[str, ...]] = ()  # engines whose methods of a technique this one takes where it has none under its own name
    usual_on: ClassVar[tuple[str, ...]] = ()  # devices (cpu, cuda) on which this engine is taken where nobody names one: see core.usual
    settle_s: float = 0.0  # idle time before each timed pass, for whatever shares the processor with this engine to finish its work
    check: Callable[[], None] = staticmethod(lambda: None)  # the run's own: raises where a person stopped it; for whatever waits or is long
    compiled_step: Any = None  # what a technique compiled for this run: it has `rehearse(engine, batch)`, which is what `compile` does
    facts: Mapping[str, Any] = MappingProxyType({})  # what `load` returned; kept by run.execute for the runs that reuse the engine

    @classmethod
    def refuses(cls, machine: Machine, device: str) -> str | None:
        """Why this engine cannot run on this machine and device (cpu or cuda), or None. Never imports torch."""
        return None

    @classmethod
    def refuses_model(cls, config: Mapping[str, Any]) -> str | None:
        """Why this engine cannot run a model of that Hugging Face config, or None. Needs neither its weights nor torch."""
        return None

    @classmethod
    def admit(cls, config: Mapping[str, Any]) -> None:
        """Raises Problem("unsupported") with the way out for a model that this engine cannot run."""
        if reason := cls.refuses_model(config):
            raise Problem("unsupported", f"{reason} Choose the engine {RunSpec.engine}.")

    @classmethod
    def adopt(cls, spec: RunSpec) -> RunSpec:
        """What this engine really runs for `spec`: the same, except for recordings, whose settings are what was recorded."""
        return spec

    @classmethod
    def defaults(cls, device: str) -> Mapping[str, KnobValue]:
        """What a knob that a spec does not name is with this engine on that device (cpu or cuda), where it is not the knob's default."""
        return {}

    @classmethod
    def footprint(cls, knobs: Knobs, device: str, footprint: Footprint) -> Footprint:
        """`footprint`, to which all techniques have added theirs, as this engine on that device (cpu or cuda) changes it."""
        return footprint

    @classmethod
    def method(cls, technique: Technique, prefix: str) -> Any:
        """The technique's method `prefix_<name>` of this engine, else that of the first of `hooks` for which it has one, else None."""
        found = (technique.hook(prefix, name) for name in (cls.name, *cls.hooks))
        return next((method for method in found if method is not None), None)

    @classmethod
    def supports(cls, technique: Technique) -> bool:
        """Whether the technique has a pair of methods for this engine."""
        return cls.any_technique or cls.method(technique, "for") is not None

    def load(self, plan: Plan, emit: Emit) -> Mapping[str, Any]:
        """Get the model into memory, with all load-phase techniques. Emits Progress while it fetches.

        Returns facts for `Loaded.model`: name, source, kind, random_weights (bool), config (dict), context_length, load_s (fetching not
        counted); of a torch model also dtype, the name of the activations' torch dtype.
        """
        raise NotImplementedError

    def setup(self, plan: Plan) -> None:
        """Apply the run-phase techniques of `plan`; called before each run on a loaded engine."""

    def compiles(self, plan: Plan) -> bool:
        """Whether `compile` has something to do for this plan."""
        return self.compiled_step is not None

    def compile(self, batch: Batch) -> float | None:
        """Make the decode step for batches of this shape ready; called before the first pass. Seconds, None where it was ready."""
        seconds: float | None = self.compiled_step.rehearse(self, batch) if self.compiled_step is not None else None
        return seconds

    def know(self, prompts: Sequence[tuple[int, ...]]) -> None:
        """Token ids of all prompts of the workload, told once before the first pass."""

    def prepare(self, prompt: str, chat: bool) -> tuple[str, tuple[int, ...]]:
        """The exact text after the chat template (if `chat` and the model has one) and its token ids."""
        raise NotImplementedError

    def pieces(self) -> Callable[[int], str]:
        """A fresh incremental detokeniser: token id in, text piece out ("" while a character is incomplete)."""
        raise NotImplementedError

    def generate(self, batch: Batch) -> Iterator[Tick]:
        """One Tick a step, stamped when its tokens are on the host and the device is synchronised. The consumer may stop early."""
        raise NotImplementedError

    def score(self, token_ids: Sequence[int], stepwise: bool = False) -> Any:
        """Log-probabilities [len(token_ids) - 1, vocabulary], float32 torch tensor on the CPU, row i for the token after position i.

        stepwise: one token a forward pass, as decoding has it, in place of all at once: the same numbers but for rounding. Raises
        Problem("unsupported") where the engine has no such thing."""
        raise Problem("unsupported", f"{self.title} gives no log-probabilities, so output quality is not available.")

    def profile(self, batch: Batch) -> Profile:
        """The decode step in the middle of this batch's output, under a profiler. Raises Problem("unsupported") where there is none."""
        raise Problem("unsupported", f"{self.title} has no profiler for its steps.")

    def memory(self) -> Mapping[str, float]:
        """Bytes by name as they are now: weights_bytes, kv_cache_bytes, peak_allocated_bytes, peak_reserved_bytes (CUDA only)."""
        return {}

    def reset_peaks(self) -> None:
        """Forget peak memory seen so far; called before the timed passes."""

    def evidence(self, technique: Technique, plan: Plan) -> Any:
        """The technique's Finding about the loaded engine, or None where there is nothing to prove."""
        prove = self.method(technique, "evidence_for")
        return prove(plan.spec.knobs, self) if prove else None

    def counts(self, technique: Technique, plan: Plan) -> Mapping[str, float]:
        """What the technique counted; called after the timed passes."""
        count = self.method(technique, "counts_for")
        return count(plan.spec.knobs, self) if count else {}

    def replay(self, plan: Plan) -> Iterable[Event] | None:
        """Ready-made events in place of a measurement (the replay engine); None for every real engine."""
        return None

    def close(self) -> None:
        """Free what was loaded."""
