"""The one form in bytes of what is signed."""

from __future__ import annotations

import json
from typing import Any


def canonical_json(value: Any) -> bytes:
    """The one form in bytes of a JSON value: sorted keys, no spaces, UTF-8, shortest floats, all finite."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def framed(domain: str, *parts: bytes | None) -> bytes:
    """Parts one behind the other, each with its length before it, so that no other parts give the same bytes.

    ``domain`` says what is signed: a signature over one kind of thing is none over another.
    """
    frames = [b"\xff\xff\xff\xff" if part is None else len(part).to_bytes(4) + part for part in parts]
    return domain.encode() + b"\0" + b"".join(frames)
