"""What `tailrace publish` takes: ONNX in a file or an MLflow directory, and nothing that runs code."""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from tests.support import models

from tailrace.errors import TailraceError
from tailrace.models.formats.compare import compare
from tailrace.models.formats.onnx import boosters
from tailrace.models.formats.onnx.files import onnx_bytes
from tailrace.models.formats.onnx.to_onnx import onnx_forms
from tailrace.models.formats.original import Original
from tailrace.models.package.build import build_from_onnx, build_package
from tailrace.models.package.table import feature_names, inputs_of

MLMODEL = """
flavors:
  onnx: {code: null, data: DATA, onnx_version: 1.16.0, providers: [CPUExecutionProvider]}
  python_function: {data: DATA, env: {conda: conda.yaml}, loader_module: mlflow.onnx}
mlflow_version: 2.14.1
"""


def wide() -> Any:
    """A model whose weights are worth a file of their own."""
    weights = numpy_helper.from_array(np.arange(2000, dtype=np.float32).reshape(1000, 2), "weights")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weights"], ["value"])],
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1000])],
        [helper.make_tensor_value_info("value", TensorProto.FLOAT, [None, 2])],
        [weights],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)


def mlflow_directory(folder: Path, data: str = "model.onnx", text: str = MLMODEL) -> Path:
    """As mlflow.onnx.save_model writes it: weights in a file beside the model."""
    folder.mkdir()
    onnx.save_model(wide(), str(folder / "model.onnx"), save_as_external_data=True, location="weights.bin")
    (folder / "MLmodel").write_text(text.replace("DATA", data))
    return folder


def test_an_mlflow_directory_gives_one_file_that_stands_alone(tmp_path: Path) -> None:
    folder = mlflow_directory(tmp_path / "model")
    assert (folder / "weights.bin").stat().st_size >= 8000
    x = np.random.default_rng(0).normal(size=(3, 1000)).astype(np.float32)
    for given in (folder, folder / "model.onnx"):
        session = onnxruntime.InferenceSession(onnx_bytes(given))
        (values,) = session.run(None, {"x": x})
        assert values == pytest.approx(x @ np.arange(2000, dtype=np.float32).reshape(1000, 2), rel=1e-4)


def test_a_file_that_stands_alone_is_taken_as_it_is_and_can_be_published(tmp_path: Path) -> None:
    built = models.package()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "MLmodel").write_text(MLMODEL.replace("DATA", "model.onnx"))
    (tmp_path / "model" / "model.onnx").write_bytes(built.parts["model"])
    data = onnx_bytes(tmp_path / "model")
    assert data == built.parts["model"]
    frame, truth = models.rows()
    again = build_from_onnx(data, frame, truth, models.contract())
    assert again.manifest.format == "onnx"


