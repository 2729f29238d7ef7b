"""The scorer's logic as a whole, message by message: good input, every kind of bad input, swaps,
handovers.
"""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from tests.support.scoring import CONTRACT, NOW, REFUSED, REQUEST, Bench, Later, Publisher, codes, serving

from tailrace.contracts.language.load import load_contract
from tailrace.contracts.state.lane_clocks import LaneClock, record_of
from tailrace.errors import Unavailable
from tailrace.models.errors import PackageRefused
from tailrace.models.rollout_state.fold import Rollouts
from tailrace.scorer.serving.handover import Handover
from tailrace.scorer.versions import Role
from tailrace.streaming.backends.abstract import Committed
from tailrace.streaming.backends.memory.clock import MemoryClock
from tailrace.streaming.backends.memory.log import MemoryLog
from tailrace.streaming.ids import prediction_id
from tailrace.streaming.records import PausedPartition, Record, RecordRef, TopicPartition
from tailrace.streaming.watermark_records import watermark_record
from tailrace.testing.formula_model import Formula, formula_model

FIRST = TopicPartition("credit.requests", 0)


def as_json(**changes: Any) -> bytes:
    return json.dumps({k: v for k, v in (REQUEST | changes).items() if v is not None}).encode()


# Good input ---


def test_a_request_becomes_a_whole_prediction() -> None:
    bench = serving()
    output = bench.requests(REQUEST)
    (event,) = bench.events(output)
    publisher = bench.publisher
    assert output.dead_letters == []
    assert event["prediction_id"] == prediction_id("champion", RecordRef("credit.requests", 0, 0), 1)
    assert event["request"] == REQUEST | {"model": None}
    assert event["score"] == pytest.approx(Formula(1).score(REQUEST), rel=1e-12)
    assert event["source"] == {"topic": "credit.requests", "partition": 0, "offset": 0}
    expected = {
        "request_id": "r1",
        "key": "l1",
        "event_time": NOW - 1000,
        "model": "credit",
        "version": 1,
        "contract_digest": publisher.contracts["credit"][0].digest,
        "artifact_digest": publisher.models["credit", 1].digest,  # type: ignore[union-attr]
        "rollout_revision": 1,
        "role": "champion",
        "served_by": "model",
        "predicted_class": "false",
        "action": "refer",
        "rule": "refer-4",
    }
    assert {name: event[name] for name in expected} == expected
    assert {"python", "onnxruntime", "cpu"} <= event["runtime"].keys()
    assert output.records[0].key == b"l1"


def test_json_says_the_same_as_avro() -> None:
    bench = serving()
    (event,) = bench.events(bench.score(as_json()))
    (other,) = bench.events(serving().requests(REQUEST))
    assert event == other


def test_json_times_may_be_text() -> None:
    bench = serving()
    (event,) = bench.events(bench.score(as_json(applied_at="2023-11-14T22:13:19Z")))
    assert event["event_time"] == NOW - 1000


def test_another_schema_of_the_same_contract_is_read() -> None:
    bench = serving()
    older = load_contract(CONTRACT.replace("  note: {type: string}\n", ""))
    value = bench.publisher.request_value({k: v for k, v in REQUEST.items() if k != "note"}, older)
    (event,) = bench.events(bench.score(value, bench.publisher.request_value(REQUEST)))[:1]
    assert event["request"] == REQUEST | {"model": None}


def test_answers_keep_the_order_of_requests_and_marks() -> None:
    bench = serving()
    values = [bench.publisher.request_value(REQUEST | {"request_id": f"r{i}"}) for i in range(4)]
    messages = [
        bench.message(Record("credit.requests", values[0])),
        bench.message(watermark_record("credit.requests", 0, NOW)),
        bench.message(Record("credit.requests", as_json(request_id="json"))),
        bench.message(Record("credit.requests", values[1])),
        bench.message(watermark_record("credit.requests", 3, NOW + 1)),
    ]
    output = bench.process(messages)
    assert [r.partition for r in output.records] == [None, 0, 0, None, None, 3]
    assert output.records[1] == watermark_record("credit.predictions", 0, HOUR, offset=0)
    assert output.records[2] == watermark_record("credit.predictions", 0, NOW, offset=1)
    assert output.records[5] == watermark_record("credit.predictions", 3, NOW + 1, offset=0)
    assert [e["request_id"] for e in bench.events(output)] == ["r0", "json", "r1"]


