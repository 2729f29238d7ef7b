"""One partition of a lane by itself: what its store is worth after a restart, and what pauses."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.support.memory_key_value_store import MemoryKeyValueStore

from tailrace.contracts.records.input_size import LARGEST, LARGEST_AROUND
from tailrace.contracts.state.contracts import AppliedContract
from tailrace.joiner import partition as module
from tailrace.joiner.contract_plan import JoiningPlan
from tailrace.joiner.intake import Intake
from tailrace.joiner.lane_contracts import LaneContracts
from tailrace.joiner.partition import LanePartition
from tailrace.joiner.partition_state import INPUTS, Facts
from tailrace.joiner.step import StepResult
from tailrace.joiner.store import KeyValueStore
from tailrace.streaming.backends.abstract import Committed
from tailrace.streaming.bounds import Bounds, Budget, size_of
from tailrace.streaming.records import Message, PlainMessage, Record, RecordRef
from tailrace.streaming.watermark_records import watermark_record, watermark_stream, watermark_time
from tailrace.testing.joined_lane import CONTRACT, JoinedLane

NOW = 1_600_000_000_000
MADE = JoinedLane(CONTRACT.replace("horizon: 60s", "horizon: 60s, tolerance: 10s"))


def lane() -> LaneContracts:
    contract = MADE.contract
    contracts = LaneContracts(MADE.lane, MADE.codec)
    applied = AppliedContract(contract.model, 1, contract.digest, contract.resolved_json, "", "", 0)
    contracts.take(JoiningPlan(applied, MADE.codec, MADE.registry))
    return contracts


def messages(records: Sequence[Record], start: int = 0) -> list[Message]:
    return [
        PlainMessage(r.topic, 0, start + at, r.value, r.key, r.headers, NOW + 10**8)
        for at, r in enumerate(records)
    ]


def predictions(count: int) -> list[Record]:
    return [
        MADE.prediction(RecordRef("credit.requests", 0, n), f"r{n}", f"k{n}", NOW + 1_000 * n)
        for n in range(count)
    ]


def labels(count: int) -> list[Record]:
    return [
        MADE.label(request_id=f"r{n}", loan_id=f"k{n}", at=NOW + 1_000 * n, bad=True) for n in range(count)
    ]


def opened(
    store: KeyValueStore, committed: dict[str, Committed] | None = None, partitions: int = 1
) -> LanePartition:
    return LanePartition(lane(), 0, partitions, store, committed or {name: Committed(0) for name in INPUTS})


def outcomes(records: Sequence[Record]) -> list[str]:
    return [
        MADE.outcome(r)["prediction"]["request_id"]
        for r in records
        if r.value and r.topic == MADE.lane.outcomes
    ]


def run(own: LanePartition, **inputs: list[Message]) -> tuple[list[str], dict[str, Committed]]:
    """Processes and applies a batch; the outcomes, and what would be committed."""
    result = own.process(inputs, Budget())
    assert result is not None
    own.apply(result)
    ends = {name: received[-1].offset() + 1 for name, received in inputs.items()}
    return outcomes(result.records), {n: Committed(ends[n], m) for n, m in result.metadata.items()}


def test_a_store_at_the_committed_offsets_needs_no_history_and_one_ahead_is_worth_nothing() -> None:
    store = MemoryKeyValueStore()
    made, committed = run(opened(store), predictions=messages(predictions(3)))
    assert made == []
    everything = {name: Committed(0) for name in INPUTS} | committed
    assert opened(store, everything).history == {}
    behind = everything | {"predictions": Committed(5, committed["predictions"].metadata)}
    assert opened(store, behind).history == {"predictions": (3, 5)}
    # The transaction that the store has taken for committed was not.
    before = {name: Committed(0) for name in INPUTS}
    assert opened(store, before).history == {}
    assert store.content == {}


def test_without_a_store_history_begins_where_the_metadata_says() -> None:
    own = opened(MemoryKeyValueStore())
    _, committed = run(own, predictions=messages(predictions(3)), labels=messages(labels(2)))
    everything = {name: Committed(0) for name in INPUTS} | committed
    assert opened(MemoryKeyValueStore(), everything).history == {"predictions": (0, 3), "labels": (0, 2)}
    # Much later, what is long over is not read again.
    far = NOW + 10_000_000
    inputs = {
        name: messages(
            [watermark_record(f"credit.{name}", 0, far + at) for at in range(0, 200_000, 10_000)], start=3
        )
        for name in INPUTS[:4]
    }
    _, committed = run(own, **inputs)
    _, committed = run(
        own,
        **{name: messages([watermark_record(f"credit.{name}", 0, far + 600_000)], 30) for name in INPUTS[:4]},
    )
    starts = {name: Facts.of(last).start for name, last in committed.items()}
    assert starts == dict.fromkeys(starts, 30)


def test_what_was_said_before_a_restart_is_not_said_again() -> None:
    for store in (MemoryKeyValueStore(), None):
        first = opened(store or MemoryKeyValueStore())
        p, received = messages(predictions(4)), messages(labels(4))
        ends = [watermark_record("credit.actions", 0, NOW + 2_500)]
        made, committed = run(first, predictions=p, labels=received, actions=messages(ends))
        assert made == ["r0", "r1", "r2"]
        again = opened(store or MemoryKeyValueStore(), {name: Committed(0) for name in INPUTS} | committed)
        by_name = {"predictions": p, "labels": received, "actions": messages(ends)}
        for name, (start, end) in again.history.items():
            again.restore(name, by_name[name][start:end], Budget())
        later = messages([watermark_record("credit.actions", 0, NOW + 9_000)], start=1)
        more = messages([watermark_record("credit.labels", 0, NOW + 9_000)], start=4)
        made, _ = run(again, actions=later, labels=more)
        assert made == ["r3"]


def test_a_record_of_the_history_that_stops_processes_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    own = opened(MemoryKeyValueStore(), {name: Committed(0) for name in INPUTS} | {"labels": Committed(4)})
    take = Intake.take

    def failing(self: Intake, name: str, received: Sequence[Message]) -> None:
        if any(message.offset() == 2 for message in received):
            raise ZeroDivisionError
        take(self, name, received)

    monkeypatch.setattr(Intake, "take", failing)
    own.restore("labels", messages(labels(4)), Budget())
    monkeypatch.undo()
    time = [watermark_record("credit.actions", 0, NOW + 9_000)]
    more = messages([watermark_record("credit.labels", 0, NOW + 9_000)], start=4)
    made, _ = run(own, predictions=messages(predictions(4)), actions=messages(time), labels=more)
    assert made == ["r0", "r1", "r3"]


def test_what_is_ahead_of_the_slowest_clock_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PENDING", 3)
    own = opened(MemoryKeyValueStore())
    run(own, labels=messages(labels(3)))
    assert list(own.ahead()) == ["labels"]
    assert "clock of actions/0" in own.ahead()["labels"]
    run(own, actions=messages([watermark_record("credit.actions", 0, NOW + 5_000)]))
    assert own.ahead() == {}


def test_the_dead_letter_of_a_label_that_nobody_asked_for_is_of_the_message_that_it_came_in() -> None:
    own = opened(MemoryKeyValueStore())
    (label,) = messages([labels(1)[0]._replace(headers=(("trace", b"\xff"),))])
    run(own, labels=[label])
    far = {
        name: messages([watermark_record(f"credit.{name}", 0, NOW + 10_000_000)], start=1)
        for name in INPUTS[:4]
    }
    result = own.process(far, Budget())
    assert result is not None
    (letter,) = result.letters
    original = letter.message
    assert letter.code == "no-request"
    assert RecordRef.of(original) == RecordRef.of(label)
    assert (original.key(), original.value(), original.headers()) == (
        label.key(),
        label.value(),
        label.headers(),
    )
    assert original.timestamp() == label.timestamp()


def test_what_is_too_large_is_refused_unread_and_its_neighbours_are_joined() -> None:
    own = opened(MemoryKeyValueStore())
    few = labels(2)
    bomb = few[0]._replace(value=b"{" + b"[" * LARGEST)
    around = few[0]._replace(headers=[("trace", b"x" * LARGEST_AROUND)])
    result = own.process(
        {"labels": messages([bomb, around, few[0]]), "predictions": messages(predictions(1))}, Budget()
    )
    assert result is not None
    assert [(letter.code, letter.message.offset()) for letter in result.letters] == [
        ("too-large", 0),
        ("too-large", 1),
    ]
    own.apply(result)
    marks = {
        name: messages([watermark_record(f"credit.{name}", 0, NOW + 10_000)], start=3) for name in INPUTS[:4]
    }
    assert run(own, **marks)[0] == ["r0"]


def test_the_dead_letter_of_a_label_from_before_its_request_says_what_to_do() -> None:
    own = opened(MemoryKeyValueStore())
    early = MADE.label(request_id="r0", loan_id="k0", at=NOW - 10_001, bad=True)
    on_time = MADE.label(request_id="r1", loan_id="k1", at=NOW + 1_000 - 10_000, bad=True)
    run(own, labels=messages([early, on_time]), predictions=messages(predictions(2)))
    far = {
        name: messages([watermark_record(f"credit.{name}", 0, NOW + 10_000_000)], start=2)
        for name in INPUTS[:4]
    }
    result = own.process(far, Budget())
    assert result is not None
    (letter,) = result.letters
    assert (letter.code, letter.field) == ("before-request", "at")
    assert "labels.tolerance (10s)" in letter.reason
    assert RecordRef.of(letter.message) == RecordRef("credit.labels", 0, 0)


@pytest.mark.parametrize("bounds", [Bounds(records=40), Bounds(size=20_000)])
def test_what_is_due_leaves_room_for_what_else_its_step_writes(bounds: Bounds) -> None:
    """A batch that comes to more than the bounds is taken again in halves: in vain, where it is one mark."""
    own = opened(MemoryKeyValueStore())
    run(own, predictions=messages(predictions(200)), labels=messages(labels(200)))
    inputs = {
        name: messages([watermark_record(f"credit.{name}", 0, NOW + 200_000)], 200)
        for name in ("labels", "actions")
    }
    made: list[str] = []
    while inputs or own.due():
        result = own.process(inputs, Budget(bounds))
        assert result is not None
        assert bounds.hold(len(result.records) + len(result.letters), size_of(result.records))
        own.apply(result)
        made += outcomes(result.records)
        inputs = {}
    assert made == [f"r{number}" for number in range(200)]


def test_on_a_lane_that_has_been_idle_a_restart_finds_the_clocks_of_the_other_partitions() -> None:
    """They were told once, and a partition to which nothing comes tells nothing more."""
    far = NOW + 50_000
    clocks = messages(
        [watermark_record("credit.rekeyed", 0, far, stream=f"{name}/1") for name in ("labels", "actions")]
    )
    first = opened(MemoryKeyValueStore(), partitions=2)
    committed = {name: Committed(0) for name in INPUTS}
    by_name = {"rekeyed": clocks, "predictions": messages(predictions(4)[3:])}
    for name, batch in by_name.items():
        committed |= run(first, **{name: batch})[1]
    again = opened(MemoryKeyValueStore(), committed, partitions=2)
    for name, (start, end) in again.history.items():
        again.restore(name, by_name[name][start:end], Budget())
    ends = messages([watermark_record("credit.actions", 0, far)])
    label = labels(4)[3]  # whose key is of this partition
    made, _ = run(again, labels=messages([label, watermark_record("credit.labels", 0, far)]), actions=ends)
    assert made == ["r3"]


def test_a_mark_of_shadows_does_not_pass_one_that_waits_for_the_champions_answer() -> None:
    far = NOW + 40_000
    shadow = MADE.prediction(RecordRef("credit.requests", 0, 0), "r0", "k0", NOW, shadow=True)
    own = opened(MemoryKeyValueStore())
    inputs = {
        "shadow-predictions": messages([shadow, watermark_record("credit.shadow-predictions", 0, far)]),
        "predictions": messages([watermark_record("credit.predictions", 0, far)]),
        "labels": messages([*labels(1), watermark_record("credit.labels", 0, far)]),
        "actions": messages([watermark_record("credit.actions", 0, far)]),
    }

    def marked(result: StepResult | None) -> dict[str | None, int | None]:
        assert result is not None
        own.apply(result)
        marks = [m for m in messages(result.records) if m.topic() == MADE.lane.outcomes and m.value() is None]
        return {watermark_stream(m): watermark_time(m) for m in marks}

    assert marked(own.process(inputs, Budget())) == {"predictions": far, "shadow-predictions": NOW}
    champion = messages([predictions(1)[0]], start=1)
    assert marked(own.process({"predictions": champion}, Budget())) == {"shadow-predictions": far}


@pytest.mark.parametrize(("behind", "late"), [(4_999, False), (5_000, False), (5_001, True)])
def test_a_label_is_late_that_is_more_than_the_lateness_behind_its_partition(behind: int, late: bool) -> None:
    own = opened(MemoryKeyValueStore())
    clock = NOW + 10_000
    label = MADE.label(request_id="r0", loan_id="k0", at=clock - behind, bad=True)
    ends = [watermark_record("credit.actions", 0, clock + 1), watermark_record("credit.labels", 0, clock + 1)]
    result = own.process(
        {
            "predictions": messages(predictions(1)),
            "labels": messages([watermark_record("credit.labels", 0, clock), label, ends[1]]),
            "actions": messages(ends[:1]),
        },
        Budget(),
    )
    assert result is not None
    (outcome,) = [MADE.outcome(r) for r in result.records if r.value and r.topic == MADE.lane.outcomes]
    assert outcome["late"] is late


def test_up_to_where_requests_were_read_never_goes_back() -> None:
    own = opened(MemoryKeyValueStore())
    answers = [*predictions(8), watermark_record("credit.predictions", 0, NOW + 9_000, offset=3)]
    _, committed = run(own, predictions=messages(answers))
    assert Facts.of(committed["predictions"]).sources == {0: 7}
