"""skops archives: the check of their types before anything is made of them, and their canonical form."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any

from tailrace.models.errors import PackageRefused
from tailrace.models.formats.skops.types import ALLOWED_LOADERS, ALLOWED_TYPES

_SCHEMA = "schema.json"
_NO_TIME = (1980, 1, 1, 0, 0, 0)


def canonical(archive: bytes) -> bytes:
    """The archive with stable ids, names, order and no times, stored uncompressed.

    skops names nodes and files by memory address, so that two dumps of one model differ; here both are
    numbered in the order in which the schema mentions them.
    """
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        files = {name: opened.read(name) for name in opened.namelist()}
    schema = json.loads(files.pop(_SCHEMA))
    ids: dict[Any, int] = {}
    names: dict[str, str] = {}
    _rename(schema, ids, names)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as written:
        entries = {new: files[old] for old, new in names.items()}
        for name, data in {**entries, _SCHEMA: json.dumps(schema, separators=(",", ":")).encode()}.items():
            written.writestr(zipfile.ZipInfo(name, _NO_TIME), data)
    return out.getvalue()


def check_archive(archive: bytes) -> None:
    """Reads the archive's table and schema as data; imports and constructs nothing.

    Raises:
        PackageRefused: the archive is broken, compressed (so that what is read is never larger than what was
            signed), names a file by a path, or holds a type that is not on the list.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            entries = opened.infolist()
            for entry in entries:
                if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                    raise PackageRefused("model", f"{entry.filename!r} in the skops archive is compressed")
                if not entry.filename.replace(".", "").isalnum():
                    raise PackageRefused("model", f"the skops archive names a file {entry.filename!r}")
            names = {entry.filename for entry in entries}
            if sum(entry.file_size for entry in entries) > len(archive) or len(names) < len(entries):
                raise PackageRefused("model", "entries of the skops archive overlap")
            schema = json.loads(opened.read(_SCHEMA))
    except PackageRefused:
        raise
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, RecursionError, NotImplementedError) as error:
        raise PackageRefused("model", f"the skops archive cannot be read: {error}") from None
    for node in _nodes(schema):
        kind = f"{node.get('__module__')}.{node.get('__class__')}"
        if kind not in ALLOWED_TYPES or node.get("__loader__") not in ALLOWED_LOADERS:
            what = f"the skops archive holds a {kind} ({node.get('__loader__')})"
            raise PackageRefused("model", f"{what}, which is not let in")


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if "__loader__" in node or "__class__" in node or "__module__" in node:
                yield node
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)


def _rename(value: Any, ids: dict[Any, int], names: dict[str, str]) -> None:
    if isinstance(value, list):
        for element in value:
            _rename(element, ids, names)
        return
    if not isinstance(value, dict):
        return
    loader = value.get("__loader__")
    if loader == "SetNode":  # a set of texts has another order in every process
        value["content"].sort(key=lambda node: json.dumps([node.get("__class__"), node.get("content")]))
    if loader == "JsonNode":  # whether two equal numbers are one object is chance
        value.pop("__id__", None)
    elif isinstance(value.get("__id__"), int):
        value["__id__"] = ids.setdefault(value["__id__"], len(ids))
    if loader is not None and isinstance(value.get("file"), str):
        old = value["file"]
        value["file"] = names.setdefault(old, f"{len(names):05d}.{old.rpartition('.')[2]}")
    for inner in value.values():
        _rename(inner, ids, names)
