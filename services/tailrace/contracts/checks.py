"""Checks that concern several fields of a contract at once."""

from __future__ import annotations

from collections.abc import Iterator

from tailrace.contracts.model_contract import ModelContract
from tailrace.contracts.yaml_file import Finding


def check_contract(contract: ModelContract) -> Iterator[Finding]:
    """Yields everything that is wrong."""
    yield from ()
