"""The timeline panel: each request a row, from its arrival to its last token, where requests arrive over time.

The pale part of a row is waiting for the first token, the full one is the answer. Example::

    timeline(results, names)   # None where all requests of all variants were there at the start
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from playground.measure.trace import Trace
from playground.results.drawing import Result, colour, hover, panel, short

ROW_PX = 11
GAP_ROWS = 1.5  # between two variants


def requests_of(trace: Trace) -> list[dict[str, Any]]:
    """Of the first timed pass, each request by number: seconds after the pass's start of arrival, first and last token, and its tokens.
    Empty where requests do not come over time."""
    pairs = [(batch, row) for item in trace.timed[:1] for batch, row in item.pairs if batch.scheduled and row.stamps_ns]
    found = []
    for batch, row in sorted(pairs, key=lambda pair: pair[1].request):
        arrived, first, last = ((at - batch.start_ns) / 1e9 for at in (row.arrived_ns, row.stamps_ns[0], row.stamps_ns[-1]))
        tokens = {"prompt_tokens": row.prompt_tokens, "output_tokens": len(row.token_ids)}
        found.append({"request": row.request, "arrived_s": arrived, "first_s": first, "last_s": last, **tokens})
    return found


def timeline(results: Sequence[Result], names: Sequence[str]) -> dict[str, Any] | None:
    """One panel with the requests of all variants; None where no variant has any that arrive over time."""
    counts = [len(result.get("requests") or ()) for result in results]
    if not any(counts):
        return None
    data, ticks, place = [], [], 0.0
    for index, (result, name) in enumerate(zip(results, names, strict=True)):
        own = result.get("requests") or ()
        if not own:
            continue
        rows = [place + number for number in range(len(own))]
        data += [_bars(index, name, own, rows, *part) for part in (("arrived_s", "first_s", 0.3), ("first_s", "last_s", 1.0))]
        ticks.append((sum(rows) / len(rows), short(name)))
        place = rows[-1] + 1 + GAP_ROWS
    layout = {
        "margin": {"l": 8, "r": 8, "t": 4, "b": 40},
        "barmode": "overlay",
        "bargap": 0.15,
        "showlegend": False,
        "xaxis": {"title": {"text": "seconds after the start", "standoff": 6}, "rangemode": "tozero", "nticks": 6, "tickangle": 0},
        "yaxis": {
            "showgrid": False,
            "autorange": "reversed",
            "tickvals": [middle for middle, _ in ticks],
            "ticktext": [name for _, name in ticks],
        },
    }
    height = 64 + round(ROW_PX * (sum(counts) + GAP_ROWS * len(ticks)))
    note = {"note": "Each row is a request of the first timed pass. Pale: it waits for its first token. Full: its answer."}
    return panel("timeline", "Requests over time", {"data": data, "layout": layout}, 0, wide=True, height=height, **note)


def _bars(
    index: int, name: str, requests: Sequence[Mapping[str, Any]], rows: Sequence[float], start: str, end: str, opacity: float
) -> dict[str, Any]:
    return {
        "type": "bar",
        "orientation": "h",
        "y": list(rows),
        "base": [item[start] for item in requests],
        "x": [item[end] - item[start] for item in requests],
        "meta": {"variant": index},
        "marker": {"color": colour(index), "opacity": opacity},
        "customdata": [
            [item["request"] + 1, item["arrived_s"], item["first_s"] - item["arrived_s"], item["last_s"] - item["arrived_s"],
             item["prompt_tokens"], item["output_tokens"]]
            for item in requests
        ],
        "hovertemplate": hover(
            name,
            "request %{customdata[0]}, arrived at %{customdata[1]:.3g} s<br>first token after %{customdata[2]:.3g} s, last after "
            "%{customdata[3]:.3g} s",
            "arrival, first token and last token of the request",
        ),
        "showlegend": False,
    }  # fmt: skip
