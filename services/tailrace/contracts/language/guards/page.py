"""The guards, as a page: ``python -m tailrace.contracts.language.guards.page > docs/guards.md``."""

from __future__ import annotations

from collections.abc import Iterator

from tailrace.contracts.language.guards.guard import Guard
from tailrace.contracts.language.guards.guards import GUARDS


def page() -> str:
    """The page, in Markdown."""
    return "\n".join(
        [
            "# Guards",
            "",
            "Made by `python -m tailrace.contracts.language.guards.page > docs/guards.md` from GUARDS",
            "(`services/tailrace/contracts/language/guards/guards.py`); do not edit.",
            "[CONTRIBUTING.md](../CONTRIBUTING.md) says how one is added, [contract.md](contract.md) more of each.",
            "",
            "A guard of rows flags them as `guarded`. A row in whose outputs one finds something is answered by",
            "`guardrails.fallback`, and is `guarded` where there is none. Certainty is data of the event.",
            "",
            "| guard | in the contract | looks at | what it is |",
            "| --- | --- | --- | --- |",
            *(f"| `{g.name}` | {_setting(g)} | {g.looks_at} | {g.doc} |" for g in GUARDS),
            "",
            "| setting | what it is |",
            "| --- | --- |",
            *(row for guard in GUARDS for row in _fields(guard)),
            "",
        ]
    )


def _setting(guard: Guard) -> str:
    return "always" if guard.section is None else f"`guardrails.{guard.name}`"


def _fields(guard: Guard) -> Iterator[str]:
    for name, field in getattr(guard.section, "model_fields", {}).items():
        yield f"| `guardrails.{guard.name}.{field.alias or name}` | {field.description or ''} |"


if __name__ == "__main__":
    print(page(), end="")
