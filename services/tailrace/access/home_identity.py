"""What makes a home this home: the format of what it keeps, and an id that no other home has.

``<home>/home.json`` is written once, when the home is made. What is signed is signed for the home's id, so that it
counts for nothing elsewhere. Containers that share one home share its id.
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path

from tailrace.access.private_files import write_private_once
from tailrace.errors import TailraceError

FORMAT = 3
"""Raised whenever a home made before could not be gone on with: 3 since ids are texts, and sets and intervals data."""


def home_id(home: Path) -> str:
    """The home's id, made at the first call in a new home.

    Raises:
        TailraceError: the home was made by another version of Tailrace, or cannot be read or written.
    """
    path = home / "home.json"
    try:
        try:
            return _checked(home, json.loads(path.read_text()))
        except FileNotFoundError:
            if (home / "data").exists() and any((home / "data").rglob("meta.properties")):
                raise _other_format(home, 1) from None
        write_private_once(path, json.dumps({"format": FORMAT, "id": uuid.uuid4().hex}) + "\n")
        return _checked(home, json.loads(path.read_text()))
    except (OSError, ValueError, KeyError) as error:
        raise TailraceError(
            f"{path} cannot be used ({error}): correct its rights, or choose another home"
        ) from error


def _checked(home: Path, content: dict[str, object]) -> str:
    if content["format"] != FORMAT:
        raise _other_format(home, content["format"])
    return str(content["id"])


def _other_format(home: Path, other: object) -> TailraceError:
    return TailraceError(
        f"the home {home} has format {other}, this Tailrace reads and writes format {FORMAT}: go on with the "
        "Tailrace that made it, or begin anew with `tailrace down --purge` (which removes its data and keys) "
        "or `--home OTHER`"
    )
