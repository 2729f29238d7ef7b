"""What the scorer is measured with: a contract, its versions in service, and requests.

``logistic`` and ``gradient_boosting`` are 12 features and a policy; ``everything`` is a full contract: context, a key
of its own, rules across fields, missing values, the guards (domain, output, conformal sets), a policy that uses them,
exploration, a fallback chain, and a canary that answers a quarter of the keys.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from tailrace.avro.codec import Codec
from tailrace.contracts.language.load import load_contract
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records.lanes import MANIFESTS, Lane
from tailrace.contracts.records.schemas import request_schema, subject
from tailrace.models.package.build import build_package
from tailrace.models.package.open import Fetch, open_package
from tailrace.scorer.app import use_one_thread
from tailrace.scorer.processor import ScoringProcessor
from tailrace.signing.keys import SigningKey
from tailrace.signing.trust import TrustStore
from tailrace.testing.control_records import contract_record
from tailrace.testing.memory_registry import MemoryRegistry
from tailrace.testing.sealed_package import sealed
from tailrace.testing.signed_records import Control, make_home, message_of

NUMBERS = [f"number_{i}" for i in range(9)]
CATEGORIES = [f"category_{i}" for i in range(3)]
VALUES = ["red", "green", "blue", "other"]
CANARY_SHARE = 0.25
RARE = 0.02
"""Share of the requests with a missing number; as many have a value that is in no category."""


def features(numbers: Sequence[str], categories: Sequence[str], number: str = "", category: str = "") -> str:
    """The features of a contract, each with what else is said of all of its kind."""
    lines = [f"  {name}: {{type: number{number}}}" for name in numbers]
    lines += [f"  {name}: {{categories: [{', '.join(VALUES)}]{category}}}" for name in categories]
    return "\n".join(["features:", *lines])


_PLAIN = f"""
model: plain
owner: {{team: benchmarks}}
{features(NUMBERS, CATEGORIES, ", min: -1000, max: 1000")}
target: {{name: bad, type: boolean}}
policy:
  - {{when: "score < 0.2", do: approve}}
  - {{when: "score < 0.5 AND number_0 > 0", do: refer}}
  - {{do: refuse}}
"""

_FULL = f"""
model: full
owner: {{team: benchmarks}}
key: {{name: account, type: string}}
event_time: {{name: applied_at, skew: 5min}}
{features(NUMBERS, CATEGORIES, ", min: -1000, max: 1000, missing: impute", ", unseen: other")}
context:
  amount: {{type: number, unit: EUR, min: 0}}
  region: {{categories: [north, south, east, west]}}
rules:
  - {{name: sane, require: "number_0 < 900 OR amount > 0"}}
  - {{name: small-in-the-west, require: "region <> 'west' OR amount < 1000000"}}
target: {{name: bad, type: boolean}}
guardrails:
  domain: {{false_alarms: 1%}}
  score: {{min: 0, max: 1}}
  coverage: 95%
  fallback: [{{previous: true}}, {{rule: "CASE WHEN amount > 5000 THEN 0.6 ELSE 0.3 END"}}, {{do: refer}}]
policy:
  - {{when: "guarded", do: refer, name: unlike-training}}
  - {{when: "uncertain AND amount > 5000", do: refer, name: not-sure}}
  - {{when: "score < 0.2 AND amount < 5000", do: approve, name: small-and-safe}}
  - {{when: "score < 0.5 AND (number_0 > 0 OR region = 'north')", do: refer, name: look-closer}}
  - {{when: "category_0 = 'red' AND score < 0.6", do: refer, name: red}}
  - {{do: refuse, name: too-risky}}
