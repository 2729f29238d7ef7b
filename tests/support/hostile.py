"""A corpus of hostile and broken packages, each with the check that is there for it.

A case makes a record of ``tailrace.model-manifests`` and a reader of its chunks. Whatever would run code leaves the
file ``ran`` in the folder that it is given.
"""

from __future__ import annotations

import functools
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import onnx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from onnx import TensorProto, helper
from tests.support import models

from tailrace.models.manifest import PARTS, canonical_json, sha256
from tailrace.models.package.build import Package
from tailrace.signing.keys import SigningKey
from tailrace.signing.records import manifest_bytes
from tailrace.signing.trust import TrustStore
from tailrace.testing import signed_records
from tailrace.testing.sealed_package import sealed

LATENCY = "service_levels: {latency_p99: 200ms}\n"
CONTRACT = models.CONTRACT.replace("TARGET", models.TARGETS["binary"]) + LATENCY
HOME, STRANGER, REVOKED, OTHER_MODEL = (
    SigningKey(Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)) for n in range(1, 5)
)

AS = SimpleNamespace(version=2)
"""The number that cases are published under; whoever publishes more than one counts it up."""

Sealed = tuple[dict[str, Any], Callable[..., bytes]]
Make = Callable[[Path], Sealed]


class Case(NamedTuple):
    name: str
    check: str
    make: Make


CASES: list[Case] = []


def case(name: str, check: str, make: Make) -> None:
    CASES.append(Case(name, check, make))


def package(kind: str = "logistic", version: int | None = None) -> Package:
    number = version or AS.version
    return models.package(kind).numbered(number, number)


def trust_keys(home: Path) -> TrustStore:
    """The trust that the corpus is made for: HOME signs, REVOKED did once, OTHER_MODEL signs for another model."""
    trust = TrustStore(signed_records.make_home(home) / "keys")
    for key in (HOME, REVOKED):
        trust.trust(key.public)
    trust.revoke(REVOKED.key_id)
    trust.trust(OTHER_MODEL.public, ["churn"])
    return trust


def flipped(data: bytes, at: int) -> bytes:
    at %= len(data)
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


# --- envelope and signature


def envelope(**changes: Any) -> Make:
    """The record with other fields than were signed."""

    def made(_: Path) -> Sealed:
        record, fetch = sealed(package(), HOME)
        return {**record, **{k: v(record) if callable(v) else v for k, v in changes.items()}}, fetch

    return made