def test_a_request_without_ids_is_known_by_its_coordinates() -> None:
    bench = serving()
    output = bench.requests(REQUEST | {"request_id": None, "loan_id": None}, REQUEST | {"request_id": ""})
    one, other = bench.events(output)
    assert (one["request_id"], one["key"]) == ("credit.requests/0/0", "credit.requests/0/0")
    assert (other["request_id"], other["key"]) == ("credit.requests/0/1", "l1")
    assert [r.key for r in output.records if r.value] == [b"credit.requests/0/0", b"l1"]


def test_the_same_request_id_twice_is_two_requests() -> None:
    bench = serving()
    one, other = bench.events(bench.requests(REQUEST, REQUEST))
    assert one["request_id"] == other["request_id"]
    assert one["prediction_id"] != other["prediction_id"]


def test_without_an_event_time_it_is_the_append_time() -> None:
    bench = serving()
    (event,) = bench.events(bench.requests(REQUEST | {"applied_at": None}))
    assert event["event_time"] == NOW
    assert event["request"]["applied_at"] is None


def test_an_event_of_years_ago_is_fine() -> None:
    bench = serving()
    (event,) = bench.events(bench.requests(REQUEST | {"applied_at": 831_000_000_000}))
    assert event["event_time"] == 831_000_000_000


def test_an_integer_key_is_its_decimal_text() -> None:
    publisher = Publisher()
    bench = Bench(publisher.logic(), publisher)
    text = CONTRACT.replace("{name: loan_id, type: string}", "{name: loan_id, type: integer}")
    bench.control(publisher.contract(text), publisher.manifest(1), publisher.rollout(champion=1))
    output = bench.requests(REQUEST | {"loan_id": -7}, REQUEST | {"loan_id": None})
    assert [e["key"] for e in bench.events(output)] == ["-7", "credit.requests/0/1"]


def test_what_is_missing_is_filled_in_from_the_package() -> None:
    bench = serving()
    request = REQUEST | {"income": None, "purpose": "boat"}
    (event,) = bench.events(bench.requests(request))
    assert event["replaced"] == [
        {"field": "purpose", "value": "other", "reason": "unseen"},
        {"field": "income", "value": "30000.0", "reason": "missing"},
    ]
    assert event["request"]["income"] is None
    assert event["request"]["purpose"] == "boat"
    assert event["score"] == pytest.approx(Formula(1).score(request), rel=1e-12)


# Bad input: each a dead letter of its own, and the request beside it is answered ---


def avro(**changes: Any) -> bytes:
    return SAMPLE.request_value(REQUEST | changes)


# Registers schemas in the order in which `serving` does, so that ids are the same.
SAMPLE = Publisher()
_ = SAMPLE.contract(), SAMPLE.manifest(1), SAMPLE.rollout(champion=1)
GOOD = avro()

