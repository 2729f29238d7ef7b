"""river's linear models, learned online, one row after the other, and exported as scikit-learn's.

What learns is trusted internal state; what is published is an ordinary pipeline with the same coefficients
(Montiel et al., "River: machine learning for streaming data in Python", JMLR 2021). A number is standardised by the
mean and variance seen so far; where it is missing, it is the mean. For learning it is cut at ten standard
deviations and gradients are clipped, so that no single row can make a weight infinite.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tailrace.errors import TailraceError
from tailrace.templates.scaled_columns import scaled
from tailrace.templates.template import LearningTask, Template

Array = npt.NDArray[Any]

RATE = 0.05
MOST_DEVIATIONS = 10.0
_LARGEST = 1e100
_BIAS = "", ""


class RiverLinear:
    """Logistic regression (softmax for several classes, linear regression for a number) that learns a row at a time.

    Args:
        task: whose columns are read.
        classes: the truth's values, in order; empty for a regression.
    """

    def __init__(self, task: LearningTask, classes: list[Any]) -> None:
        from river import linear_model, optim, preprocessing

        self.classes = classes
        self._numbers = task.numbers
        self._levels = task.categories
        self.scaler: Any = preprocessing.StandardScaler()
        self.target: Any = preprocessing.StandardScaler()
        rate = optim.SGD(RATE)
        self.model: Any
        if len(classes) > 2:
            self.model = linear_model.SoftmaxRegression(optimizer=rate)
        else:
            linear = linear_model.LogisticRegression if classes else linear_model.LinearRegression
            self.model = linear(optimizer=rate, intercept_lr=RATE, clip_gradient=MOST_DEVIATIONS)

    def learn(self, row: dict[str, Any], truth: Any) -> None:
        """Takes one row: numbers (NaN or None where missing) and categories by feature."""
        self.scaler.learn_one({n: float(row[n]) for n in self._numbers if _present(row[n])})
        x = self._encoded(row, MOST_DEVIATIONS)
        if len(self.classes) > 2:
            self.model.learn_one(x, truth)
        elif self.classes:
            self.model.learn_one(x, truth == self.classes[1])
        elif _present(truth):
            self.target.learn_one({"y": float(truth)})
            scaled_truth = self.target.transform_one({"y": float(truth)})["y"]
            self.model.learn_one(x, _cut(scaled_truth, MOST_DEVIATIONS))

    def predict(self, row: dict[str, Any]) -> Any:
        """Probability by class, or the value."""
        x = self._encoded(row, math.inf)
        if len(self.classes) > 2:
            return self.model.predict_proba_one(x)
        if self.classes:
            known = self.model.predict_proba_one(x)
            return {c: known[c == self.classes[1]] for c in self.classes}
        return self.model.predict_one(x) * self._spread + self.target.means["y"]

    def weights(self) -> tuple[Array, Array]:
        """``coef_`` [outputs, columns] and ``intercept_`` of the equivalent scikit-learn model, numbers first, then
        one column per category.

        Raises:
            TailraceError: one of them is not finite.
        """
        columns = self._columns()
        if len(self.classes) > 2:
            by_class = [self.model.weights[c] for c in self.classes]
            coef = np.array([[w.get(c, 0.0) for c in columns] for w in by_class])
            intercept = np.array([w.get(_BIAS, 0.0) for w in by_class])
        else:
            coef = np.array([[self.model.weights.get(c, 0.0) for c in columns]])
            intercept = np.array([float(self.model.intercept)])
        if not self.classes:
            coef, intercept = coef[0] * self._spread, intercept * self._spread + self.target.means["y"]
        if not (np.isfinite(coef).all() and np.isfinite(intercept).all()):
            what = "the online learner's weights are not finite"
            raise TailraceError(f"{what}: the rows hold values beyond all scale")
        return coef, intercept

    def scale(self) -> tuple[Array, Array]:
        """Mean and standard deviation of each number (1 where it does not vary)."""
        mean = np.array([self.scaler.means.get(n, 0.0) for n in self._numbers])
        spread = np.sqrt(np.array([self.scaler.vars.get(n, 0.0) for n in self._numbers]))
        return mean, np.where(spread > 0, spread, 1.0)

    @property
    def _spread(self) -> float:
        return math.sqrt(self.target.vars["y"]) or 1.0

    def _columns(self) -> list[tuple[str, str]]:
        return [(n, "") for n in self._numbers] + [(n, c) for n, cs in self._levels.items() for c in cs]

    def _encoded(self, row: dict[str, Any], bound: float) -> dict[tuple[str, str], float]:
        known = {n: float(row[n]) for n in self._numbers if _present(row[n]) and n in self.scaler.counts}
        x = {(n, ""): _cut(z, bound) for n, z in self.scaler.transform_one(known).items()}
        x |= {(n, c): 1.0 for n in self._levels if (c := row[n]) is not None}
        if len(self.classes) > 2:
            x[_BIAS] = 1.0
        return x


def fit_river_linear(x: Any, y: Array, task: LearningTask) -> Any:
    """A fitted scikit-learn pipeline that says what the online learner says after one pass over the rows.

    Args:
        x: pandas frame of the task's columns, in the order of time.
        y: the truth by row.
    """
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.pipeline import make_pipeline

    classes = [] if task.kind == "regression" else sorted(set(y.tolist()))
    learner = RiverLinear(task, classes)
    for row, truth in zip(x.to_dict("records"), y.tolist(), strict=True):
        learner.learn(row, truth)
    columns = scaled(task).fit(x)
    coef, intercept = learner.weights()
    numbers = columns.named_transformers_.get("numbers")
    if numbers is not None:
        mean, spread = learner.scale()
        imputer, scaler = numbers[0], numbers[1]
        imputer.statistics_ = mean.copy()
        scaler.mean_, scaler.scale_, scaler.var_ = mean, spread, spread**2
    final = LogisticRegression() if classes else LinearRegression()
    final.coef_, final.n_features_in_ = coef, coef.shape[-1]
    final.intercept_ = intercept if classes else float(intercept[0])
    if classes:
        final.classes_, final.n_iter_ = np.array(classes), np.array([1])
    return make_pipeline(columns, final)


class _OnePass(NamedTuple):
    task: LearningTask

    def fit(self, x: Any, y: Array) -> Any:
        return fit_river_linear(x, y, self.task)


RIVER_LINEAR = Template(
    "river-linear",
    "river's linear model, learned online, a row at a time, and published as the scikit-learn pipeline that equals it.",
    lambda task, _options, _seed: _OnePass(task),
    scales=True,
)


def _present(value: Any) -> bool:
    return value is not None and abs(value) < _LARGEST  # neither NaN nor one whose square is infinite


def _cut(value: float, bound: float) -> float:
    return max(-bound, min(bound, value))
