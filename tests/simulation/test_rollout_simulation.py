"""The rollout service under seeded schedules: every command answered once, every version, report and alert led to
the steps that it had to lead to, once, and none was lost or followed another.

What ought to be is worked out here from the topics alone, by a small state machine of the test's own: each step says
how far every input had been folded, so that it can be taken again. And so it is: one undisturbed instance that is given
the inputs in the order that the steps name writes the same steps, byte for byte.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy import stats
from tests.support.reports import alert, earned, report
from tests.support.scoring import Publisher
from tests.support.simulation import Scenario, drained, quarantine, simulate

from tailrace.contracts.language.load import load_contract
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records import lanes
from tailrace.errors import Unavailable
from tailrace.models.errors import PackageRefused
from tailrace.models.formats.load import LoadedModel
from tailrace.rollout.processor import RolloutProcessor
from tailrace.streaming.backends.abstract import Backend, Committed
from tailrace.streaming.backends.memory.clock import MemoryClock
from tailrace.streaming.backends.memory.log import MemoryLog
from tailrace.streaming.records import Message, TopicPartition
from tailrace.streaming.runner import ExactlyOnceRunner
from tailrace.testing.formula_model import formula_model
from tailrace.testing.memory_registry import MemoryRegistry
from tailrace.testing.signed_records import records

MODELS = ("one", "two", "three")
NEEDED, MARGIN, TOLERANCE = 40, 0.05, 0.1
SHARES, OF_ITS_OWN, FALLBACKS = (0.2, 0.6), 30, 0.1
TEXT = """
model: {}
owner: {{team: t}}
features: {{x: {{type: number}}}}
context: {{region: {{categories: [a, b]}}}}
target: {{name: bad, type: boolean}}
quality: {{slices: [region]}}
gates:
  beat_champion: {{metric: log_loss, by: 0.05}}
  not_worse_on: {{slices: [region], metric: log_loss, tolerance: 0.1}}
