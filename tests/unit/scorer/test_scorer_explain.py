"""Explanations: against the Shapley value by its definition, and on a request's way."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from tests.support import models
from tests.support.scoring import CONTRACT, REQUEST, Bench, Publisher

from tailrace.contracts.language.load import load_contract
from tailrace.models.columns import Array, Columns, column_of
from tailrace.models.formats.load import LoadedModel, load_model
from tailrace.models.guards.calibration import Calibration
from tailrace.models.reference import Reference
from tailrace.scorer.steps.explain import explain, shapley
from tailrace.testing.formula_model import Formula, formula_model
from tailrace.verify.explained import DRAWS

NUMBERS = load_contract(
    "{model: m, owner: {team: t}, features: {a: {type: number}, b: {type: number}, c: {type: number}, "
    "d: {type: number}}, target: {name: y, type: number}}"
)


class Function:
    """A model of four numbers."""

    def __init__(self, of: Any) -> None:
        self.of = of

    def run(self, columns: Columns, rows: int) -> Array:
        return np.asarray(self.of(*(columns[n] for n in "abcd"))).reshape(rows, 1)


def by_definition(of: Any, row: Array, background: Array) -> Array:
    """Shapley values by all subsets (Shapley 1953), of the function averaged over the background."""
    n = len(row)

    def worth(players: tuple[int, ...]) -> float:
        mixed = background.copy()
        mixed[:, list(players)] = row[list(players)]
        return float(np.mean(of(*mixed.T)))

    contributions = np.zeros(n)
    for feature in range(n):
        others = [other for other in range(n) if other != feature]
        for size in range(n):
            weight = math.factorial(size) * math.factorial(n - size - 1) / math.factorial(n)
            for players in itertools.combinations(others, size):
                contributions[feature] += weight * (worth((*players, feature)) - worth(players))
    return contributions


def columns(matrix: Array) -> dict[str, Array]:
    return {name: matrix[:, at] for at, name in enumerate("abcd")}


EXACT = {
    "linear": lambda a, b, c, d: 3 * a - 2 * b + 0.5 * c + 7,
    "additive": lambda a, b, c, d: np.sin(a) + b**2 - np.abs(c),
    "pairs": lambda a, b, c, d: a * b + c * d - a * d + b,
}


@pytest.mark.parametrize("kind", sorted(EXACT))
def test_what_adds_up_features_or_pairs_is_explained_exactly(kind: str) -> None:
    draw = np.random.default_rng(0)
    background, rows = draw.normal(size=(16, 4)), draw.normal(size=(5, 4))
    model = formula_model(NUMBERS, 1, Function(EXACT[kind]))
    contributions = shapley(model, columns(background), columns(rows), np.arange(5))
    expected = [by_definition(EXACT[kind], row, background) for row in rows]
    # Pairs meet each background row in one order and in its reverse, which is all that matters to them.
    np.testing.assert_allclose(contributions, expected, atol=1e-10)


def test_anything_else_is_explained_within_the_error_of_the_sample() -> None:
    def rough(a: Array, b: Array, c: Array, d: Array) -> Array:
        return np.where(a > 0, b * c * d, np.maximum(b, c)) + d

    draw = np.random.default_rng(1)
    background, rows = draw.normal(size=(400, 4)), draw.normal(size=(4, 4))
    contributions = shapley(
        formula_model(NUMBERS, 1, Function(rough)), columns(background), columns(rows), np.arange(4)
    )
    expected = np.array([by_definition(rough, row, background) for row in rows])
    assert np.abs(contributions - expected).max() < 0.15
    # However it is sampled, the contributions add up.
    whole = rough(*rows.T) - np.mean(rough(*background.T))
    np.testing.assert_allclose(contributions.sum(axis=1), whole, atol=1e-10)


@pytest.mark.parametrize("kind", ["logistic", "forest"])
def test_a_package_brings_what_explanations_are_made_against(kind: str) -> None:
    package = models.package(kind)
    reference = Reference.from_bytes(package.parts["reference"])
    assert reference.background is not None
    model = LoadedModel(package.manifest, load_model(package.manifest, package.parts["model"]), reference)
    background = reference.background_columns(package.manifest.inputs)
    frame, _ = models.rows("binary", 30, seed=9)
    given = models.columns_of_frame(frame.assign(income=frame.income.fillna(30_000.0)))
    contributions = shapley(model, background, given, np.arange(30))

    def odds(of: Columns, rows: int) -> Array:
        score = model.predict(of, rows).score
        assert score is not None
        score = np.clip(score, 1e-9, 1 - 1e-9)
        return np.log(score / (1 - score))

    count = len(background["income"])
    whole = odds(given, 30) - odds(background, count).mean()
    np.testing.assert_allclose(contributions.sum(axis=1), whole, atol=1e-6)
    if kind == "logistic":  # linear in log-odds: each feature by itself, whatever the others are
        for at, name in enumerate(model.input_names):
            for row in range(0, 30, 10):
                one = {n: np.repeat(c[row : row + 1], count) for n, c in given.items()}
                alone = odds(one, count) - odds({**one, name: background[name]}, count)
                assert contributions[row, at] == pytest.approx(
                    alone.mean(), abs=2e-4
                )  # ONNX computes in single precision


def test_rows_are_explained_alike_in_whatever_company() -> None:
    draw = np.random.default_rng(2)
    background, rows = draw.normal(size=(8, 4)), draw.normal(size=(300, 4))
    model = formula_model(NUMBERS, 1, Function(EXACT["pairs"]))
    together = explain(model, columns(background), columns(rows), np.arange(300), 4)
    alone = explain(model, columns(background), columns(rows), np.array([123]), 2)
    assert alone[123] == together[123][:2]
    sizes = [abs(c.contribution) for c in together[123]]
    assert sizes == sorted(sizes, reverse=True)


def explaining(section: str, runner: Any = None) -> Bench:
    publisher = Publisher()
    made = Bench(publisher.logic(), publisher)
    record = publisher.contract(CONTRACT + f"explain: {section}\n")
    plain = formula_model(publisher.contracts["credit"][-1], 1, runner)
    background = {
        "income": (20_000.0, 60_000.0),
        "debt_ratio": (0.0, 1.0),
        "age": (30.0, None),
        "purpose": ("car", "home"),
        "grade": ("a", "b"),
    }
    reference = Reference(
        rows=2, features={}, output_rows=0, score=None, predicted_class=None, background=background
    )
    made.control(
        record,
        publisher.manifest(1, LoadedModel(plain.manifest, plain._runner, reference)),
        publisher.rollout(champion=1),
    )
    return made


def test_actions_that_are_always_explained_are() -> None:
    made = explaining("{always: [refuse], top: 2}")
    refer, refuse = made.events(made.requests(REQUEST, REQUEST | {"debt_ratio": 3.0}))
    assert (refer["action"], refer["explanation"]) == ("refer", None)
    assert refuse["action"] == "refuse"
    # The log-odds are debt_ratio - income / 40,000; on average 0.5 - 1 in the background.
    first, second = refuse["explanation"]
    assert (first["feature"], first["contribution"]) == ("debt_ratio", pytest.approx(2.5))
    assert second["contribution"] == pytest.approx(0.0, abs=1e-9)


def test_a_sampled_share_is_explained_and_always_the_same() -> None:
    requests = [REQUEST | {"request_id": f"r{at}"} for at in range(400)]
    explained = []
    for size in (400, 50):
        made = explaining("{sample: 10%}")
        events = [
            e for at in range(0, 400, size) for e in made.events(made.requests(*requests[at : at + size]))
        ]
        explained.append([e["request_id"] for e in events if e["explanation"] is not None])
    assert explained[0] == explained[1]
    assert 20 <= len(explained[0]) <= 60


class Touchy(Formula):
    """Raises on mixtures with the background."""

    def run(self, columns: Columns, rows: int) -> Array:
        if (columns["debt_ratio"] == 1.0).any():
            raise RuntimeError("not this one")
        return super().run(columns, rows)


def test_an_answer_does_not_fail_with_its_explanation() -> None:
    made = explaining("{sample: 100%}", Touchy(1))
    (event,) = made.events(made.requests(REQUEST))
    assert (event["served_by"], event["explanation"]) == ("model", None)


def test_a_background_is_read_as_it_was_written() -> None:
    assert column_of(["a", None], "category").tolist() == ["a", None]
    reference = Reference.from_bytes(models.package().parts["reference"])
    assert Reference.from_bytes(reference.to_bytes()) == reference
    older = reference.model_copy(update={"background": None})
    assert b"background" not in older.to_bytes()


def test_draws_come_nearer_to_the_definition_as_their_standard_error_says() -> None:
    def rough(a: Array, b: Array, c: Array, d: Array) -> Array:
        return np.where(a > 0, b * c * d, np.maximum(b, c)) + d

    draw = np.random.default_rng(4)
    background, rows = draw.normal(size=(32, 4)), draw.normal(size=(20, 4))
    model = formula_model(NUMBERS, 1, Function(rough))
    draws = np.array(
        [shapley(model, columns(background), columns(rows), np.arange(20), each) for each in range(DRAWS)]
    )
    expected = np.array([by_definition(rough, row, background) for row in rows])
    error = draws.std(axis=0, ddof=1) / math.sqrt(DRAWS)
    distance = np.abs(draws.mean(axis=0) - expected)
    assert (distance < 6 * error + 1e-9).all()
    assert np.mean(distance < 2 * error + 1e-9) > 0.85
    assert np.abs(draws[0] - expected).mean() > 2 * distance.mean()


def test_a_calibrated_linear_model_is_explained_exactly_in_calibrated_log_odds() -> None:
    contract = load_contract(
        "{model: m, owner: {team: t}, features: {a: {type: number}, b: {type: number}, c: {type: number}, "
        "d: {type: number}}, target: {name: y, type: boolean}}"
    )
    made = Calibration(method="sigmoid", slope=0.5, offset=-1.0, rows=100, log_loss_before=1.0, log_loss=0.9)
    model = formula_model(
        contract, 1, Function(lambda a, b, c, d: 1 / (1 + np.exp(b - a - 0.1 * c))), calibration=made
    )
    draw = np.random.default_rng(5)
    background, rows = draw.normal(size=(32, 4)), draw.normal(size=(3, 4))
    contributions = shapley(model, columns(background), columns(rows), np.arange(3))
    weights = 0.5 * np.array([1.0, -1.0, 0.1, 0.0])
    np.testing.assert_allclose(contributions, weights * (rows - background.mean(axis=0)), atol=1e-9)
