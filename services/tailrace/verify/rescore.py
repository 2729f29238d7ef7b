"""Scores logged requests again, so that an event that was altered afterwards, or is not reproducible, shows.

A prediction is a function of its request, package, contract and rollout revision, all named in it. So the
scorer's own logic, given the control topics up to the revisions named, must come to the same event.
"""

from __future__ import annotations

import heapq
import itertools
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from tailrace.avro.codec import HEADER, Codec
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records import lanes
from tailrace.contracts.records.record_types import ModelManifestRecord
from tailrace.contracts.state.contracts import HOLD, WITHDRAW
from tailrace.contracts.state.records import ControlRecords
from tailrace.errors import BadRecord, Unavailable
from tailrace.models.catalog import Verify
from tailrace.models.errors import PackageRefused
from tailrace.models.formats.load import LoadedModel
from tailrace.models.manifest import Tolerance
from tailrace.models.package.fingerprint import runtime_versions
from tailrace.scorer.processor import ScoringProcessor
from tailrace.scorer.versions import OpenVersion, Role
from tailrace.streaming.ids import prediction_id
from tailrace.streaming.inline_executor import Inline
from tailrace.streaming.records import Message, Record, RecordRef
from tailrace.streaming.time_source import SystemClock
from tailrace.verify.check import AccountProblem, differences
from tailrace.verify.prediction_header import PredictionHeader, PredictionHeaders
from tailrace.verify.received import received

_MOST_PROCESSORS = 8
_ID = slice(HEADER.size + 1, HEADER.size + 33)
"""Where an event's first field is, the prediction's id: a text of 32 digits behind its length."""


_EXACT = Tolerance(absolute=0.0, relative=0.0)
_COMPUTED = ("score", "probabilities", "value")


