"""What texts claim of an optimisation, held against what was measured: supported, contradicted, or not decided on this machine.

Pure. A claim is about a *change*: what its variant changes against the baseline, and what that does to one metric. It is judged in every
run with that change, be it the preset's own, one put together by hand, one from the history or a recording; so nothing of it has to be
stored. Of a number, such as rows in a batch, any change in the same direction counts, unless the claim names a factor. A claim `on` the
prompts or the evaluation text of its preset is judged only in runs that have the same.
The tolerances: `about` is within 10 % of the factor, and so is "same" of 1; `at least` and `at most` give way by 2 %. Example::

    claims = claims_from([{"sentence": "int8 halves memory.", "source": "…", "metric": "weights_bytes", "variant": "int8",
                           "direction": "down", "factor": 0.5, "bound": "at most"}], specs, techniques(), engines())
    judge(claims, results, techniques())[0]["outcome"]        # "supported"
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from playground.core.engine import Engine
from playground.core.knobs import KnobValue
from playground.core.plan import PLACE, SPEC_FIELDS, Techniques, full_knobs, knob_index
from playground.core.problem import Problem, did_you_mean
from playground.core.spec import RunSpec
from playground.measure.metrics import METRICS
from playground.measure.stats import Summary, difference
from playground.measure.values import Value
from playground.results.numbers import digits, shown
from playground.results.trend import TIMES, TOLERANCE, trend

Engines = Mapping[str, type[Engine]]
Change = tuple[tuple[str, KnobValue, KnobValue], ...]
NEEDED = ("sentence", "source", "metric", "direction")
FIELDS = (*NEEDED, "variant", "factor", "bound", "why", "on")
DATA: Mapping[str, Callable[[RunSpec], object]] = {
    "prompts": lambda spec: (spec.workload.prompts, spec.workload.prompt_tokens, spec.workload.chat),
    "text": lambda spec: spec.protocol.text,
}
DIRECTIONS = ("up", "down", "same")
BOUNDS = ("about", "at least", "at most")
ABOUT = 0.1
SUPPORTED, CONTRADICTED, OPEN = "supported", "contradicted", "not decided"


@dataclass(frozen=True)
class Claim:
    """`change`: (name, baseline's value, variant's value) of each knob or field that the variant changes; `brought`: knobs that may differ
    as well, since they have other defaults with another engine or device; `factor`: the variant's mean over the baseline's, None where the
    text names none; `why`: a known reason where it does not hold, "" for none; `on`: the name of DATA that it is about, "" for none, and
    `data`: what that is in its preset."""

    sentence: str
    source: str
    metric: str
    direction: str
    change: Change
    factor: float | None = None
    bound: str = "about"
    why: str = ""
    brought: tuple[str, ...] = ()
    on: str = ""
    data: object = None

    @property
    def band(self) -> tuple[float, float]:
        """The ratios of variant to baseline that the claim allows."""
        if self.factor is None and self.direction != "same":
            return 0.0, math.inf
        factor = 1.0 if self.factor is None else self.factor
        if self.bound == "about":
            return factor * (1 - ABOUT), factor * (1 + ABOUT)
        return (factor * (1 - TOLERANCE), math.inf) if self.bound == "at least" else (0.0, factor * (1 + TOLERANCE))

    @property
    def words(self) -> str:
        """What is claimed of the metric: "to fall, to at most × 0.5"."""
        fate = {"up": "to rise", "down": "to fall", "same": "to stay the same"}[self.direction]
        if self.factor is None:
            return fate + (f" within {ABOUT:.0%}".replace("%", " %") if self.direction == "same" else "")
        return f"{'to be' if self.direction == 'same' else f'{fate}, to'} {self.bound} × {self.factor:g}"


def claims_from(given: object, specs: Sequence[RunSpec], techniques: Techniques, engines: Engines) -> tuple[Claim, ...]:
    """The claims of a preset's [[claim]] tables; one without `variant` is about each of them. Raises Problem("user") for what cannot be."""
    return tuple(claim for item in tables(given) for claim in _parsed(item, specs, techniques, engines))


def tables(given: object) -> list[Mapping[str, Any]]:
    """The [[claim]] tables of a file. Raises Problem("user") for anything else."""
    if not isinstance(given, list) or not all(isinstance(item, Mapping) for item in given):
        raise Problem("user", "claim must be a list of tables: write [[claim]] above each.")
    return given


def check_texts(item: Mapping[str, Any], names: Iterable[str]) -> None:
    """Raises Problem("user") where one of them is no text, and for a metric that there is not."""
    for name in names:
        if not isinstance(item.get(name), str) or not item[name].strip():
            raise Problem("user", f"a claim needs a text as its {name}.")
    if item["metric"] not in METRICS:
        raise Problem("user", did_you_mean("a claim: there is no metric", item["metric"], METRICS))