for share in range(10):
    case(
        f"manifest-bit-{share}",
        "signature",
        envelope(manifest=lambda r, s=share: flipped(r["manifest"], len(r["manifest"]) * s // 10)),
    )
for at in (0, 1, 31, 32, 63):
    case(f"signature-bit-{at}", "signature", envelope(signature=lambda r, a=at: flipped(r["signature"], a)))
for length in (0, 1, 63, 65, 1000):
    case(f"signature-of-{length}-bytes", "signature", envelope(signature=b"\x01" * length))
for length in (0, 1, 100):
    case(f"manifest-cut-to-{length}", "signature", envelope(manifest=lambda r, n=length: r["manifest"][:n]))
case("unsigned", "signature", envelope(signature=b"", key_id=""))
for text in ("../signing", "../../etc/passwd", "0" * 16, "0" * 17, "\x00", HOME.key_id.upper() + "x"):
    case(f"key-id-{text!r}", "signature", envelope(key_id=text))
case("signed-by-a-stranger", "signature", lambda _: sealed(package(), STRANGER))
case(
    "strangers-under-our-id",
    "signature",
    lambda _: (
        {**sealed(package(), STRANGER)[0], "key_id": HOME.key_id},
        sealed(package(), STRANGER)[1],
    ),
)
case("signed-by-a-revoked-key", "signature", lambda _: sealed(package(), REVOKED))
case("signed-by-the-key-of-another-model", "signature", lambda _: sealed(package(), OTHER_MODEL))
case("other-digest", "digest", envelope(digest="0" * 64))
case("other-version", "manifest", envelope(version=lambda r: r["version"] + 1000))
case("manifest-too-large", "size", envelope(manifest=b" " * ((1 << 20) + 1)))


def signed_text(change: Callable[[bytes], bytes]) -> Make:
    """A manifest that is no manifest, signed by somebody trusted."""

    def made(_: Path) -> Sealed:
        record, fetch = sealed(package(), HOME)
        text = change(record["manifest"])
        return {
            **record,
            "manifest": text,
            "digest": sha256(text),
            "signature": HOME.sign(manifest_bytes(signed_records.HOME, text)),
        }, fetch

    return made


def said(**changes: Any) -> Callable[[bytes], bytes]:
    return lambda data: canonical_json({**json.loads(data), **changes})


for name, change in {
    "empty": lambda _: b"",
    "nonsense": lambda _: b"nonsense",
    "deep": lambda _: b"[" * 200_000,
    "spaced": lambda d: d + b" ",
    "not-utf8": lambda d: d.replace(b"credit", b"\xff\xfe\xfd\xfc\xfb\xfa", 1),
    "nan": lambda d: d.replace(b'"absolute":1e-09', b'"absolute":NaN', 1),
    "unknown-form": said(form=2),
    "pickle-format": said(format="pickle"),
    "no-inputs": said(inputs=[]),
    "negative-sequence": said(sequence=-1),
    "no-parts": said(parts={}),
    "another-part": said(parts={"../../x": {"sha256": "0" * 64, "size": 1}}),
    "one-class": said(classes=["true"]),
    "another-positive": said(positive="perhaps"),
    "imputes-what-it-does-not-read": said(impute={"nothing": 1.0}),
}.items():
    case(f"manifest-{name}", "manifest", signed_text(change))


# --- replays


def replayed(_: Path) -> Sealed:
    """An older publication under a new number: its sequence is signed."""
    old = models.package()
    return sealed(
        Package(old.manifest.model_copy(update={"version": AS.version, "sequence": 1}), old.parts), HOME
    )


case("older-sequence-again", "anti-rollback", replayed)
case(
    "older-record-renumbered",
    "manifest",
    lambda _: (
        {**sealed(package(version=1), HOME)[0], "version": AS.version},
        sealed(package(version=1), HOME)[1],
    ),
)


# --- chunks


def chunks(change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Make:
    def made(_: Path) -> Sealed:
        record, fetch = sealed(package(), HOME, chunk_bytes=500)
        return {**record, "chunks": change([dict(c) for c in record["chunks"]])}, fetch

    return made


def at_offsets(change: Callable[[bytes, int], bytes], part: str) -> Make:
    """What stands at the offsets of one part is something else."""

    def made(_: Path) -> Sealed:
        record, fetch = sealed(package(), HOME)
        offsets = {c["offset"] for c in record["chunks"] if c["part"] == part}

        def other(wanted: Any) -> list[bytes]:
            """The first of the part's chunks is all of what stands there instead."""
            chunks = dict(zip((c.offset for c in wanted), fetch(wanted), strict=True))
            own = sorted(offsets & chunks.keys())
            if own:
                data = b"".join(chunks[offset] for offset in own)
                chunks |= dict.fromkeys(own, b"") | {own[0]: change(data, len(data))}
            return list(chunks.values())

        return record, other

    return made


for part in PARTS:
    for where in (0, 1, 2, 3):
        case(
            f"bytes-of-{part}-bit-{where}",
            "digest",
            at_offsets(lambda d, n, w=where: flipped(d, n * w // 4), part),
        )
    case(f"bytes-of-{part}-truncated", "digest", at_offsets(lambda d, n: d[:-1], part))
    case(f"bytes-of-{part}-longer", "digest", at_offsets(lambda d, n: d + b"\x00", part))
    case(f"bytes-of-{part}-empty", "digest", at_offsets(lambda d, n: b"", part))
    case(f"{part}-no-chunk", "size", chunks(lambda c, p=part: [x for x in c if x["part"] != p]))
case("no-chunks", "size", chunks(lambda c: []))
case("chunk-twice", "size", chunks(lambda c: [*c, c[0]]))
case("chunks-swapped", "chunk", chunks(lambda c: [c[1], c[0], *c[2:]]))
case("chunk-numbers-off", "chunk", chunks(lambda c: [{**x, "index": x["index"] + 1} for x in c]))
case("chunks-huge", "size", chunks(lambda c: [{**x, "size": 1 << 30} for x in c]))
case("chunks-negative", "size", chunks(lambda c: [{**x, "size": -1} for x in c]))
case("chunks-of-no-part", "size", chunks(lambda c: [{**x, "part": "../model"} for x in c]))


def taken_from(kind: str) -> Make:
    """The offsets name the chunks of another version."""

    def made(_: Path) -> Sealed:
        record, _fetch = sealed(package(), HOME)
        _, other = sealed(package(kind), HOME)
        return record, other

    return made


case("chunks-of-another-version", "digest", taken_from("forest"))


# --- parts


def part(**parts: bytes) -> Make:
    return lambda _: models.resealed(package(), HOME, **parts)


def golden(change: Callable[[dict[str, Any]], Any]) -> Make:
    return lambda _: models.resealed(
        package(), HOME, golden=json.dumps(change(json.loads(package().parts["golden"]))).encode()
    )


for name, data in {"empty": b"", "object": b"{}", "deep": b"[" * 100_000, "nonsense": b"\xff"}.items():
    case(f"golden-{name}", "golden", part(golden=data))
    case(f"reference-{name}", "reference", part(reference=data))
case(
    "golden-off",
    "golden",
    golden(lambda g: {**g, "outputs": [[a + 1e-6, b - 1e-6] for a, b in g["outputs"]]}),
)
case("golden-nan", "golden", golden(lambda g: {**g, "outputs": [[float("nan")] * 2 for _ in g["outputs"]]}))
case("golden-fewer", "golden", golden(lambda g: {**g, "outputs": g["outputs"][1:]}))
case("golden-swapped", "golden", golden(lambda g: {**g, "outputs": [[b, a] for a, b in g["outputs"]]}))
case("golden-without-an-input", "golden", golden(lambda g: {**g, "inputs": {"age": g["inputs"]["age"]}}))
case(
    "golden-too-many",
    "golden",
    golden(lambda g: {"inputs": {n: c * 9 for n, c in g["inputs"].items()}, "outputs": g["outputs"] * 9}),
)


def redescribed(**changes: Any) -> Make:
    return lambda _: models.redescribed(package(), HOME, **changes)


def renamed() -> Make:
    inputs = tuple(i.model_copy(update={"name": f"{i.name}2"}) for i in package().manifest.inputs)
    return redescribed(inputs=inputs, impute={})


def retyped() -> Make:
    inputs = tuple(i.model_copy(update={"type": "number"}) for i in package().manifest.inputs)
    return redescribed(inputs=inputs)


case("inputs-of-another-contract", "schema", lambda _: renamed()(_))
case("inputs-of-another-type", "schema", lambda _: retyped()(_))
case("fewer-inputs", "schema", lambda _: redescribed(inputs=package().manifest.inputs[1:], impute={})(_))
case("no-imputed-value", "schema", redescribed(impute={}))
case("no-such-output", "schema", redescribed(output="nothing"))
case("other-classes", "schema", redescribed(classes=("no", "yes"), positive="yes"))
case("other-task", "schema", redescribed(task="regression", classes=(), positive=None))
case("a-matrix-instead-of-columns", "schema", redescribed(feed="matrix"))


# --- ONNX


def graph(change: Callable[[Any], None]) -> Make:
    def made(_: Path) -> Sealed:
        model = onnx.load_from_string(package().parts["model"])
        change(model)
        return models.resealed(package(), HOME, model=model.SerializeToString())

    return made


def external(model: Any) -> None:
    model.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    model.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")


def nested(model: Any) -> None:
    """In a graph inside a graph."""
    tensor = helper.make_tensor("x", TensorProto.FLOAT, [1], [0.0])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../x")
    inner = helper.make_graph([helper.make_node("Constant", [], ["y"], value=tensor)], "inner", [], [])
    model.graph.node.append(helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner))


def burden(*nodes: Any, initializers: tuple[Any, ...] = ()) -> Callable[[Any], None]:
    """Adds nodes whose tensor ``burden``, a number, is added to the output."""

    def change(model: Any) -> None:
        output = package().manifest.output
        for node in model.graph.node:
            for at, name in enumerate(node.output):
                if name == output:
                    node.output[at] = "light"
        kind = next(o.type.tensor_type.elem_type for o in model.graph.output if o.name == output)
        model.graph.initializer.extend(initializers)
        model.graph.node.extend(nodes)
        model.graph.node.append(helper.make_node("Cast", ["burden"], ["burden_cast"], to=kind))
        model.graph.node.append(helper.make_node("Add", ["light", "burden_cast"], [output]))

    return change


def constant(value: float) -> Any:
    tensor = helper.make_tensor("burden_value", TensorProto.FLOAT, [], [value])
    return helper.make_node("Constant", [], ["burden"], value=tensor)


def endless() -> Callable[[Any], None]:
    state = [helper.make_tensor_value_info("state", TensorProto.FLOAT, [100, 100])]
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "square"], ["next"]),
            helper.make_node("Identity", ["go"], ["on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("at", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            *state,
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [100, 100]),
        ],
    )
    return burden(
        helper.make_node("Loop", ["times", "", "square"], ["looped"], body=body),
        helper.make_node("ReduceSum", ["looped"], ["burden"], keepdims=0),
        initializers=(
            helper.make_tensor("times", TensorProto.INT64, [], [10**9]),
            helper.make_tensor("square", TensorProto.FLOAT, [100, 100], [0.0] * 10_000),
        ),
    )


def large(numbers: int) -> Callable[[Any], None]:
    return burden(
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["burden"], keepdims=0),
        initializers=(helper.make_tensor("shape", TensorProto.INT64, [1], [numbers]),),
    )


