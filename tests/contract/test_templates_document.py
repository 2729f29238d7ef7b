"""docs/templates.md is what TEMPLATES says."""

from __future__ import annotations

from pathlib import Path

from tailrace.templates.page import page
from tailrace.templates.table import TEMPLATES

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_current() -> None:
    command = "python -m tailrace.templates.page > docs/templates.md"
    assert (DOCS / "templates.md").read_text() == page(), f"run {command}"


def test_every_option_has_a_default_and_says_what_it_is() -> None:
    for template in TEMPLATES:
        template.options()
        assert all(field.description for field in template.options.model_fields.values()), template.name
