"""What a run will need before anything is loaded: the memory estimate of a spec, a sentence where it will not fit, and its speed.

Example::

    machine = probe()
    shortage(estimate_of(spec, peek, techniques(), machine), machine, spec.device)   # "" where it fits
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from playground.core.events import Ceilings
from playground.core.machine import Machine
from playground.core.plan import Techniques, footprint_of
from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.core.technique import Footprint
from playground.engines import engines
from playground.measure.ceilings import device_key, known_ceilings
from playground.measure.estimate import Estimate, estimate, lora_numbers, together
from playground.measure.roofline import Prediction, predict_run
from playground.models.adapter import adapter_numbers
from playground.models.model import ModelFacts
from playground.models.resolve import peek
from playground.results.numbers import shown
from playground.run.failures import ADVICE

FactsOf = Callable[[str], ModelFacts | None]  # of a model's name, None while nothing is known
CHARACTERS_PER_TOKEN = 4
TEMPLATE_TOKENS = 30


def guessed_prompt_tokens(spec: RunSpec) -> int:
    """Tokens of the longest prompt, before any tokenizer is there: as many as the workload asks for, else four characters a token and a
    chat template of 30."""
    if spec.workload.prompt_tokens:
        return spec.workload.prompt_tokens
    longest = max(len(prompt) for prompt in spec.workload.prompts)
    return longest // CHARACTERS_PER_TOKEN + 1 + (TEMPLATE_TOKENS if spec.workload.chat else 0)


def estimate_of(spec: RunSpec, facts_of: FactsOf, techniques: Techniques, machine: Machine) -> Estimate | None:
    """The estimate of a complete spec, with what is loaded beside the model as far as that is known; None where the model's sizes are
    not."""
    facts = facts_of(spec.model)
    if facts is None or not facts.config:
        return None
    try:
        footprint = footprint_of(spec, techniques, engines().get(spec.engine), machine.resolve(spec.device))
        found = estimate(facts.config, footprint, *_tokens(spec))
        for technique in techniques.values():
            for name in technique.models(spec.knobs):
                found = together(found, _beside(name, facts_of(name), footprint, spec))
            for adapter in technique.adapters(spec.knobs):
                size = round(_adapter_numbers(adapter, facts.config) * footprint.weight_bits / 8)
                found = together(found, Estimate(size, 0, 0, size))
        return found
    except Problem:
        return None


def _beside(name: str, facts: ModelFacts | None, footprint: Footprint, spec: RunSpec) -> Estimate:
    """Of a second model; nothing but a note where its sizes are not known."""
    if facts is None or not facts.config:
        return Estimate(0, 0, 0, 0, f"{name} is not counted: its size is not known before it is fetched.")
    bits = footprint.weight_bits
    return estimate(facts.config, Footprint(weight_bits=bits, kv_bits=bits, rows=footprint.rows), *_tokens(spec))


def _adapter_numbers(adapter: str | int, config: Mapping[str, Any]) -> int:
    return lora_numbers(config, adapter) if isinstance(adapter, int) else adapter_numbers(adapter) or 0


def _tokens(spec: RunSpec) -> tuple[int, int]:
    return guessed_prompt_tokens(spec), spec.workload.max_new_tokens


def prediction_of(spec: RunSpec, facts: ModelFacts | None, techniques: Techniques, ceilings: Ceilings | None) -> Prediction | None:
    """Step time, TTFT, tokens a second and memory of a complete spec; None where the model's sizes or the device's ceilings are not
    known, how many tokens or rows a step will have, or how fast offloaded weights will come. `ceilings`: of the device and of the number
    format in which the spec computes."""
    if facts is None or not facts.config or ceilings is None:
        return None
    try:
        footprint = footprint_of(spec, techniques, engines().get(spec.engine), ceilings.device)
        unforeseen = footprint.speculated or footprint.scheduled or footprint.away_share
        return None if unforeseen else predict_run(facts.config, footprint, ceilings, *_tokens(spec))
    except Problem:
        return None


def ceilings_of(spec: RunSpec, techniques: Techniques, machine: Machine, known: Mapping[str, Mapping[str, Any]]) -> Ceilings | None:
    """What was measured (`known`, as the store has it) of the device and the number format that a complete spec multiplies in; None for
    nothing."""
    dtype = footprint_of(spec, techniques).product_dtype
    return known_ceilings(known, device_key(machine, machine.resolve(spec.device), dtype))


def foreseen(
    specs: Mapping[int, RunSpec], techniques: Techniques, machine: Machine, known: Mapping[str, Mapping[str, Any]]
) -> dict[int, dict[str, float]]:
    """The predictions (fields of measure.roofline.Prediction) of complete specs by their numbers, without those that nothing is known of.
    Asks no hub."""
    facts = functools.cache(functools.partial(peek, ask_hub=False))
    found = {
        number: prediction_of(spec, facts(spec.model), techniques, ceilings_of(spec, techniques, machine, known))
        for number, spec in specs.items()
    }
    return {number: vars(prediction) for number, prediction in found.items() if prediction}


def free_bytes(machine: Machine, device: str) -> int:
    """Free memory of the device that `device` means here."""
    return machine.gpus[0].free_bytes if machine.resolve(device) == "cuda" and machine.gpus else machine.free_bytes


def shortage(found: Estimate | None, machine: Machine, device: str) -> str:
    """A sentence where the estimate is more than what is free, "" where it fits or is not known."""
    if found is None or found.total_bytes <= (free := free_bytes(machine, device)):
        return ""
    needs = f"It needs about {shown(found.total_bytes, 'B')} and {shown(free, 'B')} are free: it will probably not fit."
    return f"{needs} {ADVICE}"
