"""A million requests through routing, bandits and exploration: what the propensities in their events are good for.

Every request has its own outcome under each version and each action, which only the simulation knows. What is estimated
from the answers alone, each weighted by one over its propensity (Horvitz and Thompson), must come to the truth. Shares
of arms change as the rollout service changes them: by what was earned in windows that are closed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.support.reports import earned

from tailrace.contracts.language.load import load_contract
from tailrace.models.predictions import Predictions
from tailrace.models.rollout_state.fold import CanaryState, ExperimentState, RolloutState
from tailrace.rollout.decide import begin_experiment
from tailrace.rollout.judge import move
from tailrace.rollout.paired_reports import PairedReports
from tailrace.scorer.steps.policy import Exploration, Policy
from tailrace.scorer.steps.route import Route, route
from tailrace.scorer.versions import Serving, ServingVersion
from tailrace.testing.formula_model import formula_model

REQUESTS = 1_000_000
EXPLORED = 0.05
SHARES = (0.01, 0.5)
CONTRACT = load_contract(
    f"""
model: m
owner: {{team: t}}
features: {{x: {{type: number}}}}
target: {{name: bad, type: boolean}}
policy:
  - {{when: "score < 0.3", do: approve}}
  - {{when: "score < 0.5", do: refer}}
  - {{do: refuse}}
