"""What the Python peers have in common: fastavro to read a request and to write a prediction, ONNX Runtime in between.

Stands alone, so that it runs in the peers' environments. It does for one request what the scorer does for it: the whole
prediction event of the same schema, with the same model; of the scorer's checks it does none.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from pathlib import Path
from typing import Any, cast

import fastavro
import numpy as np
import onnxruntime

_HEADER = 5
_TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}


class Scoring:
    """Reads ``model.onnx`` and ``task.json`` of a folder."""

    def __init__(self, folder: str) -> None:
        task = json.loads(Path(folder, "task.json").read_text())
        self._request_schema = fastavro.parse_schema(task["request_schema"])
        self._prediction_schema = fastavro.parse_schema(task["prediction_schema"])
        self._header = bytes.fromhex(task["prediction_header"])
        self._constant = task["constant"]
        self._rules: list[tuple[str, str]] = task["rules"]
        self._output = task["output"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(Path(folder, "model.onnx")), options, providers=["CPUExecutionProvider"]
        )
        self._inputs = {i.name: _TYPES.get(i.type, np.object_) for i in self._session.get_inputs()}

    def decode(self, value: bytes) -> dict[str, Any]:
        record = fastavro.schemaless_reader(io.BytesIO(value[_HEADER:]), self._request_schema, None)
        return cast("dict[str, Any]", record)

    def encode(self, prediction: dict[str, Any]) -> bytes:
        buffer = io.BytesIO()
        buffer.write(self._header)
        fastavro.schemaless_writer(buffer, self._prediction_schema, prediction)
        return buffer.getvalue()

    def score(self, request: dict[str, Any]) -> float:
        feed = {name: np.array([[request[name]]], dtype=kind) for name, kind in self._inputs.items()}
        (output,) = self._session.run([self._output], feed)
        return float(output[0, -1])

    def predict(self, request: dict[str, Any], topic: str, partition: int, offset: int) -> dict[str, Any]:
        """The prediction event of a request that was read from there."""
        began = time.perf_counter()
        score = self.score(request)
        action, rule = self._policy(score, request)
        return {
            **self._constant,
            "prediction_id": hashlib.sha256(f"champion|{topic}/{partition}/{offset}".encode()).hexdigest()[
                :32
            ],
            "request_id": request["request_id"],
            "key": request["loan_id"],
            "event_time": request["applied_at"],
            "source": {"topic": topic, "partition": partition, "offset": offset},
            "request": request,
            "score": score,
            "predicted_class": "true" if score >= 0.5 else "false",
            "action": action,
            "rule": rule,
            "latency_ms": (time.perf_counter() - began) * 1e3,
        }

    def _policy(self, score: float, request: dict[str, Any]) -> tuple[str, str]:
        """The rules of the contract ``credit``."""
        if score < 0.15 and request["amount"] < 50_000:
            return self._rules[0]
        return self._rules[1] if score < 0.35 else self._rules[2]