"""
ROLLOUT = "rollout: {shadow: {outcomes: 40}"
CANARY = ", canary: {steps: [20%, 60%], outcomes: 30}, back_if: {fallback_share: 10%}"
VALUE = "value: CASE WHEN bad THEN -1 ELSE 1 END\n"
EARNED, EPSILON, TAKES_PART = 60, 0.3, 0.5
BANDIT = "experiment: {assign: thompson, share: 50%, epsilon: 30%, outcomes: 60}\n"
MORE = {
    "one": "}\n" + VALUE + BANDIT,
    "two": "}\napprovals: {promote: {role: boss}}\n",
    "three": CANARY + "}\n",
}
CONTRACTS: dict[str, ModelContract] = {m: load_contract(TEXT.format(m) + ROLLOUT + MORE[m]) for m in MODELS}
SLICES = ("region=a", "region=b")
SEGMENTS = ("", *SLICES, "other=a")
REGISTRY = MemoryRegistry()
MOST = 8
OPENED = {(m, v): formula_model(CONTRACTS[m], v) for m in MODELS for v in range(1, MOST + 1)}
BROKEN = 3
"""Every third version of the second model does not pass its checks."""


def broken(model: str, version: int) -> bool:
    return model == "two" and version % BROKEN == 0


JUDGED_ONLY = (lanes.CONTRACTS, lanes.ROLLOUTS, lanes.CLOCKS, lanes.DRIFT_REPORTS, lanes.TRAINING_RUNS)
INPUTS = (lanes.COMMANDS, lanes.MANIFESTS, lanes.PERFORMANCE_REPORTS, lanes.ALERTS)
ASKED = [
    "promote",
    "promote",
    "promote",
    "rollback",
    "shadow",
    "reject",
    "freeze",
    "unfreeze",
    "unfreeze",
    "off",
    "on",
    "dance",
    "retrain",
]
COMPARED = [*["experiment"] * 8, "end-experiment"]
LISTS = ("shadow", "candidates", "rejected", "retired", "rolled_back")


@dataclass
class Expected:
    """A model's rollout as the test understands it."""

    champion: int | None = None
    previous: int | None = None
    frozen: bool = False
    off: bool = False
    lists: dict[str, list[int]] = field(default_factory=lambda: {name: [] for name in LISTS})
    served: set[int] = field(default_factory=set)
    kept: set[int] = field(default_factory=set)
    waiting: set[int] = field(default_factory=set)
    promoted_at: int | None = None
    canary: int | None = None
    step: int = 0
    began: int | None = None
    since: int | None = None
    arms: list[int] = field(default_factory=list)
    compared_since: int | None = None
    earned: list[tuple[int, float, float]] = field(default_factory=list)

    def move(self, version: int, to: str | None) -> None:
        for versions in self.lists.values():
            if version in versions:
                versions.remove(version)
        if to is not None:
            self.lists[to].append(version)
        self.kept &= set(self.lists["shadow"])
        self.waiting &= set(self.lists["shadow"])

    def answers(self, version: int | None, at: int | None) -> None:
        if version is not None:
            self.move(version, None)
            self.served.add(version)
        self.champion, self.promoted_at = version, at

    def end(self) -> None:
        """Arms answer no more; the version to go back to stays where it is."""
        self.lists["retired"] += [version for version in self.arms[1:] if version != self.previous]
        self.arms = []

    def take(self, name: str, version: int | None, at: int | None, by_person: bool, arms: list[int]) -> None:
        """Takes a step, whoever decided it."""
        if name in ("end-experiment", "promote", "rollback") or (name == "reject" and version in self.arms):
            self.end()
        if name == "experiment":
            assert self.champion is not None
            assert not self.arms
            assert self.canary is None
            for each in arms:
                assert each != self.champion
                assert each not in self.lists["rejected"]
                if each != self.previous:
                    self.move(each, None)
            self.arms, self.compared_since, self.earned = [self.champion, *arms], at, []
            self.served.update(arms)
        if name in ("experiment", "arms", "end-experiment"):
            return
        if name == "canary":
            if version != self.canary:
                self.step, self.began = 0, at
            self.canary, self.step, self.since = version, self.step + 1, at
            self.served.add(version)
            self.waiting.discard(version)
            return
        if name == "promote" or (version is not None and version == self.canary and name != "wait"):
            self.canary, self.step = None, 0
        if version is None:
            setattr(self, {"o": "off"}.get(name[0], "frozen"), name in ("off", "freeze"))
        elif name == "wait":
            self.waiting.add(version)
        elif name == "rollback":
            assert version == self.previous
            assert self.champion is not None
            self.move(self.champion, "rolled_back")
            self.answers(version, at)
            self.previous = None
        elif name in ("promote", "first-champion"):
            former = self.champion
            self.answers(version, at)
            self.previous = former
            if former is not None:
                self.move(former, "shadow")
        else:
            to = {"candidate": "candidates", "reject": "rejected", "retire": "retired", "shadow": "shadow"}[
                name
            ]
            self.move(version, to)
            if name == "shadow" and by_person:
                self.kept.add(version)
            if to in ("rejected", "retired") and version == self.previous:
                self.previous = None

    def next(self, model: str, reports: list[dict[str, Any]]) -> tuple[str, int | None] | None:
        """The step that nobody has to ask for, from all reports of the model so far."""
        if not self.frozen:
            for version in self.lists["candidates"]:
                return ("first-champion" if self.champion is None else "shadow"), version
            for version in self.lists["shadow"]:
                if version in self.served - self.kept - {self.previous, self.canary}:
                    return "retire", version
        if self.arms:
            worth = earned_by(reports, self.arms, self.compared_since)
            due = worth is not None and not np.allclose(worth, self.earned or 0.0, rtol=1e-9, atol=0.0)
            return ("arms", None) if due and not self.frozen else None
        if self.canary is not None:
            return self._next_of_canary(reports)
        by_person = self.frozen or model == "two"
        for version in self.lists["shadow"]:
            if version in self.served or self.champion is None or (by_person and version in self.waiting):
                continue
            passed = verdict(reports, version, self.champion)
            if passed:
                best = "canary" if model == "three" else "promote"
                return ("wait" if by_person else best), version
            if passed is False and not self.frozen:
                return "reject", version
        return None

    def _next_of_canary(self, reports: list[dict[str, Any]]) -> tuple[str, int] | None:
        assert self.canary is not None
        assert self.champion is not None
        n, _, high = interval(reports, self.canary, self.champion, "", self.began)
        if n >= OF_ITS_OWN:
            slices = [interval(reports, self.canary, self.champion, s, self.began) for s in SLICES]
            if high < 0 or any(of and top < -TOLERANCE for of, _, top in slices):
                return None if self.frozen else ("reject", self.canary)
        mine = (self.canary, "canary", "")
        own = latest(r for r in reports if (r["version"], r["role"], r["segment"]) == mine)
        labelled = sum(
            r["labelled"]
            for r in own
            if r["mature"] and (self.since is None or r["window_start"] > self.since)
        )
        if labelled < OF_ITS_OWN:
            return None
        if self.frozen:
            waits = self.step == len(SHARES) and self.canary not in self.waiting
            return ("wait", self.canary) if waits else None
        return ("canary" if self.step < len(SHARES) else "promote"), self.canary