explore: {{share: 5%, from: refuse, do: approve}}
"""


class Prepared(ScoringProcessor):
    """A scorer that was told of contract, versions and rollout beforehand."""

    def control_topics(self) -> tuple[str, ...]:
        return ()


def _linear() -> Any:
    columns = [
        ("numbers", StandardScaler(), NUMBERS),
        ("categories", OneHotEncoder(categories=[VALUES] * 3, handle_unknown="ignore"), CATEGORIES),
    ]
    return make_pipeline(ColumnTransformer(columns), LogisticRegression())


def _trees() -> Any:
    columns = [
        ("numbers", "passthrough", NUMBERS),
        (
            "categories",
            OrdinalEncoder(categories=[VALUES] * 3, handle_unknown="use_encoded_value", unknown_value=-1),
            CATEGORIES,
        ),
    ]
    return make_pipeline(ColumnTransformer(columns), HistGradientBoostingClassifier(max_iter=100))


@dataclass(frozen=True)
class Case:
    """A contract's text, what fits its model, and how many versions answer: the second one as a canary."""

    text: str
    trees: bool = False
    canary: bool = False

    @cached_property
    def contract(self) -> ModelContract:
        return load_contract(self.text)

    @property
    def lane(self) -> Lane:
        return Lane(self.contract.lane)

    def scorer(self, registry: MemoryRegistry) -> Prepared:
        """A scorer with the versions in service, as its process has it."""
        use_one_thread()
        key = SigningKey.generate()
        trust = TrustStore(make_home(Path(tempfile.mkdtemp(prefix="tailrace-benchmark-"))) / "keys")
        trust.trust(key.public)
        versions = [1, 2] if self.canary else [1]
        packages = {v: sealed(self._package().numbered(v, v), key) for v in versions}

        def opened(record: Any, contract: ModelContract) -> Any:
            fetch: Fetch = packages[record["version"]][1]
            return open_package(record, fetch, trust, contract)

        executor = ThreadPoolExecutor(1)
        control = Control(registry)
        processor = Prepared("champion", control.by("scorer"), opened, executor)
        model = self.contract.model
        applied = contract_record(self.contract)
        rollout = {
            "model": model,
            "revision": 1,
            "follows": 0,
            "step": "canary" if self.canary else "first-champion",
            "champion": 1,
            "reason": "",
            "by": "",
            "source": {"topic": MANIFESTS, "partition": 0, "offset": 0},
        }
        if self.canary:
            rollout |= {
                "shadow": [2],
                "canary": {"version": 2, "share": CANARY_SHARE, "salt": "salt", "step": 1},
            }
        processor.control(
            [
                message_of(control.record("Contract", applied)),
                *(
                    message_of(control.record("ModelManifest", manifest), at)
                    for at, (manifest, _) in enumerate(packages.values())
                ),
                message_of(control.record("Rollout", rollout)),
            ]
        )
        executor.shutdown(wait=True)
        return processor

    def _package(self) -> Any:
        frame = _rows(4_000, 0.0)
        noise = np.random.default_rng(2).normal(size=len(frame))
        truth = (frame.number_0 + frame.number_1 - (frame.category_0 == "red") + noise > 0).to_numpy()
        features = frame[[*NUMBERS, *CATEGORIES]]
        fitted = (_trees() if self.trees else _linear()).fit(features, truth)
        return build_package(fitted, features, truth, self.contract)

    def requests(self, registry: MemoryRegistry, count: int) -> Iterator[bytes]:
        """Requests in wire format, the same ones each time but for their ids and times."""
        codec = Codec(registry)
        contract = self.contract
        schema_id = registry.register(
            subject(self.lane.requests, contract.model, contract.lane), request_schema(contract)
        )
        distinct = min(count, 10_000)
        rng = random.Random(1)
        full = "account" in self.text
        frame = _rows(distinct, RARE if full else 0.0)
        samples = (frame if full else frame[[*NUMBERS, *CATEGORIES]]).to_dict("records")
        for number in range(count):
            record = {
                name: None if value != value else value for name, value in samples[number % distinct].items()
            }
            record |= {"request_id": f"{rng.getrandbits(64):016x}"}
            record[contract.event_time.name] = 1_700_000_000_000 + number
            if full:
                record["account"] = f"{number * 7919 % count:08d}"
            yield codec.encode(schema_id, record)


def _rows(count: int, rare: float) -> pd.DataFrame:
    draw = np.random.default_rng(1)
    frame = pd.DataFrame({name: draw.normal(size=count) for name in NUMBERS})
    for name in CATEGORIES:
        frame[name] = draw.choice(VALUES, count).astype(object)
    frame["amount"] = draw.lognormal(8.0, 1.0, count)
    frame["region"] = draw.choice(["north", "south", "east", "west"], count).astype(object)
    if rare:
        frame.loc[draw.random(count) < rare, "number_3"] = np.nan
        frame.loc[draw.random(count) < rare, "category_1"] = "never seen"
    return frame


CASES = {
    "logistic": Case(_PLAIN),
    "gradient_boosting": Case(_PLAIN, trees=True),
    "everything": Case(_FULL, canary=True),
}
