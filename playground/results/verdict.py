"""What decided a run's speed, and why it differs from the baseline's: one sentence with the run's own numbers.

Pure. On a GPU the profile says whether kernels, their launches, or what else the host does between them decides; on a CPU, and without a
profile, the cost of a launch does. Of memory, arithmetic and the link to offloaded weights that one decides which needs most of the time at
its best. Example::

    verdict(seen(trace, values), seen(baseline, baseline_values))["bottleneck"]   # "launch"
"""

from __future__ import annotations

from collections.abc import Mapping

from playground.core.events import Ceilings
from playground.measure.roofline import Work, launching_s, memory_rate
from playground.measure.timing import SCHEDULED
from playground.results.numbers import NO_DIFFERENCE, digits, shown
from playground.results.seen import Seen
from playground.results.trend import CLOSE, Trend, trend

BUSY = 0.5  # where kernels run for less than this share of a step, their launches decide
EXPLAINS = 0.25  # a resource that needs less than this share of the kernels' time at its best does not explain it
SIMILAR = 0.05  # amounts closer than this are "the same"
DECIDES = {
    "launch": "the launches decide",
    "host": "the host's other work decides",
    "memory": "memory traffic decides",
    "compute": "arithmetic decides",
    "communication": "their transfer decides",
}


def verdict(run: Seen, baseline: Seen | None) -> dict[str, str]:
    """bottleneck and prefill: launch, host, memory, compute, communication or unknown; sentence: why, with numbers, against the baseline
    where given."""
    if run.step_s is None:
        no_step = "no decode step was timed" if run.rows else "no timed pass was completed"
        no_step = run.reason if run.reason == SCHEDULED.reason else no_step
        return {"bottleneck": "unknown", "sentence": f"The bottleneck is not known: {no_step}.", "prefill": "unknown"}
    kind = bottleneck(run)
    if kind == "unknown" and baseline and _computes_more(run, baseline) and trend(run.token, baseline.token) == "up":
        kind = "compute"  # below every ceiling, but what was added is operations, and they took time
    first = prefill_bottleneck(run, kind)
    sentence = _sentence(run, baseline, kind)
    if first not in ("unknown", kind):
        sentence += f"; its prefill of {run.prefill_tokens:,} tokens is {first}-bound"
    return {"bottleneck": kind, "sentence": sentence + ".", "prefill": first}


def bottleneck(run: Seen) -> str:
    """Of a decode step. Memory or arithmetic is named only where it explains a quarter of the time in which kernels run."""
    shares = needs(run)
    if run.busy is None:
        return _decided(shares)
    idle = max(1 - run.busy - shares.get("communication", 0.0), 0.0)
    kind = _decided({**shares, "launch": idle}, profiled=True)
    launching = _launching_s(run)
    slow_host = kind == "launch" and launching is not None and run.step_s and launching / run.step_s < EXPLAINS
    return "host" if slow_host else kind


def _launching_s(run: Seen) -> float | None:
    """Estimated time to launch the kernels that the profile counted."""
    if run.kernels is None or run.ceilings is None or run.decode is None:
        return None
    if run.decode.captured and run.ceilings.graph_kernel_s is None:
        return None
    return launching_s(Work(0.0, 0.0, run.kernels, run.decode.captured), run.ceilings)


def prefill_bottleneck(run: Seen, decode: str) -> str:
    """Of the prefill, which is not profiled. Where launches decide a step, its time tells what the host takes for each kernel."""
    if run.ttft_s is None or run.prefill is None or run.ceilings is None:
        return "unknown"
    shares = _needs(run, run.prefill, run.ceilings, run.ttft_s)
    if decode == "launch" and run.busy is not None and run.decode and run.step_s and not run.decode.captured:
        shares["launch"] = run.step_s * run.prefill.launches / run.decode.launches / run.ttft_s
    return _decided(shares)


def prefill_reason(run: Seen, baseline: Seen) -> str:
    """What bounds the prefill, for a reader who expected another time to first token; "" where that is not known."""
    kind, ours, theirs = prefill_bottleneck(run, bottleneck(run)), run.ceilings, baseline.ceilings
    if kind == "unknown":
        return ""
    bound = f"The prefill of {run.prefill_tokens:,} tokens is {kind}-bound"
    if kind != "compute" or ours is None or theirs is None or ours.dtype == theirs.dtype:
        return f"{bound}."
    rates = f"{shown(ours.matmul_flops, 'FLOP/s')} in {ours.dtype} here and {shown(theirs.matmul_flops, 'FLOP/s')} in {theirs.dtype}"
    return f"{bound}, and large matrix products reach {rates}."


def needs(run: Seen) -> dict[str, float]:
    """The share of a step that memory traffic, arithmetic, launches and, where weights are offloaded, fetching them need at the device's
    best; empty where that is not known."""
    return _needs(run, run.decode, run.ceilings, run.step_s) if run.decode and run.ceilings and run.step_s else {}