def earned_by(
    reports: list[dict[str, Any]], arms: list[int], since: int | None
) -> list[tuple[int, float, float]] | None:
    """What is known of each arm: requests, and mean and standard error of what one is worth, by the rewards themselves;
    None while it is too little. By weighing each reward with one over the share of its window that went to the arm.
    """
    seen: dict[int, dict[int, dict[int, dict[str, Any]]]] = {}
    for each in reports:
        counts = each["role"] == "arm" and each["version"] in arms and not each["segment"] and each["mature"]
        if counts and (since is None or each["window_start"] > since) and each["predictions"] >= 2:
            ages = seen.setdefault(each["window_start"], {})
            ages.setdefault(each["age"], {})[each["version"]] = each
    windows = []
    for ages in seen.values():
        complete = [age for age, by in ages.items() if len(by) == len(arms)]
        windows += [ages[max(complete)]] if complete else []
    if not windows or any(sum(by[arm]["labelled"] for by in windows) < EARNED for arm in arms):
        return None
    everybody = sum(each["predictions"] for by in windows for each in by.values())
    rewards = []
    for arm in arms:
        total, pooled, spread, requests = 0.0, 0.0, 0.0, 0
        for by in windows:
            n, of_window = by[arm]["predictions"], sum(each["predictions"] for each in by.values())
            earned_there, squares = moments(by[arm]["report_id"], n)
            total += earned_there / (n / of_window)
            pooled += squares
            spread += (of_window / everybody) ** 2 / n
            requests += n
        error = np.sqrt(pooled / (requests - len(windows)) * spread)
        rewards.append((requests, total / everybody, float(error)))
    return rewards


@cache
def moments(report_id: str, requests: int) -> tuple[float, float]:
    """The sum of the rewards, 0 where there is none, and that of their squared distances from the mean."""
    rewards = np.array(GAINS[report_id] + [0.0] * (requests - len(GAINS[report_id])))
    return float(rewards.sum()), float(((rewards - rewards.mean()) ** 2).sum())


@cache
def likely_best(known: tuple[tuple[int, float, float], ...], arm: int) -> float:
    """By quadrature over what the arm may be worth."""
    _, mean, error = known[arm]
    others = [stats.norm(m, e) for i, (_, m, e) in enumerate(known) if i != arm]
    below = np.prod([other.cdf(mean + error * 8 * NODES) for other in others], axis=0)
    return float((8 * WEIGHTS * stats.norm.pdf(8 * NODES) * below).sum())


