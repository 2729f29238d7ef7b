"""Control records as they are read and written: typed, signed, and nothing else counts."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tailrace.access.home_identity import home_id
from tailrace.avro.registry import Registry, RegistryClient
from tailrace.connection import Connection, home_dir
from tailrace.contracts.records.control_codec import CONTROL_NAMES, ControlCodec
from tailrace.contracts.state.checks import RecordRefused, check_model
from tailrace.contracts.state.kinds import KIND_OF_TOPIC, KINDS, RecordKind, signers_of
from tailrace.errors import BadRecord
from tailrace.signing.errors import SignatureRefused
from tailrace.signing.keys import KeyFile, SigningKey
from tailrace.signing.records import Signature, record_bytes, sign_record
from tailrace.signing.trust import Place, TrustStore
from tailrace.streaming.records import Headers, Message, Record, RecordRef

log = logging.getLogger(__name__)

_MAX_REPORTED = 10_000
_EACH = 3


class Trust(Protocol):
    """Whose signatures count; see `TrustStore`."""

    def check(
        self,
        what: str,
        model: str | None,
        key: str,
        signature: bytes,
        data: bytes,
        signers: tuple[str, ...],
        at: Place | None,
    ) -> None: ...


class Signer(Protocol):
    """A private key; see `KeyFile`."""

    def key(self) -> SigningKey: ...


class ReadControlRecord(NamedTuple):
    """What a message of a control topic comes to: a record, or why it counts for nothing; neither for a tombstone."""

    record: dict[str, Any] | None = None
    refusal: str | None = None


class ControlRecords:
    """Reads and writes the records of control topics.

    Args:
        registry: where schemas are.
        home: the id of the home that records are signed for.
        trust: whose signatures count.
        signer: what is written is signed with its key; None for whoever only reads.
    """

    def __init__(self, registry: Registry, home: str, trust: Trust, signer: Signer | None = None) -> None:
        self.codec = ControlCodec(registry)
        self.registry = registry
        self.home = home
        self._trust, self._signer = trust, signer
        self._reported: OrderedDict[RecordRef, None] = OrderedDict()
        self._refused: Counter[str] = Counter()

    @classmethod
    def of_home(cls, registry: Registry, home: Path, signer: str | None = None) -> ControlRecords:
        """By the keys of a home; ``signer`` is whose key signs what is written.

        Raises:
            TailraceError: the signer has no key that can be read, or another version of Tailrace made the home.
        """
        keys = None if signer is None else KeyFile(home, signer)
        if keys is not None:
            keys.key()  # whoever could not sign is to know before anything is to be signed
        return cls(registry, home_id(home), TrustStore(home / "keys"), keys)

    @classmethod
    def of(cls, connection: Connection, signer: str | None = None) -> ControlRecords:
        """By the keys of the home that the connection is of."""
        registry = RegistryClient(connection.registry, connection.registry_auth)
        return cls.of_home(registry, connection.home or home_dir(), signer)

    # Reading ---

    def read(self, message: Message) -> Any:
        """The record of a message; None for a tombstone, and for what counts for nothing, which the log reports once.

        Raises:
            Unavailable: the registry is away.
        """
        record, refusal = self.judge(message)
        if refusal is not None:
            self._report(RecordRef.of(message), refusal)
        return record

    def judge(self, message: Message) -> ReadControlRecord:
        """As `read`, with the reason and without a word in the log."""
        topic, value = message.topic(), message.value()
        if value is None:
            return ReadControlRecord()
        if topic not in CONTROL_NAMES:
            return ReadControlRecord(refusal="no control record belongs on this topic")
        try:
            record = self.codec.decode(CONTROL_NAMES[topic], value)
            check_model(record)
            kind = KIND_OF_TOPIC.get(topic)
            if kind is not None and kind.check is not None:
                kind.check(record)
            if kind is not None and kind.signature == "header":
                self._verify(kind, message, record)
        except (BadRecord, RecordRefused, SignatureRefused) as refused:
            return ReadControlRecord(refusal=str(refused))
        return ReadControlRecord(record)

    def _verify(self, kind: RecordKind, message: Message, record: Mapping[str, Any]) -> None:
        topic, key, value = message.topic(), message.key(), message.value()
        signature = Signature.of(message.headers())
        if signature is None:
            raise SignatureRefused("it is not signed")
        self._trust.check(
            "it",
            record.get("model"),
            signature.key_id,
            signature.signature,
            record_bytes(kind.name, self.home, topic, key, value),
            signers_of(kind, record),
            (topic, message.offset()),
        )

    def _report(self, source: RecordRef, refusal: str) -> None:
        """The first few of a topic, then the 16th, the 32nd and so on: a flood of them is to hide nothing else."""
        if source in self._reported:
            return
        self._reported[source] = None
        if len(self._reported) > _MAX_REPORTED:
            self._reported.popitem(last=False)
        number = self._refused[source.topic] = self._refused[source.topic] + 1
        if number <= _EACH or number & (number - 1) == 0:
            which = "" if number <= _EACH else f" (number {number} of its topic)"
            where = {"at": str(source), "why": refusal}
            log.warning("%s counts for nothing%s: %s", source, which, refusal, extra=where)

    # Writing ---

    def record(
        self, name: str, record: Mapping[str, Any], headers: Headers = (), key: str | None = None
    ) -> Record:
        """The record as `ControlCodec.record` makes it, signed where it decides."""
        return self.signed(name, self.codec.record(name, record, headers, key))

    def signed(self, name: str, record: Record) -> Record:
        """A record of the schema called so with its signature, which names topic, key and value."""
        kind = KINDS.get(name)
        if kind is None or kind.signature != "header":
            return record
        if self._signer is None:
            raise TypeError("whoever only reads has no key to sign with")
        topic, value, key, headers, _ = record
        signature = sign_record(name, self.home, topic, key, value, self._signer.key())
        return record._replace(headers=[*headers, signature.to_header()])
