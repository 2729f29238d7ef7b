"""What follows from what in a rollout: every step, and every refusal."""

from __future__ import annotations

import pickle
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.scoring import CONTRACT

from tailrace.contracts.language.load import load_contract
from tailrace.models.rollout_state.fold import Rollouts, RolloutState, state_after
from tailrace.rollout import decide
from tailrace.rollout.decide import CommandRefused, RolloutStep, register, reject

DERIVED = (
    *("known", "served", "kept", "waiting", "pruned", "promoted_at", "canary_began", "canary_since"),
    "experiment_began",
)
LISTS = ("shadow", "candidates", "rejected", "retired", "rolled_back")
EMPTY = RolloutState("credit")
EXPERIMENT = "value: CASE WHEN defaulted THEN -1 ELSE 1 END\nexperiment: {share: 50%}\n"
apply_command = partial(decide.apply_command, contract=load_contract(CONTRACT + EXPERIMENT))


def folded(before: RolloutState, step: RolloutStep, by: str | None = None, **evidence: str) -> RolloutState:
    """The state after a step, by the fold of its record."""
    facts = {
        name: getattr(step.state, name)
        for name in ("model", "revision", "champion", "previous", "frozen", "off")
    }
    facts |= {name: list(getattr(step.state, name)) for name in LISTS}
    for name in ("canary", "experiment"):
        now = getattr(step.state, name)
        facts[name] = None if now is None else asdict(now)
    state = state_after(
        before, facts | {"step": step.name, "version": step.version, "command_id": by, "evidence": evidence}
    )
    assert state.revision == before.revision + 1
    # The step knows all but what follows from the history of steps.
    assert (
        replace(
            step.state,
            **{name: getattr(state, name) for name in DERIVED},
        )
        == state
    )
    return state


def admitted(state: RolloutState, *versions: int) -> RolloutState:
    for version in versions:
        state = folded(state, register(state, version))
    return state


ONE = admitted(EMPTY, 1)
TWO = admitted(ONE, 2)


def command(
    kind: str, version: int | None = None, follows: int | None = None, arms: list[int] | None = None
) -> dict[str, Any]:
    return {
        "command": kind,
        "version": version,
        "follows": follows,
        "reason": "because",
        "arms": arms or [],
    }


def after(state: RolloutState, kind: str, version: int | None = None, *arms: int) -> RolloutState:
    step = apply_command(state, command(kind, version, state.revision, [*arms]))
    assert step.name == kind
    return folded(state, step, by="c")


PROMOTED = after(TWO, "promote", 2)


def test_the_first_version_answers_and_later_ones_wait() -> None:
    assert (ONE.champion, ONE.candidates, ONE.revision) == (1, (), 1)
    assert (TWO.champion, TWO.candidates, TWO.revision) == (1, (2,), 2)
    assert register(EMPTY, 1).name == "first-champion"
    assert register(ONE, 2).name == "candidate"


def test_after_a_bad_first_version_the_next_good_one_is_the_first_champion() -> None:
    bad = reject(EMPTY, 1, "unsigned")
    assert (bad.name, bad.state.champion, bad.state.rejected) == ("reject", None, (1,))
    assert register(bad.state, 2).state.champion == 2


def test_nothing_moves_by_itself_while_frozen() -> None:
    assert register(replace(EMPTY, frozen=True), 1).state.champion is None
    assert register(replace(EMPTY, off=True), 1).state.champion == 1


def test_promote_and_back() -> None:
    state = after(TWO, "promote", 2)
    assert (state.champion, state.previous, state.candidates, state.shadow) == (2, 1, (), (1,))
    state = after(state, "rollback")
    assert (state.champion, state.previous, state.rolled_back, state.shadow) == (1, None, (2,), ())
    state = after(state, "promote", 2)
    assert (state.champion, state.previous, state.rolled_back, state.shadow) == (2, 1, (), (1,))


def test_the_previous_version_can_be_promoted_again() -> None:
    state = after(PROMOTED, "promote", 1)
    assert (state.champion, state.previous, state.shadow) == (1, 2, (2,))


def test_shadow_and_out_of_it() -> None:
    state = after(TWO, "shadow", 2)
    assert (state.champion, state.shadow, state.candidates, state.kept) == (1, (2,), (), {2})
    promoted = after(state, "promote", 2)
    assert (promoted.shadow, promoted.kept) == ((1,), frozenset())
    rejected = after(state, "reject", 2)
    assert (rejected.shadow, rejected.rejected) == ((), (2,))