explore: {{share: {EXPLORED:%}, from: refuse, do: approve}}
"""
)
BANDITS = {
    assign: load_contract(
        CONTRACT.resolved_json.replace("{", "{" + '"value": "CASE WHEN bad THEN -1 ELSE 1 END", ', 1).replace(
            "{",
            f'{{"experiment": {{"assign": "{assign}", "share": "80%", "epsilon": "15%", "outcomes": 50}}, ',
            1,
        )
    )
    for assign in ("fixed", "epsilon-greedy", "thompson")
}
ARMS = 3
MODELS = tuple(ServingVersion(number, formula_model(CONTRACT, number)) for number in range(1, ARMS + 1))
Floats = NDArray[np.float64]


def serving(share: float, salt: str) -> Serving:
    versions = tuple(ServingVersion(number, formula_model(CONTRACT, number)) for number in (1, 2))
    return Serving(1, versions, canary=CanaryState(2, share, salt, 1))


def near(estimate: Floats, truth: float) -> bool:
    """Whether the mean of these is the truth, within four of its standard errors."""
    return bool(abs(estimate.mean() - truth) < 4 * estimate.std() / math.sqrt(len(estimate)))


@pytest.fixture(scope="module")
def keys() -> list[bytes]:
    return [b"key-%d" % number for number in range(REQUESTS)]


@pytest.fixture(scope="module")
def world() -> dict[str, Floats]:
    """Scores by version, and what each request is worth under each version (as a score) and when it is approved."""
    random = np.random.default_rng(7)
    x = random.normal(size=REQUESTS)
    scores = {
        version: 1 / (1 + np.exp(-(x + noise))) for version, noise in ((1, 0.0), (2, 0.5 * np.sin(7 * x)))
    }
    defaulted = random.random(REQUESTS) < 1 / (1 + np.exp(-x))
    return {
        "score-1": scores[1],
        "score-2": scores[2],
        "worth-1": -((scores[1] - defaulted) ** 2),
        "worth-2": -((scores[2] - defaulted) ** 2),
        "approved": np.where(defaulted, -0.6, 0.04 + 0.1 * (x < 0)),
    }


@pytest.mark.parametrize("share", SHARES)
def test_shares_are_right_and_arms_are_worth_what_they_are(
    world: dict[str, Floats], keys: list[bytes], share: float
) -> None:
    ways = route(serving(share, "a rollout's salt"), keys)
    rows = np.concatenate([way.rows for way in ways])
    assert np.array_equal(np.sort(rows), np.arange(REQUESTS))
    for way in ways:
        spread = math.sqrt(REQUESTS * way.propensity * (1 - way.propensity))
        assert abs(len(way.rows) - REQUESTS * way.propensity) < 4 * spread
        truth = world[f"worth-{way.version.number}"]
        weighted = np.zeros(REQUESTS)
        weighted[way.rows] = truth[way.rows] / way.propensity
        assert near(weighted, truth.mean())


def test_over_many_salts_the_estimates_scatter_as_they_should(
    world: dict[str, Floats], keys: list[bytes]
) -> None:
    rows, share, truth = 5_000, 0.1, world["worth-2"][:5_000]
    own = keys[:rows]
    estimates = []
    for number in range(100):
        ways = route(serving(share, f"salt {number}"), own)
        (canary,) = (way for way in ways if way.role == "canary")
        estimates.append(truth[canary.rows].sum() / share / rows)
    spread = math.sqrt((truth**2).sum() * (1 - share) / share) / rows  # exact, for independent choices
    z = (np.array(estimates) - truth.mean()) / spread
    assert abs(z.mean()) < 4 / math.sqrt(100)
    assert 0.75 < z.std() < 1.3


def test_keys_are_sticky_as_the_share_grows(keys: list[bytes]) -> None:
    chosen = np.zeros(0, dtype=np.int64)
    for share in SHARES:
        ways = {way.role: way for way in route(serving(share, "s"), keys)}
        now = ways["canary"].rows
        assert len(now) > len(chosen)
        assert np.isin(chosen, now, assume_unique=True).all()
        chosen = now


def test_what_letting_refusals_through_is_worth_comes_out_right(
    world: dict[str, Floats], keys: list[bytes]
) -> None:
    """Also jointly: the value of approving everybody, from the answers of a champion and a canary that explore."""
    policy = Policy(CONTRACT)
    exploration = Exploration(CONTRACT, policy.choices)
    partitions, offsets = np.arange(REQUESTS) % 6, np.arange(REQUESTS) // 6
    action, propensity, would_be = (
        np.empty(REQUESTS, dtype=object),
        np.empty(REQUESTS),
        np.zeros(REQUESTS, bool),
    )
    arm = np.empty(REQUESTS)
    for way in route(serving(0.3, "s"), keys):
        score = world[f"score-{way.version.number}"][way.rows]
        predictions: Any = Predictions(np.column_stack([1 - score, score]), score, None, ("false", "true"))
        choices = policy.choose({}, predictions, len(score))
        explored = exploration.turn(choices, predictions, "t", partitions[way.rows], offsets[way.rows])
        actions = np.array([option.action for option in explored.options], dtype=object)
        action[way.rows] = actions[explored.choices]
        propensity[way.rows] = np.array(explored.propensities)[explored.choices]
        would_be[way.rows] = choices == 2
        arm[way.rows] = way.propensity
    assert set(np.unique(propensity)) == {EXPLORED, 1 - EXPLORED, 1.0}
    turned = would_be & (action == "approve")
    spread = math.sqrt(would_be.sum() * EXPLORED * (1 - EXPLORED))
    assert abs(turned.sum() - would_be.sum() * EXPLORED) < 4 * spread
    assert (propensity[turned] == EXPLORED).all()
    assert (propensity[would_be & ~turned] == 1 - EXPLORED).all()
    assert (propensity[~would_be] == 1).all()

    worth = world["approved"]
    weighted = np.where(turned, worth / propensity, 0.0)[would_be]
    assert near(weighted, worth[would_be].mean())
    # Of those let through without the weight there is nothing to be learned about all that is approved:
    approved = action == "approve"
    everybody = np.where(approved, worth / propensity, 0.0)[action != "refer"]
    assert near(everybody, worth[action != "refer"].mean())
    assert abs(worth[approved].mean() - worth[action != "refer"].mean()) > 0.05
    # And of one version alone, by both propensities.
    champion = np.where(approved & (arm == 0.7), worth / (propensity * arm), 0.0)
    under_champion = world["score-1"]
    can_be = (under_champion < 0.3) | (under_champion >= 0.5)
    assert near(champion, np.where(can_be, worth, 0.0).mean())


class Answered(NamedTuple):
    """Some requests of one revision, by position in the stream, and where they went."""

    at: NDArray[np.int64]
    ways: list[Route]
    experiment: ExperimentState


def played(assign: str, keys: Sequence[bytes], worth: Floats, windows: int, salt: str) -> Iterator[Answered]:
    """The stream under an experiment: a window closes, and half of the next one later its shares are in force.

    Args:
        worth: what each request is worth, by request and version.
    """
    contract, reports = BANDITS[assign], PairedReports()
    plan = contract.experiment
    assert plan is not None
    begun = RolloutState(salt, champion=1, known=frozenset({1, 2, 3}))
    state = begin_experiment(begun, [2, 3], assign, plan.share, "").state
    edges = np.linspace(0, len(keys), 2 * windows + 1).astype(np.int64)
    counts: dict[int, list[Floats]] = {version: [] for version in range(1, ARMS + 1)}
    closed: dict[int, list[Floats]] = {}
    for half, (first, last) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)):
        now = state.experiment
        assert now is not None
        at = np.arange(first, last)
        ways = route(Serving(state.revision, MODELS, experiment=now), keys[first:last])
        yield Answered(at, ways, now)
        for way in ways:
            if way.role == "arm":
                counts[way.version.number].append(worth[at[way.rows], way.version.number - 1])
        if half % 2:
            closed, counts = counts, {version: [] for version in counts}
            continue
        for version, rewards in closed.items():
            reports.apply(earned(version, half // 2, np.concatenate(rewards).tolist()), half)
        following = move(state, contract, reports, lambda _version: None)
        state = state if following is None else following.step.state


def weighed(answers: Sequence[Answered], worth: Floats, version: int) -> Floats:
    """By request its worth under the version over the probability that an arm had it, where that arm answered; over the
    share of the keys that took part at all, those that did not are left out.
    """
    totals = np.zeros(len(worth))
    taking_part = np.ones(len(worth), dtype=np.bool_)
    for batch in answers:
        for way in batch.ways:
            rows = batch.at[way.rows]
            if way.role != "arm":
                taking_part[rows] = False
            elif way.version.number == version:
                totals[rows] = worth[rows, version - 1] * batch.experiment.share / way.propensity
    return totals[taking_part]


def changing_worth(requests: int, seed: int) -> Floats:
    """By request and version; what all are worth changes over time far more than versions differ."""
    random = np.random.default_rng(seed)
    time = np.linspace(0, 1, requests)
    trend = 2 * np.cos(5 * time)
    return np.column_stack([trend + effect + random.normal(size=requests) for effect in (0.0, 0.04, 0.08)])


@pytest.mark.parametrize("assign", BANDITS)
def test_arms_are_worth_what_they_are_whatever_the_bandit_does(keys: list[bytes], assign: str) -> None:
    worth = changing_worth(REQUESTS, 11)
    answers = list(played(assign, keys, worth, 20, "a million"))
    revisions = {batch.experiment.arms for batch in answers}
    assert len(revisions) == 1 if assign == "fixed" else len(revisions) > 2
    share = 0.8
    for batch in answers:
        rows = np.concatenate([way.rows for way in batch.ways])
        assert np.array_equal(np.sort(rows), np.arange(len(batch.at)))
        assert sum(way.propensity for way in batch.ways) == pytest.approx(1.0)
        for way in batch.ways:
            chance = way.propensity
            assert abs(len(way.rows) - len(batch.at) * chance) < 5 * math.sqrt(
                len(batch.at) * chance * (1 - chance)
            )
            if way.role == "arm" and assign != "fixed":
                assert chance >= share * 0.15 / ARMS - 1e-5
    for version in range(1, ARMS + 1):
        assert near(weighed(answers, worth, version), worth[:, version - 1].mean())
    last = {arm.version: arm.probability for arm in answers[-1].experiment.arms}
    if assign != "fixed":
        assert last[3] > 0.85
        # Unweighed, an arm is judged by when it was asked.
        plain = [
            np.concatenate([worth[a.at[w.rows], 0] for a in answers for w in a.ways if w.arm == "a"]).mean(),
            worth[:, 0].mean(),
        ]
        assert abs(plain[0] - plain[1]) > 0.05


def test_over_many_experiments_estimates_scatter_as_they_should_and_intervals_hold_the_truth(
    keys: list[bytes],
) -> None:
    requests, estimates, plain = 3_000, [], []
    for number in range(150):
        worth = changing_worth(requests, number)
        answers = list(played("thompson", keys[:requests], worth, 6, f"experiment {number}"))
        for version in range(1, ARMS + 1):
            each = weighed(answers, worth, version)
            error = each.std(ddof=1) / math.sqrt(len(each))
            estimates.append((each.mean() - worth[:, version - 1].mean()) / error)
        mine = [worth[a.at[w.rows], 2] for a in answers for w in a.ways if w.arm == "c"]
        plain.append(np.concatenate(mine).mean() - worth[:, 2].mean())
    z = np.array(estimates)
    assert abs(z.mean()) < 4 / math.sqrt(len(z) / ARMS)
    assert 0.8 < z.std() < 1.2
    covered = (abs(z) < 1.96).mean()
    assert 0.92 <= covered <= 0.98
    assert abs(np.mean(plain)) > 4 * np.std(plain) / math.sqrt(len(plain)), (
        "the bandit would not need the weights"
    )


def test_a_key_keeps_its_arm_for_as_long_as_shares_do(keys: list[bytes]) -> None:
    own = keys[:20_000]
    stream = own * 6
    worth = changing_worth(len(stream), 3)
    for assign, stays in (("fixed", True), ("thompson", False)):
        of_key: dict[tuple[Any, int], set[str]] = {}
        for each in played(assign, stream, worth, 6, "sticky"):
            for way in each.ways:
                for at in each.at[way.rows].tolist():
                    of_key.setdefault((each.experiment, at % len(own)), set()).add(way.arm or "")
        assert all(len(arms) == 1 for arms in of_key.values())
        over_all: dict[int, set[str]] = {}
        for (_, key), arms in of_key.items():
            over_all.setdefault(key, set()).update(arms)
        assert (max(map(len, over_all.values())) == 1) is stays
        # Whoever takes no part never does.
        assert all(arms == {""} for arms in over_all.values() if "" in arms)


def test_under_a_bandit_and_exploration_both_propensities_together_give_the_truth(
    world: dict[str, Floats], keys: list[bytes]
) -> None:
    """The value of approving all that an arm's scores would refuse or approve."""
    policy = Policy(CONTRACT)
    exploration = Exploration(CONTRACT, policy.choices)
    scores = np.column_stack([world["score-1"], world["score-2"], 1 - world["score-1"]])
    approved, total = world["approved"], dict.fromkeys(range(1, ARMS + 1), 0.0)
    weights = {version: np.zeros(REQUESTS) for version in total}
    for batch in played("thompson", keys, np.where(scores < 0.3, approved[:, None], 0.0), 10, "both"):
        for way in batch.ways:
            if way.role != "arm":
                continue
            rows = batch.at[way.rows]
            score = scores[rows, way.version.number - 1]
            predictions: Any = Predictions(
                np.column_stack([1 - score, score]), score, None, ("false", "true")
            )
            choices = policy.choose({}, predictions, len(score))
            explored = exploration.turn(choices, predictions, "t", rows % 6, rows // 6)
            action = np.array([option.action for option in explored.options], dtype=object)[explored.choices]
            chance = way.propensity * np.array(explored.propensities)[explored.choices]
            # Approved outright, or let through: of the latter each stands for all that could have been.
            let_through = score >= 0.5
            weights[way.version.number][rows] = np.where(action == "approve", approved[rows] / chance, 0.0)
            assert set(np.unique(chance[let_through] / way.propensity).round(9)) <= {EXPLORED, 1 - EXPLORED}
    for version in total:
        score = scores[:, version - 1]
        can_be = (score < 0.3) | (score >= 0.5)
        assert near(weights[version], np.where(can_be, approved, 0.0).mean())
