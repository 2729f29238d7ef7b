"""The scoring by quixstreams, exactly once: run in its own environment by ``benchmarks.peers``.

    quixstreams_peer.py BOOTSTRAP SOURCE TARGET GROUP FOLDER

It commits after 5,000 messages, as many as the scorer takes at most, or a tenth of a second.
"""

from __future__ import annotations

import sys
from typing import Any

from quixstreams import Application, message_context
from quixstreams.models import Deserializer, Serializer
from scoring import Scoring


class AvroDeserializer(Deserializer):
    """fastavro behind the five bytes of the wire format, which quixstreams' own reads only with a registry's client."""

    def __init__(self, scoring: Scoring) -> None:
        super().__init__()
        self._scoring = scoring

    def __call__(self, value: bytes, ctx: Any) -> dict[str, Any]:
        return self._scoring.decode(value)


class AvroSerializer(Serializer):
    def __init__(self, scoring: Scoring) -> None:
        super().__init__()
        self._scoring = scoring

    def __call__(self, value: Any, ctx: Any) -> bytes:
        return self._scoring.encode(value)


def main(bootstrap: str, source: str, target: str, group: str, folder: str) -> None:
    scoring = Scoring(folder)
    app = Application(
        broker_address=bootstrap,
        consumer_group=group,
        processing_guarantee="exactly-once",
        auto_offset_reset="earliest",
        commit_every=5_000,
        commit_interval=0.1,
        loglevel="WARNING",
    )
    requests = app.topic(source, key_deserializer="bytes", value_deserializer=AvroDeserializer(scoring))
    predictions = app.topic(target, key_serializer="bytes", value_serializer=AvroSerializer(scoring))

    def predict(request: dict[str, Any]) -> dict[str, Any]:
        at = message_context()
        return scoring.predict(request, at.topic, at.partition, at.offset)

    app.dataframe(requests).apply(predict).to_topic(predictions)
    app.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
