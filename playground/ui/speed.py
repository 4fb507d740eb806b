"""The speed to expect before a run, under the memory estimate: a step, the first token, tokens a second, and what will bound them.

Pure HTML. It needs the limits of this machine, which the first run measures and the store keeps. Example::

    speed_html(specs, names, facts_of, techniques(), ceilings_of(store, techniques(), machine, specs))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from playground.core.events import Ceilings
from playground.core.machine import Machine
from playground.core.plan import Techniques
from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.engines.replay import ReplayEngine
from playground.measure.roofline import Prediction
from playground.models.model import ModelFacts
from playground.results.html.headlines import BOTTLENECKS
from playground.results.numbers import shown
from playground.results.store import Store
from playground.run import forecast
from playground.run.forecast import prediction_of
from playground.ui.strings import SPEED_UNKNOWN
from playground.ui.text import escape


def ceilings_of(store: Store, techniques: Techniques, machine: Machine, specs: Sequence[RunSpec]) -> list[Ceilings | None]:
    """For each spec what was measured of the device and number format that it uses; None where nothing was, or it cannot be read."""
    try:
        known = store.ceilings()
    except Problem:  # a store that cannot be read costs the prediction, not the form
        known = {}
    return [forecast.ceilings_of(spec, techniques, machine, known) for spec in specs]


def speed_html(
    specs: Sequence[RunSpec],
    names: Sequence[str],
    facts_of: Callable[[str], ModelFacts | None],
    techniques: Techniques,
    ceilings: Sequence[Ceilings | None],
) -> str:
    """A line for each variant; nothing where no model's sizes are known, a hint where the machine has not been measured."""
    facts = [None if spec.engine == ReplayEngine.name else facts_of(spec.model) for spec in specs]
    if not any(known is not None and known.config for known in facts):
        return ""
    found = [prediction_of(*given) for given in zip(specs, facts, [techniques] * len(specs), ceilings, strict=True)]
    if not any(found):
        return f'<div class="estimate speed"><p class="quiet">{SPEED_UNKNOWN}</p></div>' if None in ceilings else ""
    rows = "".join(_row(index, name, prediction) for index, (name, prediction) in enumerate(zip(names, found, strict=True)))
    return f'<div class="estimate speed"><header><b>Speed before running</b> <span>predicted</span></header>{rows}</div>'


def _row(index: int, name: str, found: Prediction | None) -> str:
    head = f'<div class="row v{index}"><span>{escape(name)}</span>'
    if found is None:
        return f"{head}<em>not known</em></div>"
    rate = f"<b>{escape(shown(found.output_tokens_per_s, 'tokens/s'))}</b>"
    bound = BOTTLENECKS.get(found.decode_bound, found.decode_bound)
    prefill = BOTTLENECKS.get(found.prefill_bound, found.prefill_bound)
    words = f"{shown(found.step_s, 's')} a step, {bound} · first token {shown(found.ttft_s, 's')}, {prefill}"
    return f"{head}{rate}<p>{escape(words)}</p></div>"
