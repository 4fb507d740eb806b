"""Batch size and prompt length on a GPU, each with captured steps and without: the sweeps that are kept as recordings.

Each becomes a recording (OUT/NAME.jsonl.gz) and a table in Markdown (OUT/NAME.md, and on stdout). It is kept in the store as well, so that
what a signal cuts off is recorded as far as it went, and goes on with `playground sweep --resume`. Needs neither gradio nor plotly::

    python tests/bench/gpu_sweeps.py --model shape:llama-3.1-8b --out recordings
    python tests/bench/gpu_sweeps.py --model shape:tiny --only batch-size --values 1:4:x2 --out /tmp/sweeps
"""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from playground.core.events import Progress
from playground.core.spec import RunSpec
from playground.core.sweep import SweepSpec, axes_from, axis_title, line_names
from playground.measure.metrics import METRICS
from playground.models.recording import SUFFIX
from playground.presets import sweeps
from playground.results.numbers import interval, shown, value_of
from playground.results.store import Store, open_store
from playground.results.sweep_facts import facts
from playground.results.sweeps import StoredCell, StoredSweep
from playground.run.exchange import give_out_sweep
from playground.run.progress import tell
from playground.run.runner import Runner
from playground.run.sweep import Sweep, create
from playground.techniques import techniques

ENGINES = ("graph", "transformers")


@dataclass(frozen=True)
class Kept:
    """A preset's sweep over other values. energy: whether it is worth its time; told: the metrics of the table."""

    title: str
    values: str
    energy: bool
    told: tuple[str, ...]


KEPT = {
    "batch-size": Kept("Batch size", "1:64:x2", True, ("itl_s", "output_tokens_per_s", "j_per_token")),
    "prompt-length": Kept("Prompt length", "512:32768:x2", False, ("ttft_s", "itl_s")),
}


def plan_of(name: str, model: str, values: str) -> SweepSpec:
    """The preset's plan with a line an engine."""
    kept, preset = KEPT[name], next(item.plan for item in sweeps() if item.name == name)
    axes = axes_from({preset.axes[0].name: values or kept.values})

    def placed(spec: RunSpec, engine: str) -> RunSpec:
        protocol = dataclasses.replace(spec.protocol, energy=kept.energy)
        return spec.replace(model=model, engine=engine, label=engine, protocol=protocol, knobs={**spec.knobs, "precision": "bf16"})

    specs = tuple(placed(preset.specs[0], engine) for engine in ENGINES)
    return SweepSpec(specs, axes, f"{kept.title}, {model.removeprefix('shape:')}", preset.about).checked(techniques())


def table(stored: StoredSweep, told: tuple[str, ...]) -> str:
    """A row a value of the axis, the columns of each line beside each other; then what the curves say."""
    plan, known = stored.plan, techniques()
    names = line_names(plan, known)
    heads = [f"{name}: {METRICS[metric].title.lower()}" for metric in told for name in names]
    by_place = {(held.cell.point[0], held.cell.line): held for held in stored.cells}
    rows = [f"| {' | '.join([axis_title(plan.axes[0].name, known), *heads])} |", f"|{'---|' * (len(heads) + 1)}"]
    for value in plan.axes[0].values:
        found = [_cell(by_place[value, line], metric) for metric in told for line in range(len(names))]
        rows.append(f"| {' | '.join([f'{value:,}', *found])} |")
    return "\n".join([*rows, "", *(f"- {fact.sentence}" for fact in facts(plan, stored.cells))])


def _cell(held: StoredCell, metric: str) -> str:
    result = held.result or {}
    if (value := value_of(result, metric)) is None:
        return "-" if held.status == "done" else held.status
    found = result["metrics"][metric]
    return f"{shown(value, found['unit'])} {interval(found)}".strip()


def swept(store: Store, plan: SweepSpec, stop: threading.Event) -> StoredSweep:
    """Run it, telling on stderr how far it is."""
    runner = Runner()
    running = Sweep(store, create(store, plan), runner, stop)
    print(f"Kept as {running.stored.id}.", file=sys.stderr, flush=True)
    try:
        for index, event in running:
            if isinstance(event, Progress) and event.unit == "cells":
                print(f"[sweep] {event.done:.0f} of {event.total:.0f} runs", file=sys.stderr, flush=True)
            else:
                tell(running.stored.cells[index].cell.label, event)
    finally:
        runner.close()
    return running.stored


def main() -> int:
    """Run, record, print; returns 1 where something of it did not run or failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="shape:llama-3.1-8b")
    parser.add_argument("--only", choices=KEPT, help="one of the sweeps")
    parser.add_argument("--values", default="", help="of the axis, in place of the sweep's own, such as 1:4:x2")
    parser.add_argument("--out", type=Path, default=Path("recordings"))
    args = parser.parse_args()
    stop, status, store = threading.Event(), 0, open_store()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    args.out.mkdir(parents=True, exist_ok=True)
    for name in (args.only,) if args.only else KEPT:
        if stop.is_set():
            return 1
        stored = swept(store, plan_of(name, args.model, args.values), stop)
        status = max(status, any(cell.status not in ("done", "oom", "skipped") for cell in stored.cells))
        text = f"{stored.title}\n\n{table(stored, KEPT[name].told)}\n"
        print(text, flush=True)
        path = args.out / f"{args.model.removeprefix('shape:').replace('/', '-')}-{name}-sweep{SUFFIX}"
        path.with_name(path.name.removesuffix(SUFFIX) + ".md").write_text(text, encoding="utf-8")
        give_out_sweep(stored, store, path)
    return status


if __name__ == "__main__":
    sys.exit(main())
