"""Records as columns, and how a producer hands records over to a client library whose queue fills up or refuses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka import KafkaError, KafkaException
from hypothesis import given
from hypothesis import strategies as st

from tailrace.avro.columns.bytes_column import BytesColumn
from tailrace.streaming.backends.abstract import Abortable, Fatal, LogError, RecordRejected
from tailrace.streaming.backends.kafka.producer import KafkaProducer
from tailrace.streaming.records import Record, Records, Runs


class Client:
    """Takes ``room`` records, then none until it is polled."""

    def __init__(self, configuration: dict[str, Any], **_: object) -> None:
        self.taken: list[Record] = []
        self.room = 2
        self.polled = 0
        self.error: KafkaError | None = None

    def produce(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        partition: int = -1,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        if self.error is not None and len(self.taken) == 1:
            raise KafkaException(self.error)
        if not self.room:
            raise BufferError("Local: Queue full")
        self.room -= 1
        self.taken.append(Record(topic, value, key, tuple(headers), None if partition < 0 else partition))

    def poll(self, timeout: float) -> None:
        self.polled += 1
        self.room = 2


@pytest.fixture
def producer(monkeypatch: pytest.MonkeyPatch) -> KafkaProducer:
    monkeypatch.setattr(confluent_kafka, "Producer", Client)
    return KafkaProducer({}, "id")


COLUMNS = Records(
    "topic", BytesColumn.of([b"%d" % n for n in range(7)]), BytesColumn.of([b"key-%d" % n for n in range(7)])
)
PLAIN = [*COLUMNS, Record("other", None, b"mark", (("at", b"1"),), 3)]


RUNS = Runs([COLUMNS[:3], [Record("other", None, b"mark", (("at", b"1"),), 3)], COLUMNS[3:]])


@pytest.mark.parametrize("records", [COLUMNS, PLAIN, RUNS])
def test_every_record_is_handed_over_once_and_in_order(
    producer: KafkaProducer, records: Sequence[Record]
) -> None:
    client: Client = producer._client
    producer.produce(records)
    assert client.taken == list(records)
    assert client.polled == 3


@pytest.mark.parametrize("records", [COLUMNS, PLAIN, RUNS])
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (KafkaError(KafkaError.MSG_SIZE_TOO_LARGE), RecordRejected),
        (KafkaError(KafkaError._STATE), Fatal),
        (KafkaError(KafkaError._TIMED_OUT), Abortable),
    ],
)
def test_what_a_client_does_not_take_ends_the_batch(
    producer: KafkaProducer, records: Sequence[Record], error: KafkaError, expected: type[LogError]
) -> None:
    client: Client = producer._client
    client.error = error
    with pytest.raises(expected):
        producer.produce(records)
    assert len(client.taken) == 1


@given(st.lists(st.tuples(st.binary(max_size=2), st.binary(max_size=2))), st.data())
def test_columns_are_what_a_list_is(rows: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    columns = Records(
        "topic", BytesColumn.of([value for value, _ in rows]), BytesColumn.of([key for _, key in rows])
    )
    plain = [Record("topic", value, key) for value, key in rows]
    assert list(columns) == plain
    assert len(columns) == len(plain)
    assert [columns[at] for at in range(len(plain))] == plain
    cut = data.draw(st.slices(len(plain)))
    assert list(columns[cut]) == plain[cut]