MODEL = models.package().parts["model"]
for name, data in {
    "empty": b"",
    "nonsense": b"nonsense",
    "half": MODEL[: len(MODEL) // 2],
    "zeros": bytes(len(MODEL)),
    "a-zip": b"PK\x03\x04" + MODEL,
    "a-pickle": b"\x80\x04\x95" + MODEL,
    "doubled-head": MODEL[:100] + MODEL,
}.items():
    case(f"onnx-{name}", "model", part(model=data))
case("onnx-external-data", "model", graph(external))
case("onnx-external-data-nested", "model", graph(nested))
case("onnx-custom-domain", "model", graph(lambda m: m.opset_import.add(domain="com.example", version=1)))
case(
    "onnx-microsofts-domain", "model", graph(lambda m: m.opset_import.add(domain="com.microsoft", version=1))
)
case("onnx-future-opset", "model", graph(lambda m: setattr(m.opset_import[0], "version", 9999)))
case("onnx-future-ir", "model", graph(lambda m: setattr(m, "ir_version", 999)))
case("onnx-unknown-operator", "model", graph(lambda m: setattr(m.graph.node[0], "op_type", "Backdoor")))
case("onnx-no-nodes", "model", graph(lambda m: m.graph.ClearField("node")))
case(
    "onnx-another-input",
    "schema",
    graph(
        lambda m: m.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [None, 1]))
    ),
)
case("onnx-nan", "golden", graph(burden(constant(float("nan")))))
case("onnx-infinite", "golden", graph(burden(constant(float("inf")))))
case("onnx-a-little-off", "golden", graph(burden(constant(1e-3))))
case(
    "onnx-of-another-version",
    "golden",
    lambda _: models.resealed(package(), HOME, model=package("forest").parts["model"]),
)
case("onnx-endless", "time", graph(endless()))
case("onnx-8-gigabytes", "memory", graph(large(2_000_000_000)))
case("onnx-more-than-there-is", "memory", graph(large(10**14)))


