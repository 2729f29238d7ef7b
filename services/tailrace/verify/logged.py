"""Predictions as they were logged: those of a stretch of time, or one by its id. And what they were made of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from tailrace.access.own_folders import packages_folder
from tailrace.avro.codec import Codec
from tailrace.avro.registry import RegistryClient
from tailrace.connection import Connection
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records import lanes
from tailrace.contracts.records.lanes import Lane
from tailrace.contracts.records.record_types import ModelManifestRecord
from tailrace.contracts.state.contracts import Contracts
from tailrace.contracts.state.fold import ControlState
from tailrace.contracts.state.records import ControlRecords
from tailrace.errors import BadRecord, UsageError
from tailrace.models.formats.load import LoadedModel
from tailrace.models.package.fetch import KafkaChunks, PackageFetcher
from tailrace.models.package.open import open_package
from tailrace.scorer.versions import OpenVersion
from tailrace.signing.signers import OWNER
from tailrace.signing.trust import TrustStore
from tailrace.streaming.backends.kafka.reading import read_at
from tailrace.streaming.records import Message, RecordRef, TopicPartition
from tailrace.streaming.watermark_records import watermark_time
from tailrace.verify.log import Log, OffsetRange
from tailrace.verify.prediction_header import PredictionHeader, PredictionHeaders


class Span(NamedTuple):
    """When predictions were appended, in ms since 1970: from ``since`` to before ``until``; None: however long ago, or
    up to now."""

    since: int | None = None
    until: int | None = None


ALWAYS = Span()


class Logged(NamedTuple):
    """A prediction and the beginning of its event (see verify/prediction_header.py)."""

    message: Message
    header: PredictionHeader


class LoggedPredictions:
    """The predictions and shadow predictions of one model that are retained, or of all models, until it is closed.

    Raises:
        UsageError: no contract of this model was ever applied.
        Unavailable: Kafka or the registry does not answer.
    """

    def __init__(self, connection: Connection, model: str | None = None) -> None:
        self._log = Log(connection)
        self.registry = RegistryClient(connection.registry, connection.registry_auth)
        self._headers = PredictionHeaders(Codec(self.registry))
        self._model = model
        topics = (lanes.CONTRACTS, lanes.MANIFESTS, lanes.ROLLOUTS)
        self.control = list(self._log.read(self._log.retained(topics)))
        """The messages of the contracts, manifests and rollouts topics, each topic in order."""
        self.records = ControlRecords.of(connection)
        """Reads control records."""
        self.contracts = Contracts()
        ControlState(self.records, self.contracts).take(self.control)
        known = {applied.model: applied.contract.lane for applied in self.contracts.by_digest.values()}
        if model is not None and model not in known:
            models = ", ".join(sorted(known)) or "none yet"
            raise UsageError(f"no contract of a model {model!r} is applied (known: {models})")
        self._lanes = sorted({lane for name, lane in known.items() if model in (None, name)})

    def close(self) -> None:
        self._log.close()

    def read(self, span: Span = ALWAYS, containing: bytes = b"") -> Iterator[Logged]:
        """Those of a stretch of time, each partition in order; what cannot be read as a prediction is left out.

        Args:
            span: when they were appended.
            containing: only events with these bytes somewhere, which is cheaper to tell than to decode.
        """
        topics = [t for lane in map(Lane, self._lanes) for t in (lane.predictions, lane.shadow_predictions)]
        for message in self._log.read(self._within(topics, span)):
            if watermark_time(message) is not None or containing not in (message.value() or b""):
                continue
            try:
                header = self._headers.read(message.value())
            except BadRecord:
                continue
            if self._model in (None, header["model"]):
                yield Logged(message, header)

    def by_id(self, name: str, span: Span = ALWAYS) -> list[Logged]:
        """Those with this prediction id, or of the request with this id.

        Raises:
            UsageError: there is none.
        """
        containing = self.read(span, name.encode())
        events = [e for e in containing if name in (e.header["prediction_id"], e.header["request_id"])]
        if not events:
            raise UsageError(
                f"no prediction with the id {name!r}, nor of a request with it, is retained"
                + ("" if span == ALWAYS else " of that time")
                + ": `tailrace tail LANE.predictions` shows ids"
            )
        return events

    def _within(self, topics: Collection[str], span: Span) -> dict[TopicPartition, OffsetRange]:
        ranges = self._log.retained(topics)
        first = {} if span.since is None else self._log.offsets_at(span.since, ranges)
        last = {} if span.until is None else self._log.offsets_at(span.until, ranges)
        return {
            p: OffsetRange(_least(first.get(p, r.low), r.end), _least(last.get(p, r.end), r.end))
            for p, r in ranges.items()
        }


def _least(offset: int | None, end: int) -> int:
    return end if offset is None else min(offset, end)


def packages(connection: Connection, home: Path, revoked: set[str] | None = None) -> OpenVersion:
    """Opens packages by every check, against the keys that the home trusts, or did when they were taken up. Adds to
    ``revoked`` whose key is revoked by now.
    """
    fetch = PackageFetcher(packages_folder(home, OWNER), KafkaChunks(connection))
    trust = TrustStore(home / "keys", past=True)

    def opened(record: ModelManifestRecord, contract: ModelContract) -> LoadedModel:
        model = open_package(record, fetch, trust, contract)
        if revoked is not None and trust.is_revoked(record["key_id"]):
            revoked.add(f"{record['model']} version {record['version']} (key {record['key_id']})")
        return model

    return opened


def messages_at(connection: Connection, sources: Collection[RecordRef]) -> dict[RecordRef, Message]:
    """The messages at these coordinates; without those that are no longer there."""
    places: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for topic, *place in sources:
        places[topic].add((place[0], place[1]))
    return {
        RecordRef(topic, *place): message
        for topic, wanted in places.items()
        for place, message in read_at(connection, topic, wanted).items()
    }
