"""Hardware: how many threads of the CPU torch computes with.

The number belongs to the process and not to the model, so each run sets it, and 0 gives back the process's own. Example::

    TECHNIQUE.for_transformers({"cpu_threads": 1}, setup)   # torch.get_num_threads() is now 1
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from playground.core.knobs import Range
from playground.core.machine import Machine
from playground.core.technique import Effect, Explanation, Finding, Knobs, Technique, flipped
from playground.techniques.setup import TransformersSetup


class Hardware(Technique):
    """The CPU's threads, for runs on the CPU."""

    name = "hardware"
    title = "CPU threads"
    group = "Hardware"
    order = 95
    phase = "run"
    knobs = (
        Range(
            "cpu_threads",
            "CPU threads",
            0,
            256,
            1,
            0,
            "Threads among which torch divides each operation on a CPU; 0 leaves the number to torch, which takes one a core.",
            unit="threads",
        ),
    )
    explain = Explanation(
        what="On a CPU torch divides each large operation among threads. Each of them takes a part of a matrix, and all wait for the last.",
        helps="A prompt is arithmetic, which divides among cores: its time falls almost in proportion up to the number of physical cores. "
        "Decoding reads all weights for each token, and a few cores already read as fast as the memory gives.",
        costs="The cores are missing elsewhere. With more threads than cores they wait for each other at the end of each operation, and "
        "a step takes longer.",
    )
    cases = ({"cpu_threads": 0}, {"cpu_threads": 7})

    def requires(self, knobs: Knobs, machine: Machine, device: str) -> str | None:
        """Nothing, but a number that changes nothing is refused."""
        if knobs["cpu_threads"] and device == "cuda":
            return (
                "the model's operations run on the GPU and are not divided among threads of the CPU: leave cpu_threads at 0, or choose "
                "the device cpu."
            )
        return None

    def expect(self, knobs: Knobs, baseline: Knobs) -> Mapping[str, Effect]:
        """A prompt's arithmetic divides among threads, up to the number of cores; no byte is saved. What torch chooses is not known."""
        threads, before = int(knobs["cpu_threads"]), int(baseline["cpu_threads"])
        if threads == before:
            return {}
        bytes_stay: dict[str, Effect] = {"weights_bytes": "same", "kv_cache_bytes": "same"}
        if not threads or not before:
            return bytes_stay
        more: dict[str, Effect] = {"ttft_s": "down", **bytes_stay}
        return more if threads > before else flipped(more)

    def for_transformers(self, knobs: Knobs, setup: TransformersSetup) -> None:
        """The number now, and torch's own again once the run is forgotten."""
        import torch

        own = own_threads()
        torch.set_num_threads(int(knobs["cpu_threads"]) or own)
        if knobs["cpu_threads"]:
            setup.run.closing.append(lambda: torch.set_num_threads(own))

    def evidence_for_transformers(self, knobs: Knobs, engine: Any) -> Finding:
        """Asks torch, after a pass."""
        import torch

        threads, wanted = torch.get_num_threads(), int(knobs["cpu_threads"])
        text = f"torch computes with {threads} {'thread' if threads == 1 else 'threads'}"
        if wanted:
            return Finding(threads == wanted, text)
        return Finding(threads == own_threads(), f"{text}, and chose {own_threads()} when this process began")


@functools.cache
def own_threads() -> int:
    """What torch chose in this process, asked before the first run changes it."""
    import torch

    number: int = torch.get_num_threads()
    return number


TECHNIQUE = Hardware()
