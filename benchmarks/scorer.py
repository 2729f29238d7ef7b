"""The scorer against the empty transactional loop: how much of what Kafka allows is left.

The whole path of the service runs: decoding, checks, a logistic regression of 12 features in ONNX Runtime, policy,
prediction events, exactly once. The empty loop passes the same requests on as bytes.
"""

from __future__ import annotations

import random
import tempfile
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from tests.support.memory_registry import MemoryRegistry
from tests.support.models import sealed

from benchmarks.empty_loop import PARTITIONS, batch_loop, empty_loop
from benchmarks.harness import Broker, Measured, arguments, broker, interleave, say, show, summary
from tailrace.contracts.lanes import CONTRACTS, MANIFESTS, ROLLOUTS, Lane
from tailrace.contracts.model_contract import ModelContract, load_contract
from tailrace.contracts.schemas import request_schema, subject
from tailrace.kit.codec import Codec, ControlCodec
from tailrace.kit.memory_log import MemoryMessage
from tailrace.kit.topics import ensure_topics, lane_topics
from tailrace.models.build import build_package
from tailrace.models.package import open_package
from tailrace.models.sign import SigningKey
from tailrace.models.trust import TrustStore
from tailrace.scorer.logic import ScorerLogic

LANE = Lane("benchmark")
NUMBERS = [f"number_{i}" for i in range(9)]
CATEGORIES = [f"category_{i}" for i in range(3)]
VALUES = ["red", "green", "blue", "other"]

CONTRACT = f"""
model: {LANE.name}
owner: {{team: benchmarks}}
features:
{"".join(f"  {n}: {{type: number, min: -1000, max: 1000}}{chr(10)}" for n in NUMBERS)}
{"".join(f"  {c}: {{categories: [{', '.join(VALUES)}]}}{chr(10)}" for c in CATEGORIES)}
target: {{name: bad, type: boolean}}
policy:
  - {{when: "score < 0.2", do: approve}}
  - {{when: "score < 0.5 AND number_0 > 0", do: refer}}
  - {{do: refuse}}
"""


class Prepared(ScorerLogic):
    """A scorer that was told of contract, version and rollout beforehand."""

    def control_topics(self) -> tuple[str, ...]:
        return ()


def rows(count: int) -> pd.DataFrame:
    draw = np.random.default_rng(1)
    frame = pd.DataFrame({name: draw.normal(size=count) for name in NUMBERS})
    for name in CATEGORIES:
        frame[name] = draw.choice(VALUES, count).astype(object)
    return frame


def package(contract: ModelContract) -> Any:
    frame = rows(2_000)
    truth = (frame.number_0 + frame.number_1 - (frame.category_0 == "red") > 0).to_numpy()
    columns = ColumnTransformer(
        [
            ("numbers", StandardScaler(), NUMBERS),
            ("categories", OneHotEncoder(categories=[VALUES] * 3, handle_unknown="ignore"), CATEGORIES),
        ]
    )
    pipeline = make_pipeline(columns, LogisticRegression()).fit(frame, truth)
    return build_package(pipeline, frame, truth, contract)


def prepared(registry: MemoryRegistry, contract: ModelContract) -> Prepared:
    """A scorer with version 1 in service."""
    key = SigningKey.generate()
    trust = TrustStore(Path(tempfile.mkdtemp(prefix="tailrace-benchmark-keys-")))
    trust.trust(key.public)
    manifest, fetch = sealed(package(contract), key)
    executor = ThreadPoolExecutor(1)
    logic = Prepared("champion", registry, lambda record, c: open_package(record, fetch, trust, c), executor)
    codec = ControlCodec(registry)
    applied = {
        "model": contract.model,
        "revision": 1,
        "follows": 0,
        "digest": contract.digest,
        "source_text": "",
        "resolved": contract.resolved_json,
        "applied_by": "",
        "applied_at": 0,
    }
    rollout = {
        "model": contract.model,
        "revision": 1,
        "follows": 0,
        "step": "first-champion",
        "champion": 1,
        "reason": "",
        "by": "",
        "source": {"topic": MANIFESTS, "partition": 0, "offset": 0},
    }
    logic.control(
        [
            MemoryMessage(CONTRACTS, 0, 0, codec.encode("Contract", applied)),
            MemoryMessage(MANIFESTS, 0, 0, codec.encode("ModelManifest", manifest)),
            MemoryMessage(ROLLOUTS, 0, 0, codec.encode("Rollout", rollout)),
        ]
    )
    executor.shutdown(wait=True)
    return logic


def requests(registry: MemoryRegistry, contract: ModelContract, count: int) -> Iterator[bytes]:
    codec = Codec(registry)
    topic = LANE.requests
    schema_id = registry.register(subject(topic, contract.model, contract.lane), request_schema(contract))
    distinct = min(count, 10_000)
    rng = random.Random(1)
    samples = rows(distinct).to_dict("records")
    for number in range(count):
        record = samples[number % distinct] | {
            "request_id": f"{rng.getrandbits(64):016x}",
            "event_time": 1_700_000_000_000 + number,
        }
        yield codec.encode(schema_id, record)


def fresh_topics(kafka: Broker) -> None:
    ensure_topics(kafka.connection.kafka, lane_topics(LANE.name, partitions=PARTITIONS))


def main() -> None:
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--records", type=int, default=100_000, help="requests in each run")
    parser.add_argument("--batch", type=int, nargs="*", default=[100, 1_000, 5_000], help="requests a commit")
    given = parser.parse_args()
    registry = MemoryRegistry()
    contract = load_contract(CONTRACT)
    say("training")
    logic = prepared(registry, contract)
    result = {}
    with broker() as kafka:
        fresh_topics(kafka)
        say("writing requests")
        kafka.fill(LANE.requests, requests(registry, contract, given.records))

        def empty(batch: int) -> Measured:
            target = kafka.topic("empty", PARTITIONS)
            try:
                return empty_loop(kafka, LANE.requests, target, given.records, batch)
            finally:
                kafka.delete(target)

        def scoring(batch: int) -> Measured:
            return batch_loop(kafka, logic, f"scorer-{uuid.uuid4().hex[:8]}", given.records, batch)

        for batch in given.batch:
            cases = {"empty loop": partial(empty, batch), "logistic": partial(scoring, batch)}
            result[f"batch {batch}"] = summary(interleave(cases, given.rounds), "empty loop")
    show(result, given.json)


if __name__ == "__main__":
    main()