# --- skops


def archive(schema: Any, compress: int = zipfile.ZIP_STORED, **files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compress) as opened:
        for name, data in {"schema.json": json.dumps(schema).encode(), **files}.items():
            opened.writestr(name, data)
    return buffer.getvalue()


def skops(make: Callable[[Path], bytes]) -> Make:
    return lambda folder: models.resealed(package("boosting"), HOME, model=make(folder))


def node(loader: str, name: str = "os.system") -> Callable[[Path], bytes]:
    """A node that calls what it names with a command that would leave a file."""

    def made(folder: Path) -> bytes:
        text = {
            "__class__": "str",
            "__module__": "builtins",
            "__loader__": "JsonNode",
            "content": json.dumps(f"touch {folder / 'ran'}"),
        }
        arguments = {
            "__class__": "tuple",
            "__module__": "builtins",
            "__loader__": "TupleNode",
            "content": [text],
        }
        module, _, kind = name.rpartition(".")
        return archive(
            {
                "__class__": kind,
                "__module__": module,
                "__loader__": loader,
                "content": arguments,
                "protocol": 2,
                "_skops_version": "0",
            }
        )

    return made


for loader in (
    "ConstructorFromReduceNode",
    "ObjectNode",
    "FunctionNode",
    "MethodNode",
    "PartialNode",
    "TypeNode",
    "OperatorFuncNode",
    "ReduceNode",
):
    case(f"skops-{loader}", "model", skops(node(loader)))
