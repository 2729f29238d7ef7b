"""Whether the scorer's memory grows: resident bytes after garbage collection, under a steady load with swaps.

    python -m benchmarks.memory [--minutes 5] [--rate 1000] [--swap-every 10] [--json]

The slope is the line by least squares through the second half of the run, in MiB an hour, with its standard error. That
takes the samples as independent, which memory is not quite: it grows in steps, and a step in a short run looks like a
slope.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.figures import slope
from benchmarks.harness import broker, say
from benchmarks.load import Swaps, swapping
from benchmarks.running import Loop, running

MODULE = "tailrace.scorer.app"
SAMPLE_S = 1.0


def measure(loop: Loop, swaps: Swaps, file: Path, seconds: float, swap_every: float) -> dict[str, Any]:
    """Takes a sample every second, and publishes a version every so many seconds."""
    began = time.monotonic()
    swapped = 0
    while (passed := time.monotonic() - began) < seconds:
        loop.signal(signal.SIGUSR1)
        if passed >= (swapped + 1) * swap_every:
            swaps.swap()
            swapped += 1
        time.sleep(SAMPLE_S)
    samples = [tuple(map(float, line.split())) for line in file.read_text().splitlines()]
    return {"swaps": swapped, "predictions": len(swaps.predictions), **facts(samples)}


def facts(samples: Sequence[tuple[float, ...]]) -> dict[str, Any]:
    """What (seconds, bytes) say, in MiB and MiB an hour."""
    half = samples[len(samples) // 2 :]
    hours, held = [(at - samples[0][0]) / 3600 for at, _ in half], [size / 2**20 for _, size in half]
    trend = slope(hours, held)
    return {
        "minutes": round((samples[-1][0] - samples[0][0]) / 60, 2),
        "samples": len(samples),
        "mib": {
            "first": round(samples[0][1] / 2**20, 1),
            "half": round(held[0], 1),
            "last": round(held[-1], 1),
        },
        "mib_per_hour": {"slope": round(trend.per_unit, 2), "standard_error": round(trend.error, 2)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Whether the scorer's memory grows.")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--rate", type=int, default=1_000, help="requests a second")
    parser.add_argument("--swap-every", type=float, default=10.0, help="seconds between publications")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    given = parser.parse_args()
    with ExitStack() as stack:
        kafka = stack.enter_context(broker())
        tailrace = stack.enter_context(running(kafka))
        file = tailrace.home / "memory.txt"
        loop = tailrace.roll_out([sys.executable, "-m", "benchmarks.collected", MODULE, str(file)])
        _, swaps = swapping(stack, kafka, tailrace, given.rate)
        say(f"measuring for {given.minutes:g} minutes")
        result = measure(loop, swaps, file, given.minutes * 60, given.swap_every)
    if given.json:
        print(json.dumps(result))
    else:
        held, grown = result["mib"], result["mib_per_hour"]
        print(
            f"{result['predictions']:,} predictions, {result['swaps']} swaps, {result['minutes']:g} minutes"
        )
        print(f"{held['first']:.1f} MiB at first, {held['half']:.1f} at half, {held['last']:.1f} at last")
        print(
            f"{grown['slope']:.2f} MiB an hour in the second half, standard error {grown['standard_error']:.2f}"
        )


if __name__ == "__main__":
    main()
