"""Scores a sample of logged requests again, so that an event that was altered afterwards shows.

A prediction is a function of its request, package, contract and rollout revision, all named in it. So the
scorer's own logic, given the control topics up to the revisions named, must come to the same event.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from typing import Any, NamedTuple

from tailrace.contracts import lanes
from tailrace.contracts.model_contract import ModelContract
from tailrace.kit.codec import Codec, ControlCodec
from tailrace.kit.errors import BadRecord
from tailrace.kit.messages import Message, Source
from tailrace.kit.registry import Registry
from tailrace.models.errors import PackageRefused
from tailrace.models.fingerprint import runtime_versions
from tailrace.models.load import LoadedModel
from tailrace.scorer.logic import ScorerLogic
from tailrace.scorer.versions import OpenVersion, Role
from tailrace.verify.check import Problem, differences

RELATIVE, ABSOLUTE = 1e-6, 1e-9
"""How far numbers may differ where the event was computed by another CPU or other libraries than here."""

_NOT_COMPARED = ("latency_ms",)


class Sample:
    """The ``size`` prediction messages whose coordinates hash lowest: the same ones for the same log."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: list[tuple[int, int, Message]] = []
        self._order = itertools.count()

    def offer(self, message: Message) -> None:
        rank = -zlib.crc32(str(Source.of(message)).encode())
        if len(self._kept) < self._size:
            heapq.heappush(self._kept, (rank, next(self._order), message))
        elif self._kept and rank > self._kept[0][0]:
            heapq.heapreplace(self._kept, (rank, next(self._order), message))

    def messages(self) -> list[Message]:
        return sorted((message for *_, message in self._kept), key=Source.of)


class _Named(NamedTuple):
    """What a prediction says it is a function of, besides its request."""

    role: Role
    model: str
    contract_digest: str
    revision: int


class Rescorer:
    """
    Args:
        control: every message of the contracts, manifests and rollouts topics, each topic in order.
        open_version: opens a package, as the scorer does; raises PackageRefused.
    """

    def __init__(self, registry: Registry, control: Sequence[Message], open_version: OpenVersion) -> None:
        self._registry = registry
        self._codec, self._control_codec = Codec(registry), ControlCodec(registry)
        self._control, self._open_version = control, open_version
        self._refused: dict[tuple[str, int], str] = {}

    def problems(
        self, predictions: Sequence[Message], requests: Callable[[Sequence[Source]], Mapping[Source, Message]]
    ) -> Iterator[Problem]:
        """What differs, by prediction.

        Args:
            predictions: messages of predictions or shadow predictions topics.
            requests: finds requests by their coordinates; those no longer retained are left out.
        """
        groups: dict[_Named, list[tuple[Message, dict[str, Any]]]] = {}
        for message in predictions:
            try:
                event = self._codec.decode(message.value()).record
            except BadRecord as bad:
                yield _problem(message, str(bad))
                continue
            role: Role = "shadow" if event["role"] == "shadow" else "champion"
            named = _Named(role, event["model"], event["contract_digest"], event["rollout_revision"])
            groups.setdefault(named, []).append((message, event))
        sources = [Source(**event["source"]) for events in groups.values() for _, event in events]
        found = requests(sources)
        for named, events in sorted(groups.items()):
            yield from self._again(named, events, found)

    def _again(
        self, named: _Named, events: list[tuple[Message, dict[str, Any]]], requests: Mapping[Source, Message]
    ) -> Iterator[Problem]:
        logic = ScorerLogic(named.role, self._registry, self._open, _Inline())
        logic.control(self._as_of(named))
        for message, event in events:
            request = requests.get(Source(**event["source"]))
            if request is None:
                continue
            logic.as_logged(event["served_cause"])
            output = logic.process([request], _Clock())
            versions = {
                record.key: again
                for record in output.records
                if record.topic == message.topic()
                and record.value is not None
                and (again := self._codec.decode(record.value).record)["version"] == event["version"]
            }
            if message.key() in versions:
                differing = _differences(event, versions[message.key()])
                if differing:
                    yield _problem(message, "scored again: " + "; ".join(differing))
            elif versions:
                yield _problem(message, f"scored again: its key is {next(iter(versions))!r}")
            else:
                held = [hold.reason for hold in output.holds.values()]
                refused = [f"{letter.code}: {letter.reason}" for letter in output.dead_letters]
                refusal = self._refused.get((named.model, event["version"]), "it does not answer")
                why = "; ".join([*held, *refused]) or f"version {event['version']}: {refusal}"
                yield _problem(message, f"cannot be scored again: {why}")

    def _open(self, record: Mapping[str, Any], contract: ModelContract) -> LoadedModel:
        # Behind a refused champion the version before it answers: remember why it was not the one named.
        try:
            return self._open_version(record, contract)
        except PackageRefused as refused:
            self._refused[record["model"], record["version"]] = str(refused)
            raise

    def _as_of(self, named: _Named) -> list[Message]:
        """The control topics as they were when the model had this contract and this revision."""
        kept, contract_reached, revision_reached = [], False, False
        for message in self._control:
            if message.value() is None:
                continue
            if message.topic() == lanes.CONTRACTS:
                record = self._control_codec.decode("Contract", message.value())
                if record["model"] == named.model:
                    if contract_reached:
                        continue
                    contract_reached = record["digest"] == named.contract_digest
            elif message.topic() == lanes.ROLLOUTS:
                record = self._control_codec.decode("Rollout", message.value())
                if record["model"] != named.model or revision_reached:
                    continue
                revision_reached = record["revision"] == named.revision
            kept.append(message)
        return kept


def _differences(event: dict[str, Any], again: dict[str, Any]) -> list[str]:
    """Bit for bit where the runtime is the same; otherwise within tolerance, and without the runtime."""
    skipped: tuple[str, ...] = _NOT_COMPARED
    if event["runtime"] != runtime_versions():
        skipped = (*skipped, "runtime")
        again = _near(event, again)
    one, other = ({k: v for k, v in e.items() if k not in skipped} for e in (event, again))
    return differences(one, other)


def _near(logged: Any, again: Any) -> Any:
    """``again`` with every number that is near enough to the logged one replaced by that."""
    if isinstance(logged, dict) and isinstance(again, dict):
        return {name: _near(logged.get(name), value) for name, value in again.items()}
    if isinstance(logged, list) and isinstance(again, list) and len(logged) == len(again):
        return [_near(one, other) for one, other in zip(logged, again, strict=True)]
    if isinstance(logged, float) and isinstance(again, float):
        return logged if math.isclose(logged, again, rel_tol=RELATIVE, abs_tol=ABSOLUTE) else again
    return again


def _problem(message: Message, detail: str) -> Problem:
    return Problem("altered", message.topic(), message.partition(), message.offset(), detail)


class _Inline(Executor):
    """Opens packages in the caller's thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class _Clock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def perf_ns(self) -> int:
        return time.perf_counter_ns()
