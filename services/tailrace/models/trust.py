"""Whose signatures count: the keys of a home.

``keys/signing.key`` is the home's own key, made once and readable by its owner alone. The public keys that are trusted
here are PEM files: ``keys/trusted/<key id>.pub`` for every model, ``keys/trusted/<model>/<key id>.pub`` for one.
What lies in ``keys/revoked``, in the same way, counts for nothing more, wherever else it is. A key is trusted in the
homes that hold its file and nowhere else.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

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

from tailrace.contracts.names import MODEL_PATTERN
from tailrace.kit.errors import TailraceError, UsageError
from tailrace.models.errors import PackageRefused
from tailrace.models.sign import SigningKey, command_bytes, key_id, verifies

_KEY_ID = re.compile(r"[0-9a-f]{16}")


class TrustedKey(NamedTuple):
    """A public key that a home knows. ``models`` None: trusted for every model; empty: for none."""

    key_id: str
    models: tuple[str, ...] | None
    revoked: bool


class TrustStore:
    """The public keys that are trusted; ``folder`` is ``<home>/keys``. Read anew at every question, so that what people
    change counts at once in whatever runs.

    ``past``: for whoever looks at what was and takes nothing up; keys that were trusted and are revoked count too.
    """

    def __init__(self, folder: Path, *, past: bool = False) -> None:
        self.folder = folder
        self._past = past

    def public_key(self, wanted: str, model: str) -> Ed25519PublicKey | None:
        """The key of that id, or None where it is not trusted for the model."""
        if not _KEY_ID.fullmatch(wanted):
            return None  # the id comes from a topic, and it becomes a file name; as does the model
        folder, name = self._trusted, f"{wanted}.pub"
        if self.is_revoked(wanted):
            if not self._past:
                return None
            folder = self._revoked
        found = _public(folder / name, wanted)
        if found is None and re.fullmatch(MODEL_PATTERN, model):
            found = _public(folder / model / name, wanted)
        return found

    def is_revoked(self, wanted: str) -> bool:
        return _KEY_ID.fullmatch(wanted) is not None and any(self._revoked.rglob(f"{wanted}.pub"))

    def trust(self, public: Ed25519PublicKey, models: Sequence[str] = ()) -> str:
        """Trusts a key in this home, for the models named or for all, also where it was revoked; returns its id."""
        wanted = key_id(public)
        for folder in [self._trusted / model for model in models] or [self._trusted]:
            _write_public(folder / f"{wanted}.pub", public)
        for path in self._revoked.rglob(f"{wanted}.pub"):
            path.unlink(missing_ok=True)
        return wanted

    def revoke(self, wanted: str) -> None:
        """What the key has signed counts no more.

        Raises:
            UsageError: the home does not know the key.
        """
        trusted = list(self._trusted.rglob(f"{wanted}.pub")) if _KEY_ID.fullmatch(wanted) else []
        if not trusted and not self.is_revoked(wanted):
            raise UsageError(f"no key {wanted!r} is trusted here: `tailrace keys list` says which are")
        for path in trusted:  # from the first on it counts for nothing
            _write_file(self._revoked / path.relative_to(self._trusted), path.read_bytes())
        for path in trusted:
            path.unlink(missing_ok=True)

    def known(self) -> list[TrustedKey]:
        """What the home knows, by id."""
        everywhere = {path.stem for path in self._trusted.glob("*.pub")}
        models: dict[str, list[str]] = {}
        for path in sorted(self._trusted.glob("*/*.pub")):
            models.setdefault(path.stem, []).append(path.parent.name)
        revoked = {path.stem for path in self._revoked.rglob("*.pub")}
        return [
            TrustedKey(
                found,
                None if found in everywhere else tuple(models.get(found, ())),
                found in revoked,
            )
            for found in sorted(everywhere | models.keys() | revoked)
        ]

    @property
    def _trusted(self) -> Path:
        return self.folder / "trusted"

    @property
    def _revoked(self) -> Path:
        return self.folder / "revoked"

    def check(self, what: str, model: str, key: str, signature: bytes, data: bytes) -> None:
        """Raises PackageRefused("signature", ...) unless a key that is trusted for the model has signed the data."""
        public = self.public_key(key, model)
        if public is None:
            why, file = f"not trusted here for {model}", "FILE.pub"
            if self.is_revoked(key):
                why, kept = "revoked here", next(self._revoked.rglob(f"{key}.pub"), self._revoked)
                file = str(kept) if kept.parent == self._revoked else f"{kept} --model {model}"
            raise PackageRefused(
                "signature",
                f"{what} is signed by key {key or '(none)'}, {why}: `tailrace keys trust {file}` if it should be",
            )
        if not verifies(public, signature, data):
            raise PackageRefused("signature", f"the signature of {what} does not fit its bytes")

    def command_refusal(self, command: dict[str, Any]) -> str | None:
        """Why a command is not to be obeyed; None where a trusted key has signed it."""
        try:
            self.check(
                "the command",
                command["model"],
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
    key = signing_key(home)
    if TrustStore(home / "keys").is_revoked(key.key_id):
        raise UsageError(
            f"this home's signing key {key.key_id} is revoked here: `tailrace keys new` makes another"
        )
    return key


def new_signing_key(home: Path, models: Sequence[str] = ()) -> SigningKey:
    """Makes another key for the home, which signs from now on, trusted for the models named or for all. The one before
    stays trusted until it is revoked.
    """
    folder = home / "keys"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    private = Ed25519PrivateKey.generate()
    key = SigningKey(private)
    TrustStore(folder).trust(key.public, models)  # before anything is signed with it
    _draft(folder, _pem(private)).replace(folder / "signing.key")
    return key


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
    key, store = SigningKey(private), TrustStore(folder)
    if all(key.key_id != known.key_id for known in store.known()):
        store.trust(key.public)
    return key


def _write_new(path: Path) -> None:
    """Two processes may come here at once: whoever links first made the key, the other one uses it."""
    draft = _draft(path.parent, _pem(Ed25519PrivateKey.generate()))
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _pem(private: Ed25519PrivateKey) -> bytes:
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _public(path: Path, wanted: str) -> Ed25519PublicKey | None:
    """The key that the file holds, where it is the one wanted."""
    try:
        public = load_pem_public_key(path.read_bytes())
    except (FileNotFoundError, ValueError, UnsupportedAlgorithm):
        return None
    return public if isinstance(public, Ed25519PublicKey) and key_id(public) == wanted else None


def _write_public(path: Path, public: Ed25519PublicKey) -> None:
    _write_file(path, public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def _write_file(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _draft(path.parent, data).replace(path)


def _draft(folder: Path, data: bytes) -> Path:
    """A file of no other name than its own, readable by its owner alone."""
    descriptor, name = tempfile.mkstemp(dir=folder)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    return Path(name)
