"""What ought to be in the outcomes and dead letters, worked out from the whole log at once.

A plain function over what is in the input topics, with nothing of the joiner's: it knows all partitions to their ends,
looks at every pair of a prediction and a truth, and takes the rules as the joiner's README states them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tailrace.streaming.partitioner import partition_of
from tailrace.streaming.records import Message

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
    key: str
    time: str
    target: str
    assume: bool | None = None
    known_only_for: tuple[str, ...] = ()


@dataclass
class _Truth:
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


def expected(world: World) -> tuple[dict[str, dict[str, Any]], set[tuple[str, str]]]:
    """Outcomes by id, with the fields that the joiner decides; dead letters as (coordinates, code)."""
    letters: set[tuple[str, str]] = set()
    truths, clocks = _truths(world, letters)
    watermark = min(clocks.values())
    outcomes: dict[str, dict[str, Any]] = {}
    for home in range(len(world.inputs["predictions"])):
        _join(world, home, [t for t in truths if t.home == home], watermark, outcomes, letters)
    return outcomes, letters


def _truths(world: World, letters: set[tuple[str, str]]) -> tuple[list[_Truth], dict[tuple[str, int], int]]:
    feedback, clocks = [], {}
    for kind in ("labels", "actions"):
        for partition, messages in enumerate(world.inputs[kind]):
            clock = FAR_PAST
            for message in messages:
                if (mark := _mark(message)) is not None:
                    clock = max(clock, mark)
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
                late = time < clock - world.lateness
                clock = max(clock, time)
                home = partition_of(record[world.key].encode(), len(messages_of(world, kind)))
                feedback.append(
                    _Truth(
                        kind, partition, message.offset(), clock, time, late, record[field],
                        record["request_id"], home, world.lane,
                    )
                )  # fmt: skip
            clocks[kind, partition] = clock
    feedback.sort(key=lambda t: (t.effective, t.kind, t.partition, t.offset))
    return feedback, clocks


def messages_of(world: World, kind: str) -> list[list[Message]]:
    return world.inputs[kind]


def _mark(message: Message) -> int | None:
    if message.value() is not None:
        return None
    return int(dict(message.headers() or [])["tailrace-mark"])


def _record(world: World, value: bytes | None) -> dict[str, Any]:
    assert value is not None
    return json.loads(value) if value.startswith(b"{") else world.decode(value)


def _join(
    world: World,
    home: int,
    truths: list[_Truth],
    watermark: int,
    outcomes: dict[str, dict[str, Any]],
    letters: set[tuple[str, str]],
) -> None:
    horizon = world.horizon
    streams: dict[str, list[dict[str, Any]]] = {}
    clocks: dict[str, int] = {}
    sources: dict[int, int] = {}
    for stream in ("predictions", "shadow-predictions"):
        clock, predictions = FAR_PAST, []
        for message in world.inputs[stream][home]:
            if (mark := _mark(message)) is not None:
                clock = max(clock, mark)
                offset = dict(message.headers() or []).get("tailrace-mark-offset")
                if stream == "predictions" and offset is not None:
                    sources[home] = max(sources.get(home, -1), int(offset))
                continue
            event = world.decode(message.value() or b"")
            clock = max(clock, event["event_time"])
            event["known"], event["shadow"] = clock, stream != "predictions"
            if stream == "predictions":
                source = event["source"]
                sources[source["partition"]] = max(sources.get(source["partition"], -1), source["offset"])
            predictions.append(event)
        streams[stream], clocks[stream] = predictions, clock
    waiting = []
    for events in streams.values():
        for at, event in enumerate(events):
            event["duplicate_of"] = _first(events[:at], event, horizon)
            mine = [
                t
                for t in truths
                if t.request_id == event["request_id"]
                and t.effective < event["event_time"] + horizon
                and event["known"] < t.effective + horizon
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
                    or clocks["predictions"] >= event["event_time"] + horizon
                )
                if not known:
                    if applied or over:
                        waiting.append(event["known"])
                    continue
            for outcome in _revisions(world, event, applied, over):
                outcome["champion"] = champion and champion["prediction_id"]
                outcome["partition"] = home
                assert outcome["outcome_id"] not in outcomes
                outcomes[outcome["outcome_id"]] = outcome
    # A truth that nothing matched is given up once nothing that is still to come can match it.
    floor = min(watermark, *clocks.values(), *waiting)
    events = [*streams["predictions"], *streams["shadow-predictions"]]
    for truth in truths:
        if truth.effective >= watermark or truth.effective + horizon + world.lateness > floor:
            continue
        of_request = [
            e
            for e in events
            if e["request_id"] == truth.request_id and e["known"] < truth.effective + horizon
        ]
        if any(truth.effective < e["event_time"] + horizon for e in of_request):
            continue
        late = any(0 <= truth.effective - e["event_time"] - horizon < world.lateness for e in of_request)
        letters.add((truth.source, "after-horizon" if late else "no-request"))


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


def _revisions(world: World, event: dict[str, Any], truths: list[_Truth], over: bool) -> list[dict[str, Any]]:
    revisions: list[dict[str, Any]] = []
    label: _Truth | None = None
    action: _Truth | None = None
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

    for truth in truths:
        now = label if truth.kind == "labels" else action
        if truth.time < since[truth.kind]:
            continue
        since[truth.kind] = truth.time
        if now is not None and now.value == truth.value:
            continue
        if truth.kind == "labels":
            label = truth
        else:
            action = truth
        if label is not None:
            revise(truth.source, truth.effective, "labelled", label.value)
    # The later event time wins, whatever came when and where.
    for kind, counts in (("labels", label), ("actions", action)):
        ever = [truth for truth in truths if truth.kind == kind]
        last = max(ever, key=lambda t: (t.time, t.effective, t.partition, t.offset), default=None)
        assert (counts and counts.value) == (last and last.value)
    if over and label is None:
        taken = event["action"] if action is None else action.value
        assumed = world.assume if not world.known_only_for or taken in world.known_only_for else None
        state = "unlabelled" if assumed is None else "assumed"
        revise("horizon", event["event_time"] + world.horizon, state, assumed)
    return revisions