def test_directories_without_an_onnx_flavour(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(TailraceError, match="no file MLmodel"):
        onnx_bytes(tmp_path / "empty")
    sklearn = "flavors: {sklearn: {pickled_model: model.pkl}, python_function: {}}"
    with pytest.raises(TailraceError, match=r"only sklearn, python_function.*mlflow\.onnx\.log_model"):
        onnx_bytes(mlflow_directory(tmp_path / "sklearn", text=sklearn))
    for at, data in enumerate(["../outside.onnx", "/etc/hostname", "absent.onnx"]):
        (tmp_path / "outside.onnx").write_bytes(b"")
        with pytest.raises(TailraceError, match="not a file in the folder"):
            onnx_bytes(mlflow_directory(tmp_path / str(at), data))
    for at, text in enumerate(["a: [", "", "flavors: 1", "!!python/object/apply:os.system [exit]"]):
        with pytest.raises(TailraceError):
            onnx_bytes(mlflow_directory(tmp_path / f"broken{at}", text=text))


def test_weights_outside_of_the_folder_are_not_taken_in(tmp_path: Path) -> None:
    folder = mlflow_directory(tmp_path / "model")
    (tmp_path / "weights.bin").write_bytes((folder / "weights.bin").read_bytes())
    model = onnx.load(str(folder / "model.onnx"), load_external_data=False)
    model.graph.initializer[0].external_data[0].value = "../weights.bin"
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(TailraceError, match="not an ONNX model"):
        onnx_bytes(folder)


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_pickle_is_refused_whatever_it_is_called_and_never_loaded(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    data = pickle.dumps(Payload(ran))
    torch = io.BytesIO()
    with zipfile.ZipFile(torch, "w") as archive:
        archive.writestr("model/data.pkl", data)
    sklearn, pytorch = (
        r"Load it yourself.*tailrace publish model\.onnx",
        r"pickles, which run code.*torch\.onnx\.export",
    )
    for name, content, way in (
        ("model.pkl", b"anything", sklearn),
        ("model.joblib", data, sklearn),
        ("model.cloudpickle", data, sklearn),
        ("model", data, sklearn),
        ("model.onnx", data, sklearn),
        ("model.onnx", torch.getvalue(), pytorch),
        ("model.pt", data, pytorch),
        ("model.pth", torch.getvalue(), pytorch),
        ("model.onnx", zlib.compress(data), r"not an ONNX model.*tailrace\.publish\(estimator"),
        (
            "model.onnx",
            pickle.dumps(Payload(ran), protocol=0),
            r"not an ONNX model.*tailrace\.publish\(estimator",
        ),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(TailraceError, match=way):
            onnx_bytes(tmp_path / name)
    assert not ran.exists()
    pickle.loads(data)
    assert ran.exists()  # it is a real payload


@pytest.mark.parametrize(
    ("name", "way"),
    {
        "model.skops": r"tailrace\.publish\(estimator",
        "model.ubj": "XGBClassifier",
        "model.json": "XGBClassifier",
        "model.txt": "convert_lightgbm.*LGBMClassifier",
        "model.h5": r"model\.export\('model.onnx', format='onnx'\)",
        "model.keras": "tf2onnx",
        "model.cbm": "format='onnx'",
        "model.pmml": "where it was made",
        "saved_model.pb": "--saved-model",
        "model.safetensors": r"torch\.onnx\.export",
    }.items(),
)
def test_other_formats_are_told_their_way(tmp_path: Path, name: str, way: str) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(TailraceError, match=way):
        onnx_bytes(tmp_path / name)


def test_a_keras_archive_by_another_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model", "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", b"")
    with pytest.raises(TailraceError, match="tf2onnx"):
        onnx_bytes(tmp_path / "model")


def test_folders_are_told_their_way(tmp_path: Path) -> None:
    for name, file, way in (
        ("tensorflow", "saved_model.pb", "--saved-model"),
        ("transformer", "config.json", "optimum-cli"),
        ("run", "model/MLmodel", "run/model is"),
    ):
        (tmp_path / name / file).parent.mkdir(parents=True)
        (tmp_path / name / file).write_text("{}")
        with pytest.raises(TailraceError, match=way):
            onnx_bytes(tmp_path / name)
    xgboost = "flavors: {python_function: {}, xgboost: {data: model.xgb}}"
    with pytest.raises(TailraceError, match=r"mlflow\.xgboost\.load_model"):
        onnx_bytes(mlflow_directory(tmp_path / "xgboost", text=xgboost))


def foreign(module: str, **methods: Any) -> Any:
    return type("Model", (), {"__module__": module, **methods})()


@pytest.mark.parametrize(
    ("given", "way"),
    [
        (b"\x80\x04", "runs code when it is loaded"),
        (Path("model.pkl"), "runs code when it is loaded"),
        (foreign("torch.nn.modules.linear"), r"torch\.onnx\.export"),
        (foreign("keras.src.models", fit=None, get_params=None), r"model\.export"),
        (foreign("xgboost.core"), "XGBClassifier"),
        (foreign("lightgbm.basic"), "LGBMClassifier"),
        (foreign("catboost.core", get_params=None, fit=None), "save_model"),
        (foreign("mlflow.pyfunc"), "the model inside"),
        (wide(), "write it to a file"),
        (lambda x: x, "where it was made"),
        (LogisticRegression, "where it was made"),
        (None, "where it was made"),
        (foreign("own", get_params=lambda self: {}, fit=None), "BaseEstimator"),
    ],
    ids=[
        *("pickled", "a path", "torch", "keras", "xgboost", "lightgbm", "catboost", "mlflow"),
        *("wide", "a function", "a class", "none", "own"),
    ],
)
def test_what_is_no_estimator_is_told_its_way(given: Any, way: str) -> None:
    frame, truth = models.rows()
    with pytest.raises(TailraceError, match=way):
        build_package(given, frame, truth, models.contract())


class OwnStep(TransformerMixin, BaseEstimator):
    """A step that no scorer has."""

    def fit(self, x: Any, y: Any = None) -> OwnStep:
        self.feature_names_in_ = np.array(list(x.columns), dtype=object)
        return self

    def transform(self, x: Any) -> Any:
        return np.nan_to_num(x[["income", "debt_ratio", "age"]].to_numpy(dtype=float))


def test_code_of_ones_own_is_named_and_told_its_way() -> None:
    frame, truth = models.rows()
    for step, name in (
        (OwnStep(), "OwnStep"),
        (FunctionTransformer(lambda x: OwnStep().transform(x)), "<lambda>"),
    ):
        pipeline = make_pipeline(step, LogisticRegression(max_iter=500)).fit(frame, truth)
        with pytest.raises(TailraceError, match=rf"neither as ONNX.*{name}.*tailrace publish model\.onnx"):
            build_package(pipeline, frame, truth, models.contract())


def test_a_booster_without_its_converter_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    frame, truth = models.rows()
    estimator = models.estimator("logistic").fit(frame, truth)
    contract = models.contract()
    original = Original(estimator, inputs_of(feature_names(frame, contract), frame, contract), "binary")
    monkeypatch.setattr(boosters, "_library", lambda part: "lightgbm")
    monkeypatch.setitem(sys.modules, "onnxmltools", None)
    monkeypatch.setitem(sys.modules, "lightgbm", SimpleNamespace())
    why: list[str] = []
    assert list(onnx_forms(original, why)) == []
    assert "is not installed, which converts lightgbm" in why[0]


def test_values_are_compared_on_their_own_scale() -> None:
    expected = np.array([[1000.0], [-1000.0], [0.01]])
    outputs = expected + np.array([[0.0], [0.0], [1e-3]])
    difference = compare(outputs, expected, "regression")
    assert difference.of_spread == pytest.approx(1e-3 / np.std(expected))
    assert difference.largest == pytest.approx(1e-3)
    assert compare(expected + 0.5, expected, "regression").of_spread > 1e-4


def test_small_outputs_are_held_to_their_own_spread() -> None:
    small = np.array([[1e-7], [3e-7], [2e-7]])
    assert compare(small * 1.01, small, "regression").of_spread > 1e-3
    rare = np.column_stack([1 - small, small])
    assert compare(rare + np.array([[0.0, 1e-7]]), rare, "binary").of_spread > 0.1
    constant = np.full((3, 1), 0.1)
    assert compare(constant + 1e-9, constant, "regression").of_spread == pytest.approx(1e-8)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_outputs_that_are_not_finite_are_infinitely_far_off(bad: float) -> None:
    expected = np.array([[1.0], [2.0]])
    assert compare(np.array([[1.0], [bad]]), expected, "regression").of_spread == float("inf")
