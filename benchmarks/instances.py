"""Two scorers against one: records a second, and CPU per record.

    python -m benchmarks.instances [--records 200000] [--rounds 5] [--json]

Both are processes of one consumer group, on the partitions of one lane. Where the broker shares their cores, as in one
machine with two of them, it is the broker that two scorers wait for: then what tells is that a record costs no more CPU
than with one. ``cores_busy`` says how many cores were at work meanwhile, whoever used them.
"""

from __future__ import annotations

import json
import os
import statistics
from contextlib import ExitStack
from typing import Any

from confluent_kafka.admin import AdminClient

from benchmarks.harness import Broker, Measured, arguments, broker, say, show, summary
from benchmarks.running import (
    PARTITIONS,
    SCORERS,
    Loop,
    Requests,
    Running,
    running,
    until,
    wait_for_loop,
    work_off,
)

WARM_UP = 10_000


def balanced(kafka: Broker, instances: int) -> None:
    """Until each of so many has its share of the partitions."""
    admin = AdminClient(dict(kafka.connection.kafka))

    def shares() -> list[int]:
        group = admin.describe_consumer_groups([SCORERS])[SCORERS].result(10)
        return [len(member.assignment.topic_partitions) for member in group.members]

    until(
        f"{instances} scorers share the partitions", lambda: shares() == [PARTITIONS // instances] * instances
    )


def measure(kafka: Broker, tailrace: Running, requests: Requests, rounds: int) -> dict[str, Any]:
    """One, then one and another beside it, round by round; a round before the first does not count."""
    one = tailrace.scorer()
    runs: dict[str, list[Measured]] = {"one": [], "two": []}
    busy: dict[str, list[float]] = {"one": [], "two": []}
    for number in range(rounds + 1):
        other = None
        for name in runs:
            if name == "two":
                other = tailrace.start("scorer", "scorer-second")
            loop = one if other is None else Loop([*one.processes, other], one.group, one.source, one.target)
            balanced(kafka, len(loop.processes))
            wait_for_loop(kafka, loop, requests[:WARM_UP])
            measured = work_off(kafka, loop, requests)
            say(
                f"round {number} of {rounds}: {name} {measured.rate:,.0f}/s, {loop.cores_busy:.1f} cores busy"
            )
            if number:
                runs[name].append(measured)
                busy[name].append(loop.cores_busy)
        if other is not None:
            other.stop(10)
    facts = summary(runs, "one")
    return {
        "cores": os.cpu_count(),
        **{name: facts[name] | {"cores_busy": round(statistics.median(busy[name]), 2)} for name in facts},
    }


def main() -> None:
    parser = arguments("Two scorers against one.")
    parser.add_argument("--records", type=int, default=200_000, help="requests in each run")
    given = parser.parse_args()
    with ExitStack() as stack:
        kafka = stack.enter_context(broker())
        tailrace = stack.enter_context(running(kafka))
        result = measure(kafka, tailrace, tailrace.requests(given.records), given.rounds)
    if given.json:
        print(json.dumps(result))
        return
    cores = result.pop("cores")
    show({"scorers": result}, as_json=False)
    busy = ", ".join(f"{facts['cores_busy']:.1f} with {name}" for name, facts in result.items())
    print(f"{cores} cores, busy: {busy}")


if __name__ == "__main__":
    main()
