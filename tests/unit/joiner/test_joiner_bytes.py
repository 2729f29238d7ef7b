"""Bytes in and out of the joiner, held to the reference: fastavro, the plain codec, the one-by-one hash."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.avro import encoding as avro_bytes
from tailrace.contracts.state.contracts import AppliedContract
from tailrace.errors import BadRecord
from tailrace.joiner import match
from tailrace.joiner.answered import answered
from tailrace.joiner.contract_plan import JoiningPlan
from tailrace.joiner.lane_contracts import LaneContracts
from tailrace.joiner.match import (
    ACTION,
    CHAMPION,
    LABEL,
    NOBODY,
    SHADOW,
    Feedback,
    FeedbackValue,
    Prediction,
    Request,
)
from tailrace.joiner.outcome import encode
from tailrace.joiner.packing import pack, unpack
from tailrace.joiner.partition_state import Facts, PartitionState
from tailrace.joiner.progress import NEVER, Progress
from tailrace.joiner.read_feedback import FeedbackPlaces
from tailrace.joiner.read_predictions import read_predictions
from tailrace.joiner.repartition import Origin
from tailrace.streaming.backends.abstract import Committed
from tailrace.streaming.partitioner import partition_of
from tailrace.streaming.partitioner_columns import partitions_of
from tailrace.streaming.records import PlainMessage, RecordRef
from tailrace.testing.joined_lane import CONTRACT, JoinedLane

TARGETS: dict[str, tuple[str, list[Any]]] = {
    "boolean": ("{name: bad, type: boolean}", [True, False]),
    "number": ("{name: bad, type: number}", [1.5, -0.0, 0.0, -1e300, 7.0]),
    "category": ("{name: bad, categories: [good, poor, 'größer']}", ["good", "größer"]),
}


class Lane(JoinedLane):
    """A lane with the joiner's view of its contract."""

    def __init__(self, target: str = "boolean", **changed: str) -> None:
        text = CONTRACT.replace("{name: bad, type: boolean}", TARGETS[target][0])
        for old, new in changed.items():
            text = text.replace(old, new)
        super().__init__(text)
        contract = self.contract
        applied = AppliedContract(contract.model, 1, contract.digest, contract.resolved_json, "", "", 0)
        self.plan = JoiningPlan(applied, self.codec, self.registry)
        self.view = LaneContracts(self.lane, self.codec)
        self.view.take(self.plan)

    def read(self, kind: int, *values: bytes, appended: int = 10**9) -> list[Any]:
        topic = self.lane.labels if kind == LABEL else self.lane.actions
        where = FeedbackPlaces(topic, 2, range(len(values)), [appended] * len(values))
        return self.view.reader.read(kind, values, where)


LANES = {name: Lane(name) for name in TARGETS}
SOURCE = RecordRef("credit.requests", 5, 3_000_000_000)


@given(st.integers(-(2**63), 2**63 - 1) | st.integers(2**33, 2**43), st.text(), st.floats(allow_nan=False))
def test_single_values_are_written_as_fastavro_writes_them(number: int, text: str, value: float) -> None:
    lane = LANES["number"]
    by = lane.label(request_id=text, at=number, bad=value).value or b""
    parts = [
        b"\x00" if content is None else avro_bytes.SOME + content
        for content in (
            avro_bytes.text(text),
            None,
            None,
            avro_bytes.long(number),
            avro_bytes.double(value),
            None,
        )
    ]
    assert by[5:] == b"".join(parts)
    assert avro_bytes.read_long(avro_bytes.long(number), 0) == (number, len(avro_bytes.long(number)))


@given(st.lists(st.binary(max_size=40), max_size=60), st.integers(1, 100))
def test_many_keys_hash_as_one_does(keys: list[bytes], partitions: int) -> None:
    wide = [*keys, *(b"loan-%08d" % number for number in range(20))]
    assert partitions_of(wide, partitions) == [partition_of(key, partitions) for key in wide]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("shadow", [False, True])
