"""What theory said of a run and what came of it: predicted against measured numbers, and each technique's expected effects.

Pure and escaped HTML. Example::

    predictions_html(results, names) + expectations_html(results, names)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from playground.results.html.text import escape, variant_table
from playground.results.numbers import digits, shown

Result = Mapping[str, Any]
PREDICTED = {
    "step_s": "Decode step",
    "ttft_s": "Time to first token",
    "output_tokens_per_s": "Output throughput",
    "weights_bytes": "Weights",
    "kv_cache_bytes": "KV cache",
}


def predictions_html(results: Sequence[Result], names: Sequence[str]) -> str:
    """A table of what was predicted and what was measured, with the error of the prediction; why there is none; "" for older results."""
    found = [result.get("prediction") or {} for result in results]
    reasons = dict.fromkeys(str(result["prediction_reason"]) for result in results if result.get("prediction_reason"))
    if not any(found):
        return f'<p class="provenance">Not predicted: {escape("; ".join(reasons))}</p>' if reasons else ""
    why = f'<p class="quiet">Not all was predicted: {escape("; ".join(reasons))}</p>' if reasons else ""
    known = dict.fromkeys([*PREDICTED, *(name for one in found for name in one)])
    rows = "".join(_predicted(name, [one.get(name) for one in found]) for name in known if any(name in one for one in found))
    return (
        '<section class="predictions"><h3>Predicted and measured</h3>'
        "<p class=\"quiet\">From the model's sizes, the settings, the token counts and the machine's measured limits.</p>"
        f"{variant_table('Predicted and measured', 'Quantity', names, rows)}{why}</section>"
    )


def _predicted(name: str, found: Sequence[Mapping[str, Any] | None]) -> str:
    cells = "".join(_cell(one) for one in found)
    return f'<tr><th scope="row">{escape(PREDICTED.get(name, name))}</th>{cells}</tr>'


def _cell(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return '<td class="none">not predicted</td>'
    unit, measured = str(found.get("unit", "")), found.get("measured")
    predicted = escape(shown(float(found["predicted"]), unit))
    if measured is None:
        return f'<td>predicted <b>{predicted}</b><small class="none">not measured</small></td>'
    error = found.get("error")
    words = "" if error is None else f"<small>{escape(error_words(float(error)))}</small>"
    return f"<td>predicted <b>{predicted}</b>, measured <b>{escape(shown(float(measured), unit))}</b>{words}</td>"


def error_words(error: float) -> str:
    """ "the prediction is 12 % too low"; `error` is predicted / measured - 1."""
    percent = digits(abs(error) * 100, 2)
    if abs(error) < 0.005:
        return "the prediction is right within half a percent"
    return f"the prediction is {percent} % too {'high' if error > 0 else 'low'}"


def expectations_html(results: Sequence[Result], names: Sequence[str]) -> str:
    """For each variant what its techniques were expected to do and what they did; "" where nothing was expected."""
    lists = [
        f'<section class="v{index}"><h4><i class="swatch"></i>{escape(name)}</h4><ul>{_items(result)}</ul></section>'
        for index, (name, result) in enumerate(zip(names, results, strict=False))
        if result.get("expectations")
    ]
    if not lists:
        return ""
    return f'<section class="expectations"><h3>Expected and found</h3><div class="lists">{"".join(lists)}</div></section>'


def _items(result: Result) -> str:
    items = ((item.get("outcome", ""), item.get("text", "")) for item in result["expectations"])
    return "".join(f'<li><b class="outcome">{escape(outcome)}</b> {escape(text)}</li>' for outcome, text in items)
