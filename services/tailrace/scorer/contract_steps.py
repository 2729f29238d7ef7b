"""The steps of the pipeline that a contract shapes, worked out once for each revision."""

from __future__ import annotations

from functools import cached_property

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.scorer.check_input import InputCheck
from tailrace.scorer.contract_plan import ServingPlan
from tailrace.scorer.explanations import Explanations
from tailrace.scorer.explore import Exploration
from tailrace.scorer.fallback import FallbackChain
from tailrace.scorer.policy import Policy


class ContractSteps:
    """Each is made when it is first needed."""

    def __init__(self, contract: ModelContract) -> None:
        self._contract = contract

    @cached_property
    def check(self) -> InputCheck:
        return InputCheck(self._contract)

    @cached_property
    def policy(self) -> Policy:
        return Policy(self._contract)

    @cached_property
    def exploration(self) -> Exploration:
        return Exploration(self._contract, self.policy.choices)

    @cached_property
    def explanations(self) -> Explanations:
        return Explanations(self._contract)

    @cached_property
    def fallback(self) -> FallbackChain:
        return FallbackChain(self._contract, self.policy)


def steps_of(plan: ServingPlan) -> ContractSteps:
    return plan.worked_out(ContractSteps)
