from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.support.training import DAY, contract_text, event

from tailrace.avro.codec import Codec
from tailrace.contracts.language.load import load_contract
from tailrace.contracts.records.schemas import outcome_schema
from tailrace.errors import TailraceError
from tailrace.streaming.records import PlainMessage
from tailrace.testing.memory_registry import MemoryRegistry
from tailrace.trainer.dataset import Dataset, dataset
from tailrace.trainer.run import OpenTrigger, Run

CONTRACT = load_contract(contract_text("credit"))
RUN = Run(
    run_id="0" * 32,
    model="credit",
    cut=12 * DAY,
    triggers=(OpenTrigger("drift", "a", 11 * DAY, 10 * DAY, ""),),
    changed_at=10 * DAY,
    window_start=10 * DAY,
    window_end=12 * DAY,
    labels=100,
    contract_digest=CONTRACT.digest,
    champion=None,
    offsets=((0, 10_000), (1, 10_000)),
)
REGISTRY = MemoryRegistry()
CODEC = Codec(REGISTRY)
SCHEMA = REGISTRY.register("credit.outcomes-value", outcome_schema(CONTRACT))


def messages(outcomes: list[dict[str, Any]]) -> list[PlainMessage]:
    records = []
    for offset, outcome in enumerate(outcomes):
        partition = outcome["prediction"]["source"]["partition"]
        value = CODEC.encode(SCHEMA, outcome)
        records.append(PlainMessage("credit.outcomes", partition, offset, value))
    return records


def rows_of(outcomes: list[dict[str, Any]], run: Run = RUN) -> Dataset:
    return dataset(run, CONTRACT, CODEC, messages(outcomes))


def plain(days: tuple[int, ...] = (10, 11), rows: int = 20, **changed: Any) -> list[dict[str, Any]]:
    return [event(day * 1000 + n, day, CONTRACT, **changed) for day in days for n in range(rows)]


def request(outcome: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = outcome["prediction"]["request"]
    return fields


def test_rows_are_those_of_the_window_known_before_the_cut() -> None:
    late = event(11_500, 11, CONTRACT, known_at=12 * DAY)
    outcomes = [*plain((9, 10, 11, 12)), late]
    gathered = rows_of(outcomes)
    assert gathered.ids == tuple(o["prediction"]["prediction_id"] for o in plain())
    assert gathered.left_out == {"known after the cut": 1, "outside the window": 40}
    assert gathered.frame["income"].to_list() == [request(o)["income"] for o in plain()]
    assert gathered.frame["region"].to_list() == [request(o)["region"] for o in plain()]
    assert gathered.frame["defaulted"].to_list() == [o["label"] for o in plain()]


def test_the_order_of_reading_and_repeats_change_nothing() -> None:
    outcomes = plain()
    first = rows_of(outcomes)
    random.Random(1).shuffle(outcomes)
    again = rows_of([*outcomes, *outcomes[:7]])
    assert first.ids == again.ids
    assert first.digest == again.digest
    flipped = rows_of([outcomes[0] | {"label": not outcomes[0]["label"]}, *outcomes[1:]])
    assert flipped.digest != first.digest


def test_the_last_revision_known_before_the_cut_counts() -> None:
    outcomes = plain()
    corrected, too_late = outcomes[3], outcomes[4]
    more = [
        corrected | {"revision": 2, "label": not corrected["label"]},
        too_late | {"revision": 2, "label": not too_late["label"], "known_at": 12 * DAY},
    ]
    labels = rows_of([*more, *outcomes]).frame["defaulted"].to_list()
    assert labels[3] is not corrected["label"]
    assert labels[4] is too_late["label"]


def test_duplicates_shadows_other_models_and_what_has_no_label_are_left_out() -> None:
    outcomes = plain()
    other = event(10_100, 10, CONTRACT)
    other["prediction"]["model"] = "another"
    strange = [
        outcomes[0] | {"prediction": outcomes[0]["prediction"] | {"prediction_id": "p"}, "duplicate_of": "q"},
        event(10_000, 10, CONTRACT, role="shadow", version=2),
        other,
        event(10_101, 10, CONTRACT, state="unlabelled", label=None),
    ]
    gathered = rows_of([*outcomes, *strange])
    assert gathered.ids == rows_of(outcomes).ids
    assert gathered.left_out == {"duplicate": 1, "no answer of the model": 2, "unlabelled": 1}
    assumed = event(10_102, 10, CONTRACT, state="assumed", label=False)
    assert len(rows_of([*outcomes, assumed])) == len(outcomes) + 1


def test_values_are_those_that_a_model_is_given() -> None:
    outcomes = plain()
    request(outcomes[0])["income"] = None
    request(outcomes[1])["purpose"] = "boat"  # unseen: the contract says home
    request(outcomes[2])["income"] = float("inf")
    request(outcomes[3])["purpose"] = None
    gathered = rows_of(outcomes)
    assert gathered.frame["income"][0] is None
    assert gathered.frame["purpose"][1] == "home"
    assert gathered.frame["income"][2] is None
    assert gathered.left_out == {"purpose is missing": 1}


def test_the_latest_fifth_is_held_back() -> None:
    gathered = rows_of(plain())
    (x, y), (held_x, held_y) = gathered.train, gathered.held
    assert (len(x), len(held_x)) == (32, 8)
    assert np.array_equal(np.concatenate([y, held_y]), gathered.frame["defaulted"].to_numpy())
    assert list(held_x["income"]) == gathered.frame["income"].to_list()[32:]
    assert gathered.held_rows.truth.tolist() == ["true" if v else "false" for v in held_y]


def test_reading_stops_where_the_plan_says() -> None:
    outcomes = plain()
    run = replace(RUN, offsets=((0, 20), (1, 40)))
    gathered = rows_of(outcomes, run)
    kept = [o for n, o in enumerate(outcomes) if o["prediction"]["source"]["partition"] == 1 or n < 20]
    assert len(gathered) == len(kept) == 30


def test_too_few_rows_are_an_error_that_says_what_was_left_out() -> None:
    with pytest.raises(TailraceError, match=r"3 labelled rows are too few .*'outside the window': 20"):
        rows_of([*plain((10,), 3), *plain((9,))])


@pytest.mark.parametrize("later_first", [False, True])
def test_a_correction_is_counted_and_is_what_counts_whichever_is_read_first(later_first: bool) -> None:
    outcomes = plain()
    corrected = outcomes[3] | {"revision": 2, "label": not outcomes[3]["label"]}
    data = rows_of([corrected, *outcomes] if later_first else [*outcomes, corrected])
    assert data.left_out == {"corrected": 1}
    assert data.frame["defaulted"].to_list()[3] is corrected["label"]
    assert len(data) == len(outcomes)
