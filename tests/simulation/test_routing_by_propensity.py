"""A million requests through routing and exploration: what the propensities in their events are good for.

Every request has its own outcome under each version and each action, which only the simulation knows. What is estimated
from the answers alone, each weighted by one over its propensity (Horvitz and Thompson), must come to the truth.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.support.scoring import formula_model

from tailrace.contracts.model_contract import load_contract
from tailrace.models.load import Predictions
from tailrace.models.rollout_fold import Canary
from tailrace.scorer.explore import Exploration
from tailrace.scorer.policy import Policy
from tailrace.scorer.route import route
from tailrace.scorer.versions import Serving, Version

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
Floats = NDArray[np.float64]


def serving(share: float, salt: str) -> Serving:
    versions = tuple(Version(number, formula_model(CONTRACT, number)) for number in (1, 2))
    return Serving(1, versions, canary=Canary(2, share, salt, 1))


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
    ways = route(serving(share, "a rollout's salt"), REQUESTS, lambda: keys)
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
    some = keys[:rows]
    found = []
    for number in range(100):
        ways = route(serving(share, f"salt {number}"), rows, lambda: some)
        (canary,) = (way for way in ways if way.role == "canary")
        found.append(truth[canary.rows].sum() / share / rows)
    spread = math.sqrt((truth**2).sum() * (1 - share) / share) / rows  # exact, for independent choices
    z = (np.array(found) - truth.mean()) / spread
    assert abs(z.mean()) < 4 / math.sqrt(100)
    assert 0.75 < z.std() < 1.3


def test_keys_are_sticky_as_the_share_grows(keys: list[bytes]) -> None:
    chosen = np.zeros(0, dtype=np.int64)
    for share in SHARES:
        ways = {way.role: way for way in route(serving(share, "s"), REQUESTS, lambda: keys)}
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
    for way in route(serving(0.3, "s"), REQUESTS, lambda: keys):
        score = world[f"score-{way.version.number}"][way.rows]
        said: Any = Predictions(np.column_stack([1 - score, score]), score, None, ("false", "true"))
        choices = policy.choose({}, said, len(score))
        explored = exploration.turn(
            choices, said, "t", partitions[way.rows].tolist(), offsets[way.rows].tolist()
        )
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
