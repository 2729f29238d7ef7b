"""Door: what goes out by itself. ONNX Runtime's telemetry, which its builds have switched on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from onnx import TensorProto, helper

OPENED_BY = {
    "tailrace": "from tailrace.models.formats.onnx.run import session; session(data)",
    "plain": "import onnxruntime; onnxruntime.InferenceSession(data)",
}
# It is silent by itself where these are set, as on machines that run tests.
SILENCED_BY = (
    "CI",
    "GITHUB_ACTIONS",
    "TF_BUILD",
    "ORT_DISABLE_TELEMETRY",
    "ORT_RUNNING_UNIT_TESTS",
    "XDG_CACHE_HOME",
)


def test_onnx_runtime_tells_nobody_of_models(tmp_path: Path) -> None:
    """It keeps what it is to send below the home folder; there is a thread that sends it."""
    assert _left_by("tailrace", tmp_path / "tailrace") == []
    assert _left_by("plain", tmp_path / "plain"), (
        "it has no telemetry any more: this test and the setting may go"
    )


def _left_by(name: str, home: Path) -> list[Path]:
    home.mkdir()
    (home / "model.onnx").write_bytes(_model())
    opening = f"data = open('model.onnx', 'rb').read(); {OPENED_BY[name]}"
    env = {variable: value for variable, value in os.environ.items() if variable not in SILENCED_BY}
    subprocess.run(
        [sys.executable, "-c", opening],
        cwd=home,
        env=env | {"HOME": str(home)},
        check=True,
        capture_output=True,
    )
    return [path for path in home.rglob("*") if path.is_file() and path.name != "model.onnx"]


def _model() -> bytes:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "one", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())
