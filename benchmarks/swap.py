"""How soon a published version answers, and whether those who ask notice.

    python -m benchmarks.swap [--publications 100] [--rate 1000] [--json]

Under a steady load a model is published again and again, and promoted as soon as it has passed its checks. Milliseconds
from a manifest's append to that of the first prediction of its version, in all and in parts:

- ``checks``: up to the rollout step that makes it a candidate;
- ``command``: up to the command to promote it, given by this benchmark;
- ``decision``: up to the rollout step that makes it the champion;
- ``taking up``: up to the first prediction.

A gap is the longest time in which no prediction was appended within a second and a half, which begins with a
publication or has none in it; there are as many of each, by turns.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from benchmarks.figures import longest_gap, percentile
from benchmarks.harness import broker, say
from benchmarks.load import Swap, Swaps, swapping
from benchmarks.running import running

WINDOW_S = 1.5
WARM_UP = 2
AT = (50, 99, 100)
PARTS = ("checks", "command", "decision", "taking up")


def measure(swaps: Swaps, publications: int) -> dict[str, Any]:
    """Publishes so often, each time after as long a time in which nothing is published."""
    for _ in range(WARM_UP):
        swaps.swap()
    published: list[Swap] = []
    quiet: list[float] = []
    for number in range(publications):
        _wait_until(time.time() + 0.2)
        quiet.append(time.time())
        _wait_until(quiet[-1] + WINDOW_S + 0.1)
        published.append(swaps.swap())
        say(
            f"publication {number + 1}: {(published[-1].first_prediction - published[-1].manifest) * 1e3:.0f} ms"
        )
        _wait_until(published[-1].manifest + WINDOW_S + 0.5)
    gaps = {
        "with a swap": [_gap(swaps, one.manifest) for one in published],
        "without": [_gap(swaps, began) for began in quiet],
    }
    return {
        "publications": publications,
        "publish_to_first_prediction_ms": _facts([one.first_prediction - one.manifest for one in published]),
        "parts_ms": {
            part: _facts([after[at + 1] - after[at] for after in published]) for at, part in enumerate(PARTS)
        },
        "longest_gap_ms": {name: _facts(values) for name, values in gaps.items()},
    }


def _wait_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.time()))


def _gap(swaps: Swaps, start: float) -> float:
    return longest_gap(sorted(swaps.predictions), start, start + WINDOW_S)


def _facts(seconds: Sequence[float]) -> dict[str, float]:
    return {f"p{at}" if at < 100 else "longest": round(percentile(seconds, at) * 1e3, 1) for at in AT}


def show(result: Mapping[str, Any]) -> None:
    rows = {
        "publish to first prediction": result["publish_to_first_prediction_ms"],
        **{f"  {name}": facts for name, facts in result["parts_ms"].items()},
        **{f"longest gap {name}": facts for name, facts in result["longest_gap_ms"].items()},
    }
    for name, facts in rows.items():
        print(f"{name:28} " + "  ".join(f"{at} {value:.0f} ms" for at, value in facts.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description="How soon a published version answers.")
    parser.add_argument("--publications", type=int, default=100)
    parser.add_argument("--rate", type=int, default=1_000, help="requests a second")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    given = parser.parse_args()
    with ExitStack() as stack:
        kafka = stack.enter_context(broker())
        tailrace = stack.enter_context(running(kafka))
        tailrace.roll_out()
        _, swaps = swapping(stack, kafka, tailrace, given.rate)
        result = measure(swaps, given.publications)
    if given.json:
        print(json.dumps(result))
    else:
        show(result)


if __name__ == "__main__":
    main()
