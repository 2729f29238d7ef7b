"""Draws the rooms as import-linter holds them: ``python -m tools.rooms_picture > docs/rooms.svg``."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

from tailrace.services import SERVICES

ROOT = Path(__file__).resolve().parents[1]
LAYERS = "Rooms stand on one another, and arrows point down"
WIDTH, HEIGHT, GAP, LEFT = 880, 30, 8, 40
_HEAD = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" \
font-family="Helvetica,Arial,sans-serif" font-size="14">
  <title>Rooms, from those that everything stands on, below, to those that nothing imports, above</title>
  <defs>
    <marker id="a" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto">\
<path d="M0 0 10 5 0 10z" fill="#456"/></marker>
    <style>.s{{fill:#fdf3e1;stroke:#c9974a}}.r{{fill:#e8f1fa;stroke:#5b8db8}}text{{fill:#223;text-anchor:middle}}</style>
  </defs>
  <rect width="{width}" height="{height}" fill="#fff"/>
  <path d="M{arrow} {top}V{bottom}" stroke="#456" stroke-width="1.5" marker-end="url(#a)"/>
"""


def layers() -> list[list[str]]:
    """The rooms of each layer, the uppermost first: each may import those below it, and none beside it."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (found,) = (c["layers"] for c in config["tool"]["importlinter"]["contracts"] if c["name"] == LAYERS)
    return [layer.split(" | ") for layer in found]


def picture(rows: Sequence[Sequence[str]]) -> str:
    """An SVG with a row for each layer; services in a colour of their own."""
    height = GAP + len(rows) * (HEIGHT + GAP)
    return _HEAD.format(width=WIDTH, height=height, arrow=LEFT // 2, top=GAP, bottom=height - GAP) + "".join(
        [*_boxes(rows), "</svg>\n"]
    )


def _boxes(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for number, rooms in enumerate(rows):
        top = GAP + number * (HEIGHT + GAP)
        width = (WIDTH - LEFT - GAP * len(rooms)) / len(rooms)
        for at, room in enumerate(rooms):
            left = LEFT + at * (width + GAP)
            kind = "s" if room in SERVICES else "r"
            yield (
                f'  <rect class="{kind}" x="{left:g}" y="{top}" width="{width:g}" height="{HEIGHT}" rx="5"/>'
                f'<text x="{left + width / 2:g}" y="{top + 20}">{room}</text>\n'
            )


if __name__ == "__main__":
    sys.stdout.write(picture(layers()))
