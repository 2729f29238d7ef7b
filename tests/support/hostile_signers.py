"""Who signs hostile control records: nobody, whoever may not, or, as if a key had been stolen, whoever may."""

from __future__ import annotations

import random
from collections.abc import Callable

from tailrace.contracts.state.kinds import KIND_OF_TOPIC, RecordKind
from tailrace.contracts.state.records import ControlRecords
from tailrace.errors import BadRecord
from tailrace.signing.records import HEADER
from tailrace.signing.signers import OWNER, SERVICES
from tailrace.streaming.records import Record

BySigner = Callable[[str], ControlRecords]
"""Writes as this signer."""
Revision = Callable[[str], int | None]


def _none(topic: str) -> None:
    return None


class Forger:
    """Signs records of the kinds whose signature is a header; all others stay as they are.

    Args:
        seed: the same seed signs the same records as the same signers.
        by: writes as a signer.
        stolen: whether by the keys of those who may sign such a record; else by those of others.
        revision: of a topic, the one in force, which a record has to follow; None where records follow nothing.
    """

    def __init__(self, seed: int, by: BySigner, *, stolen: bool = False, revision: Revision = _none) -> None:
        self._rng = random.Random(seed)
        self._by, self._stolen, self._revision = by, stolen, revision

    def signed(self, record: Record) -> Record:
        kind = KIND_OF_TOPIC.get(record.topic)
        if kind is None or kind.signature != "header" or record.value is None:
            return record
        rightful = self._rightful(kind, record.value)
        if self._stolen:
            return self._by_one_of(rightful, kind, self._following(kind, record))
        if self._rng.random() < 0.5:
            return record  # with the signature of the honest record that it was made of, or none
        others = [signer for signer in (OWNER, *SERVICES) if signer not in rightful]
        return self._by_one_of(others, kind, record)

    def _following(self, kind: RecordKind, record: Record) -> Record:
        """The record as the next step of its model or lane, where it can be one: else it would count for nothing."""
        revision = self._revision(record.topic)
        if revision is None or self._rng.random() < 0.3:
            return record
        codec = self._by(OWNER).codec
        try:
            step = codec.decode(kind.name, record.value) | {"follows": revision, "revision": revision + 1}
        except BadRecord:
            return record
        return record._replace(value=codec.encode(kind.name, step))

    def _rightful(self, kind: RecordKind, value: bytes) -> list[str]:
        """Whoever may sign it. An alert is signed by the service that it names."""
        if kind.name != "Alert":
            return list(kind.signers)
        try:
            service = self._by(OWNER).codec.decode(kind.name, value)["service"]
        except BadRecord:
            return list(SERVICES)
        return [service] if service in SERVICES else list(SERVICES)

    def _by_one_of(self, signers: list[str], kind: RecordKind, record: Record) -> Record:
        bare = [header for header in record.headers if header[0] != HEADER]
        return self._by(self._rng.choice(signers)).signed(kind.name, record._replace(headers=bare))
