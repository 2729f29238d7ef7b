"""Whose signatures count: the keys of a home.

The public keys that are trusted here are PEM files: ``keys/trusted/<signer>/<key id>.pub`` for every model,
``keys/trusted/<signer>/<model>/<key id>.pub`` for one. A key is trusted for what its signer may sign, in the homes that
hold its file, and nowhere else. A key for which there is ``keys/revoked/<key id>.json`` counts for nothing more,
wherever else its file is; that file says up to where in the log its signatures count still, since what was decided
under a key stays decided, and ``keys/revoked`` holds, in the same way as ``trusted``, what it was trusted for.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from tailrace.access.home_identity import home_id
from tailrace.access.private_files import write_private
from tailrace.errors import TailraceError, UsageError
from tailrace.signing.errors import SignatureRefused
from tailrace.signing.keys import (
    KeyFile,
    SigningKey,
    key_id,
    key_path,
    replace_private_key,
    verifies,
    write_private_key_once,
    write_public_key,
)
from tailrace.signing.records import command_bytes
from tailrace.signing.signers import OWNER, PUBLISHER, SERVICES

_KEY_ID = re.compile(r"[0-9a-f]{16}")
_FOLDER = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
PEOPLE = (OWNER, PUBLISHER)
"""Who commands and publishes."""

Place = tuple[str, int]
"""Where in the log a signature stands: topic and offset. Control topics have one partition."""


class TrustedKey(NamedTuple):
    """A public key that a home knows. ``models`` None: trusted for every model; empty: for none."""

    key_id: str
    signers: tuple[str, ...]
    models: tuple[str, ...] | None
    revoked: bool


class TrustStore:
    """The public keys that are trusted; ``folder`` is ``<home>/keys``. Looked up anew at every question, so that what
    people change counts at once in whatever runs.

    ``past``: for whoever looks at what was and takes nothing up; keys that were trusted and are revoked count too.
    """

    def __init__(self, folder: Path, *, past: bool = False) -> None:
        self.folder, self._past = folder, past
        self._trusted, self._revoked = folder / "trusted", folder / "revoked"
        self._parsed: dict[str, tuple[tuple[int, int], Any]] = {}

    @property
    def home(self) -> str:
        """The id of the home that the keys are of."""
        home = self.folder.parent
        known: str | None = self._read(f"{home}/home.json", lambda _: home_id(home))
        return known or home_id(home)

    def public_key(
        self, wanted: str, model: str | None, signers: Iterable[str] = PEOPLE, at: Place | None = None
    ) -> Ed25519PublicKey | None:
        """The key of that id, or None where none of the signers is trusted with it for the model.

        Args:
            wanted: the key's id.
            model: None where what is signed is about no model.
            signers: any of them will do.
            at: where the signature stands: before the revocation of a key its signatures count.
        """
        if not _KEY_ID.fullmatch(wanted):
            return None  # the id comes from a topic, and it becomes a file name; as does the model
        folder = "trusted"
        if self.is_revoked(wanted):
            if not (self._past or self._came_before(wanted, at)):
                return None
            folder = "revoked"
        paths = (path for signer in signers for path in self._paths(folder, signer, wanted, model))
        return next((key for path in paths if (key := self._public(path, wanted)) is not None), None)

    def is_revoked(self, wanted: str) -> bool:
        return bool(_KEY_ID.fullmatch(wanted)) and os.path.exists(f"{self.folder}/revoked/{wanted}.json")

    def trust(self, public: Ed25519PublicKey, models: Sequence[str] = (), signer: str = OWNER) -> str:
        """Trusts a key in this home, for the models named or for all, also where it was revoked; returns its id."""
        wanted, folder = key_id(public), self._trusted / signer
        for place in [folder / model for model in models] or [folder]:
            write_public_key(place / f"{wanted}.pub", public)
        for path in [*self._revoked.rglob(f"{wanted}.pub"), self._revoked / f"{wanted}.json"]:
            path.unlink(missing_ok=True)
        return wanted

    def revoke(self, wanted: str, until: Mapping[str, int] | None = None) -> None:
        """What the key signs counts no more; what it has signed before these offsets, by topic, counts on.

        Raises:
            UsageError: the home does not know the key.
        """
        trusted = list(self._trusted.rglob(f"{wanted}.pub")) if _KEY_ID.fullmatch(wanted) else []
        if not trusted and not self.is_revoked(wanted):
            raise UsageError(f"no key {wanted!r} is trusted here: `tailrace keys list` says which are")
        for path in trusted:  # before it counts for nothing, it is known for what it counted
            write_private(self._revoked / path.relative_to(self._trusted), path.read_bytes())
        if until is not None or not (self._revoked / f"{wanted}.json").exists():
            write_private(self._revoked / f"{wanted}.json", json.dumps({"until": until or {}}).encode())
        for path in trusted:
            path.unlink(missing_ok=True)

    def known(self) -> list[TrustedKey]:
        """What the home knows, by id."""
        signers: dict[str, set[str]] = {}
        models: dict[str, set[str | None]] = {}
        revoked = {path.stem for path in self._revoked.glob("*.json")}
        for folder in (self._trusted, self._revoked):
            for path in folder.rglob("*.pub"):
                signer, *model = path.relative_to(folder).parts[:-1] or ("",)
                signers.setdefault(path.stem, set()).add(signer)
                if folder == self._trusted:
                    models.setdefault(path.stem, set()).add(model[0] if model else None)
        return [
            TrustedKey(k, tuple(sorted(by)), _models(models.get(k)), k in revoked)
            for k, by in sorted(signers.items())
        ]

    def check(
        self,
        what: str,
        model: str | None,
        key: str,
        signature: bytes,
        data: bytes,
        signers: Sequence[str] = PEOPLE,
        at: Place | None = None,
    ) -> None:
        """Raises SignatureRefused unless a key that is trusted for the model, as one of the signers, has signed it."""
        public = self.public_key(key, model, signers, at)
        if public is None:
            why = self._why_not(key, model, signers)
            raise SignatureRefused(f"{what} is signed by key {key or '(none)'}, {why}")
        if not verifies(public, signature, data):
            raise SignatureRefused(f"the signature of {what} does not fit its bytes")

    def command_refusal(self, command: Mapping[str, Any], at: Place | None = None) -> str | None:
        """Why a command is not to be obeyed; None where a trusted key has signed it, for this home."""
        key, signature = command.get("key_id") or "", command.get("signature") or b""
        try:
            signed = command_bytes(self.home, command)
            self.check("the command", command["model"], key, signature, signed, at=at)
        except SignatureRefused as refused:
            return str(refused)
        return None

    def _why_not(self, key: str, model: str | None, signers: Sequence[str]) -> str:
        option = "" if PUBLISHER in signers else f" --signer {signers[0]}"
        if not self.is_revoked(key):
            what = "" if PUBLISHER in signers else f" as {' or '.join(signers)}"
            what += "" if model is None else f" for {model}"
            return f"not trusted here{what}: `tailrace keys trust FILE.pub{option}` if it should be"
        kept = next(self._revoked.rglob(f"{key}.pub"), self._revoked)
        of_model = f" --model {model}" if len(kept.relative_to(self._revoked).parts) > 2 else ""
        return f"revoked here: `tailrace keys trust {kept}{of_model}{option}` if it should be"

    def _came_before(self, wanted: str, at: Place | None) -> bool:
        """Whether a signature stands where the key had not been revoked yet."""
        if at is None:
            return False
        until = self._read(f"{self.folder}/revoked/{wanted}.json", lambda data: json.loads(data)["until"])
        return until is not None and at[1] < until.get(at[0], 0)

    def _paths(self, folder: str, signer: str, wanted: str, model: str | None) -> Iterator[str]:
        """Where a key that is trusted as the signer may lie; text, since every record that is read asks."""
        base = f"{self.folder}/{folder}/{signer}"
        yield f"{base}/{wanted}.pub"
        if model is not None and _FOLDER.fullmatch(model):
            yield f"{base}/{model}/{wanted}.pub"

    def _public(self, path: str, wanted: str) -> Ed25519PublicKey | None:
        """The key that the file holds, where it is the one wanted."""
        public, its_id = self._read(path, _identified) or (None, None)
        return public if its_id == wanted else None

    def _read(self, path: str, parse: Callable[[bytes], Any]) -> Any:
        """What a file holds, parsed anew when it has changed; None where there is none, or it cannot be parsed."""
        try:
            stat = os.stat(path)
            as_of = stat.st_ino, stat.st_mtime_ns
            known = self._parsed.get(path)
            if known is None or known[0] != as_of:
                known = self._parsed[path] = as_of, parse(Path(path).read_bytes())
        except (FileNotFoundError, ValueError, KeyError, UnsupportedAlgorithm):
            return None
        return known[1]


def make_keys(home: Path) -> SigningKey:
    """Makes the keys of a home that are missing, the owner's and each service's, and trusts what is new; the owner's
    is returned.

    Raises:
        TailraceError: a key file cannot be read, written or understood, or another version of Tailrace made the home.
    """
    home_id(home)
    owners, *_ = [signing_key(home, signer) for signer in (OWNER, *SERVICES)]
    return owners


def own_key(home: Path, signer: str = OWNER) -> SigningKey:
    """A signer's key, where the home has one: another one made on the spot would be trusted by no service.

    Raises:
        UsageError: it has none.
        TailraceError: the key file cannot be read or understood.
    """
    if not key_path(home, signer).exists():
        raise UsageError(
            f"there is no signing key in {key_path(home, signer).parent}: run this in the folder in which `tailrace "
            "up` runs, or set TAILRACE_HOME to its .tailrace"
        )
    key = KeyFile(home, signer).key()
    if TrustStore(home / "keys").is_revoked(key.key_id):
        option = "" if signer == OWNER else f" --signer {signer}"
        raise UsageError(
            f"this home's signing key {key.key_id} is revoked here: `tailrace keys new{option}` makes another"
        )
    return key


def new_signing_key(home: Path, models: Sequence[str] = (), signer: str = OWNER) -> SigningKey:
    """Makes another key for a signer, which signs from now on, trusted for the models named or for all. The one before
    stays trusted until it is revoked.
    """
    key = SigningKey.generate()
    TrustStore(home / "keys").trust(key.public, models, signer)  # before anything is signed with it
    replace_private_key(key_path(home, signer), key)
    return key


def signing_key(home: Path, signer: str = OWNER) -> SigningKey:
    """A signer's key, made and trusted in the home at the first call.

    Raises:
        TailraceError: the key file cannot be read, written or understood.
    """
    path = key_path(home, signer)
    try:
        if not path.exists():
            write_private_key_once(path, SigningKey.generate())
    except OSError as error:
        raise TailraceError(f"the signing key {path} cannot be used ({error}); fix or remove it") from error
    key, store = KeyFile(home, signer).key(), TrustStore(home / "keys")
    if all(key.key_id != known.key_id for known in store.known()):
        store.trust(key.public, signer=signer)
    return key


def _identified(data: bytes) -> tuple[Ed25519PublicKey | None, str | None]:
    """The key of a PEM file and its id; None where it holds another kind."""
    public = load_pem_public_key(data)
    return (public, key_id(public)) if isinstance(public, Ed25519PublicKey) else (None, None)


def _models(models: set[str | None] | None) -> tuple[str, ...] | None:
    if models is None:
        return ()
    return None if None in models else tuple(sorted(model for model in models if model is not None))
