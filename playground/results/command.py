"""The exact command that runs variants again: a command line where it can say them, else one with a file that holds them.

Pure. The line names the engine and what differs from the defaults, and of the knobs also those whose default depends on the device; it is
tried out here, by the rules of `cli.wanted`, before it is given. Example::

    found = command([baseline, variant], techniques(), engines())
    found.line     # "python -m playground run --engine transformers --set precision=fp32 --variant precision=bf16"
    found.files    # {"experiment.toml": "..."}: to be saved beside it; mostly empty
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from playground.core.engine import Engine
from playground.core.knobs import KnobValue
from playground.core.plan import SPEC_FIELDS, Techniques, complete, full_knobs, pairs_in, parse_knobs, vary
from playground.core.problem import Problem
from playground.core.spec import PROTOCOLS, Protocol, RunSpec, Workload

Engines = Mapping[str, type[Engine]]
RUN = "python -m playground run"
FILE, TEXT_FILE = "experiment.toml", "evaluation.txt"
DEVICES = ("cpu", "cuda")
TRIES = 3


@dataclass(frozen=True)
class Command:
    """`line`: for a shell; `files`: texts by name that it reads, to be saved in the folder where it runs."""

    line: str
    files: Mapping[str, str]


class _Unsayable(Exception):
    """The command line has no words for this."""


def command(specs: Sequence[RunSpec], techniques: Techniques, engines: Engines) -> Command:
    """What runs these variants again, the first as the baseline. What the command line has no words for goes into a file."""
    try:
        return _Line(specs, techniques, engines).command()
    except (_Unsayable, Problem):
        return Command(f"{RUN} {FILE}", {FILE: spec_toml(specs)})


@dataclass(frozen=True)
class _Line:
    """A command line in the making, and what it would run."""

    specs: Sequence[RunSpec]
    techniques: Techniques
    engines: Engines

    def command(self) -> Command:
        """The line; raises _Unsayable, or what the engines object to."""
        first = self.specs[0]
        usual = self.engines[first.engine].adopt(first.replace(knobs={}, workload=Workload(), protocol=Protocol()))
        bare = RunSpec(first.model, first.engine, first.device)
        words = list(_place_words(first))
        if usual.workload != first.workload:  # a recording brings its own
            bare = bare.replace(workload=first.workload)
            words += _workload_words(first.workload)
        if usual.protocol != first.protocol:
            bare = bare.replace(protocol=first.protocol)
            words += _protocol_words(first.protocol)
        knobs = self._needed(first, lambda given, device: bare.replace(knobs=given))
        baseline = bare.replace(knobs=knobs)
        self._check(first, lambda device: baseline)
        words += [f"--set={name}={_text(value)}" for name, value in knobs.items()]
        words += [f"--variant={self._variant(spec, baseline)}" for spec in self.specs[1:]]
        files = {TEXT_FILE: bare.protocol.text + "\n"} if bare.protocol.text else {}
        return Command(" ".join([RUN, *(_quoted(word) for word in words)]), files)

    def _variant(self, spec: RunSpec, baseline: RunSpec) -> str:
        """What `--variant` says of a spec; raises _Unsayable where it differs in more than that can say."""
        places = {name: getattr(spec, name) for name in SPEC_FIELDS if getattr(spec, name) != getattr(baseline, name)}

        def varied(given: Mapping[str, KnobValue], device: str) -> RunSpec:
            return vary(baseline, {**places, **given}, self.techniques, lambda each: self._defaults(each, device))

        knobs = self._needed(spec, varied)
        self._check(spec, lambda device: varied(knobs, device))
        pairs = {**places, **{name: _text(value) for name, value in knobs.items()}} or {"engine": spec.engine}
        said = [f"{name}={value}" for name, value in pairs.items()]
        if pairs_in(",".join(said)) != said or any(value != value.strip() for value in pairs.values()):
            raise _Unsayable
        return ",".join(said)

    def _needed(self, spec: RunSpec, make: Callable[[Mapping[str, KnobValue], str], RunSpec]) -> dict[str, KnobValue]:
        """The knobs that must be named so that what `make` makes of them has all of `spec`'s, on every device that it may run on."""
        given: dict[str, KnobValue] = {}
        for _ in range(TRIES):  # naming one may change what others are
            lacking: dict[str, KnobValue] = {}
            for device in self._devices(spec):
                want, have = self._knobs(spec, device), self._knobs(make(given, device), device)
                lacking |= {name: value for name, value in want.items() if have[name] != value}
            if not lacking:
                return given
            given |= lacking
        raise _Unsayable

    def _check(self, spec: RunSpec, made: Callable[[str], RunSpec]) -> None:
        """Raises _Unsayable where another run would come of it on some device."""
        for device in self._devices(spec):
            if self._planned(made(device), device).fingerprint() != self._planned(spec, device).fingerprint():
                raise _Unsayable

    def _devices(self, spec: RunSpec) -> list[str]:
        """The devices on which `spec` may run, as far as its settings go; raises its Problem where there is none."""
        known, last = [], None
        for device in DEVICES if spec.device == "auto" else (spec.device,):
            try:
                self._planned(spec, device)
                known.append(device)
            except Problem as problem:
                last = problem
        if last and not known:
            raise last
        return known

    def _planned(self, spec: RunSpec, device: str) -> RunSpec:
        """As `core.plan.plan_for` completes it."""
        adopted = self.engines[spec.engine].adopt(spec)
        return complete(adopted, self.techniques, self._defaults(adopted, device))

    def _knobs(self, spec: RunSpec, device: str) -> dict[str, KnobValue]:
        adopted = self.engines[spec.engine].adopt(spec)
        return full_knobs(parse_knobs(adopted.knobs, self.techniques), self.techniques, self._defaults(adopted, device))

    def _defaults(self, spec: RunSpec, device: str) -> Mapping[str, KnobValue]:
        return self.engines[spec.engine].defaults(device if spec.device == "auto" else spec.device)


