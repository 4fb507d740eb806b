"""What all final charts share: colours, names on an axis, hover texts, layouts, panels, and notes in place of what is not available.

A panel is `{"id", "title", "figure": Plotly JSON or None, "height", "note", "key", "wide"}`; assets/live_charts.js draws it. Example::

    panel("itl_s", "Inter-token latency", {"data": traces, "layout": bar_layout(names, "ms")}, rows=len(names))
"""

from __future__ import annotations

import importlib.util
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Result = Mapping[str, Any]
SHORT = 14
COLOURS = ("#8a8984", "#0072b2", "#d55e00", "#009e73", "#a4508b", "#b07d00", "#3f9bd8", "#6b4e9b")  # the first is the baseline's
LETTERS = ("Baseline", "B", "C", "D", "E", "F", "G", "H")
BAR_WIDTH = 0.62


def plotly_path() -> Path:
    """plotly.min.js as the plotly package ships it; plotly itself is not imported."""
    spec = importlib.util.find_spec("plotly")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("charts need the package plotly: pip install -r requirements.txt")
    return Path(spec.submodule_search_locations[0]) / "package_data" / "plotly.min.js"


def colour(variant: int) -> str:
    """The colour of a variant on a light page; there are eight, and a ninth variant has the first's again."""
    return COLOURS[variant % len(COLOURS)]


def variant_names(labels: Sequence[str]) -> list[str]:
    """Names for legends: "Baseline: fp32", "B: bf16"; a letter alone where there is no label."""
    letters = [LETTERS[i] if i < len(LETTERS) else str(i + 1) for i in range(len(labels))]
    return [f"{letter}: {label}" if label else letter for letter, label in zip(letters, labels, strict=True)]


def panel(name: str, title: str, figure: dict[str, Any] | None, rows: int, **more: Any) -> dict[str, Any]:
    """A panel high enough for that many rows of bars; `more`: note, key, wide, height."""
    return {"id": name, "title": title, "figure": figure, "height": 64 + 36 * rows, **more}


def bar_layout(names: Sequence[str], x_title: str) -> dict[str, Any]:
    """Horizontal bars, the first variant on top."""
    shown_names = [short(name) for name in names]
    return {
        "margin": {"l": 8, "r": 8, "t": 4, "b": 40},
        "xaxis": {"title": {"text": x_title, "standoff": 6}, "rangemode": "tozero", "nticks": 4, "tickangle": 0, "zeroline": True},
        "yaxis": {
            "showgrid": False,
            "type": "category",
            "categoryorder": "array",
            "categoryarray": shown_names[::-1],
            "range": [-0.5, len(names) - 0.5],
        },
        "bargap": 0.3,
        "showlegend": False,
    }


def label(variant: int, name: str, x: float, text: str) -> dict[str, Any]:
    """Words right of the end of a bar."""
    return {
        "type": "scatter",
        "mode": "text",
        "x": [x],
        "y": [short(name)],
        "meta": {"variant": variant},
        "text": [f" {text}"],
        "textposition": "middle right",
        "cliponaxis": False,
        "hoverinfo": "skip",
        "showlegend": False,
    }


def absent_note(name: str, reason: str, words: str = "not available: ") -> dict[str, Any]:
    """Words in a variant's row in place of its bar."""
    return {
        "x": 0,
        "xref": "paper",
        "y": short(name),
        "xanchor": "left",
        "align": "left",
        "showarrow": False,
        "text": wrapped(f"{words}{reason}", 24),
        "hovertext": plain(reason),
        "font": {"size": 11},
    }


def missing(result: Result) -> dict[str, Any]:
    """In place of a metric that a result does not have: a failed run's message, or that this was not measured then."""
    message = (result.get("error") or {}).get("message")
    ending = "it was not measured in this run" if result.get("status") == "done" else f"the run was {result.get('status', 'not finished')}"
    return {"kind": "not_available", "reason": message or ending}


def short(name: str) -> str:
    """A name for an axis: as it is where it is short, else what stands before its colon ("Baseline", "B")."""
    return plain(name if len(name) <= SHORT else name.split(":")[0][:SHORT])


def hover(name: str, words: str, formula: str) -> str:
    """The hover text of a mark."""
    return f"<b>{plain(name)}</b><br>{words}<br><i>{wrapped(formula)}</i><extra></extra>"


def plain(text: str) -> str:
    """Text without what Plotly would read as markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def wrapped(text: str, width: int = 60, lines: int = 3) -> str:
    """Plain text in lines of at most that width."""
    return "<br>".join(plain(line) for line in textwrap.wrap(text, width, max_lines=lines, placeholder=" …"))
