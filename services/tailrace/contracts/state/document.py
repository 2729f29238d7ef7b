"""The table of record kinds as docs/keys.md prints it."""

from __future__ import annotations

from tailrace.contracts.state.kinds import BY_ACCESS_ALONE, KINDS
from tailrace.signing.signers import SERVICES

_SIGNED = """\
| Record | Topic | Signed by | Signature | Checked by | A copy counts for nothing, since |
| --- | --- | --- | --- | --- | --- |"""
_UNSIGNED = """
Nobody signs what is on these topics: the broker's access control alone says who writes to them.

| Topic | Holds |
| --- | --- |"""


def tables() -> str:
    """Two Markdown tables: what is signed, and what the broker's access control alone protects."""
    rows = (
        f"| {kind.name} | `{kind.topic}` | {_signers(kind.signers)} | {_signature(kind.signature)} | "
        f"{', '.join(kind.checked_by)} | {kind.copy} |"
        for kind in KINDS.values()
    )
    others = (f"| `{topic}` | {holds} |" for topic, holds in BY_ACCESS_ALONE.items())
    return "\n".join((_SIGNED, *rows, _UNSIGNED, *others))


def _signers(signers: tuple[str, ...]) -> str:
    return "the service that it names" if signers == SERVICES else ", ".join(signers)


def _signature(signature: str) -> str:
    return "header `tailrace-signature`" if signature == "header" else "a field of its own"
