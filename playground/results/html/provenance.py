"""Where, with what and exactly how the numbers were made: the machine, the program, the model's source, and every setting of every variant.

Pure and escaped HTML. Example::

    provenance_html(results, names) + configuration_html(results, names)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from playground.results.html.text import escape, variant_table
from playground.results.numbers import shown

Result = Mapping[str, Any]
PACKAGES = ("python", "torch", "transformers", "bitsandbytes")
LONGEST_TEXT = 80


def provenance_html(results: Sequence[Result], names: Sequence[str]) -> str:
    """One paragraph of the machine and the program, or one for each of several with the names of the variants that were made there; where
    the variants' models came from, once for each source."""
    groups: dict[str, list[int]] = {}
    for index, result in enumerate(results):
        if result.get("provenance"):
            groups.setdefault(_made(result["provenance"]), []).append(index)
    paragraphs = []
    for made, members in groups.items():
        facts = [results[index]["provenance"] for index in members]
        model = "; ".join(source for source in dict.fromkeys(str(one.get("model_source") or "") for one in facts) if source)
        parts = [made, f"model: {model}" if model else "", str(facts[0].get("started_at") or "")]
        whose = f"<b>{escape(', '.join(names[index] for index in members))}</b>: " if len(groups) > 1 else ""
        paragraphs.append(f'<p class="provenance machine">{whose}{escape(" · ".join(part for part in parts if part))}</p>')
    return "".join(paragraphs)


def _made(facts: Mapping[str, Any]) -> str:
    return " · ".join(part for part in (*_machine(facts), *_program(facts)) if part)


def quality_html(results: Sequence[Result]) -> str:
    """On what the quality figures were measured: text, window, stride and positions; nothing where nothing was scored."""
    known = dict.fromkeys(str(result["quality_about"]) for result in results if result.get("quality_about"))
    return f'<p class="provenance measured-on">Quality measured on: {escape("; ".join(known))}</p>' if known else ""


def _machine(facts: Mapping[str, Any]) -> list[str | None]:
    memory = facts.get("memory_bytes")
    return [
        facts.get("host"),
        facts.get("cpu"),
        f"{facts['cores']} cores" if facts.get("cores") else None,
        f"{shown(float(memory), 'B')} of memory" if memory else None,
        facts.get("gpu"),
        f"driver {facts['driver']}" if facts.get("driver") else None,
        facts.get("platform"),
    ]


def _program(facts: Mapping[str, Any]) -> list[str | None]:
    versions = facts.get("versions") or {}
    return [
        f"playground {facts['playground']}" if facts.get("playground") else None,
        f"commit {_commit(str(facts['commit']))}" if facts.get("commit") else None,
        *(f"{package} {versions[package]}" for package in PACKAGES if versions.get(package)),
    ]


def _commit(commit: str) -> str:
    number, _, dirty = commit.partition("-")
    return f"{number[:10]} with changes" if dirty else number[:10]


def configuration_html(results: Sequence[Result], names: Sequence[str]) -> str:
    """Every setting of every variant as it was in effect, folded away; "" for results that do not know."""
    settings = [_settings(result.get("spec") or {}) for result in results]
    if not any(settings):
        return ""
    known = dict.fromkeys(name for found in settings for name in found)
    rows = "".join(_row(name, [found.get(name, "") for found in settings]) for name in known)
    table = variant_table("Effective configuration", "Setting", names, rows)
    return f'<details class="configuration"><summary>Effective configuration: every setting of every variant</summary>{table}</details>'


def _settings(spec: Mapping[str, Any]) -> dict[str, str]:
    """Names and values for people; groups of the spec are flattened, and what is empty is left out."""
    flat: dict[str, Any] = {name: spec[name] for name in ("model", "engine", "device") if name in spec}
    for group in ("knobs", "workload", "protocol"):
        flat |= spec.get(group) or {}
    return {name.replace("_", " "): _plain(value) for name, value in flat.items() if value not in ("", None)}


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple):
        return f"{len(value)}: {_short(str(value[0]))}" if value else "none"
    return _short(str(value))


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_TEXT else f"{line[:LONGEST_TEXT]} …"


def _row(name: str, values: Sequence[str]) -> str:
    differs = ' class="differs"' if len(set(values)) > 1 else ""
    cells = "".join(f"<td>{escape(value)}</td>" for value in values)
    return f'<tr{differs}><th scope="row">{escape(name)}</th>{cells}</tr>'
