"""Records of contracts and versions as they are applied and published, without a signature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records.record_types import ContractRecord, ModelManifestRecord
from tailrace.control.apply import ApplyPlan


def contract_record(contract: ModelContract, follows: int = 0, *, at: int = 0) -> ContractRecord:
    """The record of a contract that is applied behind this revision."""
    return ApplyPlan("", contract, "", follows, []).record("test", at)


def anybody(record: Mapping[str, Any]) -> None:
    """Verifies a manifest record: whoever has published it counts."""


def manifest_record(model: str, version: int, digest: str, *, at: int = 0) -> ModelManifestRecord:
    """The record of a version that nobody has signed, and of which there is nothing but its digest."""
    return {
        "model": model,
        "version": version,
        "manifest": b"{}",
        "digest": digest,
        "signature": b"",
        "key_id": "",
        "chunks": [],
        "published_at": at,
        "published_by": "test",
    }
