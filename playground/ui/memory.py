"""The memory estimate before loading: weights, KV cache and activations of each variant against what is free here. Pure but for `Facts`.

Example::

    estimate_html(specs, ["Baseline: fp32", "B: bf16"], facts_of, techniques(), machine)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from playground.core.machine import Machine
from playground.core.plan import Techniques
from playground.core.spec import RunSpec
from playground.engines.replay import ReplayEngine
from playground.measure.estimate import Estimate
from playground.models.model import ModelFacts
from playground.models.resolve import peek
from playground.results.numbers import shown
from playground.run.forecast import estimate_of, free_bytes, shortage
from playground.ui.strings import ESTIMATE_RECORDED, ESTIMATE_UNKNOWN
from playground.ui.text import escape

KEPT_FACTS = 64


class Facts:
    """What is known of models by name, asked once each; safe from several threads."""

    def __init__(self) -> None:
        self._known: dict[str, ModelFacts] = {}
        self._lock = threading.Lock()

    def config(self, model: str) -> Mapping[str, Any] | None:
        """The model's config where it is on this machine or was fetched by `of`, None otherwise: at once, no hub is asked."""
        found = self.of(model, ask_hub=False)
        return found.config if found else None

    def of(self, model: str, ask_hub: bool = True) -> ModelFacts | None:
        """Facts, or None while they are not known; what was not known is asked again."""
        with self._lock:
            if model in self._known:
                return self._known[model]
        found = peek(model, ask_hub)
        if found is not None:
            with self._lock:
                if len(self._known) >= KEPT_FACTS:
                    self._known.clear()
                self._known[model] = found
        return found


def estimate_html(
    specs: Sequence[RunSpec], names: Sequence[str], facts_of: Callable[[str], ModelFacts | None], techniques: Techniques, machine: Machine
) -> str:
    """A bar for each variant."""
    estimates = [estimate_of(spec, facts_of, techniques, machine) for spec in specs]
    if not any(estimates):
        why = ESTIMATE_RECORDED if specs[0].engine == ReplayEngine.name else ESTIMATE_UNKNOWN
        return f'<div class="estimate"><p class="quiet">Memory: {why}</p></div>'
    short = [shortage(found, machine, spec.device) for found, spec in zip(estimates, specs, strict=True)]
    longest = max(found.total_bytes for found in estimates if found)
    rows = "".join(_row(i, names[i], found, short[i], longest) for i, found in enumerate(estimates))
    where = "GPU memory" if machine.resolve(specs[0].device) == "cuda" else "memory"
    notes = "".join(f"<p>{escape(note)}</p>" for note in {found.note: None for found in estimates if found and found.note})
    free = shown(free_bytes(machine, specs[0].device), "B")
    head = f"<header><b>Memory before loading</b> <span>{escape(free)} of {where} free</span></header>"
    key = '<p class="key"><i class="w"></i>weights <i class="k"></i>KV cache <i class="a"></i>activations · estimated</p>'
    return f'<div class="estimate">{head}{rows}{key}{notes}</div>'


def _row(index: int, name: str, found: Estimate | None, short: str, longest: int) -> str:
    if found is None:
        return f'<div class="row v{index}"><span>{escape(name)}</span><em>not known before it is fetched</em></div>'
    parts: Mapping[str, tuple[str, int]] = {
        "w": ("weights", found.weights_bytes),
        "k": ("KV cache", found.kv_cache_bytes - found.kv_host_bytes),
        "a": ("activations", found.activation_bytes),
    }
    bar = "".join(
        f'<i class="{key}" style="width:{100 * size / longest:.2f}%" title="{title}: {escape(shown(size, "B"))}"></i>'
        for key, (title, size) in parts.items()
    )
    words = ", ".join(f"{title} {shown(size, 'B')}" for title, size in parts.values())
    if found.kv_host_bytes:
        words += f", and {shown(found.kv_host_bytes, 'B')} of the KV cache in host memory"
    warning = f'<p class="warning">{escape(short)}</p>' if short else ""
    total = f"<b>{escape(shown(found.total_bytes, 'B'))}</b>"
    return (
        f'<div class="row v{index}" title="{escape(words)}"><span>{escape(name)}</span>{total}'
        f'<div class="stack" role="img" aria-label="{escape(words)}">{bar}</div>{warning}</div>'
    )