def _parsed(item: Mapping[str, Any], specs: Sequence[RunSpec], techniques: Techniques, engines: Engines) -> list[Claim]:
    for name in item:
        if name not in FIELDS:
            raise Problem("user", did_you_mean("a claim has no setting", name, FIELDS))
    check_texts(item, (*NEEDED, *(name for name in ("bound", "why") if name in item)))
    for name, what, known in (
        ("direction", "direction", DIRECTIONS),
        ("bound", "bound", BOUNDS),
        ("on", "data", tuple(DATA)),
    ):
        if name in item and item[name] not in known:
            raise Problem("user", did_you_mean(f"a claim: there is no {what}", item[name], known))
    factor = item.get("factor")
    if factor is not None and (isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor < math.inf):
        raise Problem("user", f"the factor of a claim must be a number above 0, got {factor!r}.")
    if "bound" in item and factor is None:
        raise Problem("user", "the bound of a claim needs a factor.")
    texts = {name: " ".join(item[name].split()) for name in (*NEEDED, "bound", "why", "on") if name in item}
    data = DATA[item["on"]](specs[0]) if "on" in item else None
    claims = []
    for number in _numbers(item, specs):
        change, brought = _changed(specs, number, techniques), _brought(specs[0], specs[number], engines)
        claims.append(Claim(**texts, factor=factor, change=change, brought=brought, data=data))
    low, high = claims[0].band if claims else (0.0, math.inf)
    if (item["direction"] == "up" and high <= 1) or (item["direction"] == "down" and low >= 1):
        raise Problem("user", f"a claim: direction {item['direction']} and {claims[0].bound} × {factor} exclude each other.")
    return claims


def _numbers(item: Mapping[str, Any], specs: Sequence[RunSpec]) -> range | list[int]:
    """Which variants a claim is about; 0 is the baseline, and no claim is about that."""
    if "variant" not in item:
        return range(1, len(specs))
    variant, found = item["variant"], [spec.label for spec in specs[1:]]
    if isinstance(variant, int) and not isinstance(variant, bool) and 1 <= variant < len(specs):
        return [variant]
    if variant in found:
        return [1 + found.index(variant)]
    if isinstance(variant, str):
        raise Problem("user", did_you_mean("a claim: there is no variant", variant, found))
    raise Problem("user", f"a claim: the variant must be a label or a number from 1 to {len(found)}, got {variant!r}.")


def _values(spec: RunSpec, techniques: Techniques) -> dict[str, KnobValue]:
    return {**full_knobs(spec.knobs, techniques), **{name: getattr(spec, name) for name in SPEC_FIELDS}}


def _changed(specs: Sequence[RunSpec], number: int, techniques: Techniques) -> Change:
    before, after = _values(specs[0], techniques), _values(specs[number], techniques)
    if change := tuple((name, before[name], after[name]) for name in before if before[name] != after[name]):
        return change
    raise Problem("user", f"a claim is about the variant {specs[number].label or number!r}, which changes nothing.")


def _brought(baseline: RunSpec, variant: RunSpec, engines: Engines) -> tuple[str, ...]:
    """Knobs with a default of their own on one of the two engines; none where engine and device stay."""
    if all(getattr(baseline, name) == getattr(variant, name) for name in PLACE):
        return ()
    two = {spec.engine for spec in (baseline, variant)} & set(engines)
    return tuple(sorted({name for engine in two for device in ("cpu", "cuda") for name in engines[engine].defaults(device)}))


def makes(claim: Claim, baseline: RunSpec, variant: RunSpec, techniques: Techniques) -> bool:
    """Whether the variant differs from the baseline as the claim's does, and in nothing else but what engine or device bring along; and has
    the data that the claim is about."""
    if claim.on and {DATA[claim.on](spec) for spec in (baseline, variant)} != {claim.data}:
        return False
    before, after = _values(baseline, techniques), _values(variant, techniques)
    found = {name: (before[name], after[name]) for name in before if before[name] != after[name] and name not in claim.brought}
    change = {name: (old, new) for name, old, new in claim.change if name not in claim.brought}
    return found.keys() == change.keys() and all(_alike(change[name], found[name], claim.factor is None) for name in change)


def _alike(one: tuple[KnobValue, KnobValue], two: tuple[KnobValue, KnobValue], any_amount: bool) -> bool:
    numbers = [value for value in (*one, *two) if isinstance(value, int | float) and not isinstance(value, bool)]
    if any_amount and len(numbers) == 4:
        return (numbers[1] > numbers[0]) == (numbers[3] > numbers[2])
    return one == two


