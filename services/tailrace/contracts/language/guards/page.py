"""The guards, as a page: ``python -m tailrace.contracts.language.guards.page > docs/guards.md``."""

from __future__ import annotations

from collections.abc import Iterator

from tailrace.contracts.language.guards.guards import GUARDS

_HEAD = """# Guards

Made by `python -m tailrace.contracts.language.guards.page > docs/guards.md` from GUARDS
(`services/tailrace/contracts/language/guards/guards.py`); do not edit.
[CONTRIBUTING.md](../CONTRIBUTING.md) says how one is added, [contract.md](contract.md) more of each.

A guard of rows flags them as `guarded`. A row in whose outputs one finds something is answered by
`guardrails.fallback`, and is `guarded` where there is none. Certainty is data of the event.

| guard | in the contract | looks at | what it is |
| --- | --- | --- | --- |
"""


def page() -> str:
    """The page, in Markdown."""
    return _HEAD + "".join(f"| {row} |\n" for row in _rows())


def _rows() -> Iterator[str]:
    for guard in GUARDS:
        place = f"guardrails.{guard.name}"
        yield f"`{guard.name}` | {'always' if guard.section is None else f'`{place}`'} | {guard.looks_at} | {guard.doc}"
        for name, field in getattr(guard.section, "model_fields", {}).items():
            yield f" | `{place}.{field.alias or name}` | | {field.description}"


if __name__ == "__main__":
    print(page(), end="")
