"""What follows from what in a rollout: every step, and every refusal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.models.rollout_fold import Rollouts, RolloutState
from tailrace.rollout.decide import CommandRefused, admit, obey, refuse

EMPTY = RolloutState("credit")
ONE = admit(EMPTY, 1).state
TWO = admit(ONE, 2).state
PROMOTED = replace(TWO, revision=3, champion=2, previous=1, candidates=())


def command(kind: str, version: int | None = None, follows: int | None = None) -> dict[str, Any]:
    return {"command": kind, "version": version, "follows": follows, "reason": "because"}


def after(state: RolloutState, kind: str, version: int | None = None) -> RolloutState:
    step = obey(state, command(kind, version, state.revision))
    assert step.state.revision == state.revision + 1
    assert step.name == kind
    return step.state


def test_the_first_version_answers_and_later_ones_wait() -> None:
    assert (ONE.champion, ONE.candidates, ONE.revision) == (1, (), 1)
    assert (TWO.champion, TWO.candidates, TWO.revision) == (1, (2,), 2)
    assert admit(EMPTY, 1).name == "first-champion"
    assert admit(ONE, 2).name == "candidate"


def test_after_a_bad_first_version_the_next_good_one_is_the_first_champion() -> None:
    bad = refuse(EMPTY, 1, "unsigned")
    assert (bad.name, bad.state.champion, bad.state.rejected) == ("reject", None, (1,))
    assert admit(bad.state, 2).state.champion == 2


def test_nothing_moves_by_itself_while_frozen() -> None:
    assert admit(replace(EMPTY, frozen=True), 1).state.champion is None


def test_promote_and_back() -> None:
    state = after(TWO, "promote", 2)
    assert (state.champion, state.previous, state.candidates) == (2, 1, ())
    state = after(state, "rollback")
    assert (state.champion, state.previous, state.candidates) == (1, None, (2,))
    state = after(state, "promote", 2)
    assert (state.champion, state.previous, state.candidates) == (2, 1, ())


def test_the_previous_version_can_be_promoted_again() -> None:
    state = after(PROMOTED, "promote", 1)
    assert (state.champion, state.previous) == (1, 2)


def test_shadow_and_out_of_it() -> None:
    state = after(TWO, "shadow", 2)
    assert (state.champion, state.shadow, state.candidates) == (1, (2,), ())
    assert after(state, "promote", 2).shadow == ()
    rejected = after(state, "reject", 2)
    assert (rejected.shadow, rejected.rejected) == ((), (2,))


def test_the_previous_version_may_go_on_in_shadow() -> None:
    state = after(PROMOTED, "shadow", 1)
    assert (state.champion, state.previous, state.shadow) == (2, 1, (1,))
    back = after(state, "rollback")
    assert (back.champion, back.shadow) == (1, ())


def test_a_rejected_previous_version_is_none_to_go_back_to() -> None:
    assert after(PROMOTED, "reject", 1).previous is None


REJECTED = after(TWO, "reject", 2)


@pytest.mark.parametrize(
    ("state", "given", "why"),
    [
        (EMPTY, command("promote", 1), "ever published"),
        (TWO, command("promote", 2, follows=1), "revision 2 is in force"),
        (TWO, command("promote", 3), "no version 3"),
        (TWO, command("promote"), "name a version"),
        (TWO, command("promote", 1), "champion already"),
        (REJECTED, command("promote", 2), "rejected"),
        (TWO, command("rollback"), "no previous version"),
        (PROMOTED, command("rollback", 7), "previous version is 1"),
        (TWO, command("shadow", 1), "is the champion"),
        (TWO, command("shadow", 9), "no version 9"),
        (after(TWO, "shadow", 2), command("shadow", 2), "in shadow already"),
        (REJECTED, command("shadow", 2), "rejected"),
        (TWO, command("reject", 1), "is the champion"),
        (REJECTED, command("reject", 2), "rejected already"),
        (TWO, command("dance", 2), "not one of"),
    ],
)
def test_refusals_say_why(state: RolloutState, given: dict[str, Any], why: str) -> None:
    with pytest.raises(CommandRefused, match=why):
        obey(state, given)


def test_a_command_need_not_say_what_it_follows() -> None:
    assert obey(TWO, command("promote", 2, follows=None)).state.champion == 2


COMMANDS = st.builds(
    command, st.sampled_from(["promote", "rollback", "shadow", "reject"]), st.none() | st.integers(1, 6)
)


@given(st.lists(COMMANDS | st.integers(1, 5) | st.integers(-5, -1), max_size=25))
def test_a_version_is_in_one_place_and_revisions_count(happened: list[Any]) -> None:
    """Numbers are versions that are published, negative ones those that fail their checks."""
    state = EMPTY
    for what in happened:
        before = state
        if isinstance(what, int):
            if abs(what) in state.known:
                continue
            state = (admit(state, what) if what > 0 else refuse(state, -what, "bad")).state
        else:
            try:
                state = obey(state, what).state
            except CommandRefused:
                continue
        assert state.revision == before.revision + 1
        champion = () if state.champion is None else (state.champion,)
        # The previous version alone may be somewhere else as well, in shadow.
        places = [*champion, *state.shadow, *state.candidates, *state.rejected]
        assert len(set(places)) == len(places)
        assert state.previous is None or state.previous not in (*champion, *state.candidates, *state.rejected)
        assert before.champion is None or state.champion is not None


def test_a_version_that_served_once_can_come_back() -> None:
    state = admit(PROMOTED, 3).state
    state = after(after(state, "promote", 3), "shadow", 1)
    assert (state.champion, state.previous, state.shadow) == (3, 2, (1,))
    assert after(state, "promote", 1).champion == 1


def record(revision: int, follows: int | None = None, **state: Any) -> dict[str, Any]:
    return {
        "model": "credit",
        "version": state.get("champion"),
        "revision": revision,
        "follows": revision - 1 if follows is None else follows,
        "champion": None,
        "previous": None,
        "shadow": [],
        "candidates": [],
        "rejected": [],
        "frozen": False,
        "off": False,
        "command_id": None,
        "evidence": {},
    } | state


def test_the_first_of_two_that_follow_the_same_revision_wins() -> None:
    fold = Rollouts()
    assert fold.apply(record(1, champion=1), 0)
    assert fold.apply(record(2, champion=2, command_id="a", evidence={"sequence": "4"}), 3)
    assert not fold.apply(record(2, champion=3, command_id="b"), 4)
    assert not fold.apply(record(4, follows=2, champion=3), 5)
    assert not fold.apply(record(1, champion=9), 6)
    assert fold.state("credit").champion == 2
    assert (fold.position, fold.steps, fold.commands, fold.sequences) == (7, 2, {"a"}, {"credit": 4})
    assert [state.champion for state in fold.states("credit")] == [1, 2]
    assert fold.state("other") == RolloutState("other")


def test_the_revision_at_a_position_is_that_of_what_came_before_it() -> None:
    fold = Rollouts()
    fold.apply(record(1), 2)
    fold.apply(record(2), 5)
    assert [fold.revision_at("credit", at) for at in (0, 2, 3, 5, 6, 99)] == [0, 0, 1, 1, 2, 2]
    assert fold.revision_at("other", 99) == 0
