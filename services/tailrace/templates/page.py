"""Training templates, as a page: ``python -m tailrace.templates.page > docs/templates.md``."""

from __future__ import annotations

from collections.abc import Iterator

from tailrace.templates.table import DEFAULT, TEMPLATES
from tailrace.templates.template import Template

_HEAD = f"""\
# Training templates

Made by `python -m tailrace.templates.page > docs/templates.md` from TEMPLATES
(`services/tailrace/templates/table.py`); do not edit. [CONTRIBUTING.md](../CONTRIBUTING.md) says how one
is added, and how a team brings its own.

A contract names one in `training.template` (by default `{DEFAULT.name}`), and sets its options in `training.options`.

| template | what it is | options, with their defaults |
| --- | --- | --- |
"""


def page() -> str:
    """The page, in Markdown."""
    rows = (f"| `{t.name}` | {t.doc} | {' '.join(_options(t)) or 'none'} |\n" for t in TEMPLATES)
    return _HEAD + "".join(rows)


def _options(template: Template) -> Iterator[str]:
    for name, field in template.options.model_fields.items():
        yield f"`{name}` ({field.default}): {field.description}"


if __name__ == "__main__":
    print(page(), end="")
