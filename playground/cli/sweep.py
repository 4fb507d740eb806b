"""The command `python -m playground sweep`: one or two settings over a grid, a line a run, and what the curves say.

Results go to stdout, progress to stderr. Ctrl-C stops it, and it goes on with --resume. Examples::

    python -m playground sweep batch-size                                    # a preset by name
    python -m playground sweep mine.toml --axis batch_size=1,2,4,8 --json sweep.json
    python -m playground sweep kv-cache --axis max_new_tokens=16:256:x2      # an experiment: each of its variants is a line
    python -m playground sweep --resume k3x9mfq2
    python -m playground sweep batch-size --record batches.jsonl.gz          # one file that another installation imports
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from playground.cli.flags import add_flags, assignments, on_usual_engine, overridden, with_variants
from playground.cli.output import check_writable, write_json
from playground.core.events import Event, Progress
from playground.core.plan import engine_defaults, pairs_in
from playground.core.problem import Problem, did_you_mean
from playground.core.spec import RunSpec
from playground.core.sweep import PROTOCOL, Cell, SweepSpec, axes_from, cells
from playground.engines import engines
from playground.measure.machine import probe
from playground.models.resolve import peek
from playground.presets import SweepPreset, growths, sweep, sweepable
from playground.results.growth import judge_growth
from playground.results.numbers import duration
from playground.results.store import Store, open_store
from playground.results.sweep_document import sweep_document
from playground.results.sweep_facts import facts
from playground.results.sweep_table import sweep_table
from playground.results.sweeps import StoredSweep
from playground.results.table import claims_text
from playground.run.exchange import give_out_sweep
from playground.run.forecast import estimate_of, shortage
from playground.run.progress import tell
from playground.run.runner import Runner
from playground.run.sweep import Sweep, create, require_runnable
from playground.techniques import techniques

WITH_RESUME = ("command", "resume", "json", "record", "quiet", "measure_again")
UNSET: tuple[object, ...] = (None, False, [])


def register(commands: Any) -> None:
    """The command and its flags; `commands`: what argparse's add_subparsers gave."""
    command = commands.add_parser("sweep", help="run one or two settings over a grid, such as batch sizes or prompt lengths")
    names = ", ".join(sweepable())
    command.add_argument("spec", nargs="?", metavar="SPEC", help=f"a .toml or .json file, or a preset: {names}")
    command.add_argument(
        "--axis", action="append", default=[], metavar="NAME=V,V,...",
        help="what varies, in place of the file's axes: a knob, prompt_tokens, max_new_tokens, model, engine or device, with its values or "
        "a range such as 1:64:x2 or 128:1024:128; a second one makes lines",
    )  # fmt: skip
    add_flags(command)
    command.add_argument("--resume", metavar="ID", help="go on with a sweep that was stopped: its finished runs are not run again")
    command.add_argument("--record", metavar="OUT.jsonl.gz", help="write all events as a recording, which the tab Sweep shows elsewhere")
    command.set_defaults(command=_sweep)


def wanted(args: argparse.Namespace) -> SweepSpec:
    """The plan of a `sweep` command; raises Problem for what cannot be swept here."""
    machine = probe()
    preset = _preset(args.spec) if args.spec else SweepPreset("", SweepSpec((RunSpec(protocol=PROTOCOL),), (), "Sweep"), names_engine=False)
    given = [pair for text in args.axis for pair in assignments([text], "--axis").items()]
    axes = axes_from([{"name": name, "values": values} for name, values in given])
    plan = dataclasses.replace(preset.plan, axes=axes or preset.plan.axes, title=args.title or preset.plan.title)
    changes = [assignments(pairs_in(text), "--variant") for text in args.variant]
    specs: Sequence[RunSpec] = [overridden(spec, args, techniques()) for spec in plan.specs]

    def planned(given: Sequence[RunSpec]) -> SweepSpec:
        return dataclasses.replace(plan, specs=tuple(with_variants(given, changes, machine))).checked(techniques())

    def derived(given: Sequence[RunSpec]) -> list[RunSpec]:
        return [cell.spec for cell in cells(planned(given), techniques(), engine_defaults(engines(), machine))]

    names = {axis.name for axis in plan.axes}.union(*changes)
    if not (preset.names_engine or args.engine is not None or "engine" in names):
        specs = on_usual_engine(specs, derived, machine)
    require_runnable(derived(specs), machine)
    return planned(specs)


def _sweep(args: argparse.Namespace) -> int:
    check_writable(args.json)
    check_writable(args.record, replaced=True)
    if args.resume and (others := [name for name, value in vars(args).items() if name not in WITH_RESUME and value not in UNSET]):
        names = ", ".join("SPEC" if name == "spec" else f"--{name.replace('_', '-')}" for name in others)
        raise Problem("user", f"--resume goes on with what was planned, so {names} would have no effect.")
    plan, own = (None, ()) if args.resume else (wanted(args), _preset(args.spec).claims if args.spec else ())
    store = open_store()
    if store.warning:
        print(f"playground: {store.warning}", file=sys.stderr)
    if args.measure_again:
        store.forget_ceilings()
    stop, runner = threading.Event(), Runner()
    running = Sweep(store, create(store, plan) if plan else args.resume, runner, stop)
    _warn([item.cell for item in running.stored.missing])
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        for index, event in running:
            if not args.quiet:
                _tell(running.stored, index, event)
    finally:
        runner.close()
    return _deliver(args, running, store, judge_growth(dict.fromkeys([*own, *growths()]), running.stored.plan, running.stored.cells))


def _warn(missing: Sequence[Cell]) -> None:
    """One line where runs will probably not fit into memory."""
    machine, known = probe(), functools.cache(peek)
    for cell in missing:
        if short := shortage(estimate_of(cell.spec, known, techniques(), machine), machine, cell.spec.device):
            print(f"playground: {cell.label}: {short} What does not fit is a result, and what is larger is skipped.", file=sys.stderr)
            return


def _tell(stored: StoredSweep, index: int, event: Event) -> None:
    if isinstance(event, Progress) and event.unit == "cells":
        left = f", about {duration(stored.left_s)} left" if stored.left_s else ""
        print(f"[sweep] {event.done:.0f} of {event.total:.0f} runs{left}", file=sys.stderr)
    else:
        tell(stored.cells[index].cell.label, event)


def _deliver(args: argparse.Namespace, running: Sweep, store: Store, claims: list[dict[str, Any]]) -> int:
    """Print the table, what the curves say and the judged claims, write the files, and say how to go on where runs are missing."""
    stored = running.stored
    found = facts(stored.plan, stored.cells)
    if args.json != "-":
        print("\n\n".join(filter(None, (sweep_table(stored), "\n".join(fact.sentence for fact in found), claims_text(claims)))))
    if stored.missing:
        done = len(stored.cells) - len(stored.missing)
        print(f"{done} of {len(stored.cells)} runs are done. Go on: python -m playground sweep --resume {stored.id}", file=sys.stderr)
    status = 0 if running.status == "done" else 1
    if args.record:
        try:
            give_out_sweep(stored, store, Path(args.record))
        except Problem as problem:
            print(f"playground: {problem.message}", file=sys.stderr)
            status = 2
    if args.json:
        write_json(args.json, sweep_document(stored, claims))
    return status


def _preset(name: str) -> SweepPreset:
    path = sweepable().get(name, Path(name))
    if len(path.parts) == 1 and not path.suffix:
        raise Problem("user", did_you_mean("There is no file, sweep or experiment", name, sweepable()))
    return sweep(path)
