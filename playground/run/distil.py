"""The command `python -m playground distil`: teach a smaller model from a larger one's logits, and print teacher, before and after.

Progress goes to stderr, the table to stdout. Example::

    python -m playground distil --name pocket --keep-layers 24 --steps 100
    python -m playground run --variant prune=layers,prune_share=0.2 --variant model=made:pocket
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from playground.core.making import Made
from playground.core.places import ASSETS
from playground.results.numbers import shown
from playground.run.command import Command
from playground.run.making_command import TITLES, carry_out, columns, job_from, shared_flags
from playground.run.train_distilled import MODULE, DistilJob

TEXT = ASSETS / "training" / "general.txt"


def table(facts: Mapping[str, Any]) -> str:
    """Size and quality of the teacher, and of the student before and after, in some lines."""
    found = list(facts["compared"].values())

    def row(figure: str, shape: str, text: str = "") -> tuple[str, ...]:
        """A figure of all three, of a text where it has one a text; nothing where the teacher would be compared with itself."""
        cells = [one[figure].get(text) if text else one[figure] for one in found]
        return tuple("" if cell is None else shape.format(cell) for cell in cells)

    rows = {
        "layers": row("layers", "{}"),
        "parameters": row("parameters", "{:,}"),
        "weights": tuple(shown(one["weights_bytes"], "bytes") for one in found),
    }
    for name in found[0]["perplexity"]:
        title = TITLES.get(name, name)
        rows[f"perplexity, {title}"] = row("perplexity", "{:.2f}", name)
        rows[f"KL divergence, {title}"] = row("kld_mean", "{:.3f}", name)
        rows[f"same top token, {title}"] = row("top1_agreement", "{:.3f}", name)
    heads = ("teacher", "before" if facts["student"] else "pruned", "distilled")
    last = f"{facts['steps']} steps, temperature {facts['temperature']:g}, {facts['dtype']}, {facts['seconds']:.0f} s in all"
    return "\n".join([*columns("", heads, rows), last])


def _flags(parser: argparse.ArgumentParser) -> None:
    shared_flags(parser, DistilJob, TEXT)
    parser.add_argument("--teacher", default=DistilJob.teacher, metavar="M", help=f"the model to learn from; default: {DistilJob.teacher}")
    student = parser.add_mutually_exclusive_group()
    student.add_argument(
        "--keep-layers", type=float, default=DistilJob.keep_layers, metavar="N",
        help=f"of the teacher in its pruned copy; below 1 a share of them; default: {DistilJob.keep_layers:g}",
    )  # fmt: skip
    student.add_argument("--student", default=DistilJob.student, metavar="M", help="a model to teach in place of a pruned copy")
    parser.add_argument(
        "--temperature", type=float, default=DistilJob.temperature, metavar="T", help="by which both models' logits are divided; default: 1"
    )


def _told(event: Made) -> str:
    use = f"Use it with --model {event.name}, or as a draft of its teacher: --set speculative=draft --set draft_model={event.name}"
    measure = f"python -m playground run --model {event.facts['teacher']} --variant model={event.name}"
    return f"{table(event.facts)}\nSpeed and memory: {measure}\n{use}"


def _run(args: argparse.Namespace) -> int:
    return carry_out(MODULE, job_from(args, DistilJob), args.json, _told)


CLI = Command("distil", "teach a layer-pruned copy of a model, or another one, from its logits: --model made:NAME", _flags, _run)
