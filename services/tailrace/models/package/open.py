"""Opens a package: every check in its order, so that nothing is parsed before it is known whose it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records.record_types import ModelManifestRecord
from tailrace.contracts.state.kinds import KINDS
from tailrace.models.errors import PackageRefused
from tailrace.models.formats.load import LoadedModel, load_model
from tailrace.models.manifest import Manifest, sha256
from tailrace.models.package.contract_fit import misfits
from tailrace.models.package.golden import check_golden
from tailrace.models.reference import Reference
from tailrace.signing.errors import SignatureRefused
from tailrace.signing.records import manifest_bytes
from tailrace.signing.trust import TrustStore

MANIFEST_BYTES = 1 << 20
PACKAGE_BYTES = 256 << 20


class Chunk(NamedTuple):
    """Where a piece of a part is on ``tailrace.model-chunks``."""

    part: str
    number: int
    partition: int
    offset: int
    size: int
    sha256: str


# The bytes of each of some chunks. Raises PackageRefused where one is not what it should be, Unavailable where the log
# cannot be read for the moment.
Fetch = Callable[[Sequence[Chunk]], Sequence[bytes]]


class Verified(NamedTuple):
    """A package whose bytes are known to be those that somebody trusted has signed. Only the manifest is parsed."""

    manifest: Manifest
    parts: Mapping[str, bytes]


# Tries a package where it can do no harm (see models/package/examiner.py). Raises PackageRefused.
Examine = Callable[[Verified, ModelContract], None]


def open_package(
    record: ModelManifestRecord,
    fetch: Fetch,
    trust: TrustStore,
    contract: ModelContract,
    *,
    newer_than: int = 0,
    package_bytes: int = PACKAGE_BYTES,
    examine: Examine | None = None,
) -> LoadedModel:
    """Checks a published package and loads its model.

    In order: size, signature, digests, anti-rollback, then the parsers of schema, reference and model, then the golden
    pairs.

    Args:
        record: a record of ``tailrace.model-manifests``.
        fetch: reads the parts.
        trust: whose signatures count.
        contract: the contract in force, which the model's inputs and classes must fit.
        newer_than: the highest sequence of the model taken up so far; 0 where the rollouts topic itself
            names the version, as after a rollback.
        package_bytes: largest package that is read.
        examine: has the parsers and the golden pairs run somewhere else first; here the package is only loaded then.

    Raises:
        PackageRefused: names the check that failed.
        Unavailable: the chunks cannot be read for the moment.
    """
    package = verified_package(record, fetch, trust, newer_than=newer_than, package_bytes=package_bytes)
    if examine is None:
        return loaded_and_tried(package, contract)
    examine(package, contract)
    return loaded(package, contract)


def verified_package(
    record: ModelManifestRecord,
    fetch: Fetch,
    trust: TrustStore,
    *,
    newer_than: int = 0,
    package_bytes: int = PACKAGE_BYTES,
) -> Verified:
    """The checks that come before any part of a package is parsed: size, signature, digests, anti-rollback.

    Raises:
        PackageRefused: names the check that failed.
        Unavailable: the chunks cannot be read for the moment.
    """
    chunks = chunks_of(record)
    size = len(record["manifest"]) + sum(max(c.size, 0) for c in chunks)
    if size > package_bytes:
        raise PackageRefused("size", f"{size:,} bytes, more than the {package_bytes:,} that are let in")
    manifest = verified_manifest(record, trust)
    parts = _parts(manifest, list(manifest.parts), fetch, chunks, package_bytes)
    if manifest.sequence <= newer_than:
        what = f"sequence {manifest.sequence} is not newer than {newer_than}"
        remedy = f"an older version is taken up only by `tailrace rollback {manifest.model}`"
        raise PackageRefused("anti-rollback", f"{what}: {remedy}")
    return Verified(manifest, parts)


def loaded(package: Verified, contract: ModelContract) -> LoadedModel:
    """The model of a package. Raises PackageRefused where a parser does not take a part."""
    manifest, parts = package
    check_schema(manifest, contract)
    runner, reference = load_model(manifest, parts["model"]), Reference.from_bytes(parts["reference"])
    return LoadedModel(manifest, runner, reference)


def loaded_and_tried(package: Verified, contract: ModelContract) -> LoadedModel:
    """The model of a package, once it gives what the publisher got. Raises PackageRefused."""
    model = loaded(package, contract)
    check_golden(model, package.parts["golden"])
    return model


def open_reference(
    record: ModelManifestRecord, fetch: Fetch, trust: TrustStore, *, package_bytes: int = PACKAGE_BYTES
) -> tuple[Manifest, Reference]:
    """What a package says about its training data, by the same checks as `open_package`, but no model is loaded.

    Raises:
        PackageRefused: names the check that failed.
        Unavailable: the chunks cannot be read for the moment.
    """
    manifest = verified_manifest(record, trust)
    parts = _parts(manifest, ["reference"], fetch, chunks_of(record), package_bytes)
    return manifest, Reference.from_bytes(parts["reference"])


def known_to(home: Path) -> Callable[[ModelManifestRecord], Manifest]:
    """Gives the manifest of a record that is of somebody whom the home trusts, or did; raises PackageRefused."""
    trust = TrustStore(home / "keys", past=True)
    return lambda record: verified_manifest(record, trust)


def verified_manifest(record: ModelManifestRecord, trust: TrustStore) -> Manifest:
    """The manifest of a record, once its size, signature and digest are known to be right.

    Raises:
        PackageRefused: they are not, or the record says another model or version than the manifest that it carries.
    """
    data: bytes = record["manifest"]
    signed = manifest_bytes(trust.home, data)
    if len(data) > MANIFEST_BYTES:
        raise PackageRefused("size", f"a manifest of {len(data):,} bytes; {MANIFEST_BYTES:,} are let in")
    try:
        model, key, signers = record["model"], record["key_id"], KINDS["ModelManifest"].signers
        trust.check("the manifest", model, key, record["signature"], signed, signers)
    except SignatureRefused as refused:
        raise PackageRefused("signature", str(refused)) from refused
    if sha256(data) != record["digest"]:
        raise PackageRefused("digest", "the record names another digest than its manifest has")
    manifest = Manifest.from_bytes(data)
    if (manifest.model, manifest.version) != (record["model"], record["version"]):
        raise PackageRefused(
            "manifest",
            f"the record is about {record['model']} version {record['version']}, its manifest about "
            f"{manifest.model} version {manifest.version}",
        )
    return manifest


def chunks_of(record: ModelManifestRecord) -> list[Chunk]:
    """The chunks that a record of ``tailrace.model-manifests`` names."""
    return [
        Chunk(c["part"], c["index"], c["partition"], c["offset"], c["size"], c["sha256"])
        for c in record["chunks"]
    ]


def check_schema(manifest: Manifest, contract: ModelContract) -> None:
    """Raises PackageRefused("schema", ...) where the model does not fit the contract."""
    if manifest.model != contract.model:
        what = f"a package of {manifest.model} under the contract of {contract.model}"
        raise PackageRefused("schema", what)
    for misfit in misfits(manifest, contract):
        raise PackageRefused("schema", f"{misfit.what}: {misfit.remedy}")


def _parts(
    manifest: Manifest, names: Sequence[Any], fetch: Fetch, chunks: Sequence[Chunk], limit: int
) -> dict[str, bytes]:
    """Some parts, whose chunks are fetched all at once: how often the log is asked is what takes the time."""
    chunks_by_part = {name: [c for c in chunks if c.part == name] for name in names}
    for name, own in chunks_by_part.items():
        size = manifest.parts[name].size
        if size > limit or sum(c.size for c in own) != size:
            what = f"the chunks of {name} do not add up to the {size:,} bytes of the manifest"
            raise PackageRefused("size", what)
        if [c.number for c in own] != list(range(len(own))):
            raise PackageRefused("chunk", f"the chunks of {name} are not complete and in order")
    fetched = iter(fetch([c for own in chunks_by_part.values() for c in own]))
    parts = {}
    for name, own in chunks_by_part.items():
        data = b"".join(islice(fetched, len(own)))
        part = manifest.parts[name]
        if len(data) != part.size or sha256(data) != part.sha256:
            raise PackageRefused("digest", f"{name} is not what the manifest says: its digest differs")
        parts[name] = data
    return parts