def test_outcomes_are_what_fastavro_would_have_written(target: str, shadow: bool) -> None:
    lane, values = LANES[target], TARGETS[target][1]
    topic = lane.lane.shadow_predictions if shadow else lane.lane.predictions
    record = lane.prediction(SOURCE, "r", "k", 1_600_000_000_000, shadow=shadow)
    (answer,) = read_predictions(lane.view, SHADOW if shadow else CHAMPION, [record.value or b""])
    assert not isinstance(answer, BadRecord)
    prediction = answer[1]
    champion_record = lane.prediction(SOURCE, "r", "k", 0, score=0.5, probabilities={"a": 0.25, "b": 0.75})
    (by,) = read_predictions(lane.view, CHAMPION, [champion_record.value or b""])
    assert not isinstance(by, BadRecord)
    prediction.champion = answered(lane.codec, lane.plan, by[1]) if shadow else NOBODY
    prediction.duplicate_of = b"d" * 32
    labels = [
        lane.label(
            request_id="r", loan_id="k", at=prediction.time + n, bad=v, labelled_by=["me", None][n % 2]
        ).value
        or b""
        for n, v in enumerate(values)
    ]
    action = lane.action(request_id="r", loan_id="k", at=prediction.time + 9, action="überholt").value or b""
    received = [
        *lane.read(LABEL, *labels, appended=prediction.time),
        *lane.read(ACTION, action, appended=prediction.time),
    ]
    truths = [
        Feedback(one.time, kind, one.content._replace(late=kind == LABEL))
        for one, kind in zip(received, [*[LABEL] * len(labels), ACTION], strict=True)
    ]
    decoded = lane.codec.decode(champion_record.value).record
    previous: dict[str, Any] | None = None
    for revision in match.fold(prediction, truths, lane.plan.rules):
        value = encode(lane.plan.outcome_header, revision)
        outcome = lane.codec.decode(value).record
        assert lane.codec.encode(lane.schema_ids[lane.lane.outcomes], outcome) == value
        assert outcome["prediction"] == lane.codec.decode(record.value).record
        assert outcome["label"] == values[int(outcome["label_source"]["offset"])]
        assert outcome["label_time"] == prediction.time + outcome["label_source"]["offset"]
        assert outcome["label_source"] | {"offset": 0} == {
            "topic": lane.lane.labels,
            "partition": 2,
            "offset": 0,
        }
        assert outcome["labelled_by"] == ["me", None][outcome["label_source"]["offset"] % 2]
        assert outcome["late"]
        assert outcome["duplicate_of"] == "d" * 32
        assert outcome["replaces"] == (previous and previous["outcome_id"])
        assert outcome["before"] == (
            previous and {name: previous[name] for name in ("state", "label", "action_taken")}
        )
        if shadow:
            wanted = (
                "prediction_id",
                "version",
                "score",
                "probabilities",
                "predicted_class",
                "value",
                "action",
            )
            assert outcome["champion"] == {name: decoded[name] for name in wanted}
        else:
            assert outcome["champion"] is None
        previous = outcome
    assert previous is not None
    assert previous["action_taken"] == "überholt"
    assert topic == record.topic


names = st.none() | st.sampled_from(["", "r", "größer"])


