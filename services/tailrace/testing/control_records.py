"""Records of contracts and versions as they are applied and published, without a signature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tailrace.avro.registry import Registry
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records.record_types import ContractRecord, ModelManifestRecord
from tailrace.contracts.records.schemas import lane_schemas, subject
from tailrace.control.apply import ApplyPlan
from tailrace.streaming.records import RecordRef


def contract_record(contract: ModelContract, follows: int = 0, *, at: int = 0) -> ContractRecord:
    """The record of a contract that is applied behind this revision."""
    return ApplyPlan("", contract, "", follows, []).record("test", at)


def anybody(record: Mapping[str, Any]) -> None:
    """Verifies a manifest record: whoever has published it counts."""


def schema_ids(registry: Registry, contract: ModelContract) -> dict[str, int]:
    """Registers the schemas of the contract's lane; their ids by topic."""
    return {
        topic: registry.register(subject(topic, contract.model, contract.lane), schema)
        for topic, schema in lane_schemas(contract).items()
    }


def prediction_event(contract: ModelContract, source: RecordRef, /, **changed: Any) -> dict[str, Any]:
    """What a champion without guards answers to the request of that source."""
    return {
        "prediction_id": "p",
        "request_id": "r",
        "key": "k",
        "event_time": 0,
        "source": source._asdict(),
        "model": contract.model,
        "version": 1,
        "artifact_digest": "a" * 64,
        "contract_digest": contract.digest,
        "rollout_revision": 1,
        "runtime": {"python": "3"},
        "role": "champion",
        "served_by": "model",
        "replaced": [],
        "probabilities": {},
        "action": contract.actions[0],
        "action_propensity": 1.0,
        "arm_propensity": 1.0,
        "guardrails": [],
        "guarded": False,
        "latency_ms": 1.0,
    } | changed


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
