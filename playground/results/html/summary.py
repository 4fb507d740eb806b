"""The top of a report: what was run, where and when, and a card a variant with its verdict, headline numbers and evidence.

Pure and escaped HTML. Example::

    cover_html(results, "Precision ladder", "", warnings, contents) + cards_html(results, names)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from playground.results.html.headlines import numbers_html, verdict_html
from playground.results.html.text import escape
from playground.techniques import techniques

Result = Mapping[str, Any]
RECORDED = "These runs were played from a recording: every number was measured on the machine and at the time that are named here."
STATUS = {"failed": "failed", "cancelled": "stopped", "interrupted": "interrupted"}


def cover_html(results: Sequence[Result], title: str, text: str, warnings: Sequence[str], contents: str) -> str:
    """Title, a lead, the facts of the experiment, and what makes it doubtful; `contents` is HTML."""
    facts = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in _facts(results).items() if value)
    played = any(metric.get("kind") == "recorded" for result in results for metric in result.get("metrics", {}).values())
    caveats = "".join(f"<li>{escape(words)}</li>" for words in warnings)
    return (
        f'<header class="cover"><p class="brand">Inference Playground · report</p><h1>{escape(title)}</h1>'
        + (f'<p class="lead">{escape(" ".join(text.split()))}</p>' if text.strip() else "")
        + f'<dl class="facts">{facts}</dl>'
        + (f'<p class="quiet" style="margin-top: 12px">{RECORDED}</p>' if played else "")
        + (f'<ul class="caveats" aria-label="Warnings">{caveats}</ul>' if caveats else "")
        + f'<nav class="contents" aria-label="Contents">{contents}</nav></header>'
    )


def _facts(results: Sequence[Result]) -> dict[str, str]:
    made = [result.get("provenance") or {} for result in results]
    first = results[0].get("spec") or {} if results else {}
    return {
        "Machine": _each(str(facts.get("gpu") or facts.get("cpu") or "") for facts in made),
        "Model": _each(str(facts.get("model_source") or "") for facts in made) or str(first.get("model", "")),
        "When": _each(str(facts.get("started_at") or "")[:10] for facts in made),
        "Workload": _workload(first.get("workload") or {}),
        "Protocol": _protocol(first.get("protocol") or {}),
    }


def _workload(work: Mapping[str, Any]) -> str:
    return f"{_counted(len(work.get('prompts') or ()), 'prompt')}, {work.get('max_new_tokens')} new tokens each" if work else ""


def _protocol(protocol: Mapping[str, Any]) -> str:
    if not protocol:
        return ""
    passes = f"{_counted(protocol.get('repeats'), 'timed pass', 'es')} after {_counted(protocol.get('warmups'), 'warm-up')}"
    return f"{passes}, in {protocol['rounds']} rounds" if (protocol.get("rounds") or 1) > 1 else passes


def _counted(number: Any, word: str, plural: str = "s") -> str:
    return f"{number} {word}{'' if number == 1 else plural}"


def _each(texts: Any) -> str:
    return "; ".join(text for text in dict.fromkeys(texts) if text)


def cards_html(results: Sequence[Result], names: Sequence[str]) -> str:
    """A card a variant."""
    cards = "".join(_card(index, name, result, results[0]) for index, (name, result) in enumerate(zip(names, results, strict=True)))
    return f'<div class="columns">{cards}</div>'


def _card(index: int, name: str, result: Result, baseline: Result) -> str:
    status = STATUS.get(str(result.get("status")), "")
    badge = f'<span class="badge {escape(result.get("status"))}">{status}</span>' if status else ""
    head = f'<header><i class="swatch"></i><h3>{escape(name)}</h3>{badge}</header>'
    numbers = numbers_html(result, baseline if index else None)
    return f'<article class="variant v{index}">{head}{_failure(result)}{verdict_html(result)}{numbers}{_evidence(result)}</article>'


def _failure(result: Result) -> str:
    error = result.get("error") or {}
    if not error.get("message"):
        return ""
    detail = str(error.get("detail") or "").strip()
    log = f"<details><summary>Log</summary><pre>{escape(detail[-6000:])}</pre></details>" if detail else ""
    return f'<div class="failure"><strong>{escape(error["message"])}</strong>{log}</div>'


def _evidence(result: Result) -> str:
    found = result.get("evidence") or {}
    if not found:
        return ""
    titles = {technique.name: technique.title for technique in techniques().values()}
    items = "".join(f"<li><span>{escape(titles.get(name, name))}: {escape(text)}</span></li>" for name, text in found.items())
    words = "Evidence that each setting took effect"
    return f'<details class="proof" open><summary>{words}</summary><ul class="evidence">{items}</ul></details>'
