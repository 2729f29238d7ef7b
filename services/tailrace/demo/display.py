"""What the demo shows while it runs: live on a terminal, plain lines elsewhere. Everything on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

from tailrace.demo.accuracy import Point

_BLOCKS = "▁▂▃▄▅▆▇█"
_PLAIN_EVERY_S = 5.0
_WAITS_EVERY_S = 10.0


def sparkline(values: Sequence[float], width: int = 60) -> str:
    """A line of block characters, one per value, the highest as a full block."""
    shown = values[-width:]
    top = max(shown, default=0.0)
    if top <= 0:
        return _BLOCKS[0] * len(shown)
    return "".join(_BLOCKS[min(len(_BLOCKS) - 1, int(v / top * len(_BLOCKS)))] for v in shown)


def chart(points: Sequence[Point], low: float = 0.5, high: float = 0.9, height: int = 9) -> list[str]:
    """Accuracy over time, a column per window: ● who answered, ○ the first version in shadow, ◉ both."""

    def row(value: float | None) -> int | None:
        if value is None:
            return None
        return round((min(max(value, low), high) - low) / (high - low) * (height - 1))

    lines = []
    for level in reversed(range(height)):
        marks = []
        for point in points:
            ours, other = row(point.answered.value) == level, row(point.shadow.value) == level
            marks.append("◉" if ours and other else "●" if ours else "○" if other else " ")
        lines.append(f"{low + (high - low) * level / (height - 1):.2f} ┤ " + "  ".join(marks))
    return [*lines, "     └" + "─" * (3 * len(points) + 1)]


class Display:
    """Commands as they are typed, events as they happen, and the stream's figures once a second."""

    def __init__(self) -> None:
        self._live: Any = None
        self._rates: list[float] = []
        self._spoke = 0.0
        self._waited = 0.0

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._live is not None:
            self._live.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def waits(self, text: str) -> None:
        """A line about what is waited for, at most every ten seconds."""
        if time.monotonic() - self._waited >= _WAITS_EVERY_S:
            self._waited = time.monotonic()
            self.say(f"waiting for {text}")

    def command(self, *words: str) -> None:
        self.say(f"$ tailrace {' '.join(words)}")

    def __enter__(self) -> Display:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def tick(self, second: float, figures: dict[str, str], rate: float, points: Sequence[Point]) -> None:
        """Shows the figures; on a plain stream a line every five seconds."""
        self._rates.append(rate)
        if self._live is not None:
            self._live.update(self._panel(second, figures, points))
        elif time.monotonic() - self._spoke >= _PLAIN_EVERY_S:
            self._spoke = time.monotonic()
            self.say(f"[{second:4.0f} s] " + "  ".join(f"{name} {value}" for name, value in figures.items()))

    def _panel(self, second: float, figures: dict[str, str], points: Sequence[Point]) -> Any:
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        for name, value in figures.items():
            table.add_row(Text(name, style="dim"), Text(value, style="bold"))
        table.add_row(Text("answers/s", style="dim"), Text(sparkline(self._rates), style="cyan"))
        body = Table.grid()
        body.add_row(table)
        if points:
            body.add_row(Text("\naccuracy by window: ● who answers, ○ version 1 in shadow", style="dim"))
            body.add_row(Text("\n".join(chart(points)), style="green"))
        return Panel(body, title=f"tailrace demo, {second:.0f} s", title_align="left")
