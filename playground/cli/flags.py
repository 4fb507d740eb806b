"""Flags that commands share: a specification and how to measure it, what they make of a spec, and the engine where nobody names one.

Example::

    add_flags(commands.add_parser("run"))
    specs = on_usual_engine([overridden(spec, args, techniques()) for spec in specs], list, probe())
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from playground.core.machine import Machine
from playground.core.plan import Techniques, engine_defaults, knob_index, parse_knobs, vary
from playground.core.problem import Problem
from playground.core.spec import EVALUATIONS, NAMED_FIELDS, NARROWING, PROTOCOLS, Protocol, RunSpec, Workload
from playground.core.usual import objection, told, usual_engine
from playground.engines import engines
from playground.models.resolve import peek
from playground.techniques import techniques


def add_flags(command: argparse.ArgumentParser) -> None:
    """What to run and how to measure it, where results go, and --quiet."""
    knobs = ", ".join(knob_index(techniques()))
    command.add_argument("--model", help="catalogue name, hub id, folder, .gguf file or shape:NAME")
    command.add_argument(
        "--engine", help=f"one of {', '.join(engines())}; default: the device's own, if it can run all of this, else {RunSpec.engine}"
    )
    command.add_argument("--device", help="auto, cpu or cuda")
    command.add_argument(
        "--set", action="append", default=[], metavar="KNOB=VALUE",
        help=f"a knob of the baseline; a wrong value is answered with the right ones; knobs: {knobs}",
    )  # fmt: skip
    command.add_argument(
        "--variant", action="append", default=[], metavar="KNOB=VALUE[,...]",
        help="add a variant that differs in these knobs, or in model, engine or device",
    )  # fmt: skip
    command.add_argument("--prompt", action="append", metavar="TEXT", help="a prompt; give the flag again for another")
    command.add_argument("--prompt-tokens", type=int, metavar="N", help="a prompt of exactly N tokens, made of the product's own text")
    command.add_argument("--max-new-tokens", type=int, metavar="N", help=f"tokens to generate a row (default: {Workload.max_new_tokens})")
    command.add_argument("--temperature", type=float, metavar="T", help="of drawing tokens; 0, the default, is greedy")
    command.add_argument("--top-k", type=int, metavar="K", help="draw from the K most likely tokens; 0 for all")
    command.add_argument(
        "--top-p", type=float, metavar="P", help="draw from the fewest tokens with this share of the probability; 1 for all"
    )
    command.add_argument("--seed", type=int, metavar="N", help="makes the draws repeatable (default: 0)")
    command.add_argument("--stop-at-eos", action="store_true", help="end a row at the end-of-text token, and not always at N tokens")
    command.add_argument("--no-chat", action="store_true", help="do not apply the model's chat template")
    command.add_argument("--warmups", type=int, metavar="N", help="passes that warm up and do not count")
    command.add_argument("--repeats", type=int, metavar="N", help="timed passes, from which the intervals come")
    command.add_argument(
        "--protocol",
        choices=tuple(PROTOCOLS),
        help="quick (1 warm-up, 3 repeats, the short evaluation), standard (2, 5, the full one), "
        "careful (3, 10 in two rounds, the full one); all else of a protocol stays as it is",
    )
    command.add_argument("--rounds", type=int, metavar="N", help="alternate the variants N times, each time in fresh workers")
    command.add_argument("--evaluation", choices=EVALUATIONS, help="score quality on 512 tokens, or on all texts and the questions")
    command.add_argument("--evaluation-text", metavar="FILE", type=Path, help="score quality on this text in place of the product's")
    command.add_argument("--price-per-hour", type=float, metavar="PRICE", help="of the machine, for the cost of a million output tokens")
    for name in ("energy", "quality", "profile"):
        command.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, help=f"take the {name} pass, or skip it")
    command.add_argument("--measure-again", action="store_true", help="forget what this machine can do at best, and measure it anew")
    command.add_argument("--title", help="what to call this experiment in the history and in a recording")
    command.add_argument("--json", metavar="OUT", help="write the results as JSON to this file, - for stdout")
    command.add_argument("--quiet", action="store_true", help="no progress on stderr")


def overridden(spec: RunSpec, args: argparse.Namespace, known: Techniques) -> RunSpec:
    """`spec` with what the flags say."""
    fields = {name: getattr(args, name) for name in ("model", "engine", "device") if getattr(args, name) is not None}
    names = ("prompt_tokens", "max_new_tokens", "temperature", "seed", *NARROWING)
    work = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if work.get("temperature") == 0:  # a file's top_k and top_p lose their effect with it; those asked for here are refused
        work = {name: getattr(Workload, name) for name in NARROWING} | work
    if args.prompt:
        if args.prompt_tokens:
            raise Problem("user", "--prompt gives the text and --prompt-tokens makes one: use one of them.")
        work |= {"prompts": tuple(args.prompt), "prompt_tokens": 0}
    work |= {"ignore_eos": False} if args.stop_at_eos else {}
    work |= {"chat": False} if args.no_chat else {}
    changed = parse_knobs(assignments(args.set, "--set"), known)
    stale = [str(value) for name, value in changed.items() if spec.label == str(spec.knobs.get(name))]  # "fp32" would be the name of bf16
    return spec.replace(
        label=stale[0] if stale else spec.label,
        knobs={**spec.knobs, **changed},
        workload=dataclasses.replace(spec.workload, **work),
        protocol=_protocol(spec.protocol, args),
        **fields,
    )


def _protocol(protocol: Protocol, args: argparse.Namespace) -> Protocol:
    """`protocol` with what the flags say."""
    names = ("warmups", "repeats", "rounds", "evaluation", "price_per_hour", "energy", "quality", "profile")
    given = {name: getattr(PROTOCOLS[args.protocol], name) for name in NAMED_FIELDS} if args.protocol else {}
    given |= {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.evaluation_text:
        try:
            given["text"] = args.evaluation_text.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise Problem("user", f"{args.evaluation_text} cannot be read as a text: {error}.") from None
    return dataclasses.replace(protocol, **given)


def assignments(texts: Sequence[str], flag: str) -> dict[str, str]:
    """Pairs of NAME=VALUE; raises Problem("user") that names the flag."""
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise Problem("user", f"{flag} expects KNOB=VALUE, got {text!r}.")
        pairs[name.strip()] = value.strip()
    return pairs


def with_variants(specs: Sequence[RunSpec], changes: Sequence[Mapping[str, str]], machine: Machine) -> list[RunSpec]:
    """`specs`, and for each of the changes the first of them with it."""
    defaults = engine_defaults(engines(), machine)
    return [*specs, *(vary(specs[0], change, techniques(), defaults) for change in changes)]


def on_usual_engine(specs: Sequence[RunSpec], derive: Callable[[Sequence[RunSpec]], Sequence[RunSpec]], machine: Machine) -> list[RunSpec]:
    """`specs` on the machine's usual engine where it can run all that is derived from them; else as they are, and one line says why."""
    usual, facts = usual_engine(engines(), machine, specs[0].device), functools.cache(peek)
    placed = [spec.replace(engine=usual) for spec in specs]
    if usual == RunSpec.engine:
        return placed
    why = objection(derive(placed), techniques(), engines(), machine, lambda model: known.config if (known := facts(model)) else None)
    if why:
        print(f"playground: {told(usual, why)}", file=sys.stderr)
    return list(specs) if why else placed
