"""The accounts of a lane's outcomes: each has its prediction, its label and its action in the log, as they are there,
and its revisions are one chain.

A record is kept as a few 64-bit numbers, the hashes of what is compared: a million outcomes are 100 MB.
"""

from __future__ import annotations

import io
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import fastavro
import numpy as np
from numpy.typing import NDArray

from tailrace.avro.codec import HEADER, Codec, is_json, read_schema_id
from tailrace.avro.strict_types import plain
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records.json_input import JsonInput, Kind
from tailrace.contracts.records.lanes import Lane
from tailrace.errors import BadRecord
from tailrace.streaming.ids import prediction_id
from tailrace.streaming.records import Message, RecordRef
from tailrace.streaming.records import TopicPartition as Partition
from tailrace.verify.check import AccountProblem, differences
from tailrace.verify.prediction_header import PredictionHeader
from tailrace.verify.stored_times import LoggedTimes

Hashes = NDArray[np.int64]
Fetch = Callable[[Collection[RecordRef]], Mapping[RecordRef, Message]]

_OUTCOME = (
    *("at", "outcome", "prediction", "content", "replaces", "revision", "state", "before"),
    *("label_at", "label", "action_at", "action"),
)
_NONE = -1
_OFFSET_BITS = 48


def _record_schema(name: str, **types: Any) -> dict[str, Any]:
    fields = [{"name": field, "type": kind} for field, kind in types.items()]
    return {"type": "record", "name": name, "fields": fields}


_TEXTS = dict.fromkeys(("prediction_id", "request_id", "key"), "string")
_SOURCE = _record_schema("Source", topic="string", partition="int", offset="long")
# The first fields of every prediction: what is read of the one that an outcome nests.
_HEADER = fastavro.parse_schema(_record_schema("Head", **_TEXTS, event_time="long", source=_SOURCE))


class _Kept(NamedTuple):
    """Records of one kind, sorted by ``id``: where each is, and the hash of what it says."""

    id: Hashes
    at: Hashes
    content: Hashes

    def find(self, wanted: Hashes) -> tuple[Hashes, NDArray[np.bool_]]:
        """Where each of the wanted ids is in here, and whether it is."""
        if not len(self.id):
            return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), bool)
        index = np.minimum(np.searchsorted(self.id, wanted), len(self.id) - 1)
        return index, self.id[index] == wanted


