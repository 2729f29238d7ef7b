"""The table of docs/reliability.md: a row for each thing that hurts, written by the run that hurt."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.support.account import Account, nearest_rank

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
_BEGIN, _END = "<!-- results -->\n", "<!-- /results -->"
_COLUMNS = (
    "what", "date", "seed", "times", "requests", "answers", "lost", "twice", "torn", "mixed",
    "other", "given up", "recovery p50", "p99 (s)", "longest wait (s)", "load",
)  # fmt: skip


def row(what: str, seed: int, times: int, account: Account, recoveries: Sequence[float]) -> list[str]:
    """What a run found, by column. ``load`` is the machine's over the last five minutes, by core."""
    wrong = account.wrong
    named = ("lost", "twice", "torn", "mixed")
    p50, p99 = (f"{nearest_rank(recoveries, share):.1f}" if recoveries else "" for share in (0.5, 0.99))
    return [
        what,
        f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
        str(seed),
        str(times),
        str(len(account.requests)),
        str(account.answers),
        *(str(wrong[kind]) for kind in named),
        str(wrong.total() - sum(wrong[kind] for kind in named)),
        str(account.aborted),
        p50,
        p99,
        f"{account.waits_s()[-1]:.1f}",
        f"{os.getloadavg()[1] / (os.cpu_count() or 1):.1f}",
    ]


def write(entry: Sequence[str], page: Path = PAGE) -> None:
    """Puts a row into the page's table, in the place of the one about the same thing."""
    before, rest = page.read_text().split(_BEGIN)
    table, behind = rest.split(_END)
    rows = {cells[0]: cells for line in table.splitlines()[2:] if (cells := _cells(line))}
    rows[entry[0]] = list(entry)
    lines = [_line(_COLUMNS), _line(["---"] * len(_COLUMNS)), *(_line(rows[name]) for name in sorted(rows))]
    page.write_text(before + _BEGIN + "\n".join(lines) + "\n" + _END + behind)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
