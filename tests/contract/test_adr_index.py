"""docs/adr/README.md lists every decision record with its status, and links in the documents lead to files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "adr"

REFERENCE = r"\[\d{4}\]\([\w-]+\.md\)"
TITLE = re.compile(r"# (?P<number>\d{4}): (?P<title>\S.*)")
STATUS = re.compile(
    rf"\*\*Status\*\*: (?:accepted(?:; [^;\[\]]+ (?:is|are) superseded by {REFERENCE})*|superseded by {REFERENCE})"
    rf"(?:\. Supersedes {REFERENCE}(?:, {REFERENCE})*)?"
)
LINE = re.compile(
    r"\| (?P<number>\d{4}) \| \[(?P<title>.+?)\]\((?P<file>[\w-]+\.md)\) \| [^|]+ \| (?P<status>[^|]+) \|"
)
LINK = re.compile(r"\[[^\]]*\]\(<?(?P<target>[^)\s>]+)>?[^)]*\)")
FENCED = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


class Record(NamedTuple):
    """A decision record: what its first lines say."""

    file: str
    number: str
    title: str
    status: str

    @property
    def superseded_by(self) -> list[str]:
        return re.findall(r"superseded by \[\d{4}\]\(([\w-]+\.md)\)", self.status)

    @property
    def supersedes(self) -> list[str]:
        return re.findall(r"\[\d{4}\]\(([\w-]+\.md)\)", self.status.partition(". Supersedes ")[2])

    @property
    def in_short(self) -> str:
        """The status as the index has it."""
        later = re.findall(rf"superseded by ({REFERENCE})", self.status)
        if not later:
            return "accepted"
        partly = "partly " if self.status.startswith("**Status**: accepted") else ""
        return f"{partly}superseded by {', '.join(later)}"


def read_record(path: Path) -> Record:
    first, blank, status, *_ = [*path.read_text().splitlines(), "", ""]
    title = TITLE.fullmatch(first)
    assert title, f"{path.name} begins with {first!r}: write `# NNNN: Title`"
    assert path.name.startswith(f"{title['number']}-"), f"{path.name} is not about {title['number']}"
    assert not blank, f"{path.name}: leave the second line empty, and write the status on the third"
    assert STATUS.fullmatch(status), (
        f"{path.name} has the status {status!r}: write `**Status**: accepted`, `**Status**: accepted; X is superseded "
        "by [NNNN](file)` or `**Status**: superseded by [NNNN](file)`, and behind it `. Supersedes [NNNN](file)`"
    )
    return Record(path.name, title["number"], title["title"], status)


PATHS = sorted(path for path in FOLDER.glob("*.md") if path.name != "README.md")


@pytest.fixture(scope="module")
def records() -> dict[str, Record]:
    return {path.name: read_record(path) for path in PATHS}


def test_the_index_lists_every_record_once(records: dict[str, Record]) -> None:
    rows = [line for line in (FOLDER / "README.md").read_text().splitlines() if line.startswith("| 0")]
    lines = [LINE.fullmatch(row) for row in rows]
    unread = [row for row, line in zip(rows, lines, strict=True) if line is None]
    assert unread == [], "each line of the index is `| NNNN | [Title](file) | decision | status |`"
    listed = sorted((line["file"], line["number"], line["title"], line["status"]) for line in lines if line)
    assert listed == sorted((r.file, r.number, r.title, r.in_short) for r in records.values())


def test_no_number_is_given_twice(records: dict[str, Record]) -> None:
    numbers = [record.number for record in records.values()]
    assert sorted(set(numbers)) == sorted(numbers)


def test_a_reference_names_the_number_of_its_file() -> None:
    mismatches = [
        f"{path.name}: [{number}]({file})"
        for path in [*PATHS, FOLDER / "README.md"]
        for number, file in re.findall(r"\[(\d{4})\]\(([\w-]+\.md)\)", path.read_text())
        if not file.startswith(f"{number}-")
    ]
    assert mismatches == []


def test_superseded_is_said_by_both(records: dict[str, Record]) -> None:
    said_by_earlier = {(a.file, b) for a in records.values() for b in a.superseded_by}
    said_by_later = {(a, b.file) for b in records.values() for a in b.supersedes}
    assert said_by_earlier == said_by_later
    assert all(a != b for a, b in said_by_earlier)


def test_what_the_code_names_is_there(records: dict[str, Record]) -> None:
    numbers = {record.number for record in records.values()}
    files = [
        p
        for name in ("services", "tests", "benchmarks")
        for p in (ROOT / name).rglob("*")
        if p.suffix in (".py", ".md")
    ]
    missing = [
        f"{path.relative_to(ROOT)}: {number}"
        for path in files
        for number in re.findall(r"docs/adr/(\d{4})", path.read_text())
        if number not in numbers
    ]
    assert missing == []


def links(path: Path) -> Iterator[str]:
    """Targets within the project, without anchors."""
    for link in LINK.finditer(FENCED.sub("", path.read_text())):
        target = link["target"].partition("#")[0]
        if target and not re.match(r"[a-z]+:", target):
            yield target


def test_links_lead_to_files() -> None:
    documents = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "services").rglob("README.md")]
    documents += [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "STYLE.md")]
    broken = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in documents
        for target in links(path)
        if not (path.parent / target).exists()
    ]
    assert broken == []
