"""The command `python -m playground run`: one or several variants, their table, their results as JSON and their events as a recording.

Results go to stdout, progress to stderr. Examples::

    python -m playground run --prompt "Why is the sky blue?" --set precision=fp32 --variant precision=bf16
    python -m playground run quantization --json result.json        # a preset by name
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from playground.cli.flags import add_flags, assignments, on_usual_engine, overridden, with_variants
from playground.cli.output import check_writable, write_json
from playground.core.events import Event
from playground.core.places import PRESETS
from playground.core.plan import pairs_in, plan_for
from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.engines import engine_class
from playground.measure.machine import probe
from playground.models.recording import write
from playground.models.resolve import peek, require_made
from playground.presets import ExperimentPreset, experiment, judged, offered, recorded
from playground.results.store import open_store
from playground.results.table import claims_text, table
from playground.run.exchange import header_of
from playground.run.experiment import run_experiment
from playground.run.forecast import estimate_of, shortage
from playground.run.progress import tell
from playground.run.runner import Runner
from playground.techniques import techniques


def register(commands: Any) -> None:
    """The command and its flags; `commands`: what argparse's add_subparsers gave."""
    run = commands.add_parser("run", help="run one or several variants and print their numbers")
    names = ", ".join([*(path.stem for path in sorted((PRESETS / "experiments").glob("*.toml"))), *(preset.name for preset in recorded())])
    run.add_argument("spec", nargs="?", metavar="SPEC", help=f"a .toml or .json file, or a preset: {names}")
    add_flags(run)
    run.add_argument("--record", metavar="OUT.jsonl.gz", help="write all events as a recording that the replay engine plays")
    run.set_defaults(command=_run)


def wanted(args: argparse.Namespace) -> ExperimentPreset:
    """The experiment of a `run` command; raises Problem for anything that cannot run here."""
    known, machine = techniques(), probe()
    preset = ExperimentPreset("command-line", "Command line", "", (RunSpec(label="baseline"),), names_engine=False)
    if args.spec:
        preset = next((preset for preset in offered() if preset.name == args.spec), None) or experiment(Path(args.spec))
    changes = [assignments(pairs_in(text), "--variant") for text in args.variant]
    specs: Sequence[RunSpec] = [overridden(spec, args, known) for spec in preset.specs]
    named = preset.names_engine or args.engine is not None or any("engine" in change for change in changes)
    if not named:
        specs = on_usual_engine(specs, lambda placed: with_variants(placed, changes, machine), machine)
    for spec in specs:
        require_made(spec.model)
    planned = [plan_for(spec, known, engine_class(spec.engine), machine).spec for spec in with_variants(specs, changes, machine)]
    return ExperimentPreset("command-line", args.title or preset.title, preset.about, tuple(planned), claims=preset.claims)


def _run(args: argparse.Namespace) -> int:
    check_writable(args.json)
    check_writable(args.record, replaced=True)
    preset, machine = wanted(args), probe()
    for spec in preset.specs:
        if short := shortage(estimate_of(spec, peek, techniques(), machine), machine, spec.device):
            print(f"playground: {spec.label or spec.model}: {short}", file=sys.stderr)
    store = open_store()
    if store.warning:
        print(f"playground: {store.warning}", file=sys.stderr)
    if args.measure_again:
        store.forget_ceilings()
    cancel = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: cancel.set())
    runner = Runner()
    running = run_experiment(preset.specs, runner, cancel, store=store, title=preset.title)
    try:
        for index, event in running:
            if not args.quiet:
                tell(preset.specs[index].label or f"variant {index + 1}", event)
    finally:
        runner.close()
    if running.experiment_id and not args.quiet:
        print(f"Kept as {running.experiment_id}: python -m playground report {running.experiment_id}", file=sys.stderr)
    return _deliver(args, preset, running.results, running.events)


def _deliver(args: argparse.Namespace, preset: ExperimentPreset, results: Sequence[Any], events: Sequence[Sequence[Event]]) -> int:
    """Print the table, write the files; a file that cannot be written costs neither the table nor the other file."""
    if args.json != "-":
        print("\n\n".join(filter(None, (table(results), claims_text(judged(results, preset.claims))))))
        for result in results:
            if result["error"] and args.quiet:
                print(f"{result['label']}: {result['error']['message']}", file=sys.stderr)
    status = 0 if all(result["status"] == "done" for result in results) else 1
    for target, deliver in ((args.json, _save_results), (args.record, _save_recording)):
        try:
            if target:
                deliver(target, preset, results, events)
        except (OSError, Problem) as error:
            why = error.message if isinstance(error, Problem) else f"{target} cannot be written: {error.strerror or error}."
            print(f"playground: {why}", file=sys.stderr)
            status = 2
    return status


def _save_results(target: str, preset: ExperimentPreset, results: Sequence[Any], events: Sequence[Sequence[Event]]) -> None:
    write_json(target, results[0] if len(results) == 1 else {"results": list(results), "claims": judged(results, preset.claims)})


def _save_recording(target: str, preset: ExperimentPreset, results: Sequence[Any], events: Sequence[Sequence[Event]]) -> None:
    write(Path(target), header_of(preset.title, preset.about, preset.specs, results), events)
