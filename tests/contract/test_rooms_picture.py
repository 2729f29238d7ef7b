"""docs/rooms.svg shows the rooms that import-linter holds, and all that there are."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from tools.rooms_picture import layers, picture

ROOT = Path(__file__).parents[2]


def test_the_picture_is_that_of_the_layers() -> None:
    assert (ROOT / "docs" / "rooms.svg").read_text() == picture(layers()), "run `make pages`"


def test_each_room_has_its_box() -> None:
    drawn = {
        text.text
        for text in ElementTree.fromstring(picture(layers())).iter("{http://www.w3.org/2000/svg}text")
    }
    folders = {
        path.name for path in (ROOT / "services" / "tailrace").iterdir() if (path / "__init__.py").is_file()
    }
    assert folders <= drawn


def test_what_stands_on_something_is_above_it() -> None:
    tree = ElementTree.fromstring(picture([["scorer", "drift"], ["models"]]))
    upper, beside, lower = (box for box in tree.iter("{http://www.w3.org/2000/svg}rect") if box.get("class"))
    assert upper.get("y") == beside.get("y")
    assert int(str(upper.get("y"))) < int(str(lower.get("y")))
    assert [box.get("class") for box in (upper, lower)] == ["s", "r"]
