"""Describes the installed version of the package: the schema of `args`, and the default of every field.

`train.py --describe FOLDER` writes `schema.json` and `defaults.json` there; `versions/VERSION` has them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import rfdetr.config
from pydantic_core import PydanticUndefined
from rfdetr.config import TrainConfig

import architectures
import contract
import fields

# The keywords of JSON Schema that AOB reads.
_KEPT = (
    "type", "enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength",
    "maxLength", "minItems", "maxItems",
)  # fmt: skip


def model_configs() -> dict[str, Any]:
    """The package's class of the model's configuration, for each architecture."""
    return {name: getattr(rfdetr.config, f"{a.model}Config") for name, a in architectures.KNOWN.items()}


def schema(version: str) -> dict[str, Any]:
    """The JSON Schema of `args`: for each field what the package's class says, and the rules of fields.py."""
    configs = {TrainConfig: None, **{c: name for name, c in model_configs().items()}}
    properties = {}
    for name, arg in fields.ARGS.items():
        owners = [c for c in configs if name in c.model_fields]
        if not owners:
            raise KeyError(f"fields.py: the package has no field {name}")
        whole = owners[0].model_json_schema()
        rule = {"description": arg.about, **_rule(whole, whole["properties"][name]), **arg.rules}
        defaults = {configs[c]: default_of(c, name) for c in owners}
        values = list(defaults.values())
        if any(v != values[0] for v in values):
            each = ", ".join(f"{a} {v}" for a, v in defaults.items())
            rule["description"] += f" Default: {each}."
        elif values[0] is not None:
            rule["default"] = values[0]
        properties[name] = rule
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"train.args of {contract.NAME}@{version}",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "x-elsewhere": {name: fields.why_not(name) for name in sorted({*fields.SPEC, *fields.PINNED})},
    }


def _rule(whole: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """The part of a field's schema that AOB reads. A field that may be null may be left out instead."""
    if "$ref" in part:
        part = whole["$defs"][part["$ref"].rpartition("/")[2]]
    if "anyOf" in part:
        choices = [_rule(whole, p) for p in part["anyOf"] if p.get("type") != "null"]
        part = choices[0] if len(choices) == 1 else {}
    rule = {k: part[k] for k in _KEPT if k in part}
    if "items" in part:
        rule["items"] = _rule(whole, part["items"])
    return rule


def default_of(config: Any, name: str) -> Any:
    """A field's default in a form that JSON has; None if it has none."""
    value = config.model_fields[name].get_default(call_default_factory=True)
    return None if value is PydanticUndefined else getattr(value, "value", value)


def defaults() -> dict[str, Any]:
    """The package's default of every field, so that a new version shows which of them have changed."""
    device = {"device"}  # of the machine
    result = {"train": {n: default_of(TrainConfig, n) for n in TrainConfig.model_fields}}
    for name, config in model_configs().items():
        result[name] = {n: default_of(config, n) for n in config.model_fields if n not in device}
    return result


def write(folder: Path, version: str) -> None:
    """Writes both files."""
    for name, content in (("schema.json", schema(version)), ("defaults.json", defaults())):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
