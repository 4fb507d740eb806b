"""What this machine can do: devices, engines, capabilities of every knob, versions, free memory, and where things are kept.

Example::

    print("\n".join(in_words(examine())))
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from playground.core.knobs import Choice
from playground.core.machine import Machine
from playground.core.places import home
from playground.core.plan import Techniques, full_knobs, knob_index, missing
from playground.engines import engines
from playground.measure.machine import probe
from playground.results.numbers import shown
from playground.run.command import Command, write_json
from playground.techniques import techniques


def examine() -> dict[str, Any]:
    """JSON values: the machine; for each engine and each option of each knob, why it cannot be used here (None or no entry: it can).
    An option can be used where one engine can have it."""
    from huggingface_hub.constants import HF_HUB_CACHE

    machine, known = probe(), techniques()
    device = machine.resolve("auto")
    return {
        "machine": dataclasses.asdict(machine),
        "engines": {name: engine.refuses(machine, device) for name, engine in engines().items()},
        "knobs": {name: _reasons(name, known, machine) for name in knob_index(known)},
        "folders": {
            "home": str(home()),
            "models": str(home() / "models"),
            "results": str(home() / "results.sqlite"),
            "logs": str(home() / "logs"),
            "hub": str(HF_HUB_CACHE),
        },
    }


def _reasons(name: str, known: Techniques, machine: Machine) -> dict[str, str]:
    """Options of one knob that no engine can have on this machine, each with the reasons."""
    technique, knob = knob_index(known)[name]
    device = machine.resolve("auto")
    takers = [engine for engine in engines().values() if engine.supports(technique) and not engine.any_technique]
    found = {}
    for option in knob.options if isinstance(knob, Choice) else ():
        tried = ({**full_knobs({}, known, engine.defaults(device)), name: option} for engine in takers)
        reasons = [missing(technique, knobs, engine, machine) for knobs, engine in zip(tried, takers, strict=True)]
        if all(reasons):
            found[option] = " ".join(dict.fromkeys(filter(None, reasons))) or "no engine has it."
    return found


def in_words(report: dict[str, Any]) -> list[str]:
    """The report as lines for the terminal."""
    machine = report["machine"]
    memory = f"{shown(machine['free_bytes'], 'B')} free of {shown(machine['memory_bytes'], 'B')}"
    lines = [f"machine   {machine['host']}: {machine['cpu']}, {machine['cores']} cores, {memory}"]
    for gpu in machine["gpus"]:
        free = f"{shown(gpu['free_bytes'], 'B')} free of {shown(gpu['memory_bytes'], 'B')}"
        lines.append(f"gpu       {gpu['name']}, compute capability {'.'.join(map(str, gpu['capability']))}, driver {gpu['driver']}, {free}")
    lines.append(f"device    {machine['device']}" + (f" ({machine['no_cuda']})" if machine["no_cuda"] else ""))
    lines.append("versions  " + ", ".join(f"{name} {version}" for name, version in sorted(machine["packages"].items())))
    lines += [f"engine    {name}: {reason or 'ready'}" for name, reason in report["engines"].items()]
    for name, options in report["knobs"].items():
        lines.append(f"knob      {name}: " + ("; ".join(f"{option}: {reason}" for option, reason in options.items()) or "ready"))
    return [*lines, *(f"folder    {name}: {folder}" for name, folder in report["folders"].items())]


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", metavar="OUT", help="write JSON to this file, - for stdout")


def _run(args: argparse.Namespace) -> int:
    report = examine()
    if args.json:
        write_json(args.json, report)
    if args.json != "-":
        print("\n".join(in_words(report)))
    return 0


CLI = Command("doctor", "what this machine can do: devices, knobs, versions, memory, folders", _flags, _run)
