"""What the doors cost: a broker that knows users and rights beside one that is open to anybody.

How long each takes to start, in an empty folder and again, and how much the empty loop passes on there, as a user with
as many rights around it as the services of five lanes have. Both run at once and take turns.
"""

from __future__ import annotations

import json
import random
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from benchmarks.empty_loop import PARTITIONS, VALUE_BYTES, empty_loop
from benchmarks.harness import Broker, Measured, arguments, interleave, say, show, spread, summary
from tailrace.kafka_access.acls import grant_lanes
from tailrace.kafka_access.grants import ADMIN, USERS
from tailrace.local.kafka import LocalKafka

OPEN, SECURED = "open", "with users"
_USER = "owner"
_LANES = 5


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--records", type=int, default=100_000, help="records in each run")
    parser.add_argument("--batch", type=int, nargs="*", default=[1_000, 5_000], help="records a commit")
    parser.add_argument("--starts", type=int, default=3, help="starts of each broker that are timed; 0: none")
    given = parser.parse_args()
    starts = _starts(given.starts)
    loops = _loops(given.records, given.batch, given.rounds)
    if given.json:
        print(json.dumps({"start": starts, **loops}))
        return
    for name, seconds in starts.items():
        print(f"start {name:20} {seconds['median']:5.2f} s ({seconds['least']:.2f} to {seconds['most']:.2f})")
    show(loops, as_json=False)


def _starts(rounds: int) -> dict[str, dict[str, float]]:
    """Seconds until clients can work, users and rights included; the first round warms up and does not count."""
    seconds: dict[str, list[float]] = {}
    for number in range(rounds + 1 if rounds else 0):
        for name, users in ((OPEN, None), (SECURED, _users())):
            folder = Path(tempfile.mkdtemp(prefix="tailrace-benchmark-"))
            for which in ("first", "again"):
                kafka = LocalKafka(folder, users=users)
                began = time.perf_counter()
                kafka.start()
                took = time.perf_counter() - began
                kafka.stop()
                say(f"start {number} of {rounds}: {name}, {which}: {took:.2f} s")
                if number:
                    seconds.setdefault(f"{name}, {which}", []).append(took)
            shutil.rmtree(folder)
    return {name: spread(values) for name, values in seconds.items()}


def _loops(records: int, batches: list[int], rounds: int) -> dict[str, Any]:
    result = {}
    with ExitStack() as stack:
        brokers = {
            OPEN: stack.enter_context(_running(None)),
            SECURED: stack.enter_context(_running(_users())),
        }
        sources = {name: _filled(kafka, records) for name, kafka in brokers.items()}
        for batch in batches:
            cases = {
                name: partial(_pass_on, brokers[name], sources[name], records, batch) for name in brokers
            }
            result[f"batch {batch}"] = summary(interleave(cases, rounds), OPEN)
    return result


def _pass_on(kafka: Broker, source: str, records: int, batch: int) -> Measured:
    target = kafka.topic("empty", PARTITIONS)
    try:
        return empty_loop(kafka, source, target, records, batch)
    finally:
        kafka.delete(target)


def _filled(kafka: Broker, records: int) -> str:
    source = kafka.topic("source", PARTITIONS)
    rng = random.Random(1)
    kafka.fill(source, (rng.randbytes(VALUE_BYTES) for _ in range(records)))
    return source


@contextmanager
def _running(users: Mapping[str, str] | None) -> Iterator[Broker]:
    folder = Path(tempfile.mkdtemp(prefix="tailrace-benchmark-"))
    kafka = LocalKafka(folder, users=users)
    kafka.start()
    try:
        if users:
            grant_lanes(kafka.options(ADMIN), [f"lane-{number}" for number in range(_LANES)])
            _let_loop(kafka.options(ADMIN))
        yield Broker(kafka.bootstrap, kafka.options(_USER))
    finally:
        kafka.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _let_loop(admin: Mapping[str, str]) -> None:
    """The user of the loop is no super user: each of its requests is held against its rights, as a service's is."""
    resources = (ResourceType.TOPIC, ResourceType.GROUP, ResourceType.TRANSACTIONAL_ID)
    rights = [
        AclBinding(
            resource,
            "*",
            ResourcePatternType.LITERAL,
            f"User:{_USER}",
            "*",
            operation,
            AclPermissionType.ALLOW,
        )
        for resource in resources
        for operation in (AclOperation.READ, AclOperation.WRITE, AclOperation.DELETE)
        if operation != AclOperation.WRITE or resource != ResourceType.GROUP
        if operation != AclOperation.DELETE or resource == ResourceType.TOPIC
        if operation != AclOperation.READ or resource != ResourceType.TRANSACTIONAL_ID
    ]
    with AdminClient(dict(admin)) as client:  # must outlive its futures
        for done in client.create_acls(rights).values():
            done.result(30)


def _users() -> dict[str, str]:
    return {user: secrets.token_urlsafe(32) for user in (ADMIN, *USERS)}


if __name__ == "__main__":
    main()