class Sample:
    """The ``size`` prediction messages whose coordinates hash lowest: the same ones for the same log."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: list[tuple[int, int, Message]] = []
        self._order = itertools.count()

    def offer(self, message: Message) -> None:
        rank = -zlib.crc32(str(RecordRef.of(message)).encode())
        if len(self._kept) < self._size:
            heapq.heappush(self._kept, (rank, next(self._order), message))
        elif self._kept and rank > self._kept[0][0]:
            heapq.heapreplace(self._kept, (rank, next(self._order), message))

    def messages(self) -> list[Message]:
        return sorted((message for *_, message in self._kept), key=RecordRef.of)


class Rescored(NamedTuple):
    """A logged prediction and what its request comes to now.

    ``header`` is the beginning of the event (see prediction_header.py); ``again`` is None where there is no answer now,
    and ``why`` says why.
    """

    message: Message
    header: PredictionHeader
    again: Record | None
    why: str = ""

    @property
    def equal(self) -> bool:
        """Whether it is the same event, byte for byte, but for the time that the answer took."""
        if self.again is None or self.again.value is None or self.again.key != self.message.key():
            return False
        # The latency is the event's last field, a double.
        return self.again.value[:-8] == (self.message.value() or b"")[:-8]


class _Named(NamedTuple):
    """What a prediction says it is a function of, besides its request."""

    role: Role
    model: str
    contract_digest: str
    revision: int
    cause: str
    """Why something else than the version answered; empty where nothing did."""
    alone: bool = False
    """Whether the previous version could not be asked."""


# Finds requests by their coordinates; those no longer retained are left out.
FindRequests = Callable[[Sequence[RecordRef]], Mapping[RecordRef, Message]]


class Rescorer:
    """
    Args:
        control: every message of the contracts, manifests and rollouts topics, each topic in order.
        open_version: opens a package, as the scorer does; raises PackageRefused.
        verify: whose manifests count; raises PackageRefused.
    """

    def __init__(
        self,
        records: ControlRecords,
        control: Sequence[Message],
        open_version: OpenVersion,
        verify: Verify | None = None,
    ) -> None:
        self._records, self._registry = records, records.registry
        self._codec = Codec(records.registry)
        self._headers = PredictionHeaders(self._codec)
        self._control, self._open_version, self._verify = control, open_version, verify
        self._refused: dict[tuple[str, int], str] = {}
        self._tolerances: dict[str, Tolerance] = {}
        self._processors: OrderedDict[_Named, ScoringProcessor] = OrderedDict()
        # Those that a processor holds, so that revisions share a version's model.
        self._models: WeakValueDictionary[tuple[str, str], LoadedModel] = WeakValueDictionary()

    def problems(self, predictions: Sequence[Message], requests: FindRequests) -> Iterator[AccountProblem]:
        """What differs, by prediction (of predictions or shadow predictions topics)."""
        read = []
        for message in predictions:
            try:
                read.append((message, self._headers.read(message.value())))
            except BadRecord as bad:
                yield _problem(message, str(bad))
        for rescored in self.again(read, requests):
            differing, why = self.differences(rescored)
            if why:
                yield _problem(rescored.message, f"cannot be scored again: {why}")
            elif differing:
                yield _problem(rescored.message, "scored again: " + "; ".join(differing))

    def again(
        self, predictions: Sequence[tuple[Message, PredictionHeader]], requests: FindRequests
    ) -> Iterator[Rescored]:
        """Scores again, all at once that were answered under the same contract and rollout revision.

        A request that is no longer retained is taken from the event, which holds it as it was received.

        Args:
            predictions: messages of predictions topics with their headers (see verify/prediction_header.py).
        """
        groups: dict[_Named, list[tuple[Message, PredictionHeader]]] = {}
        for message, header in predictions:
            role: Role = "shadow" if header["role"] == "shadow" else "champion"
            what = header["model"], header["contract_digest"], header["rollout_revision"]
            groups.setdefault(_Named(role, *what, header["served_cause"] or ""), []).append((message, header))
        logged = requests([RecordRef(**header["source"]) for _, header in predictions])
        for named, events in sorted(groups.items()):
            yield from self._with_or_without_previous(named, events, logged)

    def differences(self, rescored: Rescored) -> tuple[list[str], str]:
        """Where the events differ, as ``field: logged / again``; or why there is nothing to compare.

        Bit for bit where CPU and libraries are the same as here. Otherwise numbers may be as far apart as the
        package allows, texts made of numbers are not compared.
        """
        if rescored.equal:
            return [], ""
        if rescored.again is None:
            return [], rescored.why
        try:
            event = self._codec.decode(rescored.message.value()).record
        except BadRecord as bad:
            return [], str(bad)
        again = self._codec.decode(rescored.again.value).record
        if again["version"] != event["version"]:
            refused = self._refused.get((event["model"], event["version"]), "it does not answer")
            return [], f"version {event['version']}: {refused}"
        del event["latency_ms"], again["latency_ms"]
        if not is_here(event):
            event, again = _portable(event), _portable(again)
            tolerance = self._tolerances.get(event["artifact_digest"], _EXACT)
            again |= {name: _near(event[name], again[name], tolerance) for name in _COMPUTED}
        key = rescored.message.key()
        moved = [] if rescored.again.key == key else [f"its key: {key!r} / {rescored.again.key!r}"]
        return moved + differences(event, again), ""

    def _with_or_without_previous(
        self,
        named: _Named,
        events: Sequence[tuple[Message, PredictionHeader]],
        requests: Mapping[RecordRef, Message],
    ) -> Iterator[Rescored]:
        """A fallback asks the previous version if that is opened, and not quarantined, which the log does not say: what
        does not come to the same with it may without.
        """
        rescored = list(self._group(named, events, requests))
        unequal = [(each.message, each.header) for each in rescored if named.cause and not each.equal]
        if unequal:
            others = self._group(named._replace(alone=True), unequal, requests)
            without = {RecordRef.of(each.message): each for each in others if each.equal}
            rescored = [without.get(RecordRef.of(each.message), each) for each in rescored]
        yield from rescored

    def _group(
        self,
        named: _Named,
        events: Sequence[tuple[Message, PredictionHeader]],
        requests: Mapping[RecordRef, Message],
    ) -> Iterator[Rescored]:
        asked: dict[RecordRef, Message] = {}
        unreadable: dict[RecordRef, str] = {}
        for message, header in events:
            source = RecordRef(**header["source"])
            try:
                asked[source] = requests.get(source) or received(message, self._codec, self._registry)
            except BadRecord as bad:
                unreadable[source] = str(bad)
        processor = self._processor(named)
        processor.as_logged(named.cause)
        output = processor.process([asked[source] for source in sorted(asked)], SystemClock())
        events_again = [r for r in output.records if r.value is not None and r.topic != lanes.ALERTS]
        by_id = {(record.topic, (record.value or b"")[_ID]): record for record in events_again}
        asked_for: dict[tuple[str, RecordRef, int], Record] = {}
        why = unreadable | {RecordRef.of(d.message): f"{d.code}: {d.reason}" for d in output.dead_letters}
        paused = "; ".join(sorted({partition.reason for partition in output.paused.values()}))
        for message, header in events:
            source = RecordRef(**header["source"])
            name = prediction_id(header["role"], source, header["version"]).encode()
            again = by_id.get((message.topic(), name))
            if again is None:  # another role's, perhaps
                asked_for = asked_for or self._by_source(events_again)
                again = asked_for.get((message.topic(), source, header["version"]))
            refused = self._refused.get((named.model, header["version"]), "it does not answer")
            nothing = why.get(source) or paused or f"version {header['version']}: {refused}"
            yield Rescored(message, header, again, "" if again else nothing)

    def _by_source(self, records: Sequence[Record]) -> dict[tuple[str, RecordRef, int], Record]:
        read = [(record, self._headers.read(record.value)) for record in records]
        return {
            (record.topic, RecordRef(**header["source"]), header["version"]): record
            for record, header in read
        }

    def _processor(self, named: _Named) -> ScoringProcessor:
        """The scorer's processor as of then; those used last are kept."""
        named = named._replace(cause="")
        processor = self._processors.pop(named, None)
        if processor is None:
            opened = self._open_but(self._previous(named)) if named.alone else self._open
            processor = ScoringProcessor(named.role, self._records, opened, Inline(), self._verify)
            processor.control(self._as_of(named))
        self._processors[named] = processor
        if len(self._processors) > _MOST_PROCESSORS:
            self._processors.popitem(last=False)
        return processor

    def _open(self, record: ModelManifestRecord, contract: ModelContract) -> LoadedModel:
        key = record["digest"], contract.digest
        known = self._models.get(key)
        if known is not None:
            return known
        # Behind a refused champion the version before it answers: remember why it was not the one named.
        try:
            opened = self._open_version(record, contract)
        except PackageRefused as refused:
            self._refused[record["model"], record["version"]] = str(refused)
            raise
        self._models[key] = opened
        self._tolerances[opened.digest] = opened.manifest.tolerance
        return opened

    def _open_but(self, version: int | None) -> OpenVersion:
        def opened(record: ModelManifestRecord, contract: ModelContract) -> LoadedModel:
            if record["version"] == version:
                raise Unavailable("it is not opened yet")
            return self._open(record, contract)

        return opened

    def _previous(self, named: _Named) -> int | None:
        """The version before the champion of the revision."""
        steps = [self._records.read(m) for m in self._control if m.topic() == lanes.ROLLOUTS]
        of = (named.model, named.revision)
        return next((s["previous"] for s in steps if s and (s["model"], s["revision"]) == of), None)

    def _as_of(self, named: _Named) -> list[Message]:
        """The control topics as they were when the model had this contract and this revision."""
        kept, contract_reached, revision_reached = [], False, False
        for message in self._control:
            record = self._records.read(message)
            if record is None:
                continue
            if message.topic() == lanes.CONTRACTS and record["model"] == named.model:
                if contract_reached:
                    continue
                in_force = record["step"] not in (HOLD, WITHDRAW)
                contract_reached = in_force and record["digest"] == named.contract_digest
            elif message.topic() == lanes.ROLLOUTS:
                if record["model"] != named.model or revision_reached:
                    continue
                revision_reached = record["revision"] == named.revision
            kept.append(message)
        return kept


def is_here(event: Mapping[str, Any]) -> bool:
    """Whether an event was computed by the CPU and the libraries that are here."""
    return bool(event["runtime"] == runtime_versions())


def _portable(event: Mapping[str, Any]) -> dict[str, Any]:
    """What another CPU must come to as well: without the texts of findings, which hold numbers, and without
    explanations, since log-odds can magnify any difference.
    """
    return {name: value for name, value in event.items() if name not in ("runtime", "explanation")} | {
        "guardrails": [(finding["guard"], finding["field"]) for finding in event["guardrails"]]
    }


def _near(logged: Any, again: Any, tolerance: Tolerance) -> Any:
    """``again`` with every number that is near enough to the logged one replaced by that."""
    if isinstance(logged, dict) and isinstance(again, dict):
        return {name: _near(logged.get(name), value, tolerance) for name, value in again.items()}
    if isinstance(logged, float) and isinstance(again, float):
        off = abs(logged - again)
        return logged if off <= tolerance.absolute + tolerance.relative * abs(logged) else again
    return again


def _problem(message: Message, detail: str) -> AccountProblem:
    return AccountProblem("altered", *RecordRef.of(message), detail)
