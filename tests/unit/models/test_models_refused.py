"""Packages that must not be loaded: each is refused by the check that is there for it."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import skops.io
from tests.support import models
from typer.testing import CliRunner

from tailrace.cli.app import app
from tailrace.contracts.language.load import load_contract
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.control.publish import publish
from tailrace.errors import TailraceError
from tailrace.models.columns import Array, Columns
from tailrace.models.errors import PackageRefused
from tailrace.models.formats.load import LoadedModel, load_model
from tailrace.models.formats.skops.archive import check_archive
from tailrace.models.formats.skops.tree_bounds import check_trees
from tailrace.models.manifest import canonical_json, sha256
from tailrace.models.package.golden import check_golden
from tailrace.models.package.open import open_package
from tailrace.signing.keys import SigningKey
from tailrace.signing.records import manifest_bytes
from tailrace.signing.trust import TrustStore, signing_key
from tailrace.testing import signed_records
from tailrace.testing.sealed_package import sealed


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return signing_key(signed_records.make_home(tmp_path))


@pytest.fixture
def opening(tmp_path: Path) -> Callable[..., LoadedModel]:
    def opened(
        sealed: tuple[dict[str, Any], Any], contract: ModelContract | None = None, **more: Any
    ) -> LoadedModel:
        record, fetch = sealed
        return open_package(
            record,
            fetch,
            TrustStore(signed_records.make_home(tmp_path) / "keys"),
            contract or models.contract(),
            **more,
        )

    return opened


def refusal(opening: Callable[..., LoadedModel], *args: Any, **more: Any) -> PackageRefused:
    with pytest.raises(PackageRefused) as caught:
        opening(*args, **more)
    return caught.value


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_signatures(opening: Callable[..., LoadedModel], key: SigningKey, tmp_path: Path) -> None:
    record, fetch = sealed(models.package(), key)
    altered = {
        "signature": flipped(record["signature"], 3),
        "manifest": flipped(record["manifest"], 100),
        "key_id": SigningKey.generate().key_id,
    }
    for field, value in altered.items():
        assert refusal(opening, ({**record, field: value}, fetch)).check == "signature"
    assert refusal(opening, ({**record, "signature": b"", "key_id": ""}, fetch)).check == "signature"
    assert refusal(opening, ({**record, "key_id": "../../../etc/x"}, fetch)).check == "signature"

    # Another home's key is nobody here, until it is trusted.
    other = signing_key(tmp_path / "other")
    theirs = sealed(models.package(), other)
    assert "not trusted here" in refusal(opening, theirs).reason
    TrustStore(signed_records.make_home(tmp_path) / "keys").trust(other.public)
    opening(theirs)

    # A key file that holds another key does not vouch for it.
    (tmp_path / "keys" / "trusted" / "owner" / f"{'0' * 16}.pub").write_bytes(
        (tmp_path / "keys" / "trusted" / "owner" / f"{key.key_id}.pub").read_bytes()
    )
    assert refusal(opening, ({**record, "key_id": "0" * 16}, fetch)).check == "signature"


def test_the_envelope_is_held_to_the_manifest(opening: Callable[..., LoadedModel], key: SigningKey) -> None:
    record, fetch = sealed(models.package(), key)
    assert refusal(opening, ({**record, "version": 2}, fetch)).check == "manifest"
    assert refusal(opening, ({**record, "model": "other"}, fetch)).check == "manifest"
    assert refusal(opening, ({**record, "digest": "0" * 64}, fetch)).check == "digest"
    for text in (
        b"{}",
        b"nonsense",
        record["manifest"] + b" ",
        record["manifest"].replace(b'"form":1', b'"form":2'),
    ):
        signed = {
            **record,
            "manifest": text,
            "digest": sha256(text),
            "signature": key.sign(manifest_bytes(signed_records.HOME, text)),
        }
        assert refusal(opening, (signed, fetch)).check == "manifest"


@pytest.mark.parametrize("part", ["model", "golden", "reference", "card"])
def test_every_part_is_held_to_its_digest(
    part: str, opening: Callable[..., LoadedModel], key: SigningKey
) -> None:
    record, fetch = sealed(models.package(), key)
    at = next(c["offset"] for c in record["chunks"] if c["part"] == part)

    def altered(chunks: Any) -> list[bytes]:
        pairs = zip(chunks, fetch(chunks), strict=True)
        return [flipped(data, len(data) // 2) if chunk.offset == at else data for chunk, data in pairs]

    def truncated(chunks: Any) -> list[bytes]:
        pairs = zip(chunks, fetch(chunks), strict=True)
        return [data[:-1] if chunk.offset == at else data for chunk, data in pairs]

    assert refusal(opening, (record, altered)).check == "digest"
    assert refusal(opening, (record, truncated)).check == "digest"


def test_chunks_are_complete_and_in_order(opening: Callable[..., LoadedModel], key: SigningKey) -> None:
    record, fetch = sealed(models.package("boosting"), key)
    assert sum(c["part"] == "model" for c in record["chunks"]) > 2
    without_one = [c for c in record["chunks"] if (c["part"], c["index"]) != ("model", 1)]
    assert refusal(opening, ({**record, "chunks": without_one}, fetch)).check == "size"
    swapped = [record["chunks"][1], record["chunks"][0], *record["chunks"][2:]]
    assert refusal(opening, ({**record, "chunks": swapped}, fetch)).check == "chunk"
    twice = [*record["chunks"], record["chunks"][0]]
    assert refusal(opening, ({**record, "chunks": twice}, fetch)).check == "size"


def test_size_comes_before_everything(opening: Callable[..., LoadedModel], key: SigningKey) -> None:
    record, _ = sealed(models.package(), key)

    def untouched(*_: Any) -> bytes:
        raise AssertionError("nothing is fetched")

    huge = [{**c, "size": 1 << 30} for c in record["chunks"]]
    unsigned = {**record, "chunks": huge, "signature": b""}
    assert refusal(opening, (unsigned, untouched)).check == "size"
    assert refusal(opening, (record, untouched), package_bytes=1000).check == "size"
    assert refusal(opening, ({**record, "manifest": b" " * (1 << 21)}, untouched)).check == "size"


def test_an_older_sequence_is_no_news(opening: Callable[..., LoadedModel], key: SigningKey) -> None:
    first = sealed(models.package(version=1), key)
    second = sealed(models.package(version=2), key)
    opening(second, newer_than=1)
    assert refusal(opening, first, newer_than=2).check == "anti-rollback"
    assert refusal(opening, second, newer_than=2).check == "anti-rollback"
    assert opening(first).manifest.version == 1  # named by the rollouts topic itself


def test_the_schema_is_the_contracts(opening: Callable[..., LoadedModel], key: SigningKey) -> None:
    good = models.package()
    package = sealed(good, key)

    def under(text: str) -> str:
        return refusal(opening, package, load_contract(text)).reason

    text = models.CONTRACT.replace("TARGET", models.TARGETS["binary"])
    assert "reads income, which the contract does not have" in under(
        text.replace("  income: {type: number, min: 0, missing: impute}\n", "")
    )
    assert "age as integer, the contract says number" in under(
        text.replace("age: {type: integer", "age: {type: number")
    )
    assert "imputes debt_ratio" in under(
        text.replace(
            "debt_ratio: {type: number, missing: pass}", "debt_ratio: {type: number, missing: impute}"
        )
    )
    assert "where the contract says regression" in under(text.replace("type: boolean", "type: number"))
    assert "contract of other" in under(text.replace("model: credit", "model: other"))
    renamed = {
        "inputs": tuple(i.model_copy(update={"name": f"{i.name}2"}) for i in good.manifest.inputs),
        "impute": {},
    }
    assert refusal(opening, models.redescribed(good, key, **renamed)).check == "schema"
    # The manifest fits the contract, and the model does not fit the manifest.
    fewer = {"inputs": good.manifest.inputs[1:], "impute": {}}
    assert "the model reads" in refusal(opening, models.redescribed(good, key, **fewer)).reason
    assert "no output" in refusal(opening, models.redescribed(good, key, output="nothing")).reason


def test_golden_pairs(opening: Callable[..., LoadedModel], key: SigningKey) -> None:
    good = models.package()
    pairs = json.loads(good.parts["golden"])
    off = {**pairs, "outputs": [[a + 1e-6, b - 1e-6] for a, b in pairs["outputs"]]}
    assert (
        "the publisher had" in refusal(opening, models.resealed(good, key, golden=canonical_json(off))).reason
    )
    near = {**pairs, "outputs": [[a + 1e-12, b - 1e-12] for a, b in pairs["outputs"]]}
    opening(models.resealed(good, key, golden=canonical_json(near)))
    for broken in (
        b"",
        b"{}",
        b'{"inputs":{},"outputs":[]}',
        canonical_json({**pairs, "outputs": pairs["outputs"][1:]}),
    ):
        assert refusal(opening, models.resealed(good, key, golden=broken)).check == "golden"
    many = {"inputs": {n: c * 6 for n, c in pairs["inputs"].items()}, "outputs": pairs["outputs"] * 6}
    assert refusal(opening, models.resealed(good, key, golden=canonical_json(many))).check == "golden"
    # A model of somebody else's under this one's golden pairs.
    other = models.package("forest")
    assert refusal(opening, models.resealed(good, key, model=other.parts["model"])).check == "golden"


def test_reference_profiles(opening: Callable[..., LoadedModel], key: SigningKey) -> None:
    good = models.package()
    fields = json.loads(good.parts["reference"])
    backwards = json.loads(good.parts["reference"])
    backwards["features"]["age"]["points"].reverse()
    for broken in (
        b"",
        b"[" * 100_000,
        canonical_json({**fields, "rows": "many"}),
        canonical_json(backwards),
    ):
        refused = refusal(opening, models.resealed(good, key, reference=broken))
        assert refused.check == "reference"


def test_a_model_whose_bits_depend_on_the_company_of_a_row(key: SigningKey) -> None:
    good = models.package()

    class Sociable:
        def run(self, columns: Columns, rows: int) -> Array:
            p = np.full(rows, 0.3) + columns["age"].sum() * 1e-16
            return np.column_stack([1 - p, p])

    class Blind:
        def run(self, _columns: Columns, rows: int) -> Array:
            return np.full((rows, 2), np.nan)

    golden = json.loads(good.parts["golden"])
    same = canonical_json({**golden, "outputs": [[0.7, 0.3]] * len(golden["outputs"])})
    with pytest.raises(PackageRefused, match="other bits"):
        check_golden(LoadedModel(good.manifest, Sociable()), same)
    with pytest.raises(PackageRefused, match="nan"):
        check_golden(LoadedModel(good.manifest, Blind()), same)


def test_models_that_are_broken_or_reach_outside(
    opening: Callable[..., LoadedModel], key: SigningKey
) -> None:
    good = models.package()
    data = good.parts["model"]

    def check(changed: bytes) -> str:
        refused = refusal(opening, models.resealed(good, key, model=changed))
        assert refused.check == "model"
        return refused.reason

    check(b"")
    check(b"nonsense")
    check(data[: len(data) // 2])
    outside = onnx.load_from_string(data)
    outside.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    outside.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")
    assert "in another file" in check(outside.SerializeToString())
    foreign = onnx.load_from_string(data)
    foreign.opset_import.add(domain="com.example", version=1)
    assert "com.example" in check(foreign.SerializeToString())
    future = onnx.load_from_string(data)
    future.opset_import[0].version = 9999
    assert "ONNX Runtime" in check(future.SerializeToString())


def archive(schema: Any, compress: int = zipfile.ZIP_STORED, **files: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compress) as opened:
        for name, data in {"schema.json": json.dumps(schema).encode(), **files}.items():
            opened.writestr(name, data)
    return out.getvalue()


def payload(loader: str, command: str) -> dict[str, Any]:
    """A node that calls os.system(command) when it is constructed."""
    text = {
        "__class__": "str",
        "__module__": "builtins",
        "__loader__": "JsonNode",
        "content": json.dumps(command),
    }
    arguments = {"__class__": "tuple", "__module__": "builtins", "__loader__": "TupleNode", "content": [text]}
    return {
        "__class__": "system",
        "__module__": "os",
        "__loader__": loader,
        "content": arguments,
        "protocol": 2,
    }


def test_a_skops_archive_with_code_does_not_run(
    opening: Callable[..., LoadedModel], key: SigningKey, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    node = payload("ConstructorFromReduceNode", f"touch {ran}")
    hostile = archive({**node, "protocol": skops_protocol(), "_skops_version": "0"})
    good = models.package("boosting")
    assert "os.system" in refusal(opening, models.resealed(good, key, model=hostile)).reason
    assert not ran.exists()
    # It is a real payload: whoever trusts what the archive asks for runs it.
    skops.io.loads(hostile, trusted=skops.io.get_untrusted_types(data=hostile))
    assert ran.exists()


def skops_protocol() -> int:
    with zipfile.ZipFile(io.BytesIO(models.package("boosting").parts["model"])) as opened:
        return int(json.loads(opened.read("schema.json"))["protocol"])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK nonsense",
        archive({"a": 1}, zipfile.ZIP_DEFLATED),
        archive({"a": 1}, **{"../../outside": b"x"}),
        archive({"a": 1}, **{"/etc/x": b"x"}),
        archive({"__module__": "subprocess", "__class__": "Popen", "__loader__": "ObjectNode"}),
        archive({"x": [{"__module__": "builtins", "__class__": "eval", "__loader__": "FunctionNode"}]}),
        archive({"__module__": "builtins", "__class__": "list", "__loader__": "MethodNode"}),
        archive({"__module__": "builtins", "__class__": "list", "__loader__": "OperatorFuncNode"}),
        archive({"__module__": "builtins", "__class__": "list"}),
    ],
)
def test_skops_archives_that_are_not_let_in(data: bytes) -> None:
    with pytest.raises(PackageRefused) as refused:
        check_archive(data)
    assert refused.value.check == "model"


@pytest.mark.parametrize(
    ("field", "value"), [("left_child", 0), ("left_child", 10**6), ("right_child", 10**6), ("feature", 10**6)]
)
def test_a_tree_that_points_outside_is_not_walked(field: str, value: int) -> None:
    frame, truth = models.rows()
    forest = models.estimator("forest").set_params(randomforestclassifier__n_estimators=1).fit(frame, truth)
    check_trees(forest)
    tree = forest[-1].estimators_[0].tree_
    state = tree.__getstate__()
    state["nodes"][field][0] = value
    tree.__setstate__(state)
    with pytest.raises(PackageRefused, match="of a tree"):
        check_trees(forest)

    boosting = models.estimator("boosting").fit(frame, truth)
    check_trees(boosting)
    as_there = {"left_child": "left", "right_child": "right", "feature": "feature_idx"}[field]
    boosting[-1]._predictors[0][0].nodes[as_there][0] = value
    with pytest.raises(PackageRefused, match="of a tree"):
        check_trees(boosting)


def test_a_pickle_is_refused_with_the_way_to_do_it(tmp_path: Path) -> None:
    for given in (b"\x80\x04", "model.pkl", Path("model.pkl")):
        with pytest.raises(TailraceError, match="Load it yourself"):
            publish(given, None, None, model="credit")
    for name in ("model.pkl", "model.joblib"):
        file = tmp_path / name
        file.write_bytes(b"\x80\x04")
        arguments = ["publish", str(file), "--model", "credit", "--holdout", str(file)]
        done = CliRunner().invoke(app, arguments)
        assert isinstance(done.exception, TailraceError)
        assert "`tailrace publish model.onnx`" in str(done.exception)


def test_formats_are_what_the_manifest_says(key: SigningKey) -> None:
    onnx_package, skops_package = models.package("forest"), models.package("boosting")
    for built, other in ((onnx_package, skops_package), (skops_package, onnx_package)):
        with pytest.raises(PackageRefused, match=r"not ONNX|skops archive"):
            load_model(built.manifest, other.parts["model"])
