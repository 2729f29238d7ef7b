"""A processor's ``process``, without a record that stops processes, and with `Unavailable` as a value."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from tailrace.errors import DiskFailed, StateLost, Unavailable
from tailrace.shortages import shortage_of
from tailrace.streaming.owned_partitions import OwnedPartitions
from tailrace.streaming.processor import Output, Processor
from tailrace.streaming.records import Message
from tailrace.streaming.time_source import WaitingClock
from tailrace.telemetry import metrics

log = logging.getLogger(__name__)

Quarantine = Callable[[Message, str], Output]


class GuardedProcessing:
    """Calls ``process``; a record on which processes died is quarantined instead, once that is known to be so.

    Attributes:
        took_s: how long the last call took.
    """

    def __init__(
        self, processor: Processor, owned: OwnedPartitions, quarantine: Quarantine, clock: WaitingClock
    ) -> None:
        self._processor = processor
        self._owned = owned
        self._quarantine = quarantine
        self._clock = clock
        self.took_s = 0.0

    def process(self, messages: Sequence[Message]) -> Output | Unavailable:
        """The output; or what has to be waited for, as where the record just raised and is quarantined next.

        Raises:
            StateLost, DiskFailed: as ``Processor.process`` does.
            Exception: a bug, or a record that has not stopped enough processes yet.
        """
        alone = self._owned.taken_alone(messages)
        started = self._clock.perf_ns()
        try:
            if alone is not None and alone.poison_reason is not None:
                return self._quarantine(messages[0], alone.poison_reason)
            return self._processor.process(messages, self._clock)
        except Unavailable as unavailable:
            return unavailable
        except (StateLost, DiskFailed):
            raise
        except Exception as error:
            # By its number alone: the words of an error may be a record's.
            if isinstance(error, OSError) and (short := shortage_of(error)) is not None:
                return Unavailable(short)
            if alone is None or alone.poison_reason is not None:
                raise
            log.exception("a record is quarantined")
            alone.poison_reason = f"{type(error).__name__}: {error}"
            return Unavailable(alone.poison_reason)
        finally:
            self.took_s = (self._clock.perf_ns() - started) / 1e9
            metrics.PROCESS_SECONDS.observe(self.took_s)