def _needs(run: Seen, work: Work, ceilings: Ceilings, seconds: float) -> dict[str, float]:
    return {
        **({"communication": run.link_s / seconds} if run.link_s else {}),
        "memory": work.bytes / memory_rate(work, ceilings) / seconds,
        "compute": work.operations / ceilings.matmul_flops / seconds,
        "launch": launching_s(work, ceilings) / seconds,
    }


def _decided(shares: Mapping[str, float], profiled: bool = False) -> str:
    """The bottleneck from the share of launches and those of memory and compute, where these are known."""
    launch, moving = shares.get("launch", 0.0), shares.get("communication", 0.0)
    if moving >= EXPLAINS and moving == max(shares.values()):
        return "communication"
    if launch > 1 - BUSY:
        return "launch"
    work = {name: share / (1 - launch) for name, share in shares.items() if name not in ("launch", "communication")}
    name = max(work, key=lambda each: work[each], default="unknown")
    if work.get(name, 0) >= EXPLAINS:
        return name
    return "launch" if work and launch >= EXPLAINS and not profiled else "unknown"


def _computes_more(run: Seen, baseline: Seen) -> bool:
    if not (run.decode and baseline.decode):
        return False
    return run.decode.operations > 1.5 * baseline.decode.operations and run.decode.bytes < (1 + SIMILAR) * baseline.decode.bytes


def _sentence(run: Seen, baseline: Seen | None, kind: str) -> str:
    """Without its full stop."""
    if run.busy is None and not needs(run):
        return f"The bottleneck is not known: {run.reason}"
    state = _state(run, baseline, kind)
    if baseline is None or baseline.step_s is None:
        so = f", so {_decides(run, kind)}" if kind in DECIDES else ""
        return f"{run.name}: {state}{so}"
    went = trend(run.token, baseline.token)
    lead, gain = _lead(run, baseline)
    pair = f"a step takes {shown(run.step_s or 0, 's')} instead of {shown(baseline.step_s, 's')}"
    if run.row_tokens != baseline.row_tokens:
        pair += f", a token {shown(run.token.value or 0, 's')} instead of {shown(baseline.token.value or 0, 's')}"
    if kind != "communication" and (formats := _formats(run, baseline, went)):
        return f"{lead}, yet {pair}: {formats}"
    surprising = went != {1: "down", -1: "up", 0: "same"}[gain]
    tail = _free(run, baseline, gain, kind) if went == "same" else pair
    if kind not in DECIDES:
        return f"{lead}, {'but' if surprising else 'and'} {tail}: {state}"
    return f"{lead}, {'but' if surprising else 'and'} {state}, so {_decides(run, kind)} and {tail}"


def _lead(run: Seen, baseline: Seen) -> tuple[str, int]:
    """What the run does differently, and whether that should make a step shorter (1), longer (-1) or neither (0)."""
    if run.rows != baseline.rows:
        return f"{run.name} makes {run.rows} tokens a step instead of {baseline.rows}", -1 if run.rows > baseline.rows else 1
    if run.row_tokens != baseline.row_tokens:
        more = f"{run.name} makes {digits(run.row_tokens)} tokens of a row a step instead of {digits(baseline.row_tokens)}"
        return more, 1 if run.row_tokens > baseline.row_tokens else -1
    if not (run.decode and baseline.decode):
        return f"{run.name} does the same", 0
    operations = run.decode.operations / baseline.decode.operations
    moved = run.decode.bytes / baseline.decode.bytes
    if operations >= 1.5:
        return f"{run.name} computes {digits(operations, 2)} times the operations a step", -1
    if operations <= 1 / 1.5:
        return f"{run.name} computes {_percent(1 - operations)} fewer operations a step", 1
    if moved >= 2:
        return f"{run.name} moves {digits(moved, 2)} times the bytes a step", -1
    if abs(moved - 1) > SIMILAR:
        return f"{run.name} moves {_percent(abs(moved - 1))} {'fewer' if moved < 1 else 'more'} bytes a step", 1 if moved < 1 else -1
    return f"{run.name} moves the same {shown(run.decode.bytes, 'B')} a step", 0


