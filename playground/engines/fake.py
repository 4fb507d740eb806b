"""A scripted engine: instant, deterministic and without torch; it fails on demand. For trying the page and for the tests of the worker.

The model is the script: `script:` and settings, separated by commas. Example::

    RunSpec(model="script:step_ms=5,fail=oom,at=3", engine="fake")     # runs out of memory at its third decode step

Settings: step_ms, prefill_ms, load_ms (waits), fail (what goes wrong: oom, crash, segfault, hang, error, garbage), at (`load`, or the
decode step, counted from the load), oom_rows (batches of this many rows and more run out of memory; 0: none does), context (tokens),
weights_mb (reported as the size of its weights), kernels and kernel_ms (reported as what one step runs on a GPU; without them its profile
is that of a CPU).
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, get_type_hints

from playground.core.engine import Batch, Emit, Engine
from playground.core.events import Profile, Tick
from playground.core.plan import Plan
from playground.core.problem import Problem, did_you_mean
from playground.measure.step_profile import PARTS

FAILURES = ("oom", "crash", "segfault", "hang", "error", "garbage")
_TEXT = """
    a all and any at be but by can each fast few for from has in is it less light long many memory model more most much near no not of on
    one only or other same set short slow small so some step such than that the then they this time to token two use was weight well what
    when which while will with word
"""
WORDS = _TEXT.split()
EOS = len(WORDS)  # the one token id after the words
SHARES = dict(zip(PARTS, (0.01, 0.30, 0.45, 0.06, 0.10, 0.03, 0.05), strict=True))  # of a step, in its profile
ALLOCATION = "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 8.00 GiB of which 1.50 GiB is free."


@dataclass(frozen=True)
class Script:
    """What the model's name asks for."""

    step_ms: float = 5.0
    prefill_ms: float = 20.0
    load_ms: float = 0.0
    fail: str = ""
    at: str = "3"
    oom_rows: int = 0
    context: int = 4096
    weights_mb: float = 0.0
    kernels: int = 0
    kernel_ms: float = 0.0


class FakeEngine(Engine):
    """Plays its script."""

    name: ClassVar[str] = "fake"
    title: ClassVar[str] = "Scripted"
    about: ClassVar[str] = "No model: words from a script, at a set pace, with failures on demand. For tests and demonstrations."
    any_technique: ClassVar[bool] = True

    script = Script()
    steps = 0

    def load(self, plan: Plan, emit: Emit) -> Mapping[str, Any]:
        """Read the script and wait `load_ms`."""
        self.script = parse_script(plan.spec.model)
        if self.script.at == "load":
            self._fail()
        time.sleep(self.script.load_ms / 1000)
        return {
            "name": plan.spec.model,
            "source": "a script",
            "kind": "fake",
            "random_weights": False,
            "config": {"vocab_size": EOS + 1},
            "context_length": self.script.context,
            "load_s": self.script.load_ms / 1000,
        }

    def prepare(self, prompt: str, chat: bool) -> tuple[str, tuple[int, ...]]:
        """One token a word; there is no chat template."""
        return prompt, tuple(zlib.crc32(word.encode()) % EOS for word in prompt.split())

    def pieces(self) -> Callable[[int], str]:
        """Each token is a word with a space before it, the end of text is empty."""
        return lambda token: "" if token == EOS else " " + WORDS[token]

    def generate(self, batch: Batch) -> Iterator[Tick]:
        """Words that depend on the row's prompt (and on the seed where the temperature is not 0), so batches do not change them."""
        if 0 < self.script.oom_rows <= len(batch.token_ids):
            raise RuntimeError(ALLOCATION)
        seed = batch.seed if batch.temperature else None
        rows = [random.Random(f"{ids} {seed}") for ids in batch.token_ids]
        finished = [False] * len(rows)
        for step in range(batch.max_new_tokens):
            time.sleep((self.script.step_ms if step else self.script.prefill_ms) / 1000)
            self.steps += 1
            if self.script.at == str(self.steps):
                self._fail()
            tokens = [row.randrange(EOS + 1) for row in rows]
            yield Tick(time.perf_counter_ns(), tuple(() if done else (token,) for done, token in zip(finished, tokens, strict=True)))
            finished = [done or (token == EOS and not batch.ignore_eos) for done, token in zip(finished, tokens, strict=True)]
            if all(finished):
                return

    def score(self, token_ids: Sequence[int], stepwise: bool = False) -> Any:
        """Raises Problem("unsupported")."""
        raise Problem("unsupported", "a script has no probabilities, so quality has no meaning")

    def profile(self, batch: Batch) -> Profile:
        """The script's step, shared out among the parts as in a small model: its kernels where it has some, else its wait."""
        if batch.max_new_tokens < 2:
            raise Problem("unsupported", "One output token needs no decode step, so there is none to profile.")
        on_gpu = self.script.kernels > 0
        seconds = (self.script.kernel_ms if on_gpu else self.script.step_ms) / 1000
        return Profile(
            time.perf_counter_ns(),
            "cuda" if on_gpu else "cpu",
            seconds if on_gpu else None,
            self.script.kernels if on_gpu else None,
            {part: share * seconds for part, share in SHARES.items()},
            len(batch.token_ids),
            max(len(ids) for ids in batch.token_ids) + batch.max_new_tokens // 2 - 1,
        )

    def memory(self) -> Mapping[str, float]:
        """What the script says, if it says anything."""
        return {"weights_bytes": self.script.weights_mb * 1e6} if self.script.weights_mb else {}

    def _fail(self) -> None:
        match self.script.fail:
            case "oom":
                raise RuntimeError(ALLOCATION)
            case "crash":
                os.kill(os.getpid(), signal.SIGKILL)
            case "segfault":
                ctypes.string_at(0)
            case "hang":
                while True:
                    time.sleep(3600)
            case "error":
                raise ValueError("the script asked for an error")
            case "garbage":
                os.write(1, b"\x00\xff{not json}\n")
                print('{"type":"Done","t_ns":0}', flush=True)
                sys.stdout.write("no line break")


def parse_script(model: str) -> Script:
    """The script in a model's name; raises Problem("user") with the nearest name for what it does not know."""
    prefix, _, text = model.partition(":")
    if prefix != "script":
        raise Problem("user", f"The engine fake plays scripts: choose script:step_ms=5 or such as the model, not {model!r}.")
    types = get_type_hints(Script)
    given: dict[str, Any] = {}
    for setting in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = setting.partition("=")
        if name not in types:
            raise Problem("user", "script: " + did_you_mean("there is no setting", name, types))
        try:
            given[name] = types[name](value)
        except ValueError:
            raise Problem("user", f"script: {name} must be a number, got {value!r}.") from None
    script = Script(**given)
    if script.fail and script.fail not in FAILURES:
        raise Problem("user", "script: " + did_you_mean("there is no failure", script.fail, FAILURES))
    if script.at != "load" and not script.at.isdecimal():
        raise Problem("user", f"script: at must be load or the number of a decode step, got {script.at!r}.")
    if not all(0 <= ms < 1e9 for ms in (script.step_ms, script.prefill_ms, script.load_ms, script.kernel_ms)):
        raise Problem("user", "script: a wait must be 0 ms or longer.")
    return script


ENGINE = FakeEngine
