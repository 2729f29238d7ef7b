"""Requests as bytes in the store, and back. The format is private to one version of Python and of this file."""

from __future__ import annotations

import marshal
import sys
from dataclasses import fields
from operator import attrgetter

from tailrace.joiner.match import Feedback, FeedbackValue, Prediction, Request

FORMAT = f"4/{sys.version_info.major}.{sys.version_info.minor}"
"""Stores of another format are wiped."""

_NAMES = [field.name for field in fields(Prediction)]
_LABEL = _NAMES.index("label")
_BEFORE, _BEHIND = attrgetter(*_NAMES[:_LABEL]), attrgetter(*_NAMES[_LABEL + 2 :])


def pack(request: Request) -> bytes:
    # marshal knows tuples, and no NamedTuple.
    predictions = [
        (*_BEFORE(p), p.label and tuple(p.label), p.action and tuple(p.action), *_BEHIND(p))
        for p in request.predictions
    ]
    received = [(f.effective, f.kind, tuple(f.content), f.fate, f.original) for f in request.feedback]
    return marshal.dumps((predictions, received))


def unpack(data: bytes) -> Request:
    """
    Raises:
        ValueError, EOFError, TypeError: it is not what `pack` has made.
    """
    predictions, received = marshal.loads(data)  # noqa: S302 - a file of our own
    request = Request([Prediction(*values) for values in predictions])
    for prediction in request.predictions:
        if prediction.label is not None:
            prediction.label = FeedbackValue(*prediction.label)
        if prediction.action is not None:
            prediction.action = FeedbackValue(*prediction.action)
    request.feedback = [
        Feedback(effective, kind, FeedbackValue(*content), fate, original)
        for effective, kind, content, fate, original in received
    ]
    return request
