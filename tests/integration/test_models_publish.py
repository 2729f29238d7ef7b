"""Packages on a real broker: published in one transaction, fetched by offset, opened."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Producer
from tests.support import models

import tailrace
from tailrace.avro.registry import RegistryClient
from tailrace.connection import Connection
from tailrace.contracts.records import lanes
from tailrace.contracts.records.control_codec import ControlCodec
from tailrace.contracts.state.contracts import Contracts
from tailrace.contracts.state.fold_topics import contract_in_force
from tailrace.control.apply import apply, plan
from tailrace.control.commands import ask
from tailrace.control.publish import publish_package
from tailrace.control.versions import published_versions
from tailrace.errors import TailraceError, UsageError
from tailrace.models.errors import PackageRefused
from tailrace.models.package.fetch import KafkaChunks, PackageFetcher
from tailrace.models.package.open import Chunk, chunks_of, open_package
from tailrace.signing.trust import TrustStore, own_key
from tailrace.streaming.backends.kafka.reading import read_all
from tailrace.streaming.backends.kafka.topics import control_topics, ensure_topics
from tailrace.testing.signed_records import home_with_keys


@pytest.fixture(scope="module")
def where(stack: Connection, tmp_path_factory: pytest.TempPathFactory) -> Connection:
    ensure_topics(stack.kafka, control_topics())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAILRACE_LANE_PARTITIONS", "1")
        for model in ("publish-one", "publish-race"):
            file = tmp_path_factory.mktemp("contracts") / f"{model}.yaml"
            file.write_text(contract_text(model))
            apply(stack, plan([file], Contracts()), Contracts(), print)
    return stack


def contract_text(model: str) -> str:
    return models.CONTRACT.replace("model: credit", f"model: {model}").replace(
        "TARGET", models.TARGETS["binary"]
    )


def records(where: Connection, model: str) -> list[dict[str, Any]]:
    codec = ControlCodec(RegistryClient(where.registry, where.registry_auth))
    found = [codec.decode("ModelManifest", m.value()) for m in read_all(where, [lanes.MANIFESTS])]
    return [r for r in found if r["model"] == model]


def test_what_is_published_can_be_fetched_and_opened(where: Connection, tmp_path: Path) -> None:
    frame, truth = models.rows()
    own_key(home_with_keys(tmp_path))
    for kind in ("logistic", "boosting"):
        published = tailrace.publish(
            models.estimator(kind).fit(frame, truth),
            frame,
            truth,
            model="publish-one",
            connection=where,
            home=tmp_path,
        )
    assert published.version == 2
    first, second = records(where, "publish-one")
    assert (first["version"], second["version"]) == (1, 2)
    assert second["digest"] == published.digest

    reader = KafkaChunks(where)
    fetch = PackageFetcher(tmp_path / "cache", reader)
    trust = TrustStore(tmp_path / "keys")
    contract = contract_in_force(where, "publish-one")
    for record, kind in ((first, "logistic"), (second, "boosting")):
        model = open_package(record, fetch, trust, contract)
        predictions = model.predict(models.columns_of_frame(frame), len(frame))
        expected = models.estimator(kind).fit(frame, truth).predict_proba(frame)
        assert predictions.probabilities is not None
        assert np.abs(predictions.probabilities - expected).max() < 1e-12

    def no_topic(_chunks: object) -> list[bytes | None]:
        raise AssertionError("the cache has it")

    open_package(second, PackageFetcher(tmp_path / "cache", no_topic), trust, contract)
    with pytest.raises(PackageRefused, match="anti-rollback"):
        open_package(first, fetch, trust, contract, newer_than=2)
    with pytest.raises(PackageRefused, match="not trusted here"):
        open_package(first, fetch, TrustStore(tmp_path / "other" / "keys"), contract)

    past_the_end = [Chunk("model", n, 0, 10**9 + n, 1, "") for n in range(2)]
    assert reader(past_the_end) == [None, None]
    assert [v["state"] for v in published_versions(where, tmp_path, "publish-one")] == ["published"] * 2
    assert [v["trusted"] for v in published_versions(where, tmp_path, "publish-one")] == [True] * 2
    untrusted = published_versions(where, tmp_path / "other", "publish-one")[0]
    assert (untrusted["trusted"], untrusted["format"]) == (False, None)


def test_a_publisher_that_dies_halfway_leaves_nothing_to_read(where: Connection, tmp_path: Path) -> None:
    """Chunks of a transaction that never ended are not read, even where a manifest names them."""
    built = models.package("logistic")
    key = own_key(home_with_keys(tmp_path))
    published = publish_package(where, built, key, tmp_path)
    record = next(r for r in records(where, "credit") if r["version"] == published.version)
    last = max(c.offset for c in chunks_of(record))

    dying = Producer({**where.kafka, "transactional.id": "dying", "transaction.timeout.ms": 5000})
    dying.init_transactions(10)
    dying.begin_transaction()
    landed: list[int] = []
    dying.produce(
        lanes.CHUNKS, b"half", b"k", on_delivery=lambda _error, message: landed.append(message.offset())
    )
    dying.flush(10)
    dying.abort_transaction(10)
    assert landed[0] > last
    assert KafkaChunks(where)([Chunk("model", 0, 0, landed[0], 4, "")]) == [None]


def test_publishers_at_the_same_time_never_share_a_number(where: Connection, tmp_path: Path) -> None:
    built, key = models.package("logistic"), own_key(home_with_keys(tmp_path))
    before = len(records(where, "credit"))
    done: list[int] = []
    refused: list[str] = []

    def run() -> None:
        for _ in range(3):
            try:
                done.append(publish_package(where, built, key, tmp_path).version)
            except TailraceError as error:
                refused.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    versions = [r["version"] for r in records(where, "credit")]
    assert done, refused
    assert sorted(versions[before:]) == sorted(done)
    assert versions == list(range(1, before + len(done) + 1))
    assert all("nothing was published" in text for text in refused)
    assert len(done) + len(refused) == 9


def test_a_command_without_a_rollout_service_says_so(where: Connection, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no signing key"):
        ask(where, tmp_path, "promote", "publish-one", 1)
    own_key(home_with_keys(tmp_path))
    with pytest.raises(TailraceError, match="did not answer within 0 s"):
        ask(where, tmp_path, "promote", "publish-one", 1, timeout_s=0.3)
    codec = ControlCodec(RegistryClient(where.registry, where.registry_auth))
    *_, message = read_all(where, [lanes.COMMANDS])
    command = codec.decode("Command", message.value())
    assert (command["command"], command["version"], command["follows"]) == ("promote", 1, 0)
    trust = TrustStore(tmp_path / "keys")
    assert trust.command_refusal(command) is None
    assert trust.command_refusal({**command, "version": 2}) is not None
    assert trust.command_refusal({**command, "key_id": None, "signature": None}) is not None
