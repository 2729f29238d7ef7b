"""docs/glossary.md explains every word of STYLE.md's table, in alphabetical order, with links that lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GLOSSARY = ROOT / "docs" / "glossary.md"
ENTRY = re.compile(r"- \*\*(?P<word>[^*]+)\*\*: (?P<text>.+?\.) (?P<links>\[.+\]\(.+\))")

LINES = [line for line in GLOSSARY.read_text().splitlines() if line.startswith("- ")]
ENTRIES = [ENTRY.fullmatch(line) for line in LINES]


def test_each_word_has_a_sentence_and_a_link() -> None:
    assert [line for line, entry in zip(LINES, ENTRIES, strict=True) if entry is None] == []


def test_words_are_in_alphabetical_order() -> None:
    words = [entry["word"].casefold() for entry in ENTRIES if entry]
    assert words == sorted(set(words))


def test_the_words_of_the_style_are_explained() -> None:
    table = (ROOT / "STYLE.md").read_text().partition("| word | means | not |")[2].partition("\n\n")[0]
    words = {word.strip() for line in table.splitlines()[2:] for word in line.split("|")[1].split(",")}
    assert words
    assert words - {entry["word"] for entry in ENTRIES if entry} == set()


def _anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_anchors_are_headings() -> None:
    missing = []
    for file, anchor in re.findall(r"\]\(([^)#]+)#([^)]+)\)", GLOSSARY.read_text()):
        headings = re.findall(r"^#+ (.+)$", (GLOSSARY.parent / file).read_text(), re.MULTILINE)
        if anchor not in map(_anchor, headings):
            missing.append(f"{file}#{anchor}")
    assert missing == []
