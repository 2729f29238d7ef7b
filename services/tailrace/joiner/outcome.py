"""Outcome events in wire format, put together from pieces; the prediction's bytes are copied as they are.

The reference is fastavro with the outcome schema: tests hold the two equal, byte for byte.
"""

from __future__ import annotations

from tailrace.avro.encoding import NULL, SOME, long, sized, text
from tailrace.joiner.match import Revision
from tailrace.streaming.ids import outcome_id

_FIRST = long(1) + NULL
_STATES = {state: text(state) for state in ("labelled", "unlabelled", "assumed")}


def encode(header: bytes, revision: Revision) -> bytes:
    """The outcome; from now on it is the prediction's last one.

    Args:
        header: of the wire format, with the id of the outcome schema.
    """
    prediction, label, action = revision.prediction, revision.label, revision.action
    replaces = prediction.outcome
    prediction.outcome = own = outcome_id(prediction.id.decode(), revision.cause).encode()
    duplicate_of, champion = prediction.duplicate_of, prediction.champion
    assert champion is not None, "an outcome before it is known who answered"
    assumed = (revision.assumed or NULL) + NULL + NULL + NULL
    return b"".join(
        (
            header,
            sized(own),
            _FIRST if replaces is None else long(revision.number) + SOME + sized(replaces),
            _STATES[revision.state],
            NULL if duplicate_of is None else SOME + sized(duplicate_of),
            long(revision.known_at),
            b"\x01" if label is not None and label.late else b"\x00",
            assumed if label is None else label.value + label.written,
            NULL + NULL if action is None else SOME + sized(action.value) + action.written,
            NULL if revision.before is None else _before(*revision.before),
            champion,
            prediction.body,
        )
    )


def _before(state: str, label: bytes | None, action: bytes | None) -> bytes:
    return SOME + text(state) + (label or NULL) + (NULL if action is None else SOME + sized(action))
