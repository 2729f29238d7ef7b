"""The scoring by a Faust agent: run in its own environment by ``benchmarks.peers``.

    faust_peer.py BOOTSTRAP SOURCE TARGET GROUP FOLDER [exactly_once]

Where nothing else is said, at least once.
"""

from __future__ import annotations

import sys
import tempfile

import faust
from scoring import Scoring


def main(
    bootstrap: str, source: str, target: str, group: str, folder: str, guarantee: str = "at_least_once"
) -> None:
    scoring = Scoring(folder)
    app = faust.App(
        group,
        broker=f"kafka://{bootstrap}",
        processing_guarantee=guarantee,
        consumer_auto_offset_reset="earliest",
        broker_commit_interval=0.1,
        topic_disable_leader=True,
        web_enabled=False,
        datadir=tempfile.mkdtemp(prefix="tailrace-benchmark-faust-"),
        value_serializer="raw",
        key_serializer="raw",
    )
    requests = app.topic(
        source, value_type=bytes, key_type=bytes, value_serializer="raw", key_serializer="raw"
    )
    predictions = app.topic(
        target, value_type=bytes, key_type=bytes, value_serializer="raw", key_serializer="raw"
    )

    @app.agent(requests)
    async def predict(stream: faust.Stream[bytes]) -> None:
        async for event in stream.events():
            message = event.message
            prediction = scoring.predict(
                scoring.decode(event.value), message.topic, message.partition, message.offset
            )
            await predictions.send(key=event.key, value=scoring.encode(prediction))

    app.finalize()
    worker = faust.Worker(app, loglevel="WARNING", quiet=False)
    worker.execute_from_commandline()


if __name__ == "__main__":
    main(*sys.argv[1:])
