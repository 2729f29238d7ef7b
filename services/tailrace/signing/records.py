"""Signatures over records: in a header of the record, or in fields of its own (commands, manifests).

What is signed names the home, so that a copy in another home counts for nothing; a record's signature names its kind,
topic and key too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tailrace.signing.canonical import canonical_json, framed
from tailrace.signing.keys import SigningKey

HEADER = "tailrace-signature"
"""The header of a signed record: ``<key id>:<signature>``, both in lower-case hex."""

_FORM = re.compile(rb"([0-9a-f]{16}):([0-9a-f]{128})")


class Signature(NamedTuple):
    key_id: str
    signature: bytes

    @classmethod
    def of(cls, headers: Sequence[tuple[str, bytes | None]] | None) -> Signature | None:
        """The signature among a record's headers; None where there is none, or not exactly one in its one form."""
        values = [value for name, value in headers or () if name == HEADER]
        form = _FORM.fullmatch(values[0] or b"") if len(values) == 1 else None
        return None if form is None else cls(form[1].decode(), bytes.fromhex(form[2].decode()))

    def to_header(self) -> tuple[str, bytes]:
        return HEADER, f"{self.key_id}:{self.signature.hex()}".encode()


def record_bytes(kind: str, home: str, topic: str, key: bytes | None, value: bytes | None) -> bytes:
    """What the signature of a record of this kind is over, in the home with this id."""
    return framed("tailrace-record", kind.encode(), home.encode(), topic.encode(), key, value)


def sign_record(
    kind: str, home: str, topic: str, key: bytes | None, value: bytes | None, by: SigningKey
) -> Signature:
    return Signature(by.key_id, by.sign(record_bytes(kind, home, topic, key, value)))


def manifest_bytes(home: str, manifest: bytes) -> bytes:
    """What the signature of a package's manifest is over."""
    return framed("tailrace-manifest", home.encode(), manifest)


def command_bytes(home: str, command: Mapping[str, Any]) -> bytes:
    """What a command's signature is over: canonical JSON of the command without its signature, and without arms where
    it names none.
    """
    unsigned = {"signature"} if command.get("arms") else {"signature", "arms"}
    fields = {name: value for name, value in command.items() if name not in unsigned}
    return framed("tailrace-command", home.encode(), canonical_json(fields))


def sign_command(home: str, command: Mapping[str, Any], key: SigningKey) -> dict[str, Any]:
    """The command with key id and signature."""
    signed = {**command, "key_id": key.key_id}
    return {**signed, "signature": key.sign(command_bytes(home, signed))}
