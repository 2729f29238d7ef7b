"""Who answers which request: sticky, in the right share, logged with the right propensity."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.scoring import CONTRACT, REQUEST, Bench, Publisher, serving

from tailrace.avro.columns.hashing import key_positions
from tailrace.contracts.language.load import load_contract
from tailrace.models.rollout_state.fold import Arm, ExperimentState
from tailrace.scorer.steps.route import route
from tailrace.scorer.versions import Serving, ServingVersion
from tailrace.streaming.ids import prediction_id
from tailrace.streaming.records import RecordRef
from tailrace.testing.formula_model import Formula, formula_model

KEYS = [b"l%d" % number for number in range(20_000)]


def splitmix64(seed: int, number: int) -> int:
    """The reference, in whole numbers."""
    mask = 2**64 - 1
    z = (seed + (number + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & mask
    return z ^ z >> 31


def test_positions_are_those_of_splitmix64() -> None:
    import hashlib
    import zlib

    seed = int.from_bytes(hashlib.sha256(b"salt").digest()[:8], "big")
    expected = [(splitmix64(seed, zlib.crc32(key)) >> 11) / 2**53 for key in KEYS[:500]]
    assert key_positions(KEYS[:500], "salt").tolist() == expected
    # The published first numbers of the stream of seed 1234567.
    assert [splitmix64(1234567, n) for n in range(2)] == [6457827717110365317, 3203168211198807973]


@given(st.lists(st.binary(max_size=8), max_size=8), st.text(max_size=4), st.randoms(use_true_random=False))
def test_a_key_lies_where_it_lies_whatever_is_beside_it(keys: list[bytes], salt: str, random: Any) -> None:
    positions = dict(zip(keys, key_positions(keys, salt).tolist(), strict=True))
    random.shuffle(keys)
    assert [positions[key] for key in keys] == key_positions(keys, salt).tolist()
    assert all(0 <= position < 1 for position in positions.values())


def test_salts_choose_independently_of_each_other() -> None:
    one, other = key_positions(KEYS, "one") < 0.1, key_positions(KEYS, "other") < 0.1
    both = int((one & other).sum())
    assert abs(both - 200) < 5 * math.sqrt(200)


CANARY: dict[str, Any] = {"champion": 1, "shadow": [2]}


def at_share(share: float, step: int = 1) -> dict[str, Any]:
    return {"canary": {"version": 2, "share": share, "salt": "s", "step": step}}


def canary(share: float, role: Any = "champion", contract: str = CONTRACT, **state: Any) -> Bench:
    publisher = Publisher()
    bench = Bench(publisher.logic(role), publisher)
    bench.control(
        publisher.contract(contract),
        publisher.manifest(1),
        publisher.manifest(2),
        publisher.rollout(**CANARY | at_share(share) | state),
    )
    return bench


def asked(bench: Bench, keys: range, **changes: Any) -> list[dict[str, Any]]:
    requests = [REQUEST | {"request_id": f"r{n}", "loan_id": f"l{n}"} | changes for n in keys]
    return bench.events(bench.requests(*requests))


def test_a_canary_answers_its_share_and_says_with_what_probability() -> None:
    events = asked(canary(0.25), range(2000))
    assert [event["request_id"] for event in events] == [f"r{n}" for n in range(2000)]
    chosen = [event for event in events if event["role"] == "canary"]
    assert abs(len(chosen) - 500) < 4 * math.sqrt(2000 * 0.25 * 0.75)
    assert {(e["version"], e["arm_propensity"], e["served_by"]) for e in chosen} == {(2, 0.25, "model")}
    others = [event for event in events if event["role"] == "champion"]
    assert {(e["version"], e["arm_propensity"], e["arm"]) for e in others} == {(1, 0.75, None)}
    assert {e["rollout_revision"] for e in events} == {1}
    for event in chosen[:5]:
        assert event["prediction_id"] == prediction_id("canary", RecordRef(**event["source"]), 2)
        assert event["score"] == pytest.approx(Formula(2).score(event["request"]))
    assert {e["key"].encode() for e in chosen} == {
        key for key in KEYS[:2000] if key_positions([key], "s")[0] < 0.25
    }


def test_a_key_never_flips_as_the_share_grows() -> None:
    bench = canary(0.1)
    before = {e["key"] for e in asked(bench, range(500)) if e["role"] == "canary"}
    assert before == {e["key"] for e in asked(bench, range(499, -1, -1)) if e["role"] == "canary"}
    bench.control(bench.publisher.rollout(**CANARY | at_share(0.5, step=2)))
    after = {e["key"] for e in asked(bench, range(500)) if e["role"] == "canary"}
    assert before < after


def test_all_that_concerns_one_key_meets_one_version() -> None:
    events = asked(canary(0.5), range(60), loan_id="l7")
    assert len({event["version"] for event in events}) == 1


def test_requests_without_a_key_go_by_their_coordinates() -> None:
    events = asked(canary(0.5), range(200), loan_id=None)
    expected = key_positions([f"credit.requests/0/{n}".encode() for n in range(200)], "s") < 0.5
    assert [e["role"] == "canary" for e in events] == expected.tolist()


def test_in_shadow_every_version_scores_everything() -> None:
    bench = canary(0.5, role="shadow")
    events = bench.events(bench.requests(REQUEST, REQUEST | {"loan_id": "l2"}), "credit.shadow-predictions")
    assert [(e["role"], e["version"], e["arm_propensity"]) for e in events] == [("shadow", 2, 1.0)] * 2


def test_a_canary_that_cannot_be_opened_leaves_everything_as_it_was() -> None:
    bench = serving()
    bench.control(
        bench.publisher.manifest(2, RuntimeError("bang")),
        bench.publisher.rollout(**CANARY | at_share(0.5)),
    )
    events = asked(bench, range(50))
    assert {(e["role"], e["version"], e["rollout_revision"], e["arm_propensity"]) for e in events} == {
        ("champion", 1, 1, 1.0)
    }


def test_a_row_that_the_canary_cannot_take_is_alone() -> None:
    bench = canary(0.5)
    requests = [REQUEST | {"loan_id": f"l{n}"} for n in range(20)]
    poisoned = int(np.flatnonzero(key_positions(KEYS[:20], "s") < 0.5)[0])
    requests[poisoned] |= {"debt_ratio": Formula.poison}
    output = bench.requests(*requests)
    assert [letter.code for letter in output.dead_letters] == ["model-failed"]
    assert len(bench.events(output)) == 19


def test_off_answers_everything_in_the_champions_place() -> None:
    events = asked(canary(0.5, off=True), range(40))
    assert {(e["role"], e["version"], e["served_cause"]) for e in events} == {("champion", 1, "off")}


ARMS: dict[str, Any] = {
    "champion": 1,
    "experiment": {
        "assign": "fixed",
        "share": 0.8,
        "salt": "s",
        "arms": [
            {"arm": name, "version": version, "probability": probability}
            for name, version, probability in (("a", 1, 0.5), ("b", 2, 0.25), ("c", 3, 0.25))
        ],
    },
}


def arms(role: Any = "champion", third: Any = None, **state: Any) -> Bench:
    publisher = Publisher()
    bench = Bench(publisher.logic(role), publisher)
    bench.control(
        publisher.contract(CONTRACT),
        publisher.manifest(1),
        publisher.manifest(2),
        publisher.manifest(3, third),
        publisher.rollout(champion=1),
        publisher.rollout(**ARMS | state),
    )
    return bench


def test_arms_answer_their_shares_and_say_who_they_are() -> None:
    events = asked(arms(), range(4000))
    answered: dict[Any, list[str]] = {}
    for event in events:
        what = (event["role"], event["arm"], event["version"], round(event["arm_propensity"], 12))
        answered.setdefault(what, []).append(event["key"])
    wanted = {
        ("arm", "a", 1, 0.4): (0.0, 0.4),
        ("arm", "b", 2, 0.2): (0.4, 0.6),
        ("arm", "c", 3, 0.2): (0.6, 0.8),
        ("champion", None, 1, 0.2): (0.8, 1.0),
    }
    assert answered.keys() == wanted.keys()
    positions = dict(
        zip((f"l{n}" for n in range(4000)), key_positions(KEYS[:4000], "s").tolist(), strict=True)
    )
    for what, (low, high) in wanted.items():
        assert sorted(answered[what]) == sorted(key for key, at in positions.items() if low <= at < high)
    assert {event["rollout_revision"] for event in events} == {2}
    for event in events[:20]:
        assert event["prediction_id"] == prediction_id(event["role"], RecordRef(**event["source"]), 0)
        assert event["score"] == pytest.approx(Formula(event["version"]).score(event["request"]))


def test_the_champion_answers_for_an_arm_that_cannot_be_opened() -> None:
    bench = arms(third=RuntimeError("bang"))
    output = bench.requests(*(REQUEST | {"loan_id": f"l{n}"} for n in range(200)))
    events = bench.events(output)
    answers = {(e["role"], e["arm"], e["version"], round(e["arm_propensity"], 9)) for e in events}
    assert answers == {("arm", "a", 1, 0.4), ("arm", "b", 2, 0.2), ("champion", None, 1, 0.4)}
    assert {e["rollout_revision"] for e in events} == {2}
    assert [alert["kind"] for alert in bench.alerts(output)] == ["package-refused"]


def test_the_champion_answers_for_an_arm_that_is_not_there() -> None:
    now = ExperimentState("fixed", 0.8, "s", tuple(Arm(**arm) for arm in ARMS["experiment"]["arms"]))
    versions = tuple(
        ServingVersion(number, formula_model(load_contract(CONTRACT), number)) for number in (1, 3)
    )
    routes = route(Serving(1, versions, experiment=now), KEYS[:4000])
    by_arm = {(each.role, each.arm, each.version.number): each for each in routes}
    assert by_arm.keys() == {("champion", None, 1), ("arm", "a", 1), ("arm", "c", 3)}
    others = by_arm["champion", None, 1]
    assert others.propensity == pytest.approx(0.4)
    at = key_positions(KEYS[:4000], "s")
    assert set(others.rows.tolist()) == set(np.flatnonzero(((at >= 0.4) & (at < 0.6)) | (at >= 0.8)).tolist())
    assert set(by_arm["arm", "c", 3].rows.tolist()) == set(np.flatnonzero((at >= 0.6) & (at < 0.8)).tolist())


def test_in_shadow_and_when_off_there_are_no_arms() -> None:
    bench = arms(role="shadow", shadow=[2])
    (event,) = bench.events(bench.requests(REQUEST), "credit.shadow-predictions")
    assert (event["role"], event["arm"], event["version"], event["arm_propensity"]) == (
        "shadow",
        None,
        2,
        1.0,
    )
    events = asked(arms(off=True), range(40))
    assert {(e["role"], e["arm"], e["version"], e["served_cause"]) for e in events} == {
        ("champion", None, 1, "off")
    }
