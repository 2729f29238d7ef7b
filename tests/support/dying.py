"""A scorer on the log in memory whose process a model may kill, and a host that restarts it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from tests.support.scoring import CONTRACT, REQUEST, Publisher
from tests.support.simulation import Crash, drained, quarantine

from tailrace.contracts.records import lanes
from tailrace.models.columns import Array, Columns
from tailrace.scorer.versions import Role
from tailrace.streaming.backends.memory.clock import MemoryClock
from tailrace.streaming.backends.memory.log import MemoryLog
from tailrace.streaming.records import Record
from tailrace.streaming.runner import ExactlyOnceRunner
from tailrace.testing.formula_model import Formula, formula_model

REQUESTS = "credit.requests"


class Dies(Formula):
    """Kills its process on the rows where ``kills`` says so of the debt ratios, by default on all."""

    def __init__(
        self, version: int, kills: Callable[[Array], Array] = lambda ratios: ratios == ratios
    ) -> None:
        super().__init__(version)
        self.kills = kills
        self.on = True

    def run(self, columns: Columns, rows: int) -> Array:
        if self.on and np.any(self.kills(columns["debt_ratio"])):
            raise Crash
        return super().run(columns, rows)


class DyingScorer:
    """Versions 1 and on of the model credit, as ``runners`` say, and the instances of a scorer, one at a time."""

    group = "scorer"

    def __init__(self, *runners: Formula, role: Role = "champion", guardrails: str = "{}") -> None:
        self.role: Role = role
        self.publisher = Publisher()
        self.log = MemoryLog()
        for topic in (lanes.CONTRACTS, lanes.MANIFESTS, lanes.ROLLOUTS, lanes.CLOCKS, lanes.ALERTS):
            self.log.create_topic(topic)
        for suffix in ("requests", "predictions", "shadow-predictions", "dead-letters"):
            self.log.create_topic(f"credit.{suffix}", 2)
        self._append(self.publisher.contract(CONTRACT + f"guardrails: {guardrails}\n"))
        contract = self.publisher.contracts["credit"][-1]
        for version, runner in enumerate(runners, 1):
            self._append(self.publisher.manifest(version, formula_model(contract, version, runner)))
        self.lives = 0
        self.asked = 0
        self._loop: ExactlyOnceRunner | None = None

    def _append(self, record: Record) -> None:
        self.log.append(*record)

    def rollout(self, **state: Any) -> None:
        self._append(self.publisher.rollout(**state))

    def ask(self, *requests: Mapping[str, Any]) -> None:
        for changes in requests:
            self.asked += 1
            request = REQUEST | {"request_id": f"r{self.asked}", "loan_id": f"l{self.asked}"} | changes
            value = self.publisher.request_value(request)
            self.log.append(REQUESTS, value, partition=self.asked % 2)

    def run(self, most: int = 20) -> int:
        """Runs instance after instance until all is answered; how many died meanwhile."""
        deaths = 0
        while deaths < most:
            loop = self._loop or self._start()
            self._loop = None
            try:
                for _ in range(500):
                    loop.step()
                    if drained(self.log, self.group, [REQUESTS]):
                        self._loop = loop
                        return deaths
            except Crash:
                deaths += 1
                self.log.pass_time(10_000)  # its session ends
            else:
                raise AssertionError(f"stuck: {loop.waiting}")
        raise AssertionError(f"not done after {most} deaths")

    def restart(self) -> None:
        """Ends the instance that runs, in good order; the next run starts another."""
        if self._loop is not None:
            self._loop.close()
            self._loop = None

    def _start(self) -> ExactlyOnceRunner:
        self.lives += 1
        return ExactlyOnceRunner(
            self.log.backend(),
            self.publisher.logic(self.role),
            service="scorer",
            group=self.group,
            transactional_id="scorer-0",
            clock=MemoryClock(self.log),
            quarantine=quarantine,
            max_batch=50,
        )

    def events(self) -> list[dict[str, Any]]:
        """The predictions in the order of the request ids."""
        topic = "credit.predictions" if self.role == "champion" else "credit.shadow-predictions"
        values = [m.value() for m in self.log.messages(topic) if m.value()]
        events = [self.publisher.codec.decode(value).record for value in values]
        return sorted(events, key=lambda event: int(event["request_id"][1:]))

    def alerts(self) -> list[dict[str, Any]]:
        return [self.publisher.control.decode("Alert", m.value()) for m in self.log.messages(lanes.ALERTS)]

    def dead(self) -> int:
        return len(self.log.messages("credit.dead-letters"))
