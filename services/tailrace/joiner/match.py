"""The matching rules: what becomes of predictions as labels and actions come. Pure; knows no bytes and no log.

Times are milliseconds. A truth (a label or an action) counts from its *effective* time: its own, or the clock of its
partition if that was further. A prediction is *known* from its event time, or the clock of its partition if that
was further. Truths of a request are applied in the order of their effective times, then topics, partitions and
offsets, so that revisions are numbered the same however partitions interleave.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

ACTION, LABEL = 0, 1
CHAMPION, SHADOW = 0, 1

LABELLED, UNLABELLED, ASSUMED = "labelled", "unlabelled", "assumed"

UNMATCHED, MATCHED, AFTER_HORIZON = 0, 1, 2

NOBODY = b"\x00"
"""The champion of a shadow's request where none answered it: Avro's null."""


class LabelRules(NamedTuple):
    """What a contract says about its labels.

    Attributes:
        horizon: how long after a prediction a label is waited for.
        lateness: for how long after the horizon a label is told that it came after it.
        assume: the label that one which never came stands for, None where none.
        known_only_for: actions after which the truth is ever known; empty: after all.
    """

    horizon: int
    lateness: int
    assume: bytes | None = None
    known_only_for: frozenset[str] = frozenset()


class FeedbackValue(NamedTuple):
    """What a label or an action said.

    Attributes:
        value: compares as the data does.
        late: its own time was behind its partition's clock by more than the lateness.
        source: its coordinates as text.
        written: what else an outcome says of it, in Avro.
        time: when by its own account; of what was said again, the last time.
    """

    value: bytes
    late: bool
    source: str
    written: bytes
    time: int = 0


Original = tuple[bytes | None, bytes | None, Any, int]
"""Of a message: key, value, headers, when it was appended."""


@dataclass(slots=True)
class Feedback:
    """A label or an action about one request; ``fate`` is what came of it so far.

    ``original`` is what has to be kept of the message until it has matched: the dead letter of one that never does.
    """

    effective: int
    kind: int
    said: FeedbackValue
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
        closed: no truth counts any more.
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
    """All that is known about one request id of a model: predictions as they came, truths in their order."""

    predictions: list[Prediction] = field(default_factory=list)
    truths: list[Feedback] = field(default_factory=list)


RulesOf = Mapping[str, LabelRules]
"""By contract digest."""


def matches(prediction: Prediction, truth: Feedback, rules: LabelRules) -> bool:
    """A truth counts up to the horizon after the prediction, and waits for a prediction as long."""
    return (
        truth.effective < prediction.time + rules.horizon
        and prediction.known < truth.effective + rules.horizon
    )


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
    rules = rules_of[new.contract]
    for truth in request.truths:
        _tell(truth, new, rules)
    return True


def add_truth(request: Request, truth: Feedback, rules_of: RulesOf) -> None:
    """Takes the next truth in, by their order."""
    request.truths.append(truth)
    for prediction in request.predictions:
        _tell(truth, prediction, rules_of[prediction.contract])


def _tell(truth: Feedback, prediction: Prediction, rules: LabelRules) -> None:
    """Works out a truth's fate."""
    if truth.fate == MATCHED:
        return
    if matches(prediction, truth, rules):
        truth.fate = MATCHED
        truth.original = None
    elif (
        prediction.time + rules.horizon <= truth.effective < prediction.time + rules.horizon + rules.lateness
        and prediction.known < truth.effective + rules.horizon
    ):
        truth.fate = AFTER_HORIZON


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


def fold(prediction: Prediction, truths: Sequence[Feedback], rules: LabelRules) -> list[Revision]:
    """What further truths, in their order, make of a prediction. An identical repeat makes no revision, nor does what
    was true at an earlier time than what counts; an action makes none before there is a label.
    """
    found = []
    for truth in truths:
        if prediction.closed or not matches(prediction, truth, rules):
            continue
        said = truth.said
        if truth.kind == LABEL:
            if prediction.label is not None and said.time < prediction.label.time:
                continue
            if prediction.label is not None and prediction.label.value == said.value:
                prediction.label = prediction.label._replace(time=said.time)
                continue
            before = _before(prediction)
            prediction.label = said
        else:
            if prediction.action is not None and said.time < prediction.action.time:
                continue
            if prediction.action is not None and prediction.action.value == said.value:
                prediction.action = prediction.action._replace(time=said.time)
                continue
            before = _before(prediction)
            prediction.action = said
        if prediction.label is None:
            continue
        found.append(
            _revise(prediction, said.source, max(truth.effective, prediction.known), LABELLED, None, before)
        )
    return found


def close(prediction: Prediction, rules: LabelRules, action: str) -> Revision | None:
    """The horizon is over: what became of a prediction that has no label. ``action`` is what its policy chose."""
    prediction.closed = True
    if prediction.label is not None:
        return None
    taken = action if prediction.action is None else prediction.action.value.decode()
    known = not rules.known_only_for or taken in rules.known_only_for
    assumed = rules.assume if known else None
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
    return Revision(
        prediction,
        cause,
        known_at,
        state,
        prediction.label,
        assumed,
        prediction.action,
        prediction.revision,
        before,
    )


def prune(request: Request, now: int, longest: int, rules_of: RulesOf) -> list[Feedback]:
    """Forgets what nothing can match any more; gives the truths that never matched.

    Args:
        now: what is still to come is known from then on, with the longest lateness to spare.
        longest: the longest horizon of the model's contracts.
    """
    request.predictions = [p for p in request.predictions if p.time + rules_of[p.contract].horizon > now]
    gone = [truth for truth in request.truths if truth.effective + longest <= now]
    request.truths = request.truths[len(gone) :]
    return [truth for truth in gone if truth.fate != MATCHED]


def due(request: Request, longest: int, rules_of: RulesOf) -> int:
    """The time after which `prune` leaves nothing of a request."""
    ends = [p.time + rules_of[p.contract].horizon for p in request.predictions]
    return max(ends + [truth.effective + longest for truth in request.truths])