for name in (
    "builtins.eval",
    "builtins.exec",
    "subprocess.Popen",
    "pickle.loads",
    "shutil.rmtree",
    "numpy.load",
):
    case(f"skops-{name}", "model", skops(node("ConstructorFromReduceNode", name)))


def pickled(folder: Path) -> bytes:
    """An array of objects, which numpy would unpickle."""
    return archive(
        {
            "__class__": "ndarray",
            "__module__": "numpy",
            "__loader__": "NdArrayNode",
            "type": "numpy",
            "file": "a.npy",
            "protocol": 2,
            "_skops_version": "0",
        },
        **{"a.npy": _object_array(folder)},
    )


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def _object_array(folder: Path) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Payload(folder / "ran")], dtype=object), allow_pickle=True)
    return buffer.getvalue()


GOOD_SKOPS = functools.cache(lambda: package("boosting").parts["model"])
case("skops-pickled-array", "model", skops(pickled))
case(
    "skops-zip-bomb",
    "model",
    skops(lambda _: archive({"a": 1}, zipfile.ZIP_DEFLATED, **{"bomb.npy": bytes(64 << 20)})),
)
case("skops-compressed-with-bzip2", "model", skops(lambda _: archive({"a": 1}, zipfile.ZIP_BZIP2)))
for path in ("../../outside", "/etc/x", "a/b", "..", "c:\\x"):
    case(f"skops-path-{path}", "model", skops(lambda _, p=path: archive({"a": 1}, **{p: b"x"})))
case("skops-truncated", "model", skops(lambda _: GOOD_SKOPS()[: len(GOOD_SKOPS()) // 2]))
case("skops-without-its-end", "model", skops(lambda _: GOOD_SKOPS()[:-30]))
case("skops-empty", "model", skops(lambda _: b""))
case("skops-no-schema", "model", skops(lambda _: archive([])[:0] + _bare_zip()))
case("skops-deep", "model", skops(lambda _: _bare_zip(schema=b"[" * 100_000)))
case("skops-onnx", "model", skops(lambda _: MODEL))
case("onnx-skops", "model", lambda _: models.resealed(package(), HOME, model=GOOD_SKOPS()))
for share in (3, 7):
    case(f"skops-array-bytes-{share}", "model|golden", skops(lambda _, s=share: _damaged(s)))


def _bare_zip(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name, data in files.items():
            opened.writestr(f"{name}.json", data)
    return buffer.getvalue()


def _damaged(tenths: int) -> bytes:
    """The archive with one entry's bytes changed, and sums that are right again."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(GOOD_SKOPS())) as given, zipfile.ZipFile(buffer, "w") as written:
        names = [n for n in given.namelist() if n.endswith(".npy")]
        for name in given.namelist():
            data = given.read(name)
            if name in names:
                middle = len(data) * tenths // 10
                data = data[:middle] + b"\xff" * 8 + data[middle + 8 :]
            written.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
    return buffer.getvalue()
