"""The report of results with the command that repeats them. Example::

Path("report.html").write_text(report_of(results, About("Precision ladder")))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from playground.core.spec import RunSpec
from playground.engines import engines
from playground.engines.replay import truly_run
from playground.results.command import command
from playground.results.report import About, report_html
from playground.techniques import techniques


def report_of(results: Sequence[Mapping[str, Any]], about: About) -> str:
    """The HTML file of these results, baseline first; a replay is repeated as what was recorded."""
    specs = [truly_run(RunSpec.from_dict(result["spec"])) for result in results]
    return report_html(results, replace(about, command=command(specs, techniques(), engines())))
