"""Reads the parts of windows: what is on ``tailrace.window-parts`` is used only where a counter may have written it.

A part that were taken as it comes could end whoever adds parts up, for good, since parts are read again at every
start; or close windows that are not over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from tailrace.contracts.records.control_codec import ControlCodec
from tailrace.contracts.records.record_types import WindowPartRecord
from tailrace.contracts.state.contracts import AppliedContract
from tailrace.errors import BadRecord
from tailrace.streaming.records import Message, RecordRef
from tailrace.streaming.watermark_records import EARLIEST_MS
from tailrace.telemetry import metrics
from tailrace.windows.kinds import Cell, Windows

log = logging.getLogger(__name__)


class PartReader:
    """Reads parts of one kind.

    Args:
        partitions: how many partitions a topic has; raises Unavailable.
    """

    def __init__(self, kind: Windows, codec: ControlCodec, partitions: Callable[[str], int]) -> None:
        self._kind = kind
        self._codec = codec
        self._partitions = partitions
        self._looked_for: set[tuple[str, str]] = set()

    def read(self, message: Message) -> WindowPartRecord | None:
        """The part; None where no counter wrote it, which is counted and in the log.

        Raises:
            Unavailable: the registry or the control topics are away.
        """
        try:
            part: WindowPartRecord = self._codec.decode("WindowPart", message.value())
            self._check(part, message.timestamp()[1])
        except BadRecord as bad:
            metrics.SKIPPED.labels(message.topic(), bad.code).inc()
            where = {"at": str(RecordRef.of(message)), "why": str(bad)}
            log.warning("skipped a part of windows", extra=where)
            return None
        return part

    def _check(self, part: WindowPartRecord, appended: int) -> None:
        lane, cells = part["lane"], [Cell(**cell) for cell in part["cells"]]
        contracts = self._contracts(part["model"], lane, {cell.contract_digest for cell in cells})
        topics = sorted(topic for topic in self._kind.topics() if topic.rpartition(".")[0] == lane)
        streams = {stream for topic in topics if (stream := self._kind.stream_of(topic)) is not None}
        partitions = self._partitions(topics[0])
        _require(part["partitions"] == partitions, "partitions", f"lane {lane} has {partitions} partitions")
        ahead = max(applied.contract.event_time.ahead_ms for applied in contracts.values())
        latest = appended + ahead
        for claim in part["claims"]:
            known = claim["topic"] in topics and claim["stream"] in streams
            if known and (own := self._kind.stream_of(claim["topic"])) is not None:
                known = claim["stream"] == own
            _require(known and 0 <= claim["partition"] < partitions, "claims", "there is no such partition")
            _require(EARLIEST_MS <= claim["time"] <= latest, "claims", "a time that cannot have come yet")
        for cell in cells:
            applied = contracts[cell.contract_digest]
            _require(cell.stream in streams, "cells", f"there is no stream {cell.stream[:100]!r}")
            _require(0 <= cell.age < self._kind.ages(applied), "cells", f"there is no age {cell.age}")
            starts = cell.window_start % self._kind.length_ms(applied) == 0
            _require(starts and EARLIEST_MS <= cell.window_start <= latest, "cells", "no window starts there")
            self._kind.check(cell)

    def _contracts(self, model: str, lane: str, digests: set[str]) -> dict[str, AppliedContract]:
        """The model's contracts on a lane, by digest."""
        new = {(model, digest) for digest in digests or {""}} - self._looked_for
        contracts = self._on(model, lane)
        if new and (not contracts or digests - contracts.keys()):
            self._kind.look_again()
            if len(self._looked_for) < _MOST_LOOKED_FOR:
                self._looked_for |= new
            contracts = self._on(model, lane)
        lacking = digests - contracts.keys()
        if not contracts or lacking:
            reason = f"no contract of {model[:100]!r} on {lane[:100]!r} has the digest {min(lacking, default='')[:12]}"
            raise BadRecord("unknown-contract", reason)
        return contracts

    def _on(self, model: str, lane: str) -> dict[str, AppliedContract]:
        history = self._kind.contracts().history.get(model, ())
        return {applied.digest: applied for applied in history if applied.contract.lane == lane}


_MOST_LOOKED_FOR = 10_000


def _require(holds: bool, field: str, reason: str) -> None:
    if not holds:
        raise BadRecord("out-of-range", reason, field)