def _state(run: Seen, baseline: Seen | None, kind: str) -> str:
    """The numbers that name the bottleneck, or those that do not."""
    step = shown(run.step_s or 0, "s")
    if kind in ("launch", "host") and run.busy is not None and run.kernels is not None:
        theirs = baseline.kernels if baseline else None
        more = f" (the baseline has {theirs:,.0f})" if theirs and abs(run.kernels / theirs - 1) > 0.1 else ""
        text = f"{run.kernels:,.0f} kernels a step{more} keep the GPU busy for only {_percent(run.busy)} of the {step} that it takes"
        return text if kind == "launch" else f"{text}, and launching them takes about {shown(_launching_s(run) or 0, 's')} of it"
    shares = needs(run)
    if kind == "launch" and run.decode:
        what = "calling" if run.device == "cpu" else "launching"
        return f"{what} about {run.decode.launches:,.0f} {_calls(run)} takes an estimated {_percent(shares['launch'])} of a step's {step}"
    if kind == "communication":
        fetched, share = f"fetching {shown(run.away_bytes, 'B')} of offloaded weights", shares["communication"]
        if share > 1:
            return f"{fetched} at the rate measured when they were loaded would take all of a step's {step}"
        return f"{fetched} takes an estimated {_percent(share)} of a step's {step}"
    if kind == "memory" and run.decode:
        moved = f"a step's {shown(run.decode.bytes, 'B')} in {step}"
        return f"{moved} are {_percent(shares['memory'])} of the rate of {_best_rate(run.decode, run)}"
    if kind == "compute" and run.decode:
        work = f"a step's {shown(run.decode.operations, 'FLOP/s').removesuffix('/s')} in {step}"
        return f"{work} are {_percent(shares['compute'])} of the rate of a large matrix product"
    if not shares:
        return (
            f"kernels run for {_percent(run.busy or 0)} of a step's {step}, and without ceilings memory and arithmetic cannot be told apart"
        )
    of = f"of a step's {step}" if run.busy is None else f"kernels run for {_percent(run.busy)} of a step's {step}, of which"
    launch = f", {_percent(shares['launch'])} for calling its {_calls(run)}" if run.busy is None else ""
    what = "its operators" if run.device == "cpu" else "the kernels"
    best = f"{_percent(shares['memory'])} for its bytes, {_percent(shares['compute'])} for its arithmetic{launch}"
    return f"{of} this device at its best needs {best}, so {what} themselves are slow"


def _best_rate(work: Work, run: Seen) -> str:
    """What the bytes of `work` are held against."""
    ceilings = run.ceilings
    if ceilings is None or (rate := memory_rate(work, ceilings)) == ceilings.copy_bytes_per_s:
        return "a large copy"
    return f"products with one row ({shown(rate, 'B/s')} here; a large copy reaches {shown(ceilings.copy_bytes_per_s, 'B/s')})"


def _free(run: Seen, baseline: Seen, gain: int, kind: str) -> str:
    """What an unchanged step means; where the means are far apart, that this run cannot tell."""
    per_token = run.row_tokens != baseline.row_tokens
    mine, other = (run.token.value, baseline.token.value) if per_token else (run.step_s, baseline.step_s)
    if mine and other and abs(mine / other - 1) > CLOSE:
        return f"{shown(mine, 's')} against {shown(other, 's')}{' a token' if per_token else ''} is {NO_DIFFERENCE}"
    if run.rows > baseline.rows:
        return "the other rows cost no time" + (", since the weights are read once for all" if kind == "memory" else "")
    return {1: "nothing is gained", -1: "the extra work costs nothing", 0: "nothing changes"}[gain]


def _formats(run: Seen, baseline: Seen, went: Trend | None) -> str:
    """On a CPU: equal work, or less, in another number format, and not the time that it should take; "" elsewhere."""
    ours, theirs = run.ceilings, baseline.ceilings
    if run.device != "cpu" or ours is None or not (run.decode and baseline.decode) or went in (None, "same"):
        return ""
    less, calls = run.decode.bytes / baseline.decode.bytes, run.decode.launches / baseline.decode.launches
    if abs(calls - 1) > SIMILAR or (theirs and ours.dtype == theirs.dtype) or less > 1 + SIMILAR or (went == "down" and less < 1 - SIMILAR):
        return ""
    if theirs and ours.matvec_bytes_per_s and theirs.matvec_bytes_per_s and run.rows == baseline.rows == 1:
        return _row_formats(ours, theirs, run.decode.bytes, baseline.decode.bytes, went)
    rate = f"{shown(ours.matmul_flops, 'FLOP/s')} in {ours.dtype}"
    if theirs is None:
        return f"a large matrix product reaches {rate} here, and the baseline's number format was not measured"
    rates = f"this processor multiplies large matrices at {rate} and at {shown(theirs.matmul_flops, 'FLOP/s')} in {theirs.dtype}"
    if (ours.matmul_flops < theirs.matmul_flops) == (went == "up"):
        return f"{rates}, so its arithmetic in the number format makes the difference"
    return f"{rates}, which does not explain it, so its kernels for few rows must differ"


def _row_formats(ours: Ceilings, theirs: Ceilings, moved: float, before: float, went: Trend | None) -> str:
    """The same where both formats' products with one row were measured."""
    mine, other = ours.matvec_bytes_per_s or 1.0, theirs.matvec_bytes_per_s or 1.0
    rates = f"products with one row read {shown(mine, 'B/s')} of weights in {ours.dtype} here and {shown(other, 'B/s')} in {theirs.dtype}"
    explained = (moved / mine > before / other) == (went == "up")
    return f"{rates}, {'so' if explained else 'which does not explain it, so other'} kernels of the number format make the difference"


def _decides(run: Seen, kind: str) -> str:
    if kind == "host" and run.kv_away:
        return "fetching the KV cache from host memory, which was not timed, or the host's other work decides"
    return "their overhead decides" if kind == "launch" and run.device == "cpu" else DECIDES[kind]


def _calls(run: Seen) -> str:
    return "operators" if run.device == "cpu" else "kernels"


def _percent(share: float) -> str:
    return f"{digits(share * 100, 2)} %"