class LaneOutcomes:
    """One lane. Outcomes are to be read before what they name is: so it must then be there.

    Args:
        contracts: every revision of every contract of the lane.
        fetch: reads messages at coordinates.
        times: is given the times of outcomes.
    """

    def __init__(
        self,
        lane: Lane,
        contracts: Sequence[ModelContract],
        codec: Codec,
        fetch: Fetch,
        times: LoggedTimes,
    ) -> None:
        self._lane, self._contracts, self._codec, self._fetch = lane, contracts, codec, fetch
        self._times = times
        self._predictions_topics = (lane.predictions, lane.shadow_predictions)
        self._headers: dict[int, Any] = {}
        self._outcomes, self._predictions = array("q"), array("q")
        self._truth = {lane.labels: array("q"), lane.actions: array("q")}
        self._json: dict[tuple[str, Kind], JsonInput] = {}

    # --- reading

    def outcome(self, message: Message) -> Iterator[AccountProblem]:
        """Takes an outcome in; what can be seen in it alone is said at once."""
        at = RecordRef.of(message)
        try:
            outcome, content = self._read(message.value())
            row = _row(at, outcome, content)
            times = _times(outcome)
        except BadRecord as bad:
            yield AccountProblem("unreadable", *at, str(bad))
            return
        self._outcomes.extend(row)
        prediction, label, action = outcome["prediction"], outcome["label_source"], outcome["action_source"]
        self._times.take(message, **times)
        about = f"outcome {outcome['outcome_id']} of prediction {prediction['prediction_id']}"
        if outcome["state"] == "labelled" and label is None:
            yield AccountProblem("outcome-without-label", *at, f"{about} is labelled and names no label")
        for named, topic in ((label, self._lane.labels), (action, self._lane.actions)):
            if named is not None and named["topic"] != topic:
                yield AccountProblem("outcome-misnamed", *at, f"{about} names a record of {named['topic']}")
        champion, source = outcome["champion"], RecordRef(**prediction["source"])
        if champion is not None and champion["prediction_id"] not in _answers_to(source):
            detail = f"{about} names a champion's answer to another request"
            yield AccountProblem("outcome-misnamed", *at, detail)

    def prediction(self, message: Message, header: PredictionHeader) -> None:
        """Takes a prediction in, whose first fields are known."""
        at = RecordRef.of(message)
        shadow = at.topic == self._lane.shadow_predictions
        place = 2 * _packed(at.partition, at.offset) + shadow
        content = hash((message.value() or b"")[HEADER.size :])
        self._predictions.extend((_hashed(header["prediction_id"]), place, content))

    def truth(self, message: Message) -> None:
        """Takes a label or an action in. One that cannot be read has no outcome either."""
        at = RecordRef.of(message)
        kind: Kind = "labels" if at.topic == self._lane.labels else "actions"
        for field, record in self._records(message.value(), kind):
            if field in record:
                content = _hashed(record[field], record.get("request_id"))
                self._truth[at.topic].extend((_packed(at.partition, at.offset), 0, content))

    def _records(self, value: bytes | None, kind: Kind) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The record, and the name of the field that says it; by each contract that it may be of."""
        if not is_json(value):
            fields = {contract.target.name for contract in self._contracts}
            with suppress(BadRecord):
                record = self._codec.decode(value).record
                yield from ((field, record) for field in (fields if kind == "labels" else ("action",)))
            return
        for contract in self._contracts:
            with suppress(BadRecord):
                record = self._json_input(contract, kind).parse(value or b"")
                yield contract.target.name if kind == "labels" else "action", record

    def _json_input(self, contract: ModelContract, kind: Kind) -> JsonInput:
        key = (contract.digest, kind)
        if key not in self._json:
            self._json[key] = JsonInput(contract, kind)
        return self._json[key]

    def _read(self, value: bytes | None) -> tuple[dict[str, Any], bytes]:
        """An outcome's own fields and the header of its prediction; the prediction's bytes."""
        schema_id = read_schema_id(value)
        assert value is not None
        if schema_id not in self._headers:
            self._headers[schema_id] = self._own_fields(schema_id)
        buffer = io.BytesIO(value)
        buffer.seek(HEADER.size)
        try:
            own: Any = fastavro.schemaless_reader(buffer, self._headers[schema_id], None)
            start = buffer.tell()
            header = fastavro.schemaless_reader(buffer, _HEADER, None)
        except Exception as error:
            raise BadRecord("corrupt", f"no outcome can be read: {error!r}") from error
        return {**own, "prediction": header}, value[start:]

    def _own_fields(self, schema_id: int) -> Any:
        schema = self._codec.writer_schema(schema_id)
        fields = schema.get("fields", []) if isinstance(schema, dict) else []
        if not fields or fields[-1]["name"] != "prediction":
            raise BadRecord("unsupported-schema", f"schema {schema_id} is not that of an outcome")
        assert isinstance(schema, dict)
        return fastavro.parse_schema(plain({**schema, "fields": fields[:-1]}))

    # --- settling

    def problems(self, lows: Mapping[Partition, int]) -> Iterator[AccountProblem]:
        """What is wrong with the outcomes, once all that they name has been read.

        Args:
            lows: the first offset retained of each partition of the lane. What retention deleted is not missed.
        """
        rows = np.array(self._outcomes, np.int64).reshape(-1, len(_OUTCOME))
        of = dict(zip(_OUTCOME, rows[np.argsort(rows[:, 0], kind="stable")].T, strict=True))
        yield from self._twice(of)
        yield from self._chains(of, lows)
        yield from self._predicted(of, lows)
        for topic, at, content in (
            (self._lane.labels, of["label_at"], of["label"]),
            (self._lane.actions, of["action_at"], of["action"]),
        ):
            yield from self._true(topic, at, content, of["at"], lows)

    def _twice(self, of: Mapping[str, Hashes]) -> Iterator[AccountProblem]:
        _, first = np.unique(of["outcome"], return_index=True)
        again = np.setdiff1d(np.arange(len(of["outcome"])), first, assume_unique=True)
        yield from self._at(of["at"][again], "outcome-twice", "its outcome id is there twice")

    def _chains(self, of: Mapping[str, Hashes], lows: Mapping[Partition, int]) -> Iterator[AccountProblem]:
        order = np.lexsort((of["at"], of["prediction"]))
        own = {name: of[name][order] for name in _OUTCOME}
        follows = np.zeros(len(order), bool)
        follows[1:] = own["prediction"][1:] == own["prediction"][:-1]
        previous = np.arange(len(order)) - 1
        cut = self._cut((self._lane.outcomes,), own["at"], lows)
        starts = (own["revision"] == 1) & (own["replaces"] == _NONE) & (own["before"] == _NONE)
        bad_start = ~follows & ~starts & ~cut
        number = own["revision"] != own["revision"][previous] + 1
        name = own["replaces"] != own["outcome"][previous]
        state = own["before"] != own["state"][previous]
        for is_wrong, detail in (
            (bad_start, "the first outcome of its prediction is not revision 1, or replaces another"),
            (follows & number, "its revision does not follow that of the outcome before"),
            (follows & name, "it does not name the outcome before as the one that it replaces"),
            (follows & state, "it says otherwise what the outcome before said"),
        ):
            yield from self._at(np.sort(own["at"][is_wrong]), "outcome-chain", detail)

    def _predicted(self, of: Mapping[str, Hashes], lows: Mapping[Partition, int]) -> Iterator[AccountProblem]:
        kept = _kept(self._predictions)
        index, is_logged = kept.find(of["prediction"])
        gone = self._cut(self._predictions_topics, of["at"], lows)
        missing = of["at"][~is_logged & ~gone]
        yield from self._at(missing, "outcome-without-prediction", "there is no such prediction in the log")
        # Where a prediction's id is there twice, the outcome is of either.
        same = _pairs(of["prediction"], of["content"], kept.id, kept.content)
        for i in np.flatnonzero(is_logged & ~same):
            yield from self._compare(int(of["at"][i]), int(kept.at[index[i]]))

    def _compare(self, outcome: int, prediction: int) -> Iterator[AccountProblem]:
        """Field by field: bytes differ where the contract changed between prediction and outcome."""
        at = RecordRef(self._lane.outcomes, *_unpacked(outcome))
        logged = RecordRef(self._predictions_topics[prediction % 2], *_unpacked(prediction // 2))
        messages = self._fetch([at, logged])
        if at in messages and logged in messages:
            try:
                answer = self._codec.decode(messages[logged].value()).record
                nested = self._codec.decode(messages[at].value()).record["prediction"]
            except BadRecord as bad:
                detail = f"it or prediction {logged} cannot be read: {bad}"
                yield AccountProblem("outcome-differs", *at, detail)
                return
            for difference in differences(answer, nested)[:1]:
                detail = f"prediction {logged} is otherwise there: {difference}"
                yield AccountProblem("outcome-differs", *at, detail)

    def _true(
        self, topic: str, at: Hashes, content: Hashes, outcome: Hashes, lows: Mapping[Partition, int]
    ) -> Iterator[AccountProblem]:
        named = np.flatnonzero(at != _NONE)
        at, content, outcome = at[named], content[named], outcome[named]
        what = "label" if topic == self._lane.labels else "action"
        rows = np.array(self._truth[topic], np.int64).reshape(-1, 3)
        is_logged = np.isin(at, rows[:, 0])
        same = _pairs(at, content, rows[:, 0], rows[:, 2])
        is_missing = ~is_logged & ~_deleted(topic, at, lows)
        other = "the {} at {} says otherwise, or of another request"
        for is_wrong, check, detail in (
            (is_missing, f"outcome-without-{what}", "there is no {} at {}"),
            (is_logged & ~same, f"outcome-mis{what}", other),
        ):
            for place, partition, offset in zip(outcome[is_wrong], *_unpacked(at[is_wrong]), strict=True):
                where = f"{topic}/{partition}/{offset}"
                yield from self._at(np.array([place]), check, detail.format(what, where))

    def _cut(self, topics: Sequence[str], at: Hashes, lows: Mapping[Partition, int]) -> NDArray[np.bool_]:
        """Whether retention has deleted anything of the partitions that belong to these outcomes."""
        deleted = [p.partition for p, low in lows.items() if low > 0 and p.topic in topics]
        return np.isin(_unpacked(at)[0], deleted)

    def _at(self, places: Hashes, check: str, detail: str) -> Iterator[AccountProblem]:
        for partition, offset in zip(*_unpacked(places), strict=True):
            yield AccountProblem(check, self._lane.outcomes, int(partition), int(offset), detail)


def _answers_to(source: RecordRef) -> set[str]:
    """The ids that an answer to this request can have."""
    return {prediction_id(role, source, 0) for role in ("champion", "canary", "arm")}


def _row(at: RecordRef, outcome: Mapping[str, Any], content: bytes) -> tuple[int, ...]:
    """An outcome as numbers, as `_OUTCOME` names them.

    Raises:
        BadRecord: it is none, or names places where no record can be.
    """
    try:
        before, prediction = outcome["before"], outcome["prediction"]
        label, action, request = outcome["label_source"], outcome["action_source"], prediction["request_id"]
        return (
            _packed(at.partition, at.offset),
            _hashed(outcome["outcome_id"]),
            _hashed(prediction["prediction_id"]),
            hash(content),
            _NONE if outcome["replaces"] is None else _hashed(outcome["replaces"]),
            outcome["revision"],
            _state(outcome),
            _NONE if before is None else _state(before),
            _NONE if label is None else _place(label),
            _hashed(outcome["label"], request),
            _NONE if action is None else _place(action),
            _hashed(outcome["action_taken"], request),
        )
    except (LookupError, TypeError) as error:
        raise BadRecord("unsupported-schema", f"its schema is not that of an outcome: {error!r}") from error


def _times(outcome: Mapping[str, Any]) -> dict[str, int | None]:
    """Its times by the names of their columns.

    Raises:
        BadRecord: as `_row`.
    """
    times = {name: outcome.get(name) for name in ("known_at", "label_time")}
    times["event_time"] = outcome["prediction"]["event_time"]
    if not all(time is None or isinstance(time, int) for time in times.values()):
        raise BadRecord("unsupported-schema", f"its schema is not that of an outcome: its times are {times}")
    return times


def _place(named: Mapping[str, Any]) -> int:
    partition, offset = named["partition"], named["offset"]
    if not (0 <= partition < 2 ** (62 - _OFFSET_BITS) and 0 <= offset < 2**_OFFSET_BITS):
        raise BadRecord("out-of-range", f"it names {partition}/{offset}, where no record can be")
    return _packed(partition, offset)


def _state(outcome: Mapping[str, Any]) -> int:
    return _hashed(outcome["state"], outcome["label"], outcome["action_taken"])


def _hashed(*values: Any) -> int:
    """Alike for what is alike: NaN too, and what nobody honest says, which may have no hash of its own."""
    alike = tuple("nan" if value != value else value for value in values)
    try:
        return hash(alike)
    except TypeError:
        return hash(repr(alike))


def _packed(partition: int, offset: int) -> int:
    return partition << _OFFSET_BITS | offset


def _unpacked(place: Any) -> tuple[Any, Any]:
    return place >> _OFFSET_BITS, place & ((1 << _OFFSET_BITS) - 1)


def _kept(held: array[int]) -> _Kept:
    rows = np.array(held, np.int64).reshape(-1, 3)
    return _Kept(*rows[np.argsort(rows[:, 0], kind="stable")].T)


def _pairs(a: Hashes, b: Hashes, among_a: Hashes, among_b: Hashes) -> NDArray[np.bool_]:
    """Whether each pair is among the others."""
    both = np.dtype([("a", np.int64), ("b", np.int64)])
    wanted, among = np.empty(len(a), both), np.empty(len(among_a), both)
    wanted["a"], wanted["b"], among["a"], among["b"] = a, b, among_a, among_b
    return np.isin(wanted, among)


def _deleted(topic: str, at: Hashes, lows: Mapping[Partition, int]) -> NDArray[np.bool_]:
    partitions, offsets = _unpacked(at)
    low = np.array([lows.get(Partition(topic, int(p)), 0) for p in partitions], np.int64)
    return np.asarray(offsets < low)
