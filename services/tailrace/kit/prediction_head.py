"""The first fields of a prediction, read without decoding the rest.

A prediction's head says whose answer it is, to what, and under which contract. It stands before everything that
depends on the contract, so that all models' predictions have it alike.
"""

from __future__ import annotations

from typing import NamedTuple

from tailrace.kit.avro_bytes import read_long, read_sized
from tailrace.kit.codec import HEADER
from tailrace.kit.errors import BadRecord

HEAD_FIELDS = (
    "prediction_id",
    "request_id",
    "key",
    "event_time",
    "source",
    "model",
    "version",
    "artifact_digest",
    "contract_digest",
    "rollout_revision",
    "runtime",
    "role",
)
"""The fields of the prediction schema that are read here, its first ones, in order."""


class Answerer(NamedTuple):
    """Who answered: the part of the head that many predictions in a row have in common."""

    model: str
    version: int
    artifact_digest: str
    contract_digest: str
    rollout_revision: int
    role: str


class Head(NamedTuple):
    """Text as UTF-8 bytes; ``event_time`` in milliseconds; the source is the request's coordinates."""

    prediction_id: bytes
    request_id: bytes
    key: bytes
    event_time: int
    topic: bytes
    partition: int
    offset: int
    answerer: Answerer


class HeadReader:
    """Reads heads; what was common to the last ones is compared instead of read again."""

    def __init__(self) -> None:
        self._last: tuple[bytes, Answerer] = (b"\xff", Answerer("", 0, "", "", 0, ""))
        self._known: dict[bytes, Answerer] = {}

    def read(self, value: bytes) -> Head:
        """The head of a prediction in wire format.

        Raises:
            BadRecord: ``truncated``, ``corrupt``.
        """
        try:
            prediction_id, at = read_sized(value, HEADER.size)
            request_id, at = read_sized(value, at)
            key, at = read_sized(value, at)
            event_time, at = read_long(value, at)
            topic, at = read_sized(value, at)
            partition, at = read_long(value, at)
            offset, at = read_long(value, at)
            common, answerer = self._last
            if not value.startswith(common, at):
                answerer = self._answerer(value, at)
            return Head(prediction_id, request_id, key, event_time, topic, partition, offset, answerer)
        except IndexError as error:
            raise BadRecord("truncated", "the prediction ends within its first fields") from error
        except UnicodeDecodeError as error:
            raise BadRecord("corrupt", f"the prediction's first fields are not text: {error}") from error

    def _answerer(self, value: bytes, begin: int) -> Answerer:
        model, at = read_sized(value, begin)
        version, at = read_long(value, at)
        artifact, at = read_sized(value, at)
        contract, at = read_sized(value, at)
        revision, at = read_long(value, at)
        at = _skip_map_of_text(value, at)
        role, at = read_sized(value, at)
        common = value[begin:at]
        answerer = self._known.get(common)
        if answerer is None:
            texts = (model.decode(), artifact.decode(), contract.decode(), role.decode())
            answerer = Answerer(texts[0], version, texts[1], texts[2], revision, texts[3])
            if len(self._known) > 1_000:
                self._known.clear()
            self._known[common] = answerer
        self._last = common, answerer
        return answerer


def _skip_map_of_text(data: bytes, at: int) -> int:
    while True:
        count, at = read_long(data, at)
        if count == 0:
            return at
        if count < 0:  # a block that says how long it is
            count = -count
            _, at = read_long(data, at)
        if count > len(data):
            raise IndexError("more entries than bytes")
        for _ in range(2 * count):
            _, at = read_sized(data, at)
