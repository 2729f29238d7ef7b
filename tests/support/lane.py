"""A model's lane on a real cluster, filled by hand: for tests of what reads lanes without a scorer in
between.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from tests.support import models
from tests.support.producing import produce

from tailrace.avro.codec import Codec
from tailrace.avro.registry import RegistryClient
from tailrace.connection import Connection
from tailrace.contracts.language.load import load_contract
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records import lanes
from tailrace.contracts.records.lanes import Lane
from tailrace.contracts.records.schemas import lane_schemas, subject
from tailrace.models.package.build import Package
from tailrace.signing.trust import own_key
from tailrace.streaming.backends.kafka.topics import control_topics, ensure_topics, lane_topics
from tailrace.streaming.ids import prediction_id
from tailrace.streaming.records import Record, RecordRef
from tailrace.testing.control_records import contract_record
from tailrace.testing.sealed_package import sealed
from tailrace.testing.signed_records import signed_at

PARTITIONS = 3

CONTRACT = """
model: {model}
owner: {{team: tests}}
features:
  income: {{type: number, min: 0}}
  purpose: {{categories: [car, home]}}
target: {{name: defaulted, type: boolean}}
policy:
  - {{when: "score < 0.5", do: approve}}
  - {{do: refer}}
"""


@dataclass
class HandmadeLane:
    """The lane of a model whose contract, version 1 (champion), version 2 (shadow) and rollout are published."""

    connection: Connection
    model: str
    contract: ModelContract = field(init=False)
    lane: Lane = field(init=False)

    def __post_init__(self) -> None:
        registry = RegistryClient(self.connection.registry, self.connection.registry_auth)
        self.contract = load_contract(CONTRACT.format(model=self.model))
        self.lane = Lane(self.contract.lane)
        ensure_topics(
            self.connection.kafka, [*control_topics(), *lane_topics(self.lane.name, partitions=PARTITIONS)]
        )
        self.codec = Codec(registry)
        self.schema_ids = {
            topic: registry.register(subject(topic, self.model, self.lane.name), schema)
            for topic, schema in lane_schemas(self.contract).items()
        }
        manifests = {version: self._manifest(version) for version in (1, 2)}
        self.digests = {version: manifest["digest"] for version, manifest in manifests.items()}
        self.write(
            [
                self.control("Contract", contract_record(self.contract)),
                *(self.control("ModelManifest", manifest) for manifest in manifests.values()),
                self.control("Rollout", self._rollout()),
            ]
        )

    def _manifest(self, version: int) -> dict[str, Any]:
        """The record of a version that the owner of the connection's home has signed; its chunks are nowhere."""
        assert self.connection.home
        built = models.package("logistic", version=version)
        own = {"model": self.model, "contract_digest": self.contract.digest}
        named = Package(built.manifest.model_copy(update=own), built.parts)
        return sealed(named, own_key(self.connection.home))[0]

    def control(self, name: str, record: dict[str, Any]) -> Record:
        return signed_at(self.connection, name, record, self.model.encode())

    def _rollout(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "revision": 1,
            "follows": 0,
            "step": "first-champion",
            "version": 1,
            "champion": 1,
            "shadow": [2],
            "reason": "test",
            "by": "test",
            "source": {"topic": lanes.MANIFESTS, "partition": 0, "offset": 0},
        }

    def request(self, number: int, partition: int | None = None) -> Record:
        record = {"request_id": f"r{number}", "income": float(number), "purpose": "car"}
        value = self.codec.encode(self.schema_ids[self.lane.requests], record)
        return Record(self.lane.requests, value, f"r{number}".encode(), partition=partition)

    def prediction(self, source: RecordRef, topic: str | None = None, **changed: Any) -> Record:
        topic = topic or self.lane.predictions
        return Record(
            topic, self.codec.encode(self.schema_ids[topic], self.predicted(source, topic, **changed)), b"r"
        )

    def predicted(self, source: RecordRef, topic: str, **changed: Any) -> dict[str, Any]:
        """The prediction as decoded."""
        role, version = ("shadow", 2) if topic == self.lane.shadow_predictions else ("champion", 1)
        return {
            "prediction_id": prediction_id(role, source, changed.get("version", version)),
            "request_id": "r",
            "key": "r",
            "event_time": 0,
            "source": source._asdict(),
            "model": self.model,
            "version": version,
            "artifact_digest": self.digests.get(changed.get("version", version), self.digests[1]),
            "contract_digest": self.contract.digest,
            "rollout_revision": 1,
            "runtime": {"python": "3"},
            "role": role,
            "served_by": "model",
            "request": {"request_id": "r", "income": 1.0, "purpose": "car"},
            "replaced": [],
            "score": 0.25,
            "probabilities": {},
            "action": "approve",
            "action_propensity": 1.0,
            "arm_propensity": 1.0,
            "guardrails": [],
            "guarded": False,
            "latency_ms": 1.0,
        } | changed

    def label(self, number: int, defaulted: bool, partition: int | None = None) -> Record:
        record = {"request_id": f"r{number}", "defaulted": defaulted}
        value = self.codec.encode(self.schema_ids[self.lane.labels], record)
        return Record(self.lane.labels, value, f"r{number}".encode(), partition=partition)

    def outcome(self, predicted: dict[str, Any], label: RecordRef, defaulted: bool, **changed: Any) -> Record:
        """The first outcome of a prediction, which has a label."""
        event = {
            "outcome_id": f"o-{predicted['prediction_id']}",
            "revision": 1,
            "state": "labelled",
            "known_at": 5,
            "late": False,
            "label": defaulted,
            "label_source": label._asdict(),
            "prediction": predicted,
        } | changed
        value = self.codec.encode(self.schema_ids[self.lane.outcomes], event)
        return Record(self.lane.outcomes, value, b"r")

    def write(self, records: Iterable[Record], transactional_id: str | None = None) -> list[RecordRef]:
        """Writes records, in one transaction where an id is given; their references, in the same order."""
        options: dict[str, Any] = {**self.connection.kafka, "partitioner": "murmur2_random"}
        if transactional_id is not None:
            options["transactional.id"] = transactional_id
        producer = Producer(options)
        if transactional_id is not None:
            producer.init_transactions(30)
            producer.begin_transaction()
        written: dict[int, RecordRef] = {}

        def delivered(number: int, error: Any, message: Any) -> None:
            assert error is None, error
            written[number] = RecordRef.of(message)

        for number, record in enumerate(records):
            produce(producer, record, partial(delivered, number))
        if transactional_id is not None:
            producer.commit_transaction(30)
        assert producer.flush(30) == 0
        return [written[number] for number in sorted(written)]

    def commit(self, group: str, sources: Sequence[RecordRef]) -> None:
        """Commits for a group what a scorer would have that had processed all of these."""
        ends: dict[int, int] = {}
        for source in sources:
            ends[source.partition] = max(ends.get(source.partition, 0), source.offset + 1)
        consumer = Consumer({**self.connection.kafka, "group.id": group})
        consumer.commit(
            offsets=[TopicPartition(self.lane.requests, p, end) for p, end in ends.items()],
            asynchronous=False,
        )
        consumer.close()
