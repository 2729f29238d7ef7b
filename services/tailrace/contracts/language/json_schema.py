"""The JSON Schema of model contracts, for editors: completion and checks while one types.

It says less than ``tailrace contracts check``: names that must be known, expressions and sums of durations are beyond
it. ``python -m tailrace.contracts.language.json_schema`` prints it; contracts/model-contract.schema.json is it.
"""

from __future__ import annotations

import json
from typing import Any

from tailrace.contracts.language.durations import (
    DURATION_PATTERN,
    SHARE_PATTERN,
    format_duration,
    format_share,
)
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.templates.table import DEFAULT, TEMPLATES
from tailrace.templates.template import Template


def json_schema() -> dict[str, Any]:
    """The schema (JSON Schema 2020-12) that every valid contract fits."""
    schema = ModelContract.model_json_schema(by_alias=True, mode="validation")
    definitions = schema["$defs"]
    # What a contract may write shorter than what it means.
    _shorten(definitions["Labels"]["properties"], "join", {"const": "request_id"})
    for name in ("Feature", "ContextField", "Target"):
        definitions[name]["required"].remove("type")
        definitions[name]["anyOf"] = [{"required": ["type"]}, {"required": ["categories"]}]
    definitions["Training"]["allOf"] = [_options(template) for template in TEMPLATES]
    for name in ("Trigger", "Fallback"):
        definitions[name] |= {"minProperties": 1, "maxProperties": 1}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tailrace model contract",
        **_tidied({name: value for name, value in schema.items() if name != "title"}),
    }


def schema_text() -> str:
    """The schema as it stands in its file."""
    return json.dumps(json_schema(), indent=2) + "\n"


def _shorten(properties: dict[str, Any], name: str, short: dict[str, Any]) -> None:
    full = properties[name]
    described = {key: full.pop(key) for key in ("default", "description") if key in full}
    properties[name] = {"anyOf": [short, full], **described}


def _options(template: Template) -> dict[str, Any]:
    """Which options a template has, where the contract names it or nothing."""
    named = {"properties": {"template": {"const": template.name}}}
    options = template.options.model_json_schema() | {"description": template.doc}
    return {
        "if": named if template is DEFAULT else named | {"required": ["template"]},
        "then": {"properties": {"options": options}},
    }


def _tidied(schema: Any) -> Any:
    """Without generated titles; defaults as they would be written, and only those that depend on nothing."""
    if isinstance(schema, list):
        return [_tidied(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    tidied = {
        name: _tidied(inner)
        for name, inner in schema.items()
        if not (name == "title" and isinstance(inner, str)) and name != "default"
    }
    default = schema.get("default")
    if schema.get("pattern") == DURATION_PATTERN and default:
        tidied["default"] = format_duration(default)
    elif schema.get("pattern") == SHARE_PATTERN and default:
        tidied["default"] = format_share(default)
    elif isinstance(default, str | bool | float) and default != "":
        tidied["default"] = default
    return tidied


if __name__ == "__main__":
    print(schema_text(), end="")
