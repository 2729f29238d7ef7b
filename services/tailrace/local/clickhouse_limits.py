"""What a statement of each user of the local ClickHouse may take, and how many may run at once.

ClickHouse and all services share one machine. Who only looks (ops) gets a part of it that leaves the sink the rest.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from tailrace.access.credentials import SERVICES
from tailrace.local.clickhouse_refused import StatementRefused
from tailrace.local.clickhouse_tokens import Token

# Without these a limit of memory or threads would not be one; nobody changes them.
_FIXED = frozenset(
    {
        *("priority", "low_priority_query_wait_time_ms", "max_untracked_memory", "use_concurrency_control"),
        *("memory_overcommit_ratio_denominator", "memory_overcommit_ratio_denominator_for_user"),
        *("max_memory_usage_for_user", "max_execution_time_leaf"),
    }
)


class QueryLimits(NamedTuple):
    """
    Attributes:
        settings: of the engine, with the largest value that a statement may ask for; 0, no limit, is more than any.
        priority: among statements that run at once, 1 goes first.
        statements: that run at once; others wait.
    """

    settings: Mapping[str, int]
    priority: int
    statements: int

    def defaults(self) -> dict[str, str]:
        return {name: str(most) for name, most in self.settings.items()} | {"priority": str(self.priority)}

    def within(self, settings: Mapping[str, str]) -> dict[str, str]:
        """Settings that a client sends beside its statement, as far as they go: clients send some unasked."""
        return {name: self._at_most(name, value) for name, value in settings.items() if name not in _FIXED}

    def check(self, name: str, value: list[Token]) -> None:
        """A setting in the statement itself.

        Raises:
            StatementRefused: it would take more than the user may.
        """
        if name in _FIXED:
            raise StatementRefused(f"the setting {name} is refused: it is fixed for each user")
        most = self.settings.get(name)
        if most is None:
            return
        text = value[0].text if len(value) == 1 else ""
        if not (text.isdecimal() and 0 < int(text) <= most):
            raise StatementRefused(f"the setting {name} is refused but for a number from 1 to {most}")

    def _at_most(self, name: str, value: str) -> str:
        most = self.settings.get(name)
        if most is None:
            return value
        return value if value.isdecimal() and 0 < int(value) <= most else str(most)


@cache
def limits_of(user: str) -> QueryLimits:
    """Those of ops for everybody but the services."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cores = os.cpu_count() or 1
    if user == SERVICES:
        return QueryLimits(_settings(memory // 2, 300, cores), priority=1, statements=32)
    return QueryLimits(
        _settings(min(memory // 16, 2 << 30), 60, max(1, cores // 2)), priority=10, statements=4
    )


def _settings(memory: int, seconds: int, threads: int) -> dict[str, int]:
    per_statement = dict.fromkeys(
        ("max_threads", "max_final_threads", "max_threads_for_indexes", "max_parsing_threads"), threads
    )
    return {"max_memory_usage": memory, "max_execution_time": seconds, **per_statement}
