"""The command line: `python -m playground COMMAND`. It executes what the page does.

One file here is one command: a module with `register(commands)` is found. Results go to stdout, progress to stderr. Exit status: 0 done,
1 a run failed or was stopped, 2 wrong usage. Examples::

    python -m playground run quantization --json result.json        # a preset by name
    python -m playground sweep batch-size --axis batch_size=1:16:x2
    python -m playground doctor
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
import textwrap
from collections.abc import Sequence
from shutil import get_terminal_size

from playground import __version__
from playground.core.problem import Problem


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
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        if hasattr(module, "register"):
            known = set(commands.choices)
            module.register(commands)
            for name in commands.choices.keys() - known:
                _explain(commands.choices[name], module.__doc__ or "")
    commands.metavar = " | ".join(commands.choices)
    return root


def _explain(command: argparse.ArgumentParser, text: str) -> None:
    """Its --help begins with what its module says after "The command ...:", if it has no text of its own, and ends with the examples."""
    about, _, examples = text.replace("Examples::", "Example::").partition("Example::")
    said = command.description or " ".join(about.partition(": ")[2].split())
    command.formatter_class = argparse.RawDescriptionHelpFormatter  # the examples keep their lines
    command.description = textwrap.fill(said[:1].upper() + said[1:], min(get_terminal_size().columns, 100) - 2)
    if examples:
        command.epilog = "examples:\n" + textwrap.indent(textwrap.dedent(examples.strip("\n")), "  ")
