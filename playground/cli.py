"""The command line: `python -m playground run | models | techniques`, and every CLI of the modules in `playground.run`, such as `adapt`,
`distil` and `doctor`. It executes what the page does.

Results go to stdout, progress to stderr. Exit status: 0 done, 1 a run failed or was stopped, 2 wrong usage. Examples::

    python -m playground run --prompt "Why is the sky blue?" --set precision=fp32 --variant precision=bf16
    python -m playground run quantization --json result.json        # a preset by name
    python -m playground doctor
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from playground import __version__
from playground.core.events import Event
from playground.core.machine import Machine
from playground.core.places import PRESETS
from playground.core.plan import Techniques, engine_defaults, knob_index, parse_knobs, plan_for, vary
from playground.core.problem import Problem
from playground.core.registry import discover
from playground.core.spec import EVALUATIONS, NARROWING, PROTOCOLS, Protocol, RunSpec, Workload
from playground.core.usual import objection, told, usual_engine
from playground.engines import engine_class, engines
from playground.measure.machine import probe
from playground.models.recording import read, recordings
from playground.models.resolve import peek, require_made
from playground.presets import ExperimentPreset, experiment, judged, offered
from playground.results.table import claims_text, table
from playground.run.command import write_json
from playground.run.forecast import estimate_of, shortage
from playground.run.progress import tell
from playground.techniques import techniques


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse and run one command; returns the exit status."""
    args = parser().parse_args(arguments)
    try:
        status: int = args.command(args)
    except Problem as problem:
        print(f"playground: {problem.message}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        sys.stderr.close()
        return 1
    return status


def parser() -> argparse.ArgumentParser:
    """All commands and their flags."""
    root = argparse.ArgumentParser(
        prog="python -m playground", description="Measure and compare inference optimisations of language models."
    )
    root.add_argument("--version", action="version", version=__version__)
    commands = root.add_subparsers(required=True)
    _run_flags(commands.add_parser("run", help="run one or several variants and print their numbers"))
    models = commands.add_parser("models", help="list the models of the catalogue")
    models.add_argument("--json", metavar="OUT", help="write JSON to this file, - for stdout")
    models.set_defaults(command=_models)
    known = commands.add_parser("techniques", help="what each technique does, where it pays and what was measured, as a Markdown table")
    known.add_argument("--write", metavar="FILE", type=Path, help="renew the table between its two marks in this file, such as README.md")
    known.set_defaults(command=_techniques)
    for command in discover("playground.run", "CLI").values():
        own = commands.add_parser(command.name, help=command.help)
        command.flags(own)
        own.set_defaults(command=command.run)
    commands.metavar = " | ".join(commands.choices)
    return root


def _run_flags(run: argparse.ArgumentParser) -> None:
    knobs = ", ".join(knob_index(techniques()))
    names = ", ".join([*(path.stem for path in sorted((PRESETS / "experiments").glob("*.toml"))), *recordings()])
    run.add_argument("spec", nargs="?", metavar="SPEC", help=f"a .toml or .json file, or a preset: {names}")
    run.add_argument("--model", help="catalogue name, hub id, folder, .gguf file, shape:NAME or made:NAME")
    run.add_argument("--engine", help=f"one of {', '.join(engines())}; default: the device's, or {RunSpec.engine} if a variant names one")
    run.add_argument("--device", help="auto, cpu or cuda")
    run.add_argument("--set", action="append", default=[], metavar="KNOB=VALUE", help=f"a knob of the baseline; knobs: {knobs}")
    run.add_argument(
        "--variant", action="append", default=[], metavar="KNOB=VALUE[,...]",
        help="add a variant that differs in these knobs, or in model, engine or device",
    )  # fmt: skip
    run.add_argument("--prompt", action="append", metavar="TEXT", help="a prompt; give it again for more")
    run.add_argument("--max-new-tokens", type=int, metavar="N")
    run.add_argument("--temperature", type=float, metavar="T", help="0 is greedy")
    run.add_argument("--top-k", type=int, metavar="K", help="draw from the K most likely tokens; 0 for all")
    run.add_argument("--top-p", type=float, metavar="P", help="draw from the fewest tokens with this share of the probability; 1 for all")
    run.add_argument("--seed", type=int, metavar="N", help="of the draws")
    run.add_argument("--stop-at-eos", action="store_true", help="end a row at the end-of-text token")
    run.add_argument("--no-chat", action="store_true", help="do not apply the model's chat template")
    run.add_argument("--warmups", type=int, metavar="N")
    run.add_argument("--repeats", type=int, metavar="N")
    run.add_argument(
        "--protocol", choices=tuple(PROTOCOLS), help="quick (1 warm-up, 3 repeats), standard (2, 5), careful (3, 10 in two rounds)"
    )
    run.add_argument("--rounds", type=int, metavar="N", help="alternate the variants N times, each time in fresh workers")
    run.add_argument("--evaluation", choices=EVALUATIONS, help="score quality on 512 tokens, or on all texts and the questions")
    run.add_argument("--evaluation-text", metavar="FILE", type=Path, help="score quality on this text in place of the product's")
    run.add_argument("--price-per-hour", type=float, metavar="PRICE", help="of the machine, for the cost of a million output tokens")
    for name in ("energy", "quality", "profile"):
        run.add_argument(f"--no-{name}", action="store_true", help=f"skip the {name} pass")
    run.add_argument("--measure-again", action="store_true", help="forget what this machine can do at best, and measure it anew")
    run.add_argument("--title", help="what to call this experiment in the history and in a recording")
    run.add_argument("--json", metavar="OUT", help="write the results as JSON to this file, - for stdout")
    run.add_argument("--record", metavar="OUT.jsonl.gz", help="write all events as a recording that the replay engine plays")
    run.add_argument("--quiet", action="store_true", help="no progress on stderr")
    run.set_defaults(command=_run)


def wanted(args: argparse.Namespace) -> ExperimentPreset:
    """The experiment of a `run` command; raises Problem for anything that cannot run here."""
    known, machine = techniques(), probe()
    preset = ExperimentPreset("command-line", "Command line", "", (RunSpec(label="baseline"),), names_engine=False)
    if args.spec:
        preset = next((preset for preset in offered() if preset.name == args.spec), None) or experiment(Path(args.spec))
    changes = [_assignments(text.split(","), "--variant") for text in args.variant]
    given = [_override(spec, args, known) for spec in preset.specs]
    named = preset.names_engine or args.engine is not None or any("engine" in change for change in changes)
    specs = (_varied if named else _on_usual_engine)(given, changes, machine)
    for spec in specs:
        require_made(spec.model)
    planned = [plan_for(spec, known, engine_class(spec.engine), machine).spec for spec in specs]
    return ExperimentPreset("command-line", args.title or preset.title, preset.about, tuple(planned), claims=preset.claims)


def _varied(specs: Sequence[RunSpec], changes: Sequence[dict[str, str]], machine: Machine) -> list[RunSpec]:
    return [*specs, *(vary(specs[0], change, techniques(), engine_defaults(engines(), machine)) for change in changes)]


def _on_usual_engine(specs: Sequence[RunSpec], changes: Sequence[dict[str, str]], machine: Machine) -> list[RunSpec]:
    """`specs` and their variants on the machine's usual engine where it can run all of them; else as they are, and one line says why."""
    usual, facts = usual_engine(engines(), machine, specs[0].device), functools.cache(peek)
    placed = _varied([spec.replace(engine=usual) for spec in specs], changes, machine)
    if usual == RunSpec.engine:
        return placed
    why = objection(placed, techniques(), engines(), machine, lambda model: known.config if (known := facts(model)) else None)
    if why:
        print(f"playground: {told(usual, why)}", file=sys.stderr)
    return _varied(specs, changes, machine) if why else placed


def _override(spec: RunSpec, args: argparse.Namespace, known: Techniques) -> RunSpec:
    """`spec` with what the flags say."""
    fields = {name: getattr(args, name) for name in ("model", "engine", "device") if getattr(args, name) is not None}
    names = ("max_new_tokens", "temperature", "seed", *NARROWING)
    work = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if work.get("temperature") == 0:  # a file's top_k and top_p lose their effect with it; those asked for here are refused
        work = {name: getattr(Workload, name) for name in NARROWING} | work
    work |= {"prompts": tuple(args.prompt)} if args.prompt else {}
    work |= {"ignore_eos": False} if args.stop_at_eos else {}
    work |= {"chat": False} if args.no_chat else {}
    return spec.replace(
        knobs={**spec.knobs, **parse_knobs(_assignments(args.set, "--set"), known)},
        workload=dataclasses.replace(spec.workload, **work),
        protocol=_protocol(PROTOCOLS.get(args.protocol, spec.protocol), args),
        **fields,
    )


def _protocol(protocol: Protocol, args: argparse.Namespace) -> Protocol:
    """`protocol` with what the flags say."""
    names = ("warmups", "repeats", "rounds", "evaluation", "price_per_hour")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    given |= {name: False for name in ("energy", "quality", "profile") if getattr(args, f"no_{name}")}
    if args.evaluation_text:
        try:
            given["text"] = args.evaluation_text.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise Problem("user", f"{args.evaluation_text} cannot be read as a text: {error}.") from None
    return dataclasses.replace(protocol, **given)


def _assignments(texts: Sequence[str], flag: str) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise Problem("user", f"{flag} expects KNOB=VALUE, got {text!r}.")
        pairs[name.strip()] = value.strip()
    return pairs


def _run(args: argparse.Namespace) -> int:
    from playground.results.store import open_store
    from playground.run.experiment import run_experiment
    from playground.run.runner import Runner

    for target in (args.json, args.record):
        _check_writable(target)
    preset, machine = wanted(args), probe()
    for spec in preset.specs:
        if short := shortage(estimate_of(spec, peek(spec.model), techniques(), machine), machine, spec.device):
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
        except OSError as error:
            print(f"playground: {target} could not be written: {error.strerror or error}.", file=sys.stderr)
            status = 2
    return status


def _save_results(target: str, preset: ExperimentPreset, results: Sequence[Any], events: Sequence[Sequence[Event]]) -> None:
    write_json(target, results[0] if len(results) == 1 else {"results": list(results), "claims": judged(results, preset.claims)})


def _save_recording(target: str, preset: ExperimentPreset, results: Sequence[Any], events: Sequence[Sequence[Event]]) -> None:
    from playground.models.recording import write

    made = results[0]["provenance"]
    machine = str(made.get("gpu") or made.get("cpu") or "unknown machine")
    date = str(made.get("started_at", ""))[:10]
    write(Path(target), {"title": preset.title, "machine": machine, "date": date, "about": preset.about, "specs": preset.specs}, events)


def _check_writable(target: str | None) -> None:
    """Raises Problem before hours of work for an output that cannot be written afterwards."""
    if not target or target == "-":
        return
    path = Path(target)
    if path.is_dir() or not path.absolute().parent.is_dir() or not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise Problem("user", f"{target} cannot be written: its folder must exist and be writable.")


def _models(args: argparse.Namespace) -> int:
    from playground.models.catalogue import catalogue

    entries = catalogue()
    if args.json:
        write_json(args.json, [dataclasses.asdict(entry) for entry in entries])
    if args.json != "-":
        for entry in entries:
            print(f"{entry.name:<32}{entry.title}\n{'':<32}{entry.note}")
        print("\nAlso: any hub id (org/name), a local folder, a .gguf file.")
    return 0


def _techniques(args: argparse.Namespace) -> int:
    from playground.results.techniques_table import renewed, table

    made = table(techniques(), engines(), [read(path) for path in recordings().values()])
    try:
        if args.write:
            args.write.write_text(renewed(args.write.read_text(encoding="utf-8"), made), encoding="utf-8")
    except OSError as error:
        raise Problem("user", f"{args.write} cannot be renewed: {error.strerror or error}.") from None
    if not args.write:
        print(made)
    return 0