def judge(claims: Iterable[Claim], results: Sequence[Mapping[str, Any]], techniques: Techniques) -> list[dict[str, Any]]:
    """Each claim in each variant that makes its change, baseline first in `results`: sentence, source, variant (its label), number,
    metric, outcome, text (figure, interval and what was claimed) and why (of a contradiction; else "")."""
    specs, found = [RunSpec.from_dict(result["spec"]) for result in results], {}
    for claim in claims:
        for number in range(1, len(specs)):
            key = claim.sentence, claim.metric, number
            if key not in found and makes(claim, specs[0], specs[number], techniques):
                found[key] = _judged(claim, number, results[number], results[0], techniques)
    return list(found.values())


def _judged(claim: Claim, number: int, result: Mapping[str, Any], baseline: Mapping[str, Any], techniques: Techniques) -> dict[str, Any]:
    new, old = (value_with_interval(one, claim.metric) for one in (result, baseline))
    outcome, reason = _outcome(claim, new, old)
    text = f"{METRICS[claim.metric].title} claimed {claim.words}; {_figure(new, old)}{f': {reason}' if reason else ''}."
    return {
        "sentence": claim.sentence,
        "source": claim.source,
        "variant": result.get("label") or f"variant {number}",
        "number": number,
        "metric": claim.metric,
        "outcome": outcome,
        "text": text,
        "why": _why(claim, result, techniques) if outcome == CONTRADICTED else "",
    }


def value_with_interval(result: Mapping[str, Any], name: str) -> Value:
    """A metric of a result's dictionary, which may be one of those that it has no value of."""
    found = result.get("metrics", {}).get(name) or {"value": None, "reason": "this run did not measure it"}
    ends = found.get("ci95")
    return Value(
        value=found["value"] if found.get("kind") != "not_available" else None,
        unit=METRICS[name].unit,
        n=int(found.get("n") or 0),
        ci95=(float(ends[0]), float(ends[1])) if ends else None,
        cv=found.get("cv"),
        reason=found.get("reason"),
    )


def _outcome(claim: Claim, new: Value, old: Value) -> tuple[str, str]:
    """And why it is not decided."""
    if new.value is None or old.value is None:
        return OPEN, str((new if new.value is None else old).reason or "no value").rstrip(".")
    went, ends, (low, high) = trend(new, old), ratio(new, old), claim.band
    if went is None:
        return OPEN, "one repeat cannot tell a difference from noise"
    if ends and (ends[1] < low or ends[0] > high):
        return CONTRADICTED, ""
    if claim.direction != "same" and went == "same":
        return (OPEN, "the intervals do not separate") if new.ci95 and old.ci95 else (CONTRADICTED, "")
    if claim.direction not in ("same", went):
        return CONTRADICTED, ""
    if ends is None and (low, high) != (0.0, math.inf):
        return OPEN, "the baseline's repeats vary too much for a ratio" if old.value else "there is no ratio to 0"
    if ends is None or (low <= ends[0] and ends[1] <= high):
        return SUPPORTED, ""
    return OPEN, "the interval holds both what is claimed and what is not"


def ratio(new: Value, old: Value) -> tuple[float, float] | None:
    """95 % interval of new / old; both ends the same where one of them has no interval; None where there is no ratio."""
    if new.value is None or not old.value:
        return None
    if not (new.ci95 and old.ci95):
        return new.value / old.value, new.value / old.value
    if new.cv is not None and old.cv is not None:
        pair = [Summary(one.value or 0.0, one.n, one.ci95, one.cv, "") for one in (new, old)]
        ends = difference(pair[0], pair[1], relative=True)
        return None if ends is None else (1 + ends[0], 1 + ends[1])
    return (new.ci95[0] / old.ci95[1], new.ci95[1] / old.ci95[0]) if old.ci95[0] > 0 else None


def _figure(new: Value, old: Value) -> str:
    if new.value is None or old.value is None:
        return "not available"
    pair = f"{shown(new.value, new.unit)} against {shown(old.value, old.unit)}"
    if not (ends := ratio(new, old)):
        return f"measured {pair}"
    spread = f", 95 % interval {digits(ends[0])} to {digits(ends[1])}" if ends[0] != ends[1] else ""
    return f"measured × {digits(new.value / (old.value or 1.0))} ({pair}{spread})"


def _why(claim: Claim, result: Mapping[str, Any], techniques: Techniques) -> str:
    """The claim's own known reason; then for times what decided the variant's speed, and else what was found on its loaded objects."""
    index, told = knob_index(techniques), str((result.get("verdict") or {}).get("sentence", ""))
    if METRICS[claim.metric].unit not in TIMES:
        names = dict.fromkeys(index[name][0].name for name, _, _ in claim.change if name in index)
        proofs = [found for name in names if (found := result.get("evidence", {}).get(name))]
        told = f"Found: {'; '.join(proofs)}." if proofs else ""
    return " ".join(filter(None, (claim.why, told)))