@given(
    st.sampled_from(list(TARGETS)),
    st.lists(
        st.fixed_dictionaries(
            {
                "request_id": names,
                "loan_id": names,
                "at": st.none() | st.sampled_from([0, -5, 10**9, 10**9 + 300_000, 10**9 + 300_001]),
                "model": st.sampled_from([None, None, "credit", "churn"]),
                "labelled_by": names,
                "value": st.integers(0, 9),
            }
        ),
        max_size=6,
    ),
)
def test_by_columns_is_read_what_is_read_one_by_one(target: str, records: list[dict[str, Any]]) -> None:
    lane, values = LANES[target], [*TARGETS[target][1], None]
    wrong: dict[str, list[Any]] = {
        "number": [float("inf"), float("nan")],
        "category": ["unheard-of"],
        "boolean": [],
    }
    extra = wrong[target]
    written = [
        {k: v for k, v in r.items() if k != "value"}
        | {"bad": [*values, *extra][r["value"] % len([*values, *extra])]}
        for r in records
    ]
    avro = [lane.label(**record).value or b"" for record in written]
    received = lane.read(LABEL, *avro)
    where = FeedbackPlaces(lane.lane.labels, 2, range(len(avro)), [10**9] * len(avro))
    plain = [lane.view.reader._read_plain(LABEL, value, where, at) for at, value in enumerate(avro)]
    assert [shown(one) for one in received] == [shown(one) for one in plain]
    # And as JSON, where JSON can say it.
    for record, one in zip(written, received, strict=True):
        if not (target == "number" and record["bad"] in extra) and record["bad"] == record["bad"]:
            (as_json,) = lane.read(LABEL, json.dumps(record).encode())
            if isinstance(one, BadRecord):
                assert shown(as_json) == shown(one)
            else:
                assert (as_json.request, as_json.key, as_json.time, as_json.content.value) == (
                    one.request, one.key, one.time, one.content.value,
                )  # fmt: skip


def shown(one: Any) -> object:
    return (one.code, one.field) if isinstance(one, BadRecord) else one


def test_labels_of_further_schemas_and_what_is_no_label_take_the_plain_way() -> None:
    lane = Lane()
    wider = json.loads(json.dumps(lane.plan.formats[LABEL].schema))
    wider["fields"].append({"name": "comment", "type": ["null", "string"], "default": None})
    schema_id = lane.registry.register("elsewhere", wider)
    value = lane.codec.encode(
        schema_id, {"request_id": "r", "loan_id": "k", "at": -1, "bad": True, "comment": "x"}
    )
    good = lane.label(request_id="r", loan_id="k", at=-1, bad=True).value or b""
    received = lane.read(LABEL, value, b"", b"\x07abc", good[:-1], good + b"\x00", good)
    assert [getattr(one, "code", "fine") for one in received] == [
        "fine", "empty", "wrong-magic", "truncated", "trailing-bytes", "fine",
    ]  # fmt: skip
    assert received[0].content.value == received[-1].content.value


@pytest.mark.parametrize("at", [0, 1_600_000_000, 10**10])
@pytest.mark.parametrize("kind", [LABEL, ACTION])
def test_a_time_in_seconds_is_refused_however_it_is_written(kind: int, at: int) -> None:
    fields: dict[str, Any] = {"request_id": "r", "loan_id": "k", "at": at}
    fields |= {"bad": True} if kind == LABEL else {"action": "go"}
    allowing = Lane(**{"skew: 5min": "skew: 5min, early_1970: true"})
    for lane, code in ((Lane(), "event-time-in-seconds"), (allowing, None)):
        avro = (lane.label if kind == LABEL else lane.action)(**fields).value or b""
        for one in lane.read(kind, avro, json.dumps(fields).encode(), appended=10**11):
            assert getattr(one, "code", None) == code
            assert code is None or (one.field == "at" and "early_1970" in one.reason)


def test_feedback_without_a_time_of_its_own_is_not_dated() -> None:
    lane = Lane()
    rows = [{"request_id": "r", "loan_id": "k", "at": at, "bad": True} for at in (None, -5)]
    values = [lane.label(**row).value or b"" for row in rows] + [json.dumps(row).encode() for row in rows]
    assert [one.content.is_dated for one in lane.read(LABEL, *values)] == [False, True, False, True]


def test_predictions_of_older_schemas_are_brought_to_their_contract_s() -> None:
    lane = Lane()
    own = lane.prediction(SOURCE, "r", "k", 7).value or b""
    other = json.loads(json.dumps(lane.plan.prediction_schema))
    other["fields"] = [f for f in other["fields"] if f["name"] != "explanation"]
    record = lane.codec.decode(own).record
    del record["explanation"]
    value = lane.codec.encode(lane.registry.register("older", other), record)
    answers = read_predictions(lane.view, CHAMPION, [own, value, own[:-1], b"{}", own[:3]])
    assert answers[0] == answers[1]
    assert [getattr(one, "code", "fine") for one in answers[2:]] == ["truncated", "wrong-magic", "truncated"]


