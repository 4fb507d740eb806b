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
from collections.abc import Sequence

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
            module.register(commands)
    commands.metavar = " | ".join(commands.choices)
    return root
