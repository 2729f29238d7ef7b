"""Ed25519 keys (RFC 8032), and the files that they are kept in.

``<home>/keys/signing.key`` is the owner's, the home's root: no long-running service reads it. A service's own is
``<home>/keys/<signer>/signing.key``. All are PEM files that their owner alone can read.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from tailrace.access.private_files import write_private, write_private_once
from tailrace.errors import TailraceError, UsageError
from tailrace.signing.signers import OWNER


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


class KeyFile:
    """A signer's private key in a home; read anew when the file has changed, so that a new key counts at once."""

    def __init__(self, home: Path, signer: str) -> None:
        self.path, self._signer = key_path(home, signer), signer
        self._key: SigningKey | None = None
        self._stat: tuple[int, int] | None = None

    def key(self) -> SigningKey:
        """The key of now.

        Raises:
            UsageError: there is none.
            TailraceError: it cannot be read or understood.
        """
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            raise UsageError(
                f"there is no signing key {self.path}: `tailrace run init` makes the keys of a home, "
                f"`tailrace keys new --signer {self._signer}` this one"
            ) from None
        stat = status.st_ino, status.st_mtime_ns
        if self._key is None or stat != self._stat:
            self._key, self._stat = read_private_key(self.path), stat
        return self._key


def key_path(home: Path, signer: str) -> Path:
    """Where the private key of a signer is."""
    folder = home / "keys"
    return (folder if signer == OWNER else folder / signer) / "signing.key"


def key_id(public: Ed25519PublicKey) -> str:
    """The first 16 hex digits of the SHA-256 of the public key's 32 bytes."""
    return hashlib.sha256(public.public_bytes_raw()).hexdigest()[:16]


def verifies(public: Ed25519PublicKey, signature: bytes, data: bytes) -> bool:
    try:
        public.verify(signature, data)
    except InvalidSignature:
        return False
    return True


def read_private_key(path: Path) -> SigningKey:
    """The key of a PEM file.

    Raises:
        TailraceError: it cannot be read or understood.
    """
    try:
        private = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise TailraceError(f"the signing key {path} cannot be used ({error}); fix or remove it") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise TailraceError(f"the signing key {path} is not an Ed25519 key; remove it to have a new one made")
    return SigningKey(private)


def read_public_key(path: Path) -> Ed25519PublicKey:
    """The Ed25519 public key of a PEM file.

    Raises:
        UsageError: it holds none.
    """
    data = path.read_bytes()
    try:
        public = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        public = None
    if not isinstance(public, Ed25519PublicKey):
        private = b"PRIVATE KEY" in data
        raise UsageError(
            f"{path} is not the PEM file of an Ed25519 public key"
            + (": it holds a private key, which nobody but its owner should have" if private else "")
            + "; <home>/keys/trusted has those of the home that signs"
        )
    return public


def replace_private_key(path: Path, key: SigningKey) -> None:
    """Writes the key over whatever was there."""
    write_private(path, _pem(key))


def write_private_key_once(path: Path, key: SigningKey) -> None:
    """Of two processes that come here at once, the first one's key is kept."""
    write_private_once(path, _pem(key))


def write_public_key(path: Path, public: Ed25519PublicKey) -> None:
    write_private(path, public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def _pem(key: SigningKey) -> bytes:
    private = Ed25519PrivateKey.from_private_bytes(key.private_bytes())
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
