"""Predictions and their feedback as outcomes: the matching rules applied, and what they give written."""

from __future__ import annotations

from collections.abc import Sequence

from tailrace.joiner import match, outcome
from tailrace.joiner.answered import answered, policy_action
from tailrace.joiner.lane_contracts import LaneContracts
from tailrace.joiner.match import NOBODY, Feedback, Prediction, Request, Revision
from tailrace.joiner.partition_state import PartitionState
from tailrace.streaming.bounds import Budget
from tailrace.streaming.records import Record


class OutcomeWriter:
    """Adds the outcomes of one step to ``records``; keeps in ``state`` which shadow predictions wait for the champion's
    answer.
    """

    def __init__(
        self, lane: LaneContracts, number: int, state: PartitionState, budget: Budget, records: list[Record]
    ) -> None:
        self._lane = lane
        self._number = number
        self._state = state
        self._progress = state.progress
        self._budget = budget
        self._records = records

    def revise(
        self, key: bytes, request: Request, prediction: Prediction, received: Sequence[Feedback]
    ) -> None:
        """Writes what further feedback, and the end of its horizon, makes of a prediction; of a shadow's, once it is
        known who answered.
        """
        rules = self._lane.rules[prediction.contract]
        is_over = self.is_over(key, prediction)
        if prediction.champion is None:
            if not is_over and not any(match.matches(prediction, each, rules) for each in request.feedback):
                return
            if not self.find_champion(request, prediction):
                until = prediction.time + rules.horizon
                self._state.blocked[key, prediction.id] = (prediction.known, *prediction.source, until)
                return
            self._state.blocked.pop((key, prediction.id), None)
            received = request.feedback
        for revision in match.fold(prediction, received, rules):
            self._write(revision)
        if is_over and not prediction.closed:
            self._close(prediction)

    def is_over(self, key: bytes, prediction: Prediction) -> bool:
        """Whether the horizon of a prediction is."""
        return self._progress.is_over(prediction.time + self._lane.rules[prediction.contract].horizon, key)

    def find_champion(self, request: Request, shadow: Prediction) -> bool:
        """Whether it is known by now who answered the request that was scored in shadow."""
        rules = self._lane.rules
        if not self._progress.covers(shadow.source, shadow.time + rules[shadow.contract].horizon):
            return False
        champion = match.find_champion(request, shadow, rules)
        shadow.champion = NOBODY
        if champion is not None:
            shadow.champion = answered(self._lane.codec, self._lane.plan(champion.contract), champion)
        return True

    def _close(self, prediction: Prediction) -> None:
        rules, plan = self._lane.rules[prediction.contract], self._lane.plan(prediction.contract)
        action = policy_action(self._lane.codec, plan, prediction) if rules.known_only_for else ""
        end = match.close(prediction, rules, action)
        if end is not None:
            self._write(end)

    def _write(self, revision: Revision) -> None:
        prediction = revision.prediction
        value = outcome.encode(self._lane.plans[prediction.contract].outcome_header, revision)
        self._records.append(Record(self._lane.lane.outcomes, value, prediction.key, (), self._number))
        self._budget.take(1, len(value))
