"""Asks the loop for something, signed by the home's key, and waits for the answer of who carries it out."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tailrace.contracts import lanes
from tailrace.contracts.apply import applied_by
from tailrace.kit.codec import ControlCodec
from tailrace.kit.connection import Connection
from tailrace.kit.errors import TailraceError
from tailrace.kit.reading import TopicReader, read_all
from tailrace.kit.registry import RegistryClient
from tailrace.models.catalog import Catalog
from tailrace.models.rollout_fold import Rollouts
from tailrace.models.sign import sign_command
from tailrace.models.trust import TrustStore, own_key

ANSWER_S = 30.0
RETRAIN = "retrain"


@dataclass(frozen=True)
class Answer:
    """What became of a command: the rollout step that it led to, the training run, or why it was refused."""

    command_id: str
    step: Mapping[str, Any] | None = None
    refusal: str | None = None
    run: Mapping[str, Any] | None = None


def ask(
    connection: Connection,
    home: Path,
    command: str,
    model: str,
    version: int | None = None,
    reason: str = "",
    timeout_s: float = ANSWER_S,
) -> Answer:
    """Writes a command that follows the rollout as it stands, and waits for the answer: the trainer's to ``retrain``,
    the rollout service's to everything else.

    Raises:
        TailraceError: no answer came in time, or Kafka does not take the command.
    """
    from confluent_kafka import KafkaException, Producer

    key = own_key(home)
    codec = ControlCodec(RegistryClient(connection.registry, connection.registry_auth))
    reader = TopicReader(connection, [lanes.ROLLOUTS, lanes.ALERTS, lanes.TRAINING_RUNS])
    try:
        fold = Rollouts()
        while not reader.caught_up():
            for message in reader.poll(0.2):
                if message.topic() == lanes.ROLLOUTS:
                    fold.apply(codec.decode("Rollout", message.value()), message.offset())
        asked = {
            "command_id": str(uuid.uuid4()),
            "model": model,
            "command": command,
            "version": version,
            "follows": None if command == RETRAIN else fold.state(model).revision,
            "by": applied_by(),
            "reason": reason or f"tailrace {command}",
            "issued_at": int(time.time() * 1000),
        }
        failed: list[Any] = []
        producer = Producer(
            {**connection.kafka, "enable.idempotence": True, "partitioner": "murmur2_random", "log_level": 0}
        )
        producer.produce(
            lanes.COMMANDS,
            codec.encode("Command", sign_command(asked, key)),
            model.encode(),
            on_delivery=lambda error, _: failed.append(error),
        )
        if producer.flush(timeout_s) or failed[0] is not None:
            what = KafkaException(failed[0]) if failed else "no answer"
            raise TailraceError(f"Kafka did not take the command: {what}")
        return _answer(reader, codec, fold, asked, timeout_s)
    finally:
        reader.close()


def refuse_revoked(connection: Connection, home: Path, model: str, version: int | None) -> None:
    """Raises TailraceError where a revoked key has signed the version, or the previous one where none is named: no
    service of this home would take it up.
    """
    codec = ControlCodec(RegistryClient(connection.registry, connection.registry_auth))
    wanted = version if version is not None else rollouts(connection, codec).state(model).previous
    trust, catalog = TrustStore(home / "keys"), Catalog()
    for message in read_all(connection, [lanes.MANIFESTS]):
        if message.value() is not None:
            catalog.apply(codec.decode("ModelManifest", message.value()))
    record = None if wanted is None else catalog.record(model, wanted)
    if record is not None and trust.is_revoked(record["key_id"]):
        raise TailraceError(
            f"version {wanted} of {model} is signed by key {record['key_id']}, which is revoked here, so nothing would "
            "take it up: promote another version, or `tailrace keys trust` the key again"
        )


def rollouts(connection: Connection, codec: ControlCodec) -> Rollouts:
    """The rollouts as they stand."""
    fold = Rollouts()
    for message in read_all(connection, [lanes.ROLLOUTS]):
        fold.apply(codec.decode("Rollout", message.value()), message.offset())
    return fold


def _answer(
    answers: TopicReader, codec: ControlCodec, fold: Rollouts, asked: Mapping[str, Any], timeout_s: float
) -> Answer:
    """The step that came into force, the run that was planned, or the alert, that names the command."""
    command_id = asked["command_id"]
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        for message in answers.poll(0.2):
            if message.topic() == lanes.ROLLOUTS:
                step = codec.decode("Rollout", message.value())
                if fold.apply(step, message.offset()) and step["command_id"] == command_id:
                    return Answer(command_id, step=step)
            elif message.topic() == lanes.TRAINING_RUNS:
                run = codec.decode("TrainingRun", message.value())
                if any(trigger["id"] == command_id for trigger in run["triggers"]):
                    return Answer(command_id, run=run)
            else:
                alert = codec.decode("Alert", message.value())
                if alert["detail"].get("command_id") == command_id:
                    return Answer(command_id, refusal=alert["summary"])
    service = "trainer" if asked["command"] == RETRAIN else "rollout"
    raise TailraceError(
        f"the {service} did not answer within {timeout_s:.0f} s; the command {command_id} stands and will be carried "
        f"out when it comes back: see `tailrace status` and `tailrace logs {service}`"
    )