def _quoted(word: str) -> str:
    """A flag and its value as a person writes them: with a space between, unless the value is empty or begins like a flag."""
    flag, equals, value = word.partition("=")
    if "\0" in word or value == "--":  # argparse takes the latter away, wherever it stands
        raise _Unsayable
    return f"{flag} {shlex.quote(value)}" if equals and value and not value.startswith("-") else shlex.quote(word)


def _place_words(spec: RunSpec) -> Iterator[str]:
    """The engine is always named, since the usual one depends on the machine."""
    if spec.model != RunSpec.model:
        yield f"--model={spec.model}"
    yield f"--engine={spec.engine}"
    if spec.device != RunSpec.device:
        yield f"--device={spec.device}"


def _workload_words(work: Workload) -> Iterator[str]:
    usual = Workload()
    if work.prompts != usual.prompts and work.prompt_tokens:
        raise _Unsayable  # the flags give the text or its length
    if work.prompts != usual.prompts:
        yield from (f"--prompt={prompt}" for prompt in work.prompts)
    for name in ("prompt_tokens", "max_new_tokens", "temperature", "top_k", "top_p", "seed"):
        if repr(getattr(work, name)) != repr(getattr(usual, name)):
            yield f"--{name.replace('_', '-')}={getattr(work, name)!r}"
    if not work.ignore_eos:
        yield "--stop-at-eos"
    if not work.chat:
        yield "--no-chat"


def _protocol_words(protocol: Protocol) -> list[str]:
    """From the named protocol, or from none, that needs the fewest words besides."""
    return min((list(_beside(protocol, name)) for name in (None, *PROTOCOLS)), key=len)


def _beside(protocol: Protocol, name: str | None) -> Iterator[str]:
    start = PROTOCOLS[name] if name else Protocol()
    if name:
        yield f"--protocol={name}"
    for field in ("warmups", "repeats", "rounds", "evaluation", "price_per_hour"):
        if getattr(protocol, field) != getattr(start, field):
            yield f"--{field.replace('_', '-')}={getattr(protocol, field)}"
    yield from (f"--no-{field}" for field in ("energy", "quality", "profile") if not getattr(protocol, field))
    if protocol.text:
        if "\r" in protocol.text:  # reading a file as text changes it
            raise _Unsayable
        yield f"--evaluation-text={TEXT_FILE}"


def _text(value: KnobValue) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


def spec_toml(specs: Sequence[RunSpec]) -> str:
    """Variants as an experiment file, every setting written out: `python -m playground run FILE` runs exactly these."""
    return "\n".join(_variant_toml(spec.to_dict()) for spec in specs)


def _variant_toml(data: Mapping[str, Any]) -> str:
    tables = {name: value for name, value in data.items() if isinstance(value, Mapping)}
    lines = ["[[variants]]", *(_pair(name, value) for name, value in data.items() if name not in tables)]
    for name, table in tables.items():
        lines += [f"[variants.{name}]", *(_pair(key, value) for key, value in table.items())]
    return "\n".join(lines) + "\n"


def _pair(name: str, value: Any) -> str:
    """A text is written as JSON writes it; TOML wants one more character escaped."""
    return f"{name} = {json.dumps(value, ensure_ascii=False)}".replace("\x7f", "\\u007f")
