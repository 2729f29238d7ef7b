"""What fastavro leaves to its callers: strict types on encoding, and where a schema has logical types.

fastavro writes 1.7 as the long 1, "1" as the double 1.0 and anything at all as a boolean, and it drops fields
that the schema does not have. A record that is written otherwise than it was meant is worse than one refused.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

from tailrace.errors import BadRecord

Check = Callable[[Any, str], None]

_MISSING = object()
_RANGES = {"int": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}
_LARGEST = {"double": 1.7976931348623157e308, "float": 3.4028234663852886e38}


def plain(schema: Any) -> Any:
    """The schema without logical types, so that values are what is on the wire: integers, bytes, text."""
    if isinstance(schema, list):
        return [plain(branch) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    stripped = {k: v for k, v in schema.items() if k not in ("logicalType", "precision", "scale")}
    for inner in ("type", "items", "values"):
        if inner in stripped:
            stripped[inner] = plain(stripped[inner])
    if "fields" in stripped:
        stripped["fields"] = [{**f, "type": plain(f["type"])} for f in stripped["fields"]]
    return stripped


def logical_types(schema: Any, path: str = "") -> dict[str, str]:
    """Logical types by the path of the field that has them."""
    if isinstance(schema, list):
        return {k: v for branch in schema for k, v in logical_types(branch, path).items()}
    if not isinstance(schema, dict):
        return {}
    types = {path: str(schema["logicalType"])} if "logicalType" in schema else {}
    for inner, suffix in (("type", ""), ("items", "[]"), ("values", "{}")):
        types |= logical_types(schema.get(inner), path + suffix)
    for field in schema.get("fields", ()):
        types |= logical_types(field["type"], f"{path}.{field['name']}" if path else field["name"])
    return types


def conforms(schema: Any) -> Callable[[Any], None]:
    """A function that raises BadRecord, naming the field, where a value is not of the schema's type.

    Codes: ``wrong-type``, ``out-of-range``, ``unknown-field``, ``missing-field``, ``not-unicode``.
    """
    check = _check(schema, {}, "")
    return lambda value: check(value, "")


def _check(schema: Any, named: dict[str, Check], namespace: str) -> Check:
    if isinstance(schema, list):
        return _union(schema, named, namespace)
    if isinstance(schema, str):
        return _PRIMITIVES.get(schema) or _later(schema, named, namespace)
    kind = schema["type"]
    if kind in ("record", "error"):
        return _record(schema, named, namespace)
    if kind == "array":
        return _array(_check(schema["items"], named, namespace))
    if kind == "map":
        return _map(_check(schema["values"], named, namespace))
    if kind == "enum":
        symbols = schema["symbols"]
        is_symbol = _is(f"one of {', '.join(symbols)}", lambda value: value in symbols)
        return _name(schema, named, namespace, is_symbol)
    if kind == "fixed":
        size = schema["size"]
        is_fixed = _is(f"{size} bytes", lambda value: isinstance(value, bytes) and len(value) == size)
        return _name(schema, named, namespace, is_fixed)
    return _check(kind, named, namespace)


def _full_name(name: str, namespace: str) -> str:
    return name if "." in name or not namespace else f"{namespace}.{name}"


def _name(schema: dict[str, Any], named: dict[str, Check], namespace: str, check: Check) -> Check:
    named[_full_name(schema["name"], schema.get("namespace", namespace))] = check
    return check


def _later(name: str, named: dict[str, Check], namespace: str) -> Check:
    full = _full_name(name, namespace)
    return lambda value, path: named.get(full, named.get(name, _unknown_type))(value, path)


def _unknown_type(value: Any, path: str) -> None:
    raise AssertionError(f"the schema of {path} names a type that it does not define")


def _wrong(path: str, expected: str, value: Any) -> BadRecord:
    reason = f"{path or 'the record'} is to be {expected}, this is {_shown(value)}"
    return BadRecord("wrong-type", reason, path or None)


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:40] + '...'}"


def _record(schema: dict[str, Any], named: dict[str, Check], namespace: str) -> Check:
    full = _full_name(schema["name"], schema.get("namespace", namespace))
    inner = full.rpartition(".")[0]
    fields: list[tuple[str, bool, Check]] = []

    def check(value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise _wrong(path, "a record", value)
        prefix = f"{path}." if path else ""
        known = 0
        for name, optional, of in fields:
            field = value.get(name, _MISSING)
            if field is _MISSING:
                if not optional:
                    raise BadRecord("missing-field", f"{prefix}{name} is missing", prefix + name)
                continue
            known += 1
            of(field, prefix + name)
        if known != len(value):
            extra = next(name for name in value if name not in {f[0] for f in fields})
            raise BadRecord("unknown-field", f"{schema['name']} has no field {extra}", f"{prefix}{extra}")

    named[full] = check
    fields += [(f["name"], "default" in f, _check(f["type"], named, inner)) for f in schema["fields"]]
    return check


def _union(branches: list[Any], named: dict[str, Check], namespace: str) -> Check:
    checks = [_check(branch, named, namespace) for branch in branches if branch != "null"]
    nullable = "null" in branches

    def single(value: Any, path: str) -> None:
        if value is not None or not nullable:
            checks[0](value, path)

    def several(value: Any, path: str) -> None:
        if value is None and nullable:
            return None
        for check in checks:
            try:
                return check(value, path)
            except BadRecord:
                continue
        raise _wrong(path, "of one of the types of its union", value)

    return single if len(checks) == 1 else several


def _array(of: Check) -> Check:
    def check(value: Any, path: str) -> None:
        if not isinstance(value, list | tuple):
            raise _wrong(path, "a list", value)
        for index, item in enumerate(value):
            of(item, f"{path}[{index}]")

    return check


def _map(of: Check) -> Check:
    def check(value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise _wrong(path, "a map", value)
        for key, item in value.items():
            _text(key, f"{path}{{}}")
            of(item, f"{path}{{{key}}}")

    return check


def _is(expected: str, holds: Callable[[Any], bool]) -> Check:
    def check(value: Any, path: str) -> None:
        if not holds(value):
            raise _wrong(path, expected, value)

    return check


def _integer(kind: str) -> Check:
    low, high = _RANGES[kind]

    def check(value: Any, path: str) -> None:
        if type(value) is not int and (isinstance(value, bool) or not isinstance(value, Integral)):
            raise _wrong(path, "an integer", value)
        if not low <= int(value) <= high:
            reason = f"{path} is beyond {high.bit_length() + 1} bits: {_shown(value)}"
            raise BadRecord("out-of-range", reason, path)

    return check


def _number(kind: str) -> Check:
    largest = _LARGEST[kind]

    def check(value: Any, path: str) -> None:
        if type(value) is float and kind == "double":
            return
        if isinstance(value, bool) or not isinstance(value, Real):
            raise _wrong(path, "a number", value)
        if largest < abs(value) < float("inf"):  # type: ignore[operator]
            raise BadRecord("out-of-range", f"{path} is beyond a {kind}: {_shown(value)}", path)

    return check


def _text(value: Any, path: str) -> None:
    if not isinstance(value, str):
        raise _wrong(path, "text", value)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise BadRecord("not-unicode", f"{path} has half of a surrogate pair", path) from error


_PRIMITIVES: dict[str, Check] = {
    "null": _is("null", lambda value: value is None),
    "boolean": _is("true or false", lambda value: value is True or value is False),
    "int": _integer("int"),
    "long": _integer("long"),
    "float": _number("float"),
    "double": _number("double"),
    "string": _text,
    "bytes": _is("bytes", lambda value: isinstance(value, bytes)),
}