def test_a_contract_that_is_not_known_is_looked_for_once() -> None:
    lane, looked = Lane(), []
    lane.view.catch_up = lambda: looked.append(1)
    value = lane.prediction(SOURCE, "r", "k", 7, contract_digest="f" * 64).value or b""
    for _ in range(2):
        (bad,) = read_predictions(lane.view, CHAMPION, [value])
        assert isinstance(bad, BadRecord)
        assert (bad.code, "ffffffffffff" in bad.reason) == ("unknown-contract", True)
    assert looked == [1]


def test_state_comes_back_as_it_was_packed() -> None:
    content = FeedbackValue(b"\x02\x01", True, "credit.labels/0/1", b"x")
    prediction = Prediction(
        SHADOW, 2, b"i", b"k", 1, 2, (0, 3), "c", b"body", b"d", NOBODY, content, content, 3, b"o", "s", True
    )
    feedback = Feedback(5, LABEL, content, match.UNMATCHED, (None, b"v", [("h", b"c")], 7))
    request = Request([prediction], [feedback])
    assert unpack(pack(request)) == request
    progress = Progress((200, 1, 2, 3), (201, 77), (90, 0, 4), (150, 5), {0: 2, 7: 4})
    state = PartitionState(
        progress=progress,
        offsets={"labels": 3},
        blocked={(b"r", b"p"): (1, 2, 3, 4)},
        others={"labels/1": (5, 6)},
    )
    assert PartitionState.unpack(state.pack()) == state
    assert PartitionState.unpack(b"nonsense") is None
    facts = Facts(5, 100, progress, {0: 3, 7: 4})
    assert Facts.of(Committed(9, facts.to_metadata())) == facts
    assert Facts.of(Committed(9)) == Facts(9, NEVER, Progress(), {})


@given(st.none() | st.binary(), st.booleans())
def test_a_forwarded_record_says_where_it_comes_from(key: bytes | None, late: bool) -> None:
    about = Origin("credit.labels", 3, 4, 5, 6, late, key)
    message = PlainMessage("credit.rekeyed", 0, 0, b"v", b"k", [about.header()])
    assert Origin.of(message) == about
    for header in ([], [(about.header()[0], b"[1]")]):
        with pytest.raises(BadRecord):
            Origin.of(PlainMessage("credit.rekeyed", 0, 0, b"v", b"k", header))


@pytest.mark.parametrize("kind", [LABEL, ACTION])
def test_what_names_another_model_is_of_none_here_whatever_schema_it_has(kind: int) -> None:
    lane = LANES["boolean"]

    def read(model: str | None) -> Any:
        fields: dict[str, Any] = {"request_id": "r", "loan_id": "k", "at": -5, "model": model}
        record = lane.label(**fields, bad=True) if kind == LABEL else lane.action(**fields, action="go")
        (one,) = lane.read(kind, record.value or b"")
        return one

    for named in (None, "credit"):
        assert not isinstance(read(named), BadRecord)
    refusal = read("another")
    assert isinstance(refusal, BadRecord)
    assert (refusal.code, refusal.field) == ("unknown-model", "model")


def test_all_partitions_have_to_tell_how_far_labels_and_actions_are() -> None:
    state = PartitionState()
    state.stream_times |= {"labels": 50, "actions": 60}
    assert state.watermark(1) == 50
    clocks = {"labels/1": 40, "labels/2": 70, "actions/1": 30, "actions/2": 80}
    for number, (stream, clock) in enumerate(clocks.items()):
        assert state.watermark(3) == NEVER, f"only {number} have"
        state.others[stream] = clock, number
    assert state.watermark(3) == 30
