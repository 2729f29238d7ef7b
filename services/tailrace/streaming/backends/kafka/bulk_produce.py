"""Many records handed to librdkafka in one call (docs/adr/0161).

The Python client has no such call that is faster than one for each record, so this makes librdkafka's own. All else
about a producer stays with the client. Of records that are handed over here there are no delivery reports.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import TYPE_CHECKING, Any

import confluent_kafka
import numpy as np
from confluent_kafka import KafkaError, KafkaException, cimpl
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tailrace.avro.columns.bytes_column import BytesColumn
    from tailrace.streaming.records import Records

KNOWN = str(confluent_kafka.__version__) == "2.16.1"
"""Whether it is known where this version of the client keeps librdkafka's handle."""

MOST = 50_000
MOST_BYTES = 256 * 1024 * 1024
"""Half, and a quarter, of what the client's queue holds by default: it does not fill up."""

_COPY = 0x2
_MESSAGE = np.dtype(
    [
        ("error", np.int32),
        ("topic", np.uintp),
        ("partition", np.int32),
        ("value", np.uintp),
        ("value_size", np.uintp),
        ("key", np.uintp),
        ("key_size", np.uintp),
        ("offset", np.int64),
        ("private", np.uintp),
    ],
    align=True,
)
"""rd_kafka_message_t of librdkafka's rdkafka.h."""


@cache
def library() -> ctypes.CDLL:
    """librdkafka, as the client has it."""
    kafka = ctypes.CDLL(cimpl.__file__)  # finds also what is in the libraries that this one is linked with
    address, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    kafka.rd_kafka_name.argtypes, kafka.rd_kafka_name.restype = [address], text
    kafka.rd_kafka_topic_new.argtypes, kafka.rd_kafka_topic_new.restype = (
        [address, text, address],
        address,
    )
    kafka.rd_kafka_topic_destroy.argtypes, kafka.rd_kafka_topic_destroy.restype = [address], None
    kafka.rd_kafka_produce_batch.argtypes = [address, ctypes.c_int32, number, address, number]
    return kafka


def fits(client: object, records: Records) -> bool:
    """Whether these records can go this way."""
    return (
        KNOWN
        and type(client) is cimpl.Producer
        and len(client) + len(records) <= MOST
        and len(records.values.data) + len(records.keys.data) <= MOST_BYTES
    )


def produce(client: Any, records: Records) -> None:
    """Hands over records that fit, each by its key to the partition that the client's own `produce` would choose.

    Raises:
        KafkaException: one was not taken, and the ones behind it may have been.
    """
    topic = library().rd_kafka_topic_new(handle(client), records.topic.encode(), None)
    if not topic:
        raise KafkaException(KafkaError(KafkaError._INVALID_ARG, f"there can be no topic {records.topic!r}"))
    messages = np.zeros(len(records), dtype=_MESSAGE)
    messages["value"], messages["value_size"] = _places(records.values)
    messages["key"], messages["key_size"] = _places(records.keys)
    try:
        taken = library().rd_kafka_produce_batch(topic, -1, _COPY, messages.ctypes.data, len(messages))
    finally:
        library().rd_kafka_topic_destroy(topic)
    if taken != len(messages):
        errors = messages["error"]
        raise KafkaException(KafkaError(int(errors[errors.nonzero()[0][0]])))


def handle(client: Any) -> int | None:
    """Address of the client's rd_kafka_t: its object has it in front of all else, behind what every object has."""
    return ctypes.c_void_p.from_address(id(client) + object.__basicsize__).value


def _places(column: BytesColumn) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Address and size of each; 0 and 0 where it is None."""
    present, begins = column.begins >= 0, column.begins
    return np.where(present, begins + column.bytes.ctypes.data, 0), np.where(present, column.ends - begins, 0)