def test_the_previous_version_goes_on_in_shadow_and_may_be_kept_there() -> None:
    assert PROMOTED.shadow == (1,)
    state = after(PROMOTED, "shadow", 1)
    assert (state.champion, state.previous, state.shadow, state.kept) == (2, 1, (1,), {1})
    back = after(state, "rollback")
    assert (back.champion, back.shadow, back.kept) == (1, (), frozenset())


def test_a_rejected_previous_version_is_none_to_go_back_to() -> None:
    state = after(PROMOTED, "reject", 1)
    assert (state.previous, state.shadow, state.rejected) == (None, (), (1,))


def test_a_version_whose_package_was_removed_cannot_come_back() -> None:
    out = after(after(TWO, "promote", 2), "reject", 1)
    state = after(out, "prune", 1)
    assert state.pruned == {1}
    assert replace(state, revision=out.revision, pruned=frozenset()) == out
    for kind in ("promote", "shadow"):
        with pytest.raises(CommandRefused, match="publish the model again as a new version"):
            apply_command(state, command(kind, 1))
    with pytest.raises(CommandRefused, match="removed already"):
        apply_command(state, command("prune", 1))
    for used in (TWO, PROMOTED, after(PROMOTED, "shadow", 1)):
        for version in used.in_use:
            with pytest.raises(CommandRefused, match="in use"):
                apply_command(used, command("prune", version))
    assert PROMOTED.in_use == {1, 2}


def test_frozen_and_off_change_nothing_else() -> None:
    for on, off, field in (("freeze", "unfreeze", "frozen"), ("off", "on", "off")):
        state = after(PROMOTED, on)
        assert replace(state, revision=3, **{field: False}) == PROMOTED
        assert replace(after(state, off), revision=3) == PROMOTED


def test_what_was_judged_of_event_time_is_remembered_of_the_promotion() -> None:
    state = folded(TWO, apply_command(TWO, command("promote", 2)), "c", event_time="1700")
    assert state.promoted_at == 1700
    frozen = folded(state, apply_command(state, command("freeze")), "c", event_time="1800")
    assert frozen.promoted_at == 1700
    assert folded(frozen, apply_command(frozen, command("rollback")), "c").promoted_at is None


REJECTED = after(TWO, "reject", 2)
THREE = admitted(PROMOTED, 3, 4)
COMPARED = after(THREE, "experiment", None, 3, 1)


def test_arms_answer_as_much_as_the_champion_and_are_in_no_list() -> None:
    now = COMPARED.experiment
    assert now is not None
    assert (now.assign, now.share, len(now.salt)) == ("fixed", 0.5, 16)
    assert [(arm.arm, arm.version) for arm in now.arms] == [("a", 2), ("b", 3), ("c", 1)]
    assert sum(arm.probability for arm in now.arms) == 1.0
    assert max(abs(arm.probability - 1 / 3) for arm in now.arms) < 1e-6
    # The version to go back to is kept warm.
    assert (COMPARED.candidates, COMPARED.shadow, COMPARED.previous) == ((4,), (1,), 1)
    assert COMPARED.served == {1, 2, 3}
    assert COMPARED.in_use == {1, 2, 3, 4}


@pytest.mark.parametrize("kind", ["end-experiment", "rollback"])
def test_an_experiment_ends_and_the_champion_goes_on(kind: str) -> None:
    step = apply_command(COMPARED, command(kind))
    assert step.name == "end-experiment"
    state = folded(COMPARED, step, "c")
    assert (state.experiment, state.champion, state.previous) == (None, 2, 1)
    assert (state.shadow, state.retired) == ((1,), (3,))
    again = after(state, "experiment", None, 3).experiment
    assert again is not None
    assert COMPARED.experiment is not None
    assert again.salt != COMPARED.experiment.salt


def test_a_promotion_ends_an_experiment_whoever_is_promoted() -> None:
    state = after(COMPARED, "promote", 3)
    assert (state.champion, state.previous, state.experiment) == (3, 2, None)
    assert (state.shadow, state.retired, state.candidates) == ((1, 2), (), (4,))
    other = after(COMPARED, "promote", 4)
    assert (other.champion, other.retired, other.shadow) == (4, (3,), (1, 2))


def test_an_arm_that_is_rejected_ends_its_experiment_and_another_version_does_not() -> None:
    state = after(COMPARED, "reject", 3)
    assert (state.experiment, state.rejected, state.retired, state.shadow) == (None, (3,), (), (1,))
    assert after(COMPARED, "reject", 4).experiment == COMPARED.experiment
    back = after(COMPARED, "reject", 1)
    assert (back.experiment, back.previous, back.rejected, back.retired) == (None, None, (1,), (3,))


