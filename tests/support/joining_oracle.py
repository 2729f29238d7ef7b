"""What ought to be in the outcomes and dead letters, worked out from the whole log at once.

A plain function over what is in the input topics, with nothing of the joiner's: it knows all partitions to their ends,
looks at every pair of a prediction and its feedback, and takes the rules as the joiner's README states them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tailrace.streaming.partitioner import partition_of
from tailrace.streaming.records import Message

_BY_WEIGHT = ("before-request", "after-horizon", "no-request")
FAR_PAST = -(10**18)


@dataclass(frozen=True)
class World:
    """What the oracle is told: the inputs by suffix and partition, and the contract's numbers, in milliseconds."""

    lane: str
    inputs: dict[str, list[list[Message]]]
    decode: Callable[[bytes], dict[str, Any]]
    horizon: int
    lateness: int
    skew: int
    tolerance: int
    key: str
    time: str
    target: str
    assume: bool | None = None
    known_only_for: tuple[str, ...] = ()


@dataclass
class _Feedback:
    kind: str
    partition: int
    offset: int
    effective: int
    time: int
    late: bool
    value: Any
    request_id: str
    home: int

    @property
    def source(self) -> str:
        return f"{self.lane}.{self.kind}/{self.partition}/{self.offset}"

    lane: str = ""


class Letters(set[tuple[str, str]]):
    """Dead letters as (coordinates, code); ``early`` are those that may be written already, and need not be."""

    def __init__(self) -> None:
        super().__init__()
        self.early: set[tuple[str, str]] = set()


def expected(world: World) -> tuple[dict[str, dict[str, Any]], Letters]:
    """Outcomes by id, with the fields that the joiner decides; and the dead letters."""
    letters = Letters()
    feedback, stream_times = _feedback(world, letters)
    watermark = min(stream_times.values())
    outcomes: dict[str, dict[str, Any]] = {}
    for home in range(len(world.inputs["predictions"])):
        _join(world, home, [t for t in feedback if t.home == home], watermark, outcomes, letters)
    return outcomes, letters


def _feedback(
    world: World, letters: set[tuple[str, str]]
) -> tuple[list[_Feedback], dict[tuple[str, int], int]]:
    feedback, stream_times = [], {}
    for kind in ("labels", "actions"):
        for partition, messages in enumerate(world.inputs[kind]):
            stream_time = FAR_PAST
            for message in messages:
                if (event_time := _watermark(message)) is not None:
                    stream_time = max(stream_time, event_time)
                    continue
                record = _record(world, message.value())
                time = record[world.time] if record.get(world.time) is not None else message.timestamp()[1]
                field = world.target if kind == "labels" else "action"
                code = None
                if time > message.timestamp()[1] + world.skew:
                    code = "event-time-ahead"
                elif not record.get(world.key):
                    code = "missing-key"
                elif not record.get("request_id"):
                    code = "missing-request-id"
                elif record.get(field) is None:
                    code = "missing"
                if code is not None:
                    letters.add((f"{world.lane}.{kind}/{partition}/{message.offset()}", code))
                    continue
                late = time < stream_time - world.lateness
                stream_time = max(stream_time, time)
                home = partition_of(record[world.key].encode(), len(messages_of(world, kind)))
                feedback.append(
                    _Feedback(
                        kind, partition, message.offset(), stream_time, time, late, record[field],
                        record["request_id"], home, world.lane,
                    )
                )  # fmt: skip
            stream_times[kind, partition] = stream_time
    feedback.sort(key=lambda t: (t.effective, t.kind, t.partition, t.offset))
    return feedback, stream_times


def messages_of(world: World, kind: str) -> list[list[Message]]:
    return world.inputs[kind]


def _watermark(message: Message) -> int | None:
    if message.value() is not None:
        return None
    return int(dict(message.headers() or [])["tailrace-mark"])


def _record(world: World, value: bytes | None) -> dict[str, Any]:
    assert value is not None
    return json.loads(value) if value.startswith(b"{") else world.decode(value)