BAD: dict[str, tuple[bytes | None, str, str | None]] = {
    "no value": (None, "empty", None),
    "empty value": (b"", "empty", None),
    "unknown schema id": (b"\0\0\0\x03\xe7" + GOOD[5:], "unknown-schema", None),
    "only a header": (GOOD[:5], "truncated", None),
    "half a header": (GOOD[:3], "truncated", None),
    "truncated avro": (GOOD[:-4], "truncated", None),
    "trailing bytes": (GOOD + b"\0", "trailing-bytes", None),
    "wrong magic byte": (b"\x01" + GOOD[1:], "wrong-magic", None),
    "random bytes": (bytes(range(200, 255)), "wrong-magic", None),
    "half of a json": (b'{"income": 1', "not-json", None),
    "json of another type": (as_json(income="much"), "wrong-type", "income"),
    "json with an unknown field": (as_json(incme=1.0), "unknown-field", "incme"),
    "json with nan": (as_json().replace(b"40000.0", b"NaN"), "not-finite", None),
    "json without a feature": (as_json(debt_ratio=None), "missing", "debt_ratio"),
    "json for another model": (as_json(model="churn"), "unknown-model", "model"),
    "json with a model that is no text": (as_json(model=5), "unknown-model", "model"),
    "avro for another model": (avro(model="churn"), "unknown-model", "model"),
    "missing feature": (avro(debt_ratio=None), "missing", "debt_ratio"),
    "nan": (avro(debt_ratio=math.nan), "not-finite", "debt_ratio"),
    "infinity": (avro(income=math.inf), "not-finite", "income"),
    "out of range": (avro(age=7), "out-of-range", "age"),
    "unseen category": (avro(grade="z"), "unseen-category", "grade"),
    "broken rule": (avro(income=0.0), "rule", "debt-needs-income"),
    "event of the year 2100": (avro(applied_at=4_102_444_800_000), "event-time-ahead", "applied_at"),
    "a row that makes the model raise": (avro(debt_ratio=666.0), "model-failed", None),
    "much text in a category": (avro(grade="x" * 1_000_000), "unseen-category", "grade"),
    "two megabytes of text": (avro(grade="x" * 2_000_000), "too-large", None),
    "two megabytes of json": (as_json(note="x" * 2_000_000), "too-large", None),
    "seconds in avro": (avro(applied_at=NOW // 1000), "event-time-in-seconds", "applied_at"),
    "seconds in json": (as_json(applied_at=NOW // 1000), "event-time-in-seconds", "applied_at"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_goes_alone_to_the_dead_letters(name: str) -> None:
    value, code, field = BAD[name]
    bench = serving()
    output = bench.score(good(bench, "before"), value, good(bench, "behind"))
    assert [(letter.code, letter.field) for letter in output.dead_letters] == [(code, field)]
    (letter,) = output.dead_letters
    assert letter.topic == "credit.dead-letters"
    assert letter.message.offset() == 1
    assert len(letter.reason) < 1000
    assert [e["request_id"] for e in bench.events(output)] == ["before", "behind"]
    for event in bench.events(output):
        assert event["score"] == pytest.approx(Formula(1).score(REQUEST), rel=1e-12)


HOUR = NOW - NOW % 3_600_000


def good(bench: Bench, name: str) -> bytes:
    return bench.publisher.request_value(REQUEST | {"request_id": name})


def test_all_kinds_of_bad_input_at_once() -> None:
    bench = serving()
    values = [value for pair in BAD.values() for value in (pair[0], good(bench, "good"))]
    output = bench.score(*values)
    assert codes(output.dead_letters) == [(code, field) for _, code, field in BAD.values()]
    assert [letter.message.offset() for letter in output.dead_letters] == list(range(0, len(values), 2))
    assert [e["source"]["offset"] for e in bench.events(output)] == list(range(1, len(values), 2))


def test_a_large_request_that_keeps_the_contract_is_answered() -> None:
    bench = serving()
    note = "ü" * 500_000
    (event,) = bench.events(bench.requests(REQUEST | {"note": note}))
    assert event["request"]["note"] == note


def test_while_the_registry_is_away_requests_of_known_schemas_are_answered_and_others_wait() -> None:
    bench = serving()
    bench.requests(REQUEST)
    known = bench.publisher.request_value(REQUEST)
    other = load_contract(CONTRACT.replace("  note: {type: string}\n", ""))
    unknown = bench.publisher.request_value({k: v for k, v in REQUEST.items() if k != "note"}, other)
    bench.publisher.registry.away = True
    assert len(bench.score(known).records) == 1
    with pytest.raises(Unavailable):
        bench.score(unknown)
    bench.publisher.registry.away = False
    assert len(bench.events(bench.score(unknown))) == 1


def test_control_records_wait_whole_while_the_registry_is_away() -> None:
    publisher = Publisher()
    bench = Bench(publisher.logic(), publisher)
    messages = [bench.message(r) for r in (publisher.contract(), publisher.manifest(1))]
    publisher.registry.away = True
    with pytest.raises(Unavailable):
        bench.logic.control(messages)
    assert bench.logic.topics() == frozenset()
    publisher.registry.away = False
    bench.logic.control(messages)
    assert bench.logic.topics() == {"credit.requests"}


def test_a_control_record_that_cannot_be_read_is_skipped() -> None:
    bench = serving()
    bench.control(Record("tailrace.rollouts", b"rubbish"), Record("tailrace.model-manifests", None))
    assert len(bench.events(bench.requests(REQUEST))) == 1


# Several models on one lane ---

SHARED = """
model: {name}
lane: credit
owner: {{team: t}}
features: {{x: {{type: number}}}}
target: {{name: bad, type: boolean}}
"""


class Constant:
    def __init__(self, value: float) -> None:
        self.value = value

    def run(self, columns: Any, rows: int) -> Any:
        return columns["x"].reshape(rows, 1) * 0 + self.value


def shared_lane() -> Bench:
    publisher = Publisher()
    bench = Bench(publisher.logic(), publisher)
    for name, value in (("one", 0.25), ("two", 0.75)):
        contract = load_contract(SHARED.format(name=name))
        bench.control(
            publisher.contract(contract),
            publisher.manifest(1, formula_model(contract, 1, Constant(value)), name),
            publisher.rollout(name, champion=1),
        )
    return bench


def test_models_that_share_a_lane_are_told_apart() -> None:
    bench = shared_lane()
    one, two = (bench.publisher.contracts[name][0] for name in ("one", "two"))
    encode = bench.publisher.request_value
    output = bench.score(
        encode({"model": "two", "x": 1.0}, two),
        encode({"x": 1.0}, one),  # its schema says which
        encode({"model": "two", "x": 1.0}, one),  # what it says itself counts
        b'{"model": "one", "x": 1}',
        b'{"x": 1}',
        encode({"model": "three", "x": 1.0}, one),
    )
    assert [(e["model"], e["score"]) for e in bench.events(output)] == [
        ("two", 0.75),
        ("one", 0.25),
        ("two", 0.75),
        ("one", 0.25),
    ]
    assert codes(output.dead_letters) == [("unknown-model", "model"), ("unknown-model", "model")]


def test_one_model_without_a_version_holds_its_partition_from_its_first_request() -> None:
    bench = shared_lane()
    contract = load_contract(SHARED.format(name="three"))
    bench.control(bench.publisher.contract(contract))
    output = bench.score(
        b'{"model": "one", "x": 1}', b'{"model": "three", "x": 1}', b"bad", b'{"model": "two"}'
    )
    assert len(bench.events(output)) == 1
    assert output.dead_letters == []
    assert output.paused == {FIRST: PausedPartition(1, output.paused[FIRST].reason)}
    assert "three has no version in service" in (bench.logic.waiting() or "")


@pytest.mark.parametrize("order", [("three", "four"), ("four", "three")])
def test_of_two_models_that_wait_the_first_request_holds_the_partition(order: tuple[str, str]) -> None:
    bench = shared_lane()
    for name in order:
        bench.control(bench.publisher.contract(load_contract(SHARED.format(name=name))))
    # What is Avro is read before what is JSON.
    first, second = order
    avro = bench.publisher.request_value({"x": 1.0}, bench.publisher.contracts[second][0])
    output = bench.score(b'{"model": "one", "x": 1}', b'{"model": "%s", "x": 1}' % first.encode(), avro)
    assert output.paused[FIRST].offset == 1


# Versions ---


def test_without_a_contract_nothing_is_taken() -> None:
    publisher = Publisher()
    logic = publisher.logic()
    assert logic.topics() == frozenset()
    assert "contract" in (logic.waiting() or "")


def test_requests_wait_while_there_is_no_version() -> None:
    publisher = Publisher()
    bench = Bench(publisher.logic(), publisher)
    bench.control(publisher.contract())
    assert bench.logic.waiting() is None
    output = bench.requests(REQUEST)
    assert output.paused[FIRST].offset == 0
    assert bench.events(output) == []
    assert "credit has no version in service" in (bench.logic.waiting() or "")
    bench.control(publisher.manifest(1), publisher.rollout(champion=1))
    assert len(bench.events(bench.requests(REQUEST))) == 1
    assert bench.logic.waiting() is None


def test_a_new_version_is_opened_in_the_background_and_no_request_waits_for_it() -> None:
    publisher, later = Publisher(), Later()
    bench = Bench(publisher.logic(executor=later), publisher)
    bench.control(publisher.contract(), publisher.manifest(1), publisher.rollout(champion=1))
    assert bench.requests(REQUEST).paused
    later.run()
    assert [(e["version"], e["rollout_revision"]) for e in bench.events(bench.requests(REQUEST))] == [(1, 1)]
    bench.control(publisher.manifest(2), publisher.rollout(champion=2, previous=1))
    for _ in range(3):
        output = bench.requests(REQUEST)
        assert not output.paused
        assert [(e["version"], e["rollout_revision"]) for e in bench.events(output)] == [(1, 1)]
    later.run()
    output = bench.requests(REQUEST)
    assert [(e["version"], e["rollout_revision"]) for e in bench.events(output)] == [(2, 2)]
    # The previous one was kept warm, so the way back takes no opening.
    bench.control(publisher.rollout(champion=1))
    output = bench.requests(REQUEST)
    assert [(e["version"], e["rollout_revision"]) for e in bench.events(output)] == [(1, 3)]


def test_a_step_that_leaves_the_champion_is_taken_up_at_once() -> None:
    bench = serving()
    bench.control(bench.publisher.rollout(champion=1, candidates=[2]))
    assert [e["rollout_revision"] for e in bench.events(bench.requests(REQUEST))] == [2]


@pytest.mark.parametrize(
    "error", [PackageRefused("signature", "not trusted"), REFUSED, RuntimeError("breaks its opening")]
)
def test_a_refused_package_raises_an_alert_and_the_champion_serves_on(error: Exception) -> None:
    bench = serving()
    bench.control(bench.publisher.manifest(2, error), bench.publisher.rollout(champion=2, previous=1))
    output = bench.requests(REQUEST)
    assert [(e["version"], e["rollout_revision"]) for e in bench.events(output)] == [(1, 1)]
    (alert,) = bench.alerts(output)
    assert (alert["kind"], alert["model"], alert["version"]) == ("package-refused", "credit", 2)
    assert alert["detail"]["check"] == getattr(error, "check", "open")
    again = bench.requests(REQUEST)
    assert bench.alerts(again) == []
    assert [e["version"] for e in bench.events(again)] == [1]


def test_an_alert_of_a_batch_that_is_given_up_is_raised_again() -> None:
    bench = serving()
    bench.control(bench.publisher.manifest(2, REFUSED), bench.publisher.rollout(champion=2))
    message = bench.message(Record("credit.requests", good(bench, "r")))
    clock = bench._clock
    assert len(bench.alerts(bench.logic.process([message], clock))) == 1
    output = bench.logic.process([message], clock)
    assert len(bench.alerts(output)) == 1
    output.on_committed()
    assert bench.alerts(bench.logic.process([message], clock)) == []


def test_a_package_that_cannot_be_read_for_the_moment_is_tried_again() -> None:
    bench = serving()
    bench.control(bench.publisher.manifest(2, Unavailable("away")), bench.publisher.rollout(champion=2))
    assert [e["version"] for e in bench.events(bench.requests(REQUEST))] == [1]
    bench.publisher.models["credit", 2] = formula_model(bench.publisher.contracts["credit"][0], 2)
    bench.requests(REQUEST)
    output = bench.requests(REQUEST)
    assert [e["version"] for e in bench.events(output)] == [2]
    assert bench.alerts(output) == []


def test_the_first_version_refused_leaves_requests_waiting_and_says_why() -> None:
    publisher = Publisher()
    bench = Bench(publisher.logic(), publisher)
    bench.control(publisher.contract(), publisher.manifest(1, REFUSED), publisher.rollout(champion=1))
    assert bench.requests(REQUEST).paused
    assert "refused (golden)" in (bench.logic.waiting() or "")


def test_of_two_steps_that_follow_the_same_revision_the_first_counts() -> None:
    bench = serving()
    bench.control(
        bench.publisher.manifest(2),
        bench.publisher.manifest(3),
        bench.publisher.rollout(champion=2),
        bench.publisher.rollout(champion=3, follows=1),
    )
    assert [e["version"] for e in bench.events(bench.requests(REQUEST))] == [2]


# Contracts ---


def test_a_changed_policy_takes_effect_and_predictions_name_their_contract() -> None:
    bench = serving()
    (before,) = bench.events(bench.requests(REQUEST))
    bench.control(bench.publisher.contract(CONTRACT.replace("{do: refuse}", "{do: refuse, name: last}")))
    bench.control(bench.publisher.contract(CONTRACT.replace("score < 0.6", "score < 0.1")))
    (after,) = bench.events(bench.requests(REQUEST))
    contracts = bench.publisher.contracts["credit"]
    assert (before["action"], before["contract_digest"]) == ("refer", contracts[0].digest)
    assert (after["action"], after["contract_digest"]) == ("refuse", contracts[2].digest)


def test_a_contract_that_gains_a_field_reads_requests_of_before() -> None:
    bench = serving()
    old = bench.publisher.request_value(REQUEST)
    bench.control(
        bench.publisher.contract(CONTRACT.replace("  note:", "  channel: {categories: [web]}\n  note:"))
    )
    (event,) = bench.events(bench.score(old))
    assert event["request"] == REQUEST | {"model": None, "channel": None}


def test_a_version_that_no_longer_fits_its_contract_does_not_answer() -> None:
    bench = serving()
    bench.control(
        bench.publisher.contract(CONTRACT.replace("  grade: {categories: [a, b], missing: impute}\n", ""))
    )
    output = bench.score(bench.publisher.request_value({k: v for k, v in REQUEST.items() if k != "grade"}))
    assert "does not fit its contract" in output.paused[FIRST].reason


# Handovers ---


def handed_over(metadata: str, *records: Record, publisher: Publisher) -> Bench:
    bench = Bench(publisher.logic(), publisher, {0: metadata})
    bench.control(*records)
    return bench


def test_a_new_owner_waits_for_the_revision_of_the_last_one() -> None:
    publisher = Publisher()
    first = [publisher.contract(), publisher.manifest(1), publisher.rollout(champion=1)]
    second = [publisher.manifest(2), publisher.rollout(champion=2)]
    before = Bench(publisher.logic(), publisher)
    before.control(*first, *second)
    metadata = before.requests(REQUEST).metadata
    assert len(metadata) < 100

    after = handed_over(metadata, *first, publisher=publisher)
    output = after.requests(REQUEST)
    assert output.paused[FIRST].offset == 0
    assert "last owner" in output.paused[FIRST].reason
    after.control(*second)
    assert [e["version"] for e in after.events(after.requests(REQUEST))] == [2]


def test_an_owner_that_still_waits_leaves_the_next_one_what_it_waits_for() -> None:
    bench = serving(champion=1)
    place = TopicPartition("credit.requests", 1)
    waits = Handover(rollouts=99)
    bench.logic.assigned({place: Committed(0, waits.to_metadata())})
    value = bench.publisher.request_value(REQUEST)
    held = bench.process([bench.message(Record(place.topic, value, partition=1))])
    assert Handover.from_metadata(held.metadata).rollouts == 99
    answered = bench.requests(REQUEST)  # of another partition
    assert Handover.from_metadata(answered.metadata).rollouts == 1


def test_a_new_owner_waits_until_it_has_opened_what_the_last_one_served() -> None:
    publisher, later = Publisher(), Later()
    records = [publisher.contract(), publisher.manifest(1), publisher.rollout(champion=1)]
    records += [publisher.manifest(2), publisher.rollout(champion=2)]
    before = Bench(publisher.logic(), publisher)
    before.control(*records)
    metadata = before.requests(REQUEST).metadata

    after = Bench(publisher.logic(executor=later), publisher, {0: metadata})
    after.control(*records[:3])
    later.run()
    after.control(*records[3:])
    assert "revision 2 of credit" in after.requests(REQUEST).paused[FIRST].reason
    later.run()
    assert [e["version"] for e in after.events(after.requests(REQUEST))] == [2]


def test_a_new_owner_need_not_have_more_than_the_last_one_had() -> None:
    """The last owner refused version 2 and served version 1; so may the next."""
    publisher = Publisher()
    records = [publisher.contract(), publisher.manifest(1), publisher.rollout(champion=1)]
    records += [publisher.manifest(2, REFUSED), publisher.rollout(champion=2)]
    before = Bench(publisher.logic(), publisher)
    before.control(*records)
    metadata = before.requests(REQUEST).metadata
    assert json.loads(metadata)[3] == {"credit": 1}

    after = handed_over(metadata, *records, publisher=publisher)
    output = after.requests(REQUEST)
    assert not output.paused
    assert [e["rollout_revision"] for e in after.events(output)] == [1]


def test_what_finds_no_room_in_the_metadata_is_demanded_in_full() -> None:
    many = Handover(7, 900, {f"model-{number}": 1 for number in range(5_000)})
    metadata = many.to_metadata()
    assert len(metadata.encode()) <= 4_000
    handover = Handover.from_metadata(metadata)
    assert (handover.contracts, handover.rollouts) == (7, 900)
    assert 100 < len(handover.behind) < 5_000
    assert handover.behind.items() <= many.behind.items()
    few = Handover(1, 2, {"a": 3})
    assert Handover.from_metadata(few.to_metadata()) == few
    assert Handover.from_metadata("") == Handover()


@pytest.mark.parametrize("turned", [False, True])
def test_of_two_owners_before_the_next_demands_what_either_had(turned: bool) -> None:
    fold = Rollouts()
    one, other = Handover(contracts=7, rollouts=2, behind={"a": 1}), Handover(contracts=3, rollouts=9)
    joined = other.joined(one, fold) if turned else one.joined(other, fold)
    assert (joined.contracts, joined.rollouts) == (7, 9)
    both = Handover(rollouts=5, behind={"a": 4}), Handover(rollouts=5, behind={"a": 6})
    first, second = reversed(both) if turned else both
    assert first.joined(second, fold).behind == {"a": 6}


def test_metadata_of_another_program_is_no_reason_to_stop() -> None:
    bench = Bench(*(lambda p: (p.logic(), p))(Publisher()), {0: '{"something": "else"}'})
    publisher = bench.publisher
    bench.control(publisher.contract(), publisher.manifest(1), publisher.rollout(champion=1))
    assert len(bench.events(bench.requests(REQUEST))) == 1


# Shadow ---

SHADOW = "credit.shadow-predictions"


def test_shadows_score_the_same_requests_to_their_own_topic() -> None:
    bench = serving("shadow", champion=1, shadow=[2, 3])
    bench.control(bench.publisher.manifest(2), bench.publisher.manifest(3))
    output = bench.requests(REQUEST)
    events = bench.events(output, SHADOW)
    assert [(e["version"], e["role"]) for e in events] == [(2, "shadow"), (3, "shadow")]
    here = RecordRef("credit.requests", 0, 0)
    for event in events:
        assert event["score"] == pytest.approx(Formula(event["version"]).score(REQUEST), rel=1e-12)
        assert event["prediction_id"] == prediction_id("shadow", here, event["version"])
    assert {r.topic for r in output.records} == {SHADOW}


def test_without_a_shadow_nothing_is_written_and_nothing_waits() -> None:
    bench = serving("shadow")
    output = bench.score(good(bench, "r"), b"bad")
    assert output.records == [watermark_record(SHADOW, 0, HOUR, offset=0)]
    assert (output.dead_letters, output.paused) == ([], {})
    publisher = Publisher()
    bare = Bench(publisher.logic("shadow"), publisher)
    bare.control(publisher.contract())
    assert bare.requests(REQUEST).paused == {}


def test_shadows_pass_marks_on() -> None:
    bench = serving("shadow")
    output = bench.process([bench.message(watermark_record("credit.requests", 0, NOW))])
    assert output.records == [watermark_record(SHADOW, 0, NOW, offset=0)]


@pytest.mark.parametrize("role", ["champion", "shadow"])
def test_time_is_told_whatever_comes_of_the_requests(role: Role) -> None:
    bench = serving(role)

    def watermarks(*times: int) -> list[tuple[int, int]]:
        """Time and offset of the marks that these requests make, none of which is answered."""
        values = [REQUEST | {"applied_at": time, "debt_ratio": Formula.poison} for time in times]
        records = bench.requests(*values).records
        assert all(record.value is None and record.partition == 0 for record in records)
        return [(int(r.headers[0][1]), int(r.headers[1][1])) for r in records]

    step = 3_600_000  # a day's window in 24
    assert watermarks(HOUR - step + 5, HOUR - step + 7, HOUR - 1) == [(HOUR - step, 0)]
    assert watermarks(HOUR - step + 100) == []
    assert watermarks(HOUR - 5 * step) == []
    assert watermarks(HOUR, HOUR + step) == [(HOUR, 5)]  # the second one is too far ahead


def test_a_batch_that_is_offered_again_tells_the_time_again() -> None:
    bench = serving("shadow")
    message = bench.message(Record("credit.requests", good(bench, "r")))
    once = bench.logic.process([message], MemoryClock(MemoryLog()))
    assert once.pipelined
    # Nothing comes of its commit.
    bench.logic.revoked([FIRST])
    bench.logic.assigned({FIRST: Committed(0)})
    assert bench.process([message]).records == once.records != []
    assert bench.process([message]).records == []


def test_a_mark_too_far_ahead_is_a_dead_letter() -> None:
    bench = serving()
    output = bench.process([bench.message(watermark_record("credit.requests", 0, NOW + 400 * 86_400_000))])
    assert output.records == []
    assert codes(output.dead_letters) == [("event-time-ahead", None)]


def test_shadows_write_no_dead_letters_and_one_alert_for_each_that_fails() -> None:
    bench = serving("shadow", champion=1, shadow=[2])
    bench.control(bench.publisher.manifest(2))
    poison = bench.publisher.request_value(REQUEST | {"debt_ratio": Formula.poison})
    output = bench.score(poison, good(bench, "good"), b"bad", poison)
    assert output.dead_letters == []
    assert [e["request_id"] for e in bench.events(output, SHADOW)] == ["good"]
    (alert,) = bench.alerts(output)
    assert (alert["kind"], alert["version"], alert["service"]) == ("shadow-failed", 2, "shadow-scorer")
    assert bench.alerts(bench.score(poison)) == []


def test_shadows_wait_for_what_is_being_opened_so_that_a_restart_skips_nothing() -> None:
    publisher, later = Publisher(), Later()
    bench = Bench(publisher.logic("shadow", later), publisher)
    bench.control(publisher.contract(), publisher.manifest(2), publisher.rollout(champion=1, shadow=[2]))
    assert bench.requests(REQUEST).paused
    later.run()
    assert len(bench.events(bench.requests(REQUEST), SHADOW)) == 1


def test_a_refused_shadow_leaves_the_others() -> None:
    bench = serving("shadow", champion=1, shadow=[2, 3])
    bench.control(bench.publisher.manifest(2, REFUSED), bench.publisher.manifest(3))
    output = bench.requests(REQUEST)
    assert [e["version"] for e in bench.events(output, SHADOW)] == [3]
    assert [a["kind"] for a in bench.alerts(output)] == ["package-refused"]


def test_where_a_replay_owns_the_clock_a_request_has_to_say_its_time() -> None:
    bench = serving()
    clock = record_of("credit", LaneClock("replay", "test", 0))
    bench.control(bench.publisher.control.record("Clock", clock, b"credit"))
    output = bench.requests(REQUEST, REQUEST | {"applied_at": None, "request_id": "r2"})
    assert codes(output.dead_letters) == [("missing-event-time", "applied_at")]
    assert [event["request_id"] for event in bench.events(output)] == ["r1"]
    # What was refused tells nobody the time.
    watermarks = [int(record.headers[0][1]) for record in output.records if record.value is None]
    assert all(time <= NOW - 1000 for time in watermarks)
    bench.control(
        bench.publisher.control.record(
            "Clock", record_of("credit", LaneClock("wall", "test", 0, 2)), b"credit"
        )
    )
    assert bench.requests(REQUEST | {"applied_at": None}).dead_letters == []
