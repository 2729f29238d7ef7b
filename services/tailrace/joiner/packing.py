"""Requests as bytes in the store, and back. The format is private to one version of Python and of this file."""

from __future__ import annotations

import marshal
import sys

from tailrace.joiner.match import Feedback, FeedbackValue, Prediction, Request

FORMAT = f"3/{sys.version_info.major}.{sys.version_info.minor}"
"""Stores of another format are wiped."""


def pack(request: Request) -> bytes:
    return marshal.dumps(
        (
            [
                (
                    p.stream,
                    p.version,
                    p.id,
                    p.key,
                    p.time,
                    p.known,
                    p.source,
                    p.contract,
                    p.body,
                    p.duplicate_of,
                    p.champion,
                    p.label and tuple(p.label),
                    p.action and tuple(p.action),
                    p.revision,
                    p.outcome,
                    p.state,
                    p.closed,
                )
                for p in request.predictions
            ],
            [(t.effective, t.kind, tuple(t.said), t.fate, t.original) for t in request.truths],
        )
    )


def unpack(data: bytes) -> Request:
    """
    Raises:
        ValueError, EOFError, TypeError: it is not what `pack` has made.
    """
    predictions, truths = marshal.loads(data)  # noqa: S302 - a file of our own
    found = Request([Prediction(*fields) for fields in predictions])
    for prediction in found.predictions:
        if prediction.label is not None:
            prediction.label = FeedbackValue(*prediction.label)
        if prediction.action is not None:
            prediction.action = FeedbackValue(*prediction.action)
    found.truths = [
        Feedback(effective, kind, FeedbackValue(*said), fate, original)
        for effective, kind, said, fate, original in truths
    ]
    return found