def latest(reports: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last report of each window."""
    return list({r["window_start"]: r for r in reports}.values())


def interval(
    reports: list[dict[str, Any]], version: int, against: int, segment: str, since: int | None = None
) -> tuple[int, float, float]:
    """On how many requests, and the ends of the interval of the gain: by the gains themselves, which the reports only
    sum up; 0 of them where there is too little. Of windows that began after the version was seen first, and ``since``.
    """
    of_version = [
        r for r in reports if (r["version"], r["role"]) == (version, "shadow") and r["against"] is not None
    ]
    began = min((r["window_start"] for r in of_version), default=0)
    began = began if since is None else max(began, since)
    own = latest(r for r in of_version if (r["segment"], r["against"]) == (segment, against))
    gains = [g for r in own if r["window_start"] > began and r["mature"] for g in GAINS[r["report_id"]]]
    if len(gains) < 2:
        return 0, 0.0, 0.0
    half = stats.t.ppf(0.975, len(gains) - 1) * np.std(gains, ddof=1) / np.sqrt(len(gains))
    return len(gains), float(np.mean(gains) - half), float(np.mean(gains) + half)


def verdict(reports: list[dict[str, Any]], version: int, against: int) -> bool | None:
    n, low, _ = interval(reports, version, against, "")
    if n < NEEDED:
        return None
    slices = [interval(reports, version, against, segment) for segment in SLICES]
    return low > MARGIN and all(high >= -TOLERANCE for of, _, high in slices if of)


NODES, WEIGHTS = np.polynomial.legendre.leggauss(200)
GAINS: dict[str, list[float]] = {}
"""The gains behind each report, by its id."""


class RolloutScenario(Scenario):
    partitions = 1

    def setup(self, log: MemoryLog, rng: random.Random) -> None:
        self.rng = rng
        self.publisher = Publisher(REGISTRY)
        self.versions = dict.fromkeys(MODELS, 0)
        self.waited: list[tuple[str, int, str]] = []
        self.rolled_back = 0
        self.salts: dict[str, list[str]] = {}
        together: tuple[tuple[tuple[str, ...], int], ...] = (
            *((MODELS, 9), (("one",), 15), (("one",), 25), (("three",), 15), (("three",), 40)),
            *((("one", "three"), 25), (("one", "three"), 40)),
        )
        self.models, self.busy = rng.choice(together)
        self.commands: list[dict[str, Any]] = []
        self.reports = 0
        self.days = dict.fromkeys(MODELS, 0)
        self.taste = {
            (m, v): rng.choice([0.3, 0.3, 0.3, 0.08, 0.3 if m == "three" else -0.2])
            for m in MODELS
            for v in range(1, MOST + 1)
        }
        for topic in (*JUDGED_ONLY, *INPUTS):
            log.create_topic(topic)
        for model in MODELS:
            if rng.random() < 0.8:
                self._contract(log, model)

    def _contract(self, log: MemoryLog, model: str) -> None:
        record = self.publisher.contract(CONTRACTS[model])
        log.append(*record)

    def feed(self, log: MemoryLog, rng: random.Random) -> None:
        for _ in range(rng.randint(1, self.busy)):
            model = rng.choice(self.models)
            what = rng.random()
            if what < 0.4 and model == "one" and self.versions[model]:
                self._earned(log, model)
                continue
            if what < 0.4 and self.versions[model]:
                self._reports(log, model)
                continue
            if what < 0.7 and model == "three" and self.versions[model]:
                self._own_report(log, model)
                continue
            if what < {"one": 0.43, "two": 0.5, "three": 0.75}[model]:
                self._alert(log, model)
                continue
            if rng.random() < 0.25 and self.versions[model] < MOST:
                self.versions[model] += 1
                self._publish(log, model, self.versions[model])
            elif rng.random() < 0.1 and self.versions[model]:
                self._publish(log, model, rng.randint(1, self.versions[model]))  # once more, the same
            elif model != "one" or rng.random() < 0.3:
                self._command(log, model)

    def _publish(self, log: MemoryLog, model: str, version: int) -> None:
        record = self.publisher.manifest(version, OPENED[model, version], model)
        log.append(*record)

    def _command(self, log: MemoryLog, model: str) -> None:
        rng = self.rng
        command = {
            "command_id": f"c{len(self.commands)}",
            "model": model,
            "command": rng.choice(ASKED),
            "version": rng.choice([None, *range(1, self.versions[model] + 2)]),
            "follows": rng.choice([None, None, None, None, None, 1, 2, 5]),
            "by": rng.choice(["ada", "ada", "ada", "mallory"]),
            "reason": "",
            "issued_at": 0,
        }
        if model == "one" and rng.random() < 0.6:
            named = rng.choice([[1, 2], [1, 3], [2, 3], [2, 3], [2], [3, 3], [self.versions[model] + 1]])
            command |= {"command": rng.choice(COMPARED), "version": None, "arms": named}
        if self.commands and rng.random() < 0.2:
            command = rng.choice(self.commands)
        self.commands.append(command)
        log.append(*self.publisher.control.record("Command", command))

    def _last(self, log: MemoryLog, model: str) -> dict[str, Any]:
        """The rollout as it stands, or nearly."""
        for message in reversed(log.messages(lanes.ROLLOUTS)[-20:]):
            step = self.publisher.control.decode("Rollout", message.value())
            if step["model"] == model:
                return step
        return {"champion": None, "arms": []}

    def _seen(self, log: MemoryLog, model: str) -> tuple[int, int]:
        """Some version beside one that answers; often enough as the rollout stands, else anybody beside anybody."""
        rng, last = self.rng, self._last(log, model)
        if last["champion"] is not None and last["shadow"] and rng.random() < 0.7:
            beside = last["canary"]["version"] if last["canary"] else last["shadow"][0]
            return beside, last["champion"]
        return rng.randint(1, min(4, self.versions[model])), rng.choice([1, 1, 1, 2, 3])

    def _reports(self, log: MemoryLog, model: str) -> None:
        """A window closes."""
        rng = self.rng
        self.days[model] += 1
        for _ in range(rng.randint(1, 3)):
            version, against = self._seen(log, model)
            day = max(0, self.days[model] - rng.choice([0, 0, 0, 1, 3]))
            for segment in dict.fromkeys(["", *rng.sample(SEGMENTS, rng.randint(0, 3))]):
                gains = [
                    rng.gauss(self.taste[model, version], 0.2) for _ in range(rng.choice([0, 1, 15, 30, 60]))
                ]
                facts = report(version, against, day, gains, model=model, segment=segment)
                facts |= {"role": rng.choice(["shadow"] * 6 + ["champion"]), "mature": rng.random() < 0.9}
                # Judged again at a later age each time.
                facts["age"] = self.days[model] * 1000 + self.reports
                self.reports += 1
                facts["report_id"] = f"{id(self)}-{self.reports}"
                GAINS[facts["report_id"]] = gains
                log.append(*self.publisher.control.record("PerformanceReport", facts))

    def _own_report(self, log: MemoryLog, model: str) -> None:
        """Of a version that answered requests itself, or might have."""
        rng = self.rng
        self.days[model] += 1
        self.reports += 1
        facts = report(
            rng.choice(self._seen(log, model)),
            None,
            max(0, self.days[model] - rng.choice([0, 0, 0, 1, 3])),
            [0.0] * rng.choice([0, 10, 20, 40]),
            model=model,
            role=rng.choice(["canary", "canary", "canary", "champion", "shadow"]),
            segment=rng.choice(["", "", "", "", "region=a"]),
            age=self.days[model] * 1000 + self.reports,
            mature=rng.random() < 0.9,
            predictions=rng.choice([0, 50, 200]),
            report_id=f"{id(self)}-{self.reports}",
        )
        facts["fallbacks"] = min(facts["predictions"], rng.choice([0, 0, 0, 0, 2, 25, 100]))
        log.append(*self.publisher.control.record("PerformanceReport", facts))

    def _earned(self, log: MemoryLog, model: str) -> None:
        """What three versions earned in a window as arms, if they were; most often all of them."""
        rng = self.rng
        self.days[model] += 1
        day, age = max(0, self.days[model] - rng.choice([0, 0, 1])), self.days[model] * 1000
        for arm in (1, 2, 3):
            if rng.random() < 0.05:
                continue
            self.reports += 1
            rewards = [rng.gauss(self.taste[model, arm], 1) for _ in range(rng.randint(10, 50))]
            facts = earned(
                arm,
                day,
                rewards,
                model=model,
                requests=len(rewards) + rng.choice([0, 7]),
                age=age,
                mature=rng.random() < 0.95,
                report_id=f"{id(self)}-{self.reports}",
                segment=rng.choice(["", "", "", "", "", "region=a"]),
            )
            GAINS[facts["report_id"]] = rewards
            log.append(*self.publisher.control.record("PerformanceReport", facts))

    def _alert(self, log: MemoryLog, model: str) -> None:
        rng = self.rng
        day = rng.choice([None, self.days[model], self.days[model] + 1])
        facts = alert(
            rng.choice([1, 2, 3, *(self._seen(log, model) if self.versions[model] else ())]),
            day,
            model,
            severity=rng.choice(["severe", "severe", "warning"]),
        )
        log.append(*self.publisher.control.record("Alert", facts, model.encode()))

    def finish(self, log: MemoryLog, rng: random.Random) -> None:
        for model in MODELS:
            if model not in self.publisher.contracts:
                self._contract(log, model)

    def process(self, backend: Backend, clock: MemoryClock, transactional_id: str) -> ExactlyOnceRunner:
        return ExactlyOnceRunner(
            backend,
            self.logic(),
            service="rollout",
            group=self.group,
            transactional_id=transactional_id,
            clock=clock,
            quarantine=quarantine,
            max_batch=self.max_batch,
            co_partitioned=True,
            bounds=self.bounds,
        )

    def logic(self) -> RolloutProcessor:
        return self._rollout(away=0.1)

    def _rollout(self, away: float) -> RolloutProcessor:
        def opened(record: Any, contract: ModelContract, newer_than: int) -> LoadedModel:
            model, version = record["model"], record["version"]
            if self.rng.random() < away:
                raise Unavailable("chunks away")
            if broken(model, version):
                raise PackageRefused("golden", "off")
            package = OPENED[model, version]
            if package.manifest.sequence <= newer_than:
                raise PackageRefused("anti-rollback", "old")
            return package

        def distrust(command: Any, at: Any) -> str | None:
            return "mallory is not trusted" if command["by"] == "mallory" else None

        return RolloutProcessor(records(REGISTRY, "rollout"), lambda record: None, opened, distrust)

    def done(self, log: MemoryLog) -> bool:
        return drained(log, self.group, INPUTS)

    # What ought to be ---

    def check(self, log: MemoryLog) -> None:
        names = dict(zip(INPUTS, ("Command", "ModelManifest", "PerformanceReport", "Alert"), strict=True))
        self.inputs = {topic: self._decoded(log, topic, name) for topic, name in names.items()}
        self.appended = {
            (topic, m.offset()): m.timestamp()[1]
            for topic in (lanes.COMMANDS, lanes.ALERTS)
            for m in log.messages(topic)
        }
        self._leave_copies_out()
        steps = list(self._decoded(log, lanes.ROLLOUTS, "Rollout").values())
        self._check_commands(steps)
        self._check_versions(steps)
        for model in MODELS:
            mine = [s for s in steps if s["model"] == model]
            self._check_steps(model, mine)
            self._check_canaries(mine)
        self._check_waits(steps)
        self._check_replayed(log)

    def _decoded(self, log: MemoryLog, topic: str, name: str) -> dict[int, dict[str, Any]]:
        decode = self.publisher.control.decode
        return {m.offset(): decode(name, m.value()) for m in log.messages(topic)}

    def _alerts(self, kind: str) -> list[dict[str, Any]]:
        return [a for a in self.inputs[lanes.ALERTS].values() if a["kind"] == kind]

    def _leave_copies_out(self) -> None:
        """Of alerts that are the same, the first counts; people are told of the others, once and not of too many."""
        first: dict[str, int] = {}
        alerts = self.inputs[lanes.ALERTS]
        copies = [at for at, alert in alerts.items() if first.setdefault(repr(alert), at) != at]
        refused = [alert["source"]["offset"] for alert in self._alerts("record-refused")]
        assert sorted(refused) == self._with_alert(lanes.ALERTS, copies)
        for offset in copies:
            del alerts[offset]

    def _with_alert(self, topic: str, refused: list[int]) -> list[int]:
        """Of the records refused, those that have an alert: ten an hour, then at powers of 2."""
        in_hour: Counter[int] = Counter()
        offsets = []
        for offset in refused:
            hour = self.appended[topic, offset] // 3_600_000
            in_hour[hour] += 1
            if in_hour[hour] <= 10 or in_hour[hour] in (16, 32, 64, 128, 256, 512):
                offsets.append(offset)
        return offsets

    def _check_commands(self, steps: list[dict[str, Any]]) -> None:
        """Each command on the topic led to one step or one alert, or had been decided before: for good, unless nobody
        who is trusted had signed it.
        """
        obeyed = {s["command_id"]: s["source"]["offset"] for s in steps if s["command_id"] is not None}
        assert len(obeyed) == sum(s["command_id"] is not None for s in steps), "carried out twice"
        refused = Counter(a["source"]["offset"] for a in self._alerts("command-refused"))
        decided: dict[str, int] = {}
        strangers = [
            offset
            for offset, command in self.inputs[lanes.COMMANDS].items()
            if command["by"] == "mallory" and command["command"] != "retrain"
        ]
        with_alert = self._with_alert(lanes.COMMANDS, strangers)
        for offset, command in self.inputs[lanes.COMMANDS].items():
            if command["command"] == "retrain":
                assert offset not in refused
                continue
            done_at = obeyed.get(command["command_id"])
            first = decided.setdefault(command["command_id"], offset) == offset
            if command["by"] == "mallory":
                assert refused.pop(offset, 0) == (offset in with_alert)
            elif first and done_at is None:
                assert refused.pop(offset, 0) == 1
            assert done_at in (None, decided[command["command_id"]])
            assert command["by"] != "mallory" or done_at is None
        assert not refused

    def _check_versions(self, steps: list[dict[str, Any]]) -> None:
        """Each published version was placed once, by the first manifest of it."""
        first: dict[tuple[str, int], int] = {}
        for offset, record in self.inputs[lanes.MANIFESTS].items():
            first.setdefault((record["model"], record["version"]), offset)
        placed: dict[tuple[str, int], int] = {}
        for step in steps:
            if step["version"] is not None and step["source"]["topic"] == lanes.MANIFESTS:
                placed.setdefault((step["model"], step["version"]), step["source"]["offset"])
        assert placed == first
        refused = [(a["model"], a["version"]) for a in self._alerts("package-refused")]
        assert sorted(refused) == sorted(key for key in first if broken(*key))

    def _check_steps(self, model: str, steps: list[dict[str, Any]]) -> None:
        """Each step follows the one before it, has its cause, and leads to what it has to; and none is missing."""
        expected = Expected()
        # What has happened in each topic before the step that is looked at.
        before = dict.fromkeys(INPUTS, 0)
        at = 0
        while at < len(steps):
            source = steps[at]["source"]
            group = [s for s in steps[at:] if s["source"] == source]
            assert group == steps[at : at + len(group)]
            folded = {topic: int(steps[at]["evidence"][f"folded {topic}"]) for topic in INPUTS}
            assert folded[source["topic"]] == source["offset"] + 1
            assert all(folded[topic] >= before[topic] for topic in INPUTS)
            self._check_nothing_missing(model, expected, before, folded | {source["topic"]: source["offset"]})
            for number, step in enumerate(group, at + 1):
                assert (step["follows"], step["revision"]) == (number - 1, number)
                self._check_step(expected, step, step is group[0], folded)
            reports = self._reports_until(model, folded[lanes.PERFORMANCE_REPORTS])
            assert expected.next(model, reports) is None
            before, at = folded, at + len(group)
        ends = {topic: max(self.inputs[topic], default=-1) + 1 for topic in INPUTS}
        self._check_nothing_missing(model, expected, before, ends)

    def _reports_until(self, model: str, end: int) -> list[dict[str, Any]]:
        reports = self.inputs[lanes.PERFORMANCE_REPORTS]
        return [r for offset, r in sorted(reports.items()) if offset < end and r["model"] == model]

    def _check_nothing_missing(
        self, model: str, expected: Expected, before: dict[str, int], until: dict[str, int]
    ) -> None:
        """None of the reports and alerts in between, which led to nothing, should have led to something."""
        reports = self.inputs[lanes.PERFORMANCE_REPORTS]
        for offset in range(before[lanes.PERFORMANCE_REPORTS], until[lanes.PERFORMANCE_REPORTS]):
            if offset in reports and reports[offset]["model"] == model:
                assert left_too_much(expected, reports[offset]) is None
                assert expected.next(model, self._reports_until(model, offset + 1)) is None
        for offset in range(before[lanes.ALERTS], until[lanes.ALERTS]):
            alert = self.inputs[lanes.ALERTS].get(offset)
            assert alert is None or alert["model"] != model or takes_back(expected, alert) is None

    def _check_step(
        self, expected: Expected, step: dict[str, Any], first: bool, folded: dict[str, int]
    ) -> None:
        model, name, version = step["model"], step["step"], step["version"]
        reports = self._reports_until(model, folded[lanes.PERFORMANCE_REPORTS])
        source, before_canary = step["source"], expected.canary
        cause = self.inputs[source["topic"]][source["offset"]]
        command = cause if first and source["topic"] == lanes.COMMANDS else None
        assert step["command_id"] == (command["command_id"] if command else None)
        back = takes_back(expected, cause) if source["topic"] == lanes.ALERTS else None
        if source["topic"] == lanes.PERFORMANCE_REPORTS and cause["model"] == model:
            back = left_too_much(expected, cause)
        if command:
            assert command["follows"] in (None, step["follows"])
            back, arms = command["command"] == "rollback", bool(expected.arms)
            ends = back and expected.canary is not None
            assert name == ("reject" if ends else "end-experiment" if back and arms else command["command"])
            assert version in ([expected.canary] if ends else (command["version"], expected.previous))
        elif (
            first and source["topic"] == lanes.MANIFESTS and cause["version"] == version and name != "shadow"
        ):
            waits = expected.champion is not None or expected.frozen
            right = "reject" if broken(model, version) else "candidate" if waits else "first-champion"
            assert name == right
        elif first and back is not None:
            assert (name, version) == back
            about = "alert" if source["topic"] == lanes.ALERTS else "report"
            assert step["evidence"]["alert" if about == "alert" else "reports"] == cause[f"{about}_id"]
        else:
            assert (name, version) == expected.next(model, reports)
            if "reports" in step["evidence"]:
                assert set(step["evidence"]["reports"].split()) <= {r["report_id"] for r in reports}
        time = max((r["judged_at"] for r in reports), default=None)
        assert step["evidence"].get("event_time") == (None if time is None else str(time))
        waited = set(expected.waiting)
        arms = command["arms"] if command is not None else []
        had_arms = bool(expected.arms)
        expected.take(name, version, time, command is not None, arms)
        if name == "arms":
            expected.earned = earned_by(reports, expected.arms, expected.compared_since) or []
        self._check_arms(expected, step)
        for one in sorted(waited ^ expected.waiting):
            self.waited.append((model, one, "raised" if one in expected.waiting else "resolved"))
        self.rolled_back += command is None and (
            name == "rollback"
            or (name == "reject" and bool(before_canary) and expected.canary is None)
            or (name == "reject" and had_arms and not expected.arms)
        )
        canary = step["canary"] or {"version": None, "step": 0}
        assert (canary["version"], canary["step"]) == (expected.canary, expected.step)
        assert (step["champion"], step["previous"]) == (expected.champion, expected.previous)
        assert (step["frozen"], step["off"]) == (expected.frozen, expected.off)
        assert {place: sorted(step[place]) for place in LISTS} == {
            p: sorted(v) for p, v in expected.lists.items()
        }

    def _check_arms(self, expected: Expected, step: dict[str, Any]) -> None:
        """Who answers with what probability, and what that rests on."""
        experiment = step["experiment"]
        if not expected.arms:
            assert experiment is None
            return
        arms = experiment["arms"]
        assert [arm["version"] for arm in arms] == expected.arms
        assert (experiment["assign"], experiment["share"]) == ("thompson", TAKES_PART)
        assert "".join(arm["arm"] for arm in arms) == "abcdefgh"[: len(expected.arms)]
        assert sum(arm["probability"] for arm in arms) == 1.0
        salts = self.salts.setdefault(step["model"], [])
        if step["step"] == "experiment":
            assert experiment["salt"] not in salts
            salts.append(experiment["salt"])
        assert experiment["salt"] == salts[-1]
        for at, arm in enumerate(arms):
            known = (arm["requests"], arm["mean"], arm["deviation"])
            if not expected.earned:
                assert known == (0, None, None)
                assert arm["probability"] == pytest.approx(1 / len(expected.arms), abs=1e-6)
                continue
            assert known == pytest.approx(expected.earned[at])
            best = likely_best(tuple(expected.earned), at)
            assert arm["best"] == pytest.approx(best, abs=1e-3)
            least = EPSILON / len(expected.arms)
            assert arm["probability"] == pytest.approx(least + (1 - EPSILON) * best, abs=1e-3)

    def _check_waits(self, steps: list[dict[str, Any]]) -> None:
        """What waits for a person is said when it begins, and taken back when it ends."""
        alerts = [(a["model"], a["version"], a["state"]) for a in self._alerts("promotion-waits")]
        for model in MODELS:
            assert [t for t in alerts if t[0] == model] == [w for w in self.waited if w[0] == model]
        assert len(self._alerts("rolled-back")) == self.rolled_back

    def _check_canaries(self, steps: list[dict[str, Any]]) -> None:
        """The shares of the contract, one after the other, under one salt: so that no key goes back as they grow."""
        salts: dict[str, int] = {}
        for step in steps:
            canary = step["canary"]
            if canary is None:
                continue
            assert canary["share"] == SHARES[canary["step"] - 1]
            assert salts.setdefault(canary["salt"], canary["version"]) == canary["version"]
        begun = [s for s in steps if s["step"] == "canary" and s["canary"]["step"] == 1]
        assert len(salts) == len(begun)

    def _check_replayed(self, log: MemoryLog) -> None:
        logic, clock = self._rollout(away=0.0), MemoryClock(MemoryLog(), "replay")
        logic.assigned({TopicPartition(topic, 0): Committed(0, "") for topic in INPUTS})
        logic.control(log.messages(lanes.CONTRACTS))
        fed = {topic: {m.offset(): m for m in log.messages(topic)} for topic in INPUTS}
        written = log.messages(lanes.ROLLOUTS)
        at, positions = 0, dict.fromkeys(INPUTS, 0)

        def feed(message: Message) -> None:
            nonlocal at
            output = logic.process([message], clock)
            values = [record.value for record in output.records if record.topic == lanes.ROLLOUTS]
            assert values == [m.value() for m in written[at : at + len(values)]]
            output.on_committed()
            logic.control(written[at : at + len(values)])
            at += len(values)

        while at < len(written):
            step = self.publisher.control.decode("Rollout", written[at].value())
            source, until = step["source"], {t: int(step["evidence"][f"folded {t}"]) for t in INPUTS}
            for topic in INPUTS:
                for offset in range(positions[topic], until[topic]):
                    if offset in fed[topic] and (topic, offset) != (source["topic"], source["offset"]):
                        feed(fed[topic][offset])
            before = at
            feed(fed[source["topic"]][source["offset"]])
            assert at > before
            positions = until


def left_too_much(expected: Expected, report: dict[str, Any]) -> tuple[str, int] | None:
    """The way back because of the fallback's share of what a version answered."""
    about = (report["model"], report["segment"], report["against"])
    if expected.frozen or about != ("three", "", None) or not report["predictions"]:
        return None
    if stats.binomtest(report["fallbacks"], report["predictions"], FALLBACKS, "greater").pvalue >= 0.01:
        return None
    if report["role"] == "canary" and report["version"] == expected.canary:
        return "reject", report["version"]
    promoted = expected.promoted_at is None or report["window_start"] >= expected.promoted_at
    if (
        report["role"] == "champion"
        and report["version"] == expected.champion
        and expected.previous
        and promoted
    ):
        return "rollback", expected.previous
    return None


def takes_back(expected: Expected, alert: dict[str, Any]) -> tuple[str, int] | None:
    """The way back because of an alert."""
    start = alert["detail"].get("window_start")
    if expected.frozen or alert["severity"] != "severe" or alert["version"] is None:
        return None
    if alert["version"] in expected.arms[1:]:
        early = start is not None and expected.compared_since is not None
        return None if early and int(start) < expected.compared_since else ("reject", alert["version"])
    if alert["version"] == expected.canary:
        old = start is not None and expected.began is not None and int(start) < expected.began
        return None if old else ("reject", alert["version"])
    promoted = start is not None and (expected.promoted_at is None or int(start) >= expected.promoted_at)
    if alert["version"] == expected.champion and expected.previous is not None and promoted:
        return "rollback", expected.previous
    return None


def test_every_command_and_version_is_decided_once() -> None:
    simulate(RolloutScenario, 50, long=500)
