"""The programs of Tailrace by the names that ``tailrace run NAME`` takes."""

from __future__ import annotations

SERVICES = ("clock", "drift", "evaluator", "joiner", "rollout", "scorer", "shadow-scorer", "sink", "trainer")
"""What ``tailrace up`` starts and keeps alive, in this order."""

PROGRAMS = {
    # name: the module whose main() it is
    "clock": "tailrace.clock.app",
    "drift": "tailrace.drift.app",
    "evaluator": "tailrace.evaluator.app",
    "joiner": "tailrace.joiner.app",
    "rollout": "tailrace.rollout.app",
    "scorer": "tailrace.scorer.app",
    "shadow-scorer": "tailrace.scorer.shadow_app",
    "sink": "tailrace.sink.app",
    "trainer": "tailrace.trainer.app",
    "registry": "tailrace.local.registry_server",
    "clickhouse": "tailrace.local.clickhouse_bridge",
    "init": "tailrace.cli.initialise",
}
