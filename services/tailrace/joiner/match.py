"""The matching rules: what becomes of predictions as labels and actions come. Pure; knows no bytes and no log.

Times are milliseconds. Feedback (a label or an action) counts from its *effective* time: its own, or the stream time
of its partition if that was further. A prediction is *known* from its event time, or the stream time of its partition
if that was further. Feedback about a request is applied in the order of effective times, then topics, partitions and
offsets, so that revisions are numbered the same however partitions interleave.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

ACTION, LABEL = 0, 1
CHAMPION, SHADOW = 0, 1

LABELLED, UNLABELLED, ASSUMED = "labelled", "unlabelled", "assumed"

UNMATCHED, MATCHED, AFTER_HORIZON, BEFORE_REQUEST = 0, 1, 2, 3

NOBODY = b"\x00"
"""The champion of a shadow's request where none answered it: Avro's null."""


class LabelRules(NamedTuple):
    """What a contract says about its labels.

    Attributes:
        horizon: how long after a prediction a label is waited for.
        lateness: for how long after the horizon a label's dead letter says that it came after it.
        assume: the label that one which never came stands for, None where none.
        known_only_for: actions after which a label ever comes; empty: after all.
        tolerance: how far before its request's event time a label's may be.
    """

    horizon: int
    lateness: int
    assume: bytes | None = None
    known_only_for: frozenset[str] = frozenset()
    tolerance: int = 60_000


class FeedbackValue(NamedTuple):
    """What a label or an action says.

    Attributes:
        value: compares as the data does.
        late: its own time was behind its partition's stream time by more than the lateness.
        source: its record reference as text.
        written: what else an outcome says of it, in Avro.
        time: when by its own account; of what was sent again, the last time.
        is_dated: it has an event time of its own; else ``time`` is when it was appended.
    """

    value: bytes
    late: bool
    source: str
    written: bytes
    time: int = 0
    is_dated: bool = True


Original = tuple[bytes | None, bytes | None, Any, int]
"""Of a message: key, value, headers, when it was appended."""


@dataclass(slots=True)
class Feedback:
    """A label or an action about one request; ``fate`` is what came of it so far.

    ``original`` is what has to be kept of the message until it has matched: the dead letter of one that never does.
    """

    effective: int
    kind: int
    content: FeedbackValue
    fate: int = UNMATCHED
    original: Original | None = None


@dataclass(slots=True)
class Prediction:
    """A prediction and what is known about its request.

    Attributes:
        stream: CHAMPION or SHADOW, the topic that it is in.
        id, key: as in the prediction, UTF-8.
        source: partition and offset of its request.
        contract: digest.
        body: the prediction in Avro.
        duplicate_of: id of the prediction that counts.
        champion: in shadow, the champion's answer in Avro; None while it is not known whether there is one.
        revision: number of its last outcome, 0 before the first.
        outcome: id of its last outcome.
        closed: no feedback counts any more.
    """

    stream: int
    version: int
    id: bytes
    key: bytes
    time: int
    known: int
    source: tuple[int, int]
    contract: str
    body: bytes
    duplicate_of: bytes | None = None
    champion: bytes | None = None
    label: FeedbackValue | None = None
    action: FeedbackValue | None = None
    revision: int = 0
    outcome: bytes | None = None
    state: str | None = None
    closed: bool = False


class Revision(NamedTuple):
    """An outcome to be written: the state of ``prediction`` as ``cause`` has made it.

    ``before`` is the state, label's value and action's value of the outcome that it replaces.
    """

    prediction: Prediction
    cause: str
    known_at: int
    state: str
    label: FeedbackValue | None
    assumed: bytes | None
    action: FeedbackValue | None
    number: int
    before: tuple[str, bytes | None, bytes | None] | None


@dataclass(slots=True)
class Request:
    """All that is known about one request id of a model: predictions as they came, feedback in its order."""

    predictions: list[Prediction] = field(default_factory=list)
    feedback: list[Feedback] = field(default_factory=list)


RulesOf = Mapping[str, LabelRules]
"""By contract digest."""


def matches(prediction: Prediction, feedback: Feedback, rules: LabelRules) -> bool:
    """Feedback counts up to the horizon after the prediction, and waits for a prediction as long. What was so before
    the request, it does not say of it.
    """
    is_in_time = feedback.effective < prediction.time + rules.horizon
    is_awaited = prediction.known < feedback.effective + rules.horizon
    return is_in_time and is_awaited and not is_before(feedback.content, prediction, rules)


def is_before(content: FeedbackValue, prediction: Prediction, rules: LabelRules) -> bool:
    """Whether feedback dates from before the request, by more than clocks differ."""
    return content.is_dated and content.time < prediction.time - rules.tolerance


def add_prediction(request: Request, new: Prediction, rules_of: RulesOf) -> bool:
    """Takes a prediction in; False where it is there already. Of several of one role, the first counts until its
    horizon.
    """
    for other in request.predictions:
        if other.stream != new.stream or (new.stream == SHADOW and other.version != new.version):
            continue
        if new.known >= other.time + rules_of[other.contract].horizon:
            continue
        if other.id == new.id:
            return False
        if other.duplicate_of is None and new.duplicate_of is None:
            new.duplicate_of = other.id
    if new.stream == CHAMPION:
        new.champion = NOBODY
    request.predictions.append(new)
    for feedback in request.feedback:
        _decide_fate(feedback, new, rules_of[new.contract])
    return True


def add_feedback(request: Request, feedback: Feedback, rules_of: RulesOf) -> None:
    """Takes the next feedback in, by its order."""
    request.feedback.append(feedback)
    for prediction in request.predictions:
        _decide_fate(feedback, prediction, rules_of[prediction.contract])


def _decide_fate(feedback: Feedback, prediction: Prediction, rules: LabelRules) -> None:
    if feedback.fate == MATCHED:
        return
    end, latest = prediction.time + rules.horizon, feedback.effective + rules.horizon
    if matches(prediction, feedback, rules):
        feedback.fate = MATCHED
        feedback.original = None
    elif feedback.effective < end + rules.lateness and prediction.known < latest:
        # Of predictions that came in whatever order: what is wrong with the label goes before what it missed.
        is_early = is_before(feedback.content, prediction, rules)
        feedback.fate = max(feedback.fate, BEFORE_REQUEST if is_early else AFTER_HORIZON)


def is_champion_of(champion: Prediction, shadow: Prediction, rules_of: RulesOf) -> bool:
    """Whether one answered the request that the other scored in shadow."""
    return (
        champion.stream == CHAMPION
        and champion.source == shadow.source
        and champion.known < shadow.time + rules_of[shadow.contract].horizon
        and shadow.known < champion.time + rules_of[champion.contract].horizon
    )


def find_champion(request: Request, shadow: Prediction, rules_of: RulesOf) -> Prediction | None:
    return next((p for p in request.predictions if is_champion_of(p, shadow, rules_of)), None)


def fold(prediction: Prediction, received: Sequence[Feedback], rules: LabelRules) -> list[Revision]:
    """What further feedback, in its order, makes of a prediction. An identical repeat makes no revision, nor does what
    was true at an earlier time than what counts; an action makes none before there is a label.
    """
    revisions = []
    for feedback in received:
        if prediction.closed or not matches(prediction, feedback, rules):
            continue
        content, field_name = feedback.content, "label" if feedback.kind == LABEL else "action"
        known: FeedbackValue | None = getattr(prediction, field_name)
        if known is not None and content.time < known.time:
            continue
        if known is not None and known.value == content.value:
            setattr(prediction, field_name, known._replace(time=content.time))
            continue
        before = _before(prediction)
        setattr(prediction, field_name, content)
        if prediction.label is not None:
            known_at = max(feedback.effective, prediction.known)
            revisions.append(_revise(prediction, content.source, known_at, LABELLED, None, before))
    return revisions


def close(prediction: Prediction, rules: LabelRules, action: str) -> Revision | None:
    """The horizon is over: what became of a prediction that has no label. ``action`` is what its policy chose."""
    prediction.closed = True
    if prediction.label is not None:
        return None
    taken = action if prediction.action is None else prediction.action.value.decode()
    assumed = rules.assume if not rules.known_only_for or taken in rules.known_only_for else None
    state = UNLABELLED if assumed is None else ASSUMED
    at = max(prediction.time + rules.horizon, prediction.known)
    return _revise(prediction, "horizon", at, state, assumed, None)


def _before(prediction: Prediction) -> tuple[str, bytes | None, bytes | None] | None:
    if prediction.state is None:
        return None
    label, action = prediction.label, prediction.action
    return prediction.state, label and label.value, action and action.value


def _revise(
    prediction: Prediction,
    cause: str,
    known_at: int,
    state: str,
    assumed: bytes | None,
    before: tuple[str, bytes | None, bytes | None] | None,
) -> Revision:
    prediction.revision += 1
    prediction.state = state
    label, action, number = prediction.label, prediction.action, prediction.revision
    return Revision(prediction, cause, known_at, state, label, assumed, action, number, before)


def prune(request: Request, now: int, longest: int, rules_of: RulesOf) -> list[Feedback]:
    """Forgets what nothing can match any more; gives the feedback that never matched.

    Args:
        now: what is still to come is known from then on, with the longest lateness to spare.
        longest: the longest horizon of the model's contracts.
    """
    request.predictions = [p for p in request.predictions if p.time + rules_of[p.contract].horizon > now]
    gone = [feedback for feedback in request.feedback if feedback.effective + longest <= now]
    request.feedback = request.feedback[len(gone) :]
    return [feedback for feedback in gone if feedback.fate != MATCHED]


def due(request: Request, longest: int, rules_of: RulesOf) -> int:
    """The time after which `prune` leaves nothing of a request."""
    ends = [p.time + rules_of[p.contract].horizon for p in request.predictions]
    return max(ends + [feedback.effective + longest for feedback in request.feedback])