def _join(
    world: World,
    home: int,
    feedback: list[_Feedback],
    watermark: int,
    outcomes: dict[str, dict[str, Any]],
    letters: Letters,
) -> None:
    horizon = world.horizon
    streams: dict[str, list[dict[str, Any]]] = {}
    stream_times: dict[str, int] = {}
    sources: dict[int, int] = {}
    for stream in ("predictions", "shadow-predictions"):
        stream_time, predictions = FAR_PAST, []
        for message in world.inputs[stream][home]:
            if (event_time := _watermark(message)) is not None:
                stream_time = max(stream_time, event_time)
                offset = dict(message.headers() or []).get("tailrace-mark-offset")
                if stream == "predictions" and offset is not None:
                    sources[home] = max(sources.get(home, -1), int(offset))
                continue
            event = world.decode(message.value() or b"")
            stream_time = max(stream_time, event["event_time"])
            event["known"], event["shadow"] = stream_time, stream != "predictions"
            if stream == "predictions":
                source = event["source"]
                sources[source["partition"]] = max(sources.get(source["partition"], -1), source["offset"])
            predictions.append(event)
        streams[stream], stream_times[stream] = predictions, stream_time
    waiting, over_only = [], []
    for events in streams.values():
        for at, event in enumerate(events):
            event["duplicate_of"] = _first(events[:at], event, horizon)
            mine = [
                t
                for t in feedback
                if t.request_id == event["request_id"]
                and t.effective < event["event_time"] + horizon
                and event["known"] < t.effective + horizon
                and t.time >= event["event_time"] - world.tolerance
            ]
            applied = [t for t in mine if t.effective < watermark]
            over = watermark >= event["event_time"] + horizon
            champion = None
            if event["shadow"]:
                champion = _champion(streams["predictions"], event, horizon)
                source = event["source"]
                known = (
                    champion is not None
                    or sources.get(source["partition"], -1) >= source["offset"]
                    or stream_times["predictions"] >= event["event_time"] + horizon
                )
                if not known:
                    if applied:
                        waiting.append(event["known"])
                    elif over:
                        # It waits from its horizon on: what was swept before that was given up already.
                        over_only.append(event["known"])
                    continue
            for outcome in _revisions(world, event, applied, over):
                outcome["champion"] = champion and champion["prediction_id"]
                outcome["partition"] = home
                assert outcome["outcome_id"] not in outcomes
                outcomes[outcome["outcome_id"]] = outcome
    # Feedback that nothing matched is given up once nothing that is still to come can match it.
    latest = min(watermark, *stream_times.values(), *waiting)
    floor = min([latest, *over_only])
    events = [*streams["predictions"], *streams["shadow-predictions"]]
    for one in feedback:
        if one.effective >= watermark or one.effective + horizon + world.lateness > latest:
            continue
        given_up = letters if one.effective + horizon + world.lateness <= floor else letters.early
        of_request = [
            e for e in events if e["request_id"] == one.request_id and e["known"] < one.effective + horizon
        ]
        reasons = {"no-request"}
        for event in of_request:
            behind = one.effective - event["event_time"] - horizon
            is_early = one.time < event["event_time"] - world.tolerance
            if behind < world.lateness:
                timely = "matched" if behind < 0 else "after-horizon"
                reasons.add("before-request" if is_early else timely)
        if "matched" not in reasons:
            given_up.add((one.source, min(reasons, key=_BY_WEIGHT.index)))


def _first(earlier: list[dict[str, Any]], event: dict[str, Any], horizon: int) -> str | None:
    """The prediction that counts, where a request was answered before."""
    for other in earlier:
        if (
            other["request_id"] == event["request_id"]
            and (not event["shadow"] or other["version"] == event["version"])
            and other["duplicate_of"] is None
            and event["known"] < other["event_time"] + horizon
        ):
            return str(other["prediction_id"])
    return None


def _champion(events: list[dict[str, Any]], shadow: dict[str, Any], horizon: int) -> dict[str, Any] | None:
    for event in events:
        if (
            event["source"] == shadow["source"]
            and event["known"] < shadow["event_time"] + horizon
            and shadow["known"] < event["event_time"] + horizon
        ):
            return event
    return None


def _revisions(
    world: World, event: dict[str, Any], feedback: list[_Feedback], over: bool
) -> list[dict[str, Any]]:
    revisions: list[dict[str, Any]] = []
    label: _Feedback | None = None
    action: _Feedback | None = None
    since = {"labels": FAR_PAST, "actions": FAR_PAST}

    def revise(cause: str, known_at: int, state: str, value: Any) -> None:
        last = revisions[-1] if revisions else None
        name = f"{event['prediction_id']}|{cause}"
        revisions.append(
            {
                "outcome_id": name,
                "prediction_id": event["prediction_id"],
                "revision": len(revisions) + 1,
                "replaces": last and last["outcome_id"],
                "state": state,
                "duplicate_of": event["duplicate_of"],
                "known_at": max(known_at, event["known"]),
                "late": label is not None and label.late,
                "label": value,
                "label_time": label and label.time,
                "label_source": label and label.source,
                "action_taken": action and action.value,
                "action_source": action and action.source,
                "before": last and (last["state"], last["label"], last["action_taken"]),
            }
        )

    for one in feedback:
        now = label if one.kind == "labels" else action
        if one.time < since[one.kind]:
            continue
        since[one.kind] = one.time
        if now is not None and now.value == one.value:
            continue
        if one.kind == "labels":
            label = one
        else:
            action = one
        if label is not None:
            revise(one.source, one.effective, "labelled", label.value)
    # The later event time wins, whatever came when and where.
    for kind, counts in (("labels", label), ("actions", action)):
        ever = [one for one in feedback if one.kind == kind]
        last = max(ever, key=lambda t: (t.time, t.effective, t.partition, t.offset), default=None)
        assert (counts and counts.value) == (last and last.value)
    if over and label is None:
        taken = event["action"] if action is None else action.value
        assumed = world.assume if not world.known_only_for or taken in world.known_only_for else None
        state = "unlabelled" if assumed is None else "assumed"
        revise("horizon", event["event_time"] + world.horizon, state, assumed)
    return revisions