def test_an_experiment_needs_a_contract_that_has_one() -> None:
    for contract in (None, load_contract(CONTRACT)):
        with pytest.raises(CommandRefused, match="has no experiment"):
            decide.apply_command(TWO, command("experiment", arms=[2]), contract)


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
        (EMPTY, command("freeze"), "ever published"),
        (TWO, command("freeze", 2), "whole model"),
        (after(TWO, "freeze"), command("freeze"), "frozen already"),
        (TWO, command("unfreeze"), "not frozen already"),
        (after(TWO, "off"), command("off"), "off already"),
        (TWO, command("on"), "on already"),
        (REJECTED, command("shadow", 2), "rejected"),
        (TWO, command("reject", 1), "is the champion"),
        (REJECTED, command("reject", 2), "rejected already"),
        (TWO, command("dance", 2), "not one of"),
        (TWO, command("promote", 2, arms=[1]), "takes no arms"),
        (TWO, command("end-experiment"), "no experiment"),
        (COMPARED, command("end-experiment", 3), "leave version 3 out"),
        (COMPARED, command("experiment", arms=[4]), "stop. ends it"),
        (COMPARED, command("shadow", 3), "answers already"),
        (TWO, command("experiment"), "from 1 to 25"),
        (TWO, command("experiment", 2, arms=[2]), "and no version"),
        (TWO, command("experiment", arms=[2, 2]), "different"),
        (TWO, command("experiment", arms=[1]), "is the champion"),
        (TWO, command("experiment", arms=[7]), "no version 7"),
        (REJECTED, command("experiment", arms=[2]), "rejected"),
        (folded(EMPTY, reject(EMPTY, 1, "bad")), command("experiment", arms=[1]), "no version answers"),
        (folded(TWO, decide.canary(TWO, 2, 0.1, "")), command("experiment", arms=[2]), "as canary"),
    ],
)
def test_refusals_say_why(state: RolloutState, given: dict[str, Any], why: str) -> None:
    with pytest.raises(CommandRefused, match=why):
        apply_command(state, given)


def test_a_command_need_not_say_what_it_follows() -> None:
    assert apply_command(TWO, command("promote", 2, follows=None)).state.champion == 2


COMMANDS = st.builds(
    command,
    st.sampled_from(["promote", "rollback", "shadow", "reject", "freeze", "unfreeze", "off", "on"]),
    st.none() | st.integers(1, 6),
) | st.builds(
    lambda kind, arms: command(kind, arms=arms),
    st.sampled_from(["experiment", "end-experiment"]),
    st.lists(st.integers(1, 5), max_size=3),
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
            state = folded(state, register(state, what) if what > 0 else reject(state, -what, "bad"))
        else:
            try:
                state = folded(state, apply_command(state, what), "c")
            except CommandRefused:
                continue
        champion = () if state.champion is None else (state.champion,)
        arms = () if state.experiment is None else state.experiment.versions
        assert state.experiment is None or state.experiment.arms[0].version == state.champion
        places = [*champion, *(version for name in LISTS for version in getattr(state, name))]
        places += [arm for arm in arms if arm != state.previous]
        assert len(set(places)) == len(places)
        # The previous version is in shadow as well, to be warm.
        assert state.previous is None or state.previous in state.shadow
        assert state.known == set(places)
        assert state.served <= state.known
        assert before.champion is None or state.champion is not None


def test_a_version_that_served_once_can_come_back() -> None:
    state = after(admitted(PROMOTED, 3), "promote", 3)
    assert (state.champion, state.previous, state.shadow) == (3, 2, (1, 2))
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
        "retired": [],
        "rolled_back": [],
        "step": "promote",
        "frozen": False,
        "off": False,
        "canary": None,
        "experiment": None,
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


def test_what_is_remembered_of_a_step_does_not_grow_with_the_versions_that_ever_were() -> None:
    fold = Rollouts()
    for revision in range(1, 200):
        before = list(range(1, revision))
        fold.apply(
            record(revision, version=revision, champion=revision, shadow=[revision], retired=before), revision
        )
    assert len(fold.state("credit").known) == len(fold.state("credit").served) == 199
    remembered = [len(pickle.dumps(state)) for state in fold.states("credit")]
    assert max(remembered) < min(remembered) + 20
    assert fold.states("credit")[-1].shadow == (199,)


def test_the_revision_at_a_position_is_that_of_what_came_before_it() -> None:
    fold = Rollouts()
    fold.apply(record(1), 2)
    fold.apply(record(2), 5)
    assert [fold.revision_at("credit", at) for at in (0, 2, 3, 5, 6, 99)] == [0, 0, 1, 1, 2, 2]
    assert fold.revision_at("other", 99) == 0
