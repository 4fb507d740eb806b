"""The command `python -m playground report`: a stored experiment, or a file of results, as one HTML file; also as CSV and JSON.

Example::

    python -m playground report k3x9abcd --out report.html --csv metrics.csv
    python -m playground run quantization --json result.json
    python -m playground report result.json --out report.html
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playground.cli.output import write_text
from playground.core.problem import Problem
from playground.presets import judged
from playground.results.drawing import variant_names
from playground.results.metrics_table import csv_text, json_text, metric_rows
from playground.results.report import About
from playground.results.store import StoredExperiment, open_store
from playground.run.reporting import report_of

Result = Mapping[str, Any]
NEEDED = ("spec", "status", "metrics")
MOST_BYTES = 256_000_000


@dataclass(frozen=True)
class Found:
    """Results to report, baseline first, with a title, and claims that were judged of them."""

    title: str
    results: list[Result]
    claims: Sequence[Result]


def register(commands: Any) -> None:
    """The command and its flags; `commands`: what argparse's add_subparsers gave."""
    report = commands.add_parser("report", help="write results as one HTML file that opens anywhere; also as CSV and JSON")
    report.add_argument("source", metavar="EXPERIMENT|RESULT.json", help="id of a stored experiment, or what `run --json` wrote")
    report.add_argument("--out", metavar="REPORT.html", type=Path, help="the report; default: report.html if nothing else is asked for")
    report.add_argument("--csv", metavar="OUT.csv", type=Path, help="all metrics, a line a metric and variant")
    report.add_argument("--json", metavar="OUT.json", type=Path, help="all metrics as JSON")
    report.add_argument("--title", help="in place of the experiment's")
    report.set_defaults(command=_report)


def of_experiment(stored: StoredExperiment) -> Found:
    """What a stored experiment has to report; runs that did not end have no results. Raises Problem("user") where the baseline
    has none."""
    results: list[Result] = [run.result for run in stored.runs if run.result is not None]
    if not results or results[0] is not stored.runs[0].result:
        raise Problem("user", f"The baseline of the experiment {stored.id} has no result yet.")
    return Found(stored.title or stored.id, results, judged(results))


def _report(args: argparse.Namespace) -> int:
    path = Path(args.source)
    found = _of_file(path) if path.suffix == ".json" or path.is_file() else of_experiment(open_store().load(args.source))
    title = args.title or found.title
    rows = metric_rows(found.results, variant_names([str(result.get("label") or "") for result in found.results]))
    out = args.out or (None if args.csv or args.json else Path("report.html"))
    if args.csv:
        _write(args.csv, csv_text(rows))
    if args.json:
        _write(args.json, json_text(rows))
    if out:
        _write(out, report_of(found.results, About(title, claims=found.claims)))
    return 0


def _write(path: Path, text: str) -> None:
    write_text(path, text)
    print(f"Wrote {path}.")


def _of_file(path: Path) -> Found:
    """Results from a file of one result, or of several with the baseline first; raises Problem("user") for anything else."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise Problem("user", f"{path.name} is larger than a file of results can be.")
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Problem("user", f"{path} cannot be read: {error.strerror or error}.") from None
    except (ValueError, RecursionError) as error:
        raise Problem("user", f"{path.name} is not valid JSON: {error}.") from None
    results = data.get("results") if isinstance(data, Mapping) and "results" in data else [data]
    if not isinstance(results, list) or not results or not all(_is_result(item) for item in results):
        raise Problem("user", f"{path.name} holds no results: it needs what `python -m playground run --json` writes.")
    claims = data.get("claims") if isinstance(data.get("claims"), list) else judged(results)
    return Found(path.stem, results, claims or [])


def _is_result(item: object) -> bool:
    return isinstance(item, Mapping) and all(name in item for name in NEEDED) and isinstance(item["metrics"], Mapping)
