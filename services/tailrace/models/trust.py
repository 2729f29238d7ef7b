"""Whose signatures count: the keys of a home.

``keys/signing.key`` is the home's own development key, made once and readable by its owner alone;
``keys/trusted/<key id>.pub`` are the public keys that are trusted here, PEM files. A key is trusted in the
homes that hold its file and nowhere else.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from tailrace.kit.errors import TailraceError, UsageError
from tailrace.models.errors import PackageRefused
from tailrace.models.sign import SigningKey, command_bytes, key_id, verifies

_KEY_ID = re.compile(r"[0-9a-f]{16}")


class TrustStore:
    """The public keys that are trusted; ``folder`` is ``<home>/keys``. Read anew at every question."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def public_key(self, wanted: str) -> Ed25519PublicKey | None:
        """The key of that id, or None where it is not trusted."""
        if not _KEY_ID.fullmatch(wanted):  # the id comes from a topic, and it becomes a file name
            return None
        try:
            pem = (self.folder / "trusted" / f"{wanted}.pub").read_bytes()
        except FileNotFoundError:
            return None
        try:
            public = load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm):
            return None
        if not isinstance(public, Ed25519PublicKey) or key_id(public) != wanted:
            return None
        return public

    def trust(self, public: Ed25519PublicKey) -> str:
        """Trusts a key in this home; returns its id."""
        wanted = key_id(public)
        folder = self.folder / "trusted"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{wanted}.pub"
        draft = _draft(folder, public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        draft.chmod(0o644)  # everybody may check a signature
        draft.replace(path)
        return wanted

    def check(self, what: str, key: str, signature: bytes, data: bytes) -> None:
        """Raises PackageRefused("signature", ...) unless a trusted key has signed the data."""
        public = self.public_key(key)
        if public is None:
            raise PackageRefused(
                "signature",
                f"{what} is signed by key {key or '(none)'}, not trusted here: put its public key into "
                f"{self.folder / 'trusted'} if it should be",
            )
        if not verifies(public, signature, data):
            raise PackageRefused("signature", f"the signature of {what} does not fit its bytes")

    def command_refusal(self, command: dict[str, Any]) -> str | None:
        """Why a command is not to be obeyed; None where a trusted key has signed it."""
        try:
            self.check(
                "the command",
                command.get("key_id") or "",
                command.get("signature") or b"",
                command_bytes(command),
            )
        except PackageRefused as refused:
            return refused.reason
        return None


def own_key(home: Path) -> SigningKey:
    """The home's key, where it has one: another one made on the spot would be trusted by no service.

    Raises:
        UsageError: it has none.
        TailraceError: the key file cannot be read or understood.
    """
    if not (home / "keys" / "signing.key").exists():
        raise UsageError(
            f"there is no signing key in {home / 'keys'}: run this in the folder in which `tailrace up` runs, or "
            "set TAILRACE_HOME to its .tailrace"
        )
    return signing_key(home)


def signing_key(home: Path) -> SigningKey:
    """The home's development key, made and trusted there at the first call.

    Raises:
        TailraceError: the key file cannot be read, written or understood.
    """
    folder = home / "keys"
    path = folder / "signing.key"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            _write_new(path)
        private = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise TailraceError(f"the signing key {path} cannot be used ({error}); fix or remove it") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise TailraceError(f"the signing key {path} is not an Ed25519 key; remove it to have a new one made")
    key = SigningKey(private)
    TrustStore(folder).trust(key.public)
    return key


def _write_new(path: Path) -> None:
    """Two processes may come here at once: whoever links first made the key, the other one uses it."""
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    draft = _draft(path.parent, pem)
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _draft(folder: Path, data: bytes) -> Path:
    """A file of no other name than its own, readable by its owner alone."""
    descriptor, name = tempfile.mkstemp(dir=folder)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    return Path(name)
