"""The rollout service under seeded schedules: every command answered once, no step lost, none that follows
another.

What ought to be is worked out here from the topic alone, by a small state machine of the test's own.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from tests.support.memory_registry import MemoryRegistry
from tests.support.scoring import Publisher, formula_model
from tests.support.simulation import Scenario, drained, quarantine, simulate

from tailrace.contracts import lanes
from tailrace.contracts.model_contract import ModelContract, load_contract
from tailrace.kit.batch_loop import BatchLoop
from tailrace.kit.errors import Retry
from tailrace.kit.log import Backend
from tailrace.kit.memory_log import MemoryClock, MemoryLog
from tailrace.models.errors import PackageRefused
from tailrace.models.load import LoadedModel
from tailrace.rollout.logic import RolloutLogic

MODELS = ("one", "two")
TEXT = "{{model: {}, owner: {{team: t}}, features: {{x: {{type: number}}}}, target: {{name: bad, type: boolean}}}}"
CONTRACTS: dict[str, ModelContract] = {model: load_contract(TEXT.format(model)) for model in MODELS}
REGISTRY = MemoryRegistry()
MOST = 8
OPENED = {(m, v): formula_model(CONTRACTS[m], v) for m in MODELS for v in range(1, MOST + 1)}
BROKEN = 3
"""Every third version of the second model does not pass its checks."""


def broken(model: str, version: int) -> bool:
    return model == "two" and version % BROKEN == 0


class RolloutScenario(Scenario):
    partitions = 1

    def setup(self, log: MemoryLog, rng: random.Random) -> None:
        self.rng = rng
        self.publisher = Publisher(REGISTRY)
        self.versions = dict.fromkeys(MODELS, 0)
        self.commands: list[dict[str, Any]] = []
        for topic in (lanes.CONTRACTS, lanes.MANIFESTS, lanes.ROLLOUTS, lanes.COMMANDS, lanes.ALERTS):
            log.create_topic(topic)
        for model in MODELS:
            if rng.random() < 0.8:
                self._contract(log, model)

    def _contract(self, log: MemoryLog, model: str) -> None:
        record = self.publisher.contract(CONTRACTS[model])
        log.append(record.topic, record.value, record.key)

    def feed(self, log: MemoryLog, rng: random.Random) -> None:
        for _ in range(rng.randint(1, 4)):
            model = rng.choice(MODELS)
            if rng.random() < 0.35 and self.versions[model] < MOST:
                self.versions[model] += 1
                self._publish(log, model, self.versions[model])
            elif rng.random() < 0.1 and self.versions[model]:
                self._publish(log, model, rng.randint(1, self.versions[model]))  # once more, the same
            else:
                self._command(log, model)

    def _publish(self, log: MemoryLog, model: str, version: int) -> None:
        record = self.publisher.manifest(version, OPENED[model, version], model)
        log.append(record.topic, record.value, record.key)

    def _command(self, log: MemoryLog, model: str) -> None:
        rng = self.rng
        command = {
            "command_id": f"c{len(self.commands)}",
            "model": model,
            "command": rng.choice(["promote", "promote", "rollback", "shadow", "reject", "dance"]),
            "version": rng.choice([None, *range(1, MOST)]),
            "follows": rng.choice([None, None, 1, 2, 5]),
            "by": rng.choice(["ada", "ada", "ada", "mallory"]),
            "reason": "",
            "issued_at": 0,
        }
        if self.commands and rng.random() < 0.2:
            command = rng.choice(self.commands)
        self.commands.append(command)
        value = self.publisher.control.encode("Command", command)
        log.append(lanes.COMMANDS, value, model.encode())

    def finish(self, log: MemoryLog, rng: random.Random) -> None:
        for model in MODELS:
            if model not in self.publisher.contracts:
                self._contract(log, model)

    def process(self, backend: Backend, clock: MemoryClock, transactional_id: str) -> BatchLoop:
        def opened(record: Any, contract: ModelContract, newer_than: int) -> LoadedModel:
            model, version = record["model"], record["version"]
            if self.rng.random() < 0.1:
                raise Retry("chunks away")
            if broken(model, version):
                raise PackageRefused("golden", "off")
            found = OPENED[model, version]
            if found.manifest.sequence <= newer_than:
                raise PackageRefused("anti-rollback", "old")
            return found

        def distrust(command: Any) -> str | None:
            return "mallory is not trusted" if command["by"] == "mallory" else None

        return BatchLoop(
            backend,
            RolloutLogic(REGISTRY, lambda record: None, opened, distrust),
            service="rollout",
            group=self.group,
            transactional_id=transactional_id,
            clock=clock,
            quarantine=quarantine,
            max_batch=5,
            co_partitioned=True,
        )

    def done(self, log: MemoryLog) -> bool:
        return drained(log, self.group, [lanes.COMMANDS, lanes.MANIFESTS])

    # What ought to be ---

    def check(self, log: MemoryLog) -> None:
        decode = self.publisher.control.decode
        steps = [decode("Rollout", m.value()) for m in log.messages(lanes.ROLLOUTS)]
        alerts = [decode("Alert", m.value()) for m in log.messages(lanes.ALERTS)]
        asked = {m.offset(): decode("Command", m.value()) for m in log.messages(lanes.COMMANDS)}
        published = {m.offset(): decode("ModelManifest", m.value()) for m in log.messages(lanes.MANIFESTS)}
        self._check_commands(steps, alerts, asked)
        self._check_versions(steps, alerts, published)
        for model in MODELS:
            self._check_states([s for s in steps if s["model"] == model], asked, published)

    def _check_commands(
        self, steps: list[dict[str, Any]], alerts: list[dict[str, Any]], asked: dict[int, dict[str, Any]]
    ) -> None:
        """Each command on the topic led to one step or one alert, or had been carried out before."""
        obeyed = {s["command_id"]: s["source"]["offset"] for s in steps if s["command_id"] is not None}
        assert len(obeyed) == sum(s["command_id"] is not None for s in steps), "carried out twice"
        refused = Counter(a["source"]["offset"] for a in alerts if a["kind"] == "command-refused")
        for offset, command in asked.items():
            done_at = obeyed.get(command["command_id"])
            if done_at is None or offset < done_at:
                assert refused.pop(offset, 0) == 1
            assert command["by"] != "mallory" or done_at is None
        assert not refused

    def _check_versions(
        self, steps: list[dict[str, Any]], alerts: list[dict[str, Any]], published: dict[int, dict[str, Any]]
    ) -> None:
        """Each published version was placed once, by the first manifest of it."""
        placed = {(s["model"], s["version"]): s["source"]["offset"] for s in steps if s["command_id"] is None}
        assert len(placed) == sum(s["command_id"] is None for s in steps), "placed twice"
        first: dict[tuple[str, int], int] = {}
        for offset, record in published.items():
            first.setdefault((record["model"], record["version"]), offset)
        assert placed == first
        refused = [(a["model"], a["version"]) for a in alerts if a["kind"] == "package-refused"]
        assert sorted(refused) == sorted(key for key in first if broken(*key))

    def _check_states(
        self,
        steps: list[dict[str, Any]],
        asked: dict[int, dict[str, Any]],
        published: dict[int, dict[str, Any]],
    ) -> None:
        """Each step follows the one before it, and leads to what its cause says."""
        champion, previous = None, None
        where: dict[int, str] = {}
        for number, step in enumerate(steps, 1):
            assert (step["follows"], step["revision"]) == (number - 1, number)
            version, model = step["version"], step["model"]
            if step["command_id"] is None:
                assert published[step["source"]["offset"]]["version"] == version
                if broken(model, version):
                    where[version] = "rejected"
                elif champion is None:
                    champion = version
                else:
                    where[version] = "candidates"
            else:
                command = asked[step["source"]["offset"]]
                assert command["command_id"] == step["command_id"]
                assert command["follows"] in (None, number - 1)
                assert step["step"] == command["command"]
                if command["command"] == "promote":
                    assert where.get(version) != "rejected"
                    where.pop(version, None)
                    champion, previous = version, champion
                elif command["command"] == "rollback":
                    assert version == previous
                    assert previous is not None
                    assert champion is not None
                    where[champion] = "candidates"
                    where.pop(previous, None)
                    champion, previous = previous, None
                elif command["command"] == "shadow":
                    where[version] = "shadow"
                else:
                    where[version] = "rejected"
                    previous = None if previous == version else previous
            assert (step["champion"], step["previous"]) == (champion, previous)
            for place in ("candidates", "shadow", "rejected"):
                assert sorted(step[place]) == sorted(v for v, at in where.items() if at == place)


def test_every_command_and_version_is_decided_once() -> None:
    simulate(RolloutScenario)
