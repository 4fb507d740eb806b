"""The catalogue: models and shapes that are offered by name, read from presets/models.toml, and the models that were made here.

Data with a strict check; nothing here knows how a model is fetched. Example::

    find("shape:llama-3.1-8b").config["num_hidden_layers"]   # 32
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playground.core.places import PRESETS
from playground.core.problem import Problem, did_you_mean
from playground.models.folder import peek_folder
from playground.models.made import PREFIX, find_made, made
from playground.models.model import Kind

SHAPE = "shape:"
_MODEL_FIELDS: dict[str, type] = {
    "name": str, "kind": str, "title": str, "hub": str, "parameters": int, "licence": str, "note": str, "gated": bool,
    "shape": str,
}  # fmt: skip
_SHAPE_FIELDS: dict[str, type] = {"name": str, "title": str, "parameters": int, "note": str, "config": dict}
_OPTIONAL = {"gated", "shape", "note"}
_CONFIG_SIZES = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size",
    "max_position_embeddings",
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One model of the catalogue. `name` is what a spec holds; `hub`: id on the hub ("" for shapes and what was made); `config`:
    architecture where it is known without network (empty otherwise)."""

    name: str
    kind: Kind
    title: str
    parameters: int
    hub: str = ""
    licence: str = ""
    note: str = ""
    gated: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)


def catalogue(path: Path | None = None) -> list[Entry]:
    """Every entry in the order of the file, models before shapes, and between the two what was made on this machine; of another file than
    the product's the file's alone. Raises Problem("user") that names what is wrong in a broken file."""
    own, path = _made() if path is None else [], path or PRESETS / "models.toml"
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Problem("user", f"The model catalogue {path} cannot be read: {error}") from error
    for key in data:
        if key not in ("model", "shape"):
            raise Problem("user", f"{path.name}: " + did_you_mean("there is no table", key, ("model", "shape")))
    shapes = [_shape(path.name, item) for item in _tables(path.name, data, "shape")]
    configs = {entry.name.removeprefix(SHAPE): entry.config for entry in shapes}
    entries = [_model(path.name, item, configs) for item in _tables(path.name, data, "model")] + own + shapes
    names = [entry.name for entry in entries]
    for name in names:
        if names.count(name) > 1:
            raise Problem("user", f"{path.name}: the name {name!r} is there twice.")
    return entries


def find(name: str) -> Entry | None:
    """The entry of that name, or of that hub id; None if there is none."""
    entries = catalogue()
    by_name = {entry.name: entry for entry in entries}
    return by_name.get(name) or next((entry for entry in entries if entry.kind == "hub" and entry.hub == name), None)


def made_source(facts: Mapping[str, Any]) -> str:
    """Where the weights of a made model come from, in words, by its provenance."""
    return str(facts.get("source") or "made on this machine; its provenance does not say from what")


def _made() -> list[Entry]:
    entries = []
    for plain, facts in made("model").items():
        name, parameters = f"{PREFIX}{plain}", facts.get("parameters")
        known = peek_folder(name, find_made(name))
        if known is not None:
            count = parameters if isinstance(parameters, int) else 0
            entries.append(
                Entry(
                    name,
                    "made",
                    f"{plain} (made here)",
                    count,
                    licence=str(facts.get("licence", "")),
                    note=f"Made on this machine: {made_source(facts)}.",
                    config=known.config,
                )
            )
    return entries


def _tables(where: str, data: Mapping[str, Any], kind: str) -> list[Mapping[str, Any]]:
    tables = data.get(kind, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise Problem("user", f"{where}: write each {kind} as a [[{kind}]] table.")
    return tables


def _model(where: str, item: Mapping[str, Any], configs: Mapping[str, Mapping[str, Any]]) -> Entry:
    fields = _checked(f"{where}, model {item.get('name', '?')!r}", item, _MODEL_FIELDS)
    if fields["kind"] not in ("default", "hub"):
        raise Problem("user", f"{where}, model {fields['name']!r}: kind " + did_you_mean("is unknown:", fields["kind"], ("default", "hub")))
    shape = fields.pop("shape", None)
    if shape is not None and shape not in configs:
        raise Problem("user", f"{where}, model {fields['name']!r}: " + did_you_mean("there is no shape", shape, configs))
    return Entry(**fields, config=configs[shape] if shape else {})


def _shape(where: str, item: Mapping[str, Any]) -> Entry:
    place = f"{where}, shape {item.get('name', '?')!r}"
    fields = _checked(place, item, _SHAPE_FIELDS)
    config = fields["config"]
    if not isinstance(config.get("model_type"), str):
        raise Problem("user", f"{place}: config.model_type must be a text.")
    for name in _CONFIG_SIZES:
        size = config.get(name)
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise Problem("user", f"{place}: config.{name} must be a whole number above 0, got {size!r}.")
    fields["name"] = SHAPE + fields["name"]
    return Entry(**fields, kind="shape")


def _checked(place: str, item: Mapping[str, Any], known: Mapping[str, type]) -> dict[str, Any]:
    for name in item:
        if name not in known:
            raise Problem("user", f"{place}: " + did_you_mean("there is no setting", name, known))
    for name, kind in known.items():
        if name not in item and name not in _OPTIONAL:
            raise Problem("user", f"{place}: {name} is missing.")
        if name in item and (not isinstance(item[name], kind) or (kind is int and isinstance(item[name], bool))):
            what = {str: "a text", int: "a whole number", bool: "true or false", dict: "a table"}[kind]
            raise Problem("user", f"{place}: {name} must be {what}, got {item[name]!r}.")
    return dict(item)
