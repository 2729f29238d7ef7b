"""Control records signed by keys in memory: a home that needs no folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tailrace.access.home_identity import FORMAT
from tailrace.access.private_files import write_private_once
from tailrace.avro.registry import Registry
from tailrace.connection import Connection
from tailrace.contracts.records.control_codec import CONTROL_RECORDS
from tailrace.contracts.state.kinds import KINDS
from tailrace.contracts.state.records import ControlRecords
from tailrace.signing.errors import SignatureRefused
from tailrace.signing.keys import SigningKey, key_path, verifies, write_private_key_once
from tailrace.signing.signers import OWNER, SERVICES, SIGNERS
from tailrace.signing.trust import Place, TrustStore, make_keys
from tailrace.streaming.records import Headers, PlainMessage, Record

HOME = "0123456789abcdef0123456789abcdef"
# The same in every process, so that what one test home has signed counts in another.
_KEYS = {
    signer: SigningKey(Ed25519PrivateKey.from_private_bytes(hashlib.sha256(signer.encode()).digest()))
    for signer in SIGNERS
}


class MemoryKey:
    def __init__(self, signer: str) -> None:
        self._key = _KEYS[signer]

    def key(self) -> SigningKey:
        return self._key


class MemoryTrust:
    """Trusts the keys in memory, each as its signer."""

    def check(
        self,
        what: str,
        model: str | None,
        key: str,
        signature: bytes,
        data: bytes,
        signers: Sequence[str],
        at: Place | None,
    ) -> None:
        known = [_KEYS[signer] for signer in signers if _KEYS[signer].key_id == key]
        if not known:
            raise SignatureRefused(
                f"{what} is signed by key {key}, not trusted here as {' or '.join(signers)}"
            )
        if not verifies(known[0].public, signature, data):
            raise SignatureRefused(f"the signature of {what} does not fit its bytes")


def records(registry: Registry, signer: str = "owner", home: str = HOME) -> ControlRecords:
    """Reads what any signer of the home has signed, and writes as this one."""
    return ControlRecords(registry, home, MemoryTrust(), MemoryKey(signer))


class Control:
    """Writes control records as whoever signs such a record, and reads them whoever has."""

    def __init__(self, registry: Registry) -> None:
        self._registry, self._by = registry, {name: records(registry, name) for name in SIGNERS}
        self.codec = self._by["owner"].codec

    def by(self, signer: str) -> ControlRecords:
        """For a service of this name, which knows no schema yet."""
        return records(self._registry, signer)

    def encode(self, name: str, record: Mapping[str, Any]) -> bytes:
        return self.codec.encode(name, record)

    def decode(self, name: str, value: bytes | None) -> Any:
        return self.codec.decode(name, value)

    def record(self, name: str, record: Mapping[str, Any], key: bytes | None = None) -> Record:
        """The record as it is produced to its topic, under its model's name or this key, with its signature."""
        topic = KINDS[name].topic
        key = str(record["model"]).encode() if key is None else key
        return self.signed(name, Record(topic, self.encode(name, record), key), record.get("service"))

    def signed(self, name: str, record: Record, service: str | None = None) -> Record:
        return self._by[service or KINDS[name].signers[0]].signed(name, record)

    def headers(self, name: str, value: bytes, key: bytes | None, service: str | None = None) -> Headers:
        return self.signed(name, Record(KINDS[name].topic, value, key), service).headers


def make_home(home: Path) -> Path:
    """A home with the id that the keys in memory sign for."""
    home.mkdir(parents=True, exist_ok=True)
    write_private_once(home / "home.json", json.dumps({"format": FORMAT, "id": HOME}))
    return home


def message_of(record: Record, offset: int = 0) -> PlainMessage:
    return PlainMessage(record.topic, 0, offset, record.value, record.key, record.headers)


def signed_at(
    connection: Connection, name: str, record: Mapping[str, Any], key: bytes | None = None
) -> Record:
    """A control record as its service in the connection's home would write it, whose keys are made where missing."""
    assert connection.home is not None
    make_keys(connection.home)
    kind = KINDS.get(name)
    signer = None if kind is None else record.get("service") or kind.signers[0]
    by = ControlRecords.of(connection, signer)
    made = Record(CONTROL_RECORDS[name], by.codec.encode(name, record), key or str(record["model"]).encode())
    return by.signed(name, made)


def home_with_keys(home: Path) -> Path:
    """A home of that id whose keys are those in memory: for services that run as processes."""
    make_home(home)
    for signer in (OWNER, *SERVICES):
        write_private_key_once(key_path(home, signer), _KEYS[signer])
    make_keys(home)
    trust = TrustStore(home / "keys")
    for signer, key in _KEYS.items():
        trust.trust(key.public, signer=signer)
    return home
