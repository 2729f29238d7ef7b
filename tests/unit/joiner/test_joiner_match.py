"""The matching rules by themselves: the ones that the joiner's README states, and what holds for all that may come."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tailrace.joiner.match import (
    ACTION,
    AFTER_HORIZON,
    BEFORE_REQUEST,
    CHAMPION,
    LABEL,
    MATCHED,
    SHADOW,
    UNMATCHED,
    Feedback,
    FeedbackValue,
    LabelRules,
    Prediction,
    Request,
    Revision,
    add_feedback,
    add_prediction,
    close,
    due,
    find_champion,
    fold,
    matches,
    prune,
)

RULES = LabelRules(horizon=100, lateness=10)
OF = {"c": RULES}
YES, NO = b"\x02\x01", b"\x02\x00"


def prediction(time: int = 0, known: int | None = None, name: bytes = b"p", **fields: object) -> Prediction:
    given_: dict[str, object] = {
        "stream": CHAMPION, "version": 1, "id": name, "key": b"k", "time": time, "known": known or time,
        "source": (0, 0), "contract": "c", "body": b"",
    } | fields  # fmt: skip
    return Prediction(**given_)  # type: ignore[arg-type]


def feedback(
    effective: int, value: bytes = YES, kind: int = LABEL, offset: int = 0, time: int = 0
) -> Feedback:
    topic = "labels" if kind == LABEL else "actions"
    content = FeedbackValue(value, False, f"m.{topic}/0/{offset}", b"", time)
    return Feedback(effective, kind, content, UNMATCHED, (None, b"", None, 0))


def contents(revisions: list[Revision]) -> list[tuple[object, ...]]:
    return [(r.number, r.label and r.label.value, r.action and r.action.value, r.before) for r in revisions]


def test_a_correction_makes_a_revision_and_a_repeat_makes_none() -> None:
    p = prediction()
    made = fold(p, [feedback(1), feedback(2), feedback(3, NO), feedback(4, NO), feedback(5)], RULES)
    assert contents(made) == [
        (1, YES, None, None),
        (2, NO, None, ("labelled", YES, None)),
        (3, YES, None, ("labelled", NO, None)),
    ]


def test_what_was_true_earlier_than_the_last_time_that_it_was_said_again_makes_no_revision() -> None:
    p = prediction()
    earlier = [feedback(1, YES, time=10), feedback(2, YES, time=30), feedback(3, NO, time=20)]
    assert contents(fold(p, earlier, RULES)) == [(1, YES, None, None)]
    assert contents(fold(p, [feedback(4, NO, time=30)], RULES)) == [(2, NO, None, ("labelled", YES, None))]
    acted = prediction()
    actions = [
        feedback(2, b"a", ACTION, time=10),
        feedback(3, b"a", ACTION, time=30),
        feedback(4, b"b", ACTION, time=20),
    ]
    made = fold(acted, [feedback(1), *actions], RULES)
    assert [revision.action and revision.action.value for revision in made] == [None, b"a"]
    (last,) = fold(acted, [feedback(5, b"b", ACTION, time=30)], RULES)
    assert last.action is not None
    assert last.action.value == b"b"


def test_an_action_waits_for_the_label_and_is_in_its_outcome() -> None:
    p = prediction()
    assert fold(p, [feedback(1, b"used", ACTION)], RULES) == []
    made = fold(
        p, [feedback(2), feedback(3, b"overridden", ACTION), feedback(4, b"overridden", ACTION)], RULES
    )
    assert contents(made) == [(1, YES, b"used", None), (2, YES, b"overridden", ("labelled", YES, b"used"))]


def test_the_horizon_is_half_open_on_both_sides() -> None:
    assert fold(prediction(0), [feedback(99)], RULES)
    assert not fold(prediction(0), [feedback(100)], RULES)
    assert fold(prediction(150, known=150), [feedback(51)], RULES)
    assert not fold(prediction(150, known=150), [feedback(50)], RULES)
    assert not fold(prediction(0, known=150), [feedback(50)], RULES), (
        "the prediction came a horizon after the label"
    )


def test_what_dates_from_before_its_request_is_no_truth_of_it() -> None:
    rules = RULES._replace(tolerance=10)
    asked = prediction(50)
    assert fold(asked, [feedback(60, time=40)], rules)
    for kind in (LABEL, ACTION):
        early = feedback(60, kind=kind, time=39)
        assert not matches(prediction(50), early, rules)
        request = Request([prediction(50)])
        add_feedback(request, early, {"c": rules})
        assert early.fate == BEFORE_REQUEST
        assert early.original is not None, "it is to become a dead letter"
    undated = feedback(60, time=0)
    undated.content = undated.content._replace(is_dated=False)
    assert matches(prediction(50), undated, rules), "when it was so, it does not say"


def test_of_several_requests_of_one_id_each_has_the_labels_of_its_time() -> None:
    rules = {"c": RULES._replace(tolerance=10)}
    early = feedback(60, time=30)
    request = Request([], [early])
    add_prediction(request, prediction(50, name=b"later"), rules)
    assert early.fate == BEFORE_REQUEST
    add_prediction(request, prediction(35, known=60, name=b"earlier"), rules)
    assert early.fate == MATCHED


def test_what_is_wrong_with_a_label_is_said_in_whatever_order_the_predictions_came() -> None:
    rules = {"c": RULES._replace(tolerance=10)}
    for times in ((50, -45), (-45, 50)):
        early = feedback(60, time=30)  # before the one request, and after the horizon of the other
        request = Request([], [early])
        for time in times:
            add_prediction(request, prediction(time, name=b"%d" % time), rules)
        assert early.fate == BEFORE_REQUEST


def test_what_is_known_when() -> None:
    (early,) = fold(prediction(50), [feedback(20)], RULES)
    (late,) = fold(prediction(50), [feedback(80)], RULES)
    ended = close(prediction(50), RULES, "")
    assert ended is not None
    assert (early.known_at, late.known_at, ended.known_at) == (50, 80, 150)
    behind = close(prediction(50, known=400), RULES, "")
    assert behind is not None
    assert behind.known_at == 400, "nothing is known of a prediction before it is"


def test_without_a_label_the_horizon_says_so_once() -> None:
    p = prediction()
    made = close(p, RULES, "")
    assert made is not None
    assert (made.state, made.assumed, made.cause) == ("unlabelled", None, "horizon")
    assert fold(p, [feedback(5)], RULES) == []
    labelled = prediction()
    fold(labelled, [feedback(1)], RULES)
    assert close(labelled, RULES, "") is None


def test_what_a_label_that_never_came_means_depends_on_what_was_done() -> None:
    rules = RULES._replace(assume=NO, known_only_for=frozenset({"approve"}))

    def state(chosen: str, taken: bytes | None) -> tuple[str, bytes | None]:
        p = prediction()
        fold(p, [feedback(1, taken, ACTION)] if taken else [], rules)
        made = close(p, rules, chosen)
        assert made is not None
        return made.state, made.assumed

    assert state("approve", None) == ("assumed", NO)
    assert state("refuse", None) == ("unlabelled", None)
    assert state("refuse", b"approve") == ("assumed", NO)
    assert state("approve", b"refuse") == ("unlabelled", None)


def test_the_first_of_several_predictions_counts_until_its_horizon() -> None:
    request = Request()
    for at, name in [(0, b"a"), (50, b"b"), (120, b"c"), (130, b"d")]:
        add_prediction(request, prediction(at, name=name), OF)
    assert [p.duplicate_of for p in request.predictions] == [None, b"a", None, b"c"]
    for version in (1, 2, 1):
        shadow = prediction(130, name=b"s%d" % len(request.predictions), stream=SHADOW, version=version)
        add_prediction(request, shadow, OF)
    assert [p.duplicate_of for p in request.predictions[4:]] == [None, None, b"s4"]


def test_the_same_prediction_twice_is_one() -> None:
    request = Request()
    assert add_prediction(request, prediction(name=b"a"), OF)
    assert not add_prediction(request, prediction(name=b"a"), OF)


def test_a_shadow_s_champion_answered_the_same_request() -> None:
    request = Request()
    for offset in (3, 4):
        add_prediction(request, prediction(name=b"c%d" % offset, source=(0, offset)), OF)
    shadow = prediction(stream=SHADOW, source=(0, 4))
    champion_found = find_champion(request, shadow, OF)
    assert champion_found is not None
    assert champion_found.id == b"c4"
    assert find_champion(request, prediction(stream=SHADOW, source=(1, 4)), OF) is None


def test_a_truth_that_matches_nothing_is_given_up_and_it_is_known_why() -> None:
    request = Request()
    add_prediction(request, prediction(0), OF)
    for at in (99, 105, 110):
        add_feedback(request, feedback(at), OF)
    assert [t.fate for t in request.feedback] == [MATCHED, AFTER_HORIZON, UNMATCHED]
    assert request.feedback[0].original is None, "what has matched needs no dead letter"
    assert prune(request, 198, 100, OF) == []
    assert (request.predictions, [t.effective for t in request.feedback]) == ([], [99, 105, 110])
    assert due(request, 100, OF) == 210
    assert [t.effective for t in prune(request, 205, 100, OF)] == [105]
    assert [t.effective for t in prune(request, 210, 100, OF)] == [110]


times = st.integers(-300, 300)
received = st.lists(
    st.builds(feedback, times, st.sampled_from([YES, NO]), st.just(LABEL), st.integers(0, 9))
    | st.builds(feedback, times, st.sampled_from([b"a", b"b"]), st.just(ACTION), st.integers(0, 9)),
    max_size=8,
).map(lambda several: sorted(several, key=lambda t: (t.effective, t.kind)))


@given(times, st.integers(0, 200), received, st.integers(0, 8))
def test_however_the_truths_are_portioned_the_revisions_are_the_same(
    time: int, delay: int, chosen: list[Feedback], cut: int
) -> None:
    at_once, in_parts = prediction(time, time + delay), prediction(time, time + delay)
    whole = fold(at_once, chosen, RULES)
    parts = fold(in_parts, chosen[:cut], RULES) + fold(in_parts, chosen[cut:], RULES)
    assert contents(whole) == contents(parts)
    assert [r.known_at for r in whole] == [r.known_at for r in parts]
    assert [r.number for r in whole] == list(range(1, len(whole) + 1))
    # Each says something else than the one before it, and names what that said.
    for before, after in pairwise(whole):
        assert (before.label and before.label.value, before.action and before.action.value) == (
            after.before and after.before[1:]
        )
        assert contents([before])[0][1:3] != contents([after])[0][1:3]


@given(st.lists(times, max_size=5), received, st.integers(-400, 800))
def test_nothing_that_is_forgotten_could_still_have_mattered(
    predicted: list[int], chosen: list[Feedback], now: int
) -> None:
    request = Request()
    for number, time in enumerate(predicted):
        add_prediction(request, prediction(time, name=b"%d" % number), OF)
    for one in chosen:
        add_feedback(request, one, OF)
    before = list(request.feedback), list(request.predictions)
    gone = prune(request, now, RULES.horizon, OF)
    assert all(t.fate != MATCHED for t in gone)
    # What comes later is known, and counts, from now on.
    for t in before[0]:
        if t not in request.feedback:
            assert not fold(prediction(now, now), [t], RULES)
    for p in before[1]:
        if p not in request.predictions:
            assert not fold(p, [feedback(now)], RULES)
            assert prediction(now, now).known >= p.time + RULES.horizon
    if request.predictions or request.feedback:
        assert due(request, RULES.horizon, OF) > now


def test_what_answered_a_horizon_apart_from_a_shadow_is_not_its_champion() -> None:
    for champion, shadow, is_there in (
        (prediction(0), prediction(0, known=99, stream=SHADOW), True),
        (prediction(0), prediction(0, known=100, stream=SHADOW), False),
        (prediction(0, known=99), prediction(0, stream=SHADOW), True),
        (prediction(0, known=100), prediction(0, stream=SHADOW), False),
    ):
        request = Request()
        add_prediction(request, champion, OF)
        assert (find_champion(request, shadow, OF) is not None) == is_there
