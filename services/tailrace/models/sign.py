"""Ed25519 signatures (RFC 8032) over manifests and commands."""

from __future__ import annotations

import hashlib
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tailrace.models.manifest import canonical_json


class SigningKey:
    """A private key, and the id under which its public key is trusted."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = private.public_key()
        self.key_id = key_id(self.public)

    @classmethod
    def generate(cls) -> SigningKey:
        return cls(Ed25519PrivateKey.generate())

    def sign(self, data: bytes) -> bytes:
        return self._private.sign(data)

    def private_bytes(self) -> bytes:
        """The 32 bytes of the private key."""
        return self._private.private_bytes_raw()


def key_id(public: Ed25519PublicKey) -> str:
    """The first 16 hex digits of the SHA-256 of the public key's 32 bytes."""
    return hashlib.sha256(public.public_bytes_raw()).hexdigest()[:16]


def verifies(public: Ed25519PublicKey, signature: bytes, data: bytes) -> bool:
    try:
        public.verify(signature, data)
    except InvalidSignature:
        return False
    return True


def command_bytes(command: dict[str, Any]) -> bytes:
    """What a command's signature is over: canonical JSON of the command without its signature, and without arms where
    it names none, as it was before there were any.
    """
    unsaid = {"signature"} if command.get("arms") else {"signature", "arms"}
    return canonical_json({k: v for k, v in command.items() if k not in unsaid})


def sign_command(command: dict[str, Any], key: SigningKey) -> dict[str, Any]:
    """The command with key id and signature."""
    signed = {**command, "key_id": key.key_id}
    return {**signed, "signature": key.sign(command_bytes(signed))}
