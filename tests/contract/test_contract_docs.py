"""docs/contract.md, or a page that is made of a table, names every field of the grammar; its example is a contract."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tailrace.contracts.language.json_schema import json_schema
from tailrace.contracts.language.load import load_contract
from tailrace.files.data_mapping import DataMapping

DOCS = Path(__file__).parents[2] / "docs"
DOC = (DOCS / "contract.md").read_text()
MADE = "".join((DOCS / page).read_text() for page in ("statistics.md", "guards.md"))


def test_every_field_is_described() -> None:
    schema: dict[str, Any] = json_schema()
    names = {name for part in (schema, *schema["$defs"].values()) for name in part["properties"]}
    names |= {field.alias or name for name, field in DataMapping.model_fields.items()}
    prose = re.sub(r"```.*?```", "", DOC + MADE, flags=re.DOTALL)
    words = set(re.findall(r"[a-z_0-9]+", " ".join(re.findall(r"`([^`]+)`", prose))))
    assert names - words == set()


def test_the_example_is_a_contract() -> None:
    [example] = re.findall(r"```yaml\n(.*?)```", DOC, re.DOTALL)
    assert load_contract(example).model == "credit"
