"""Which answers come with an explanation: a share of all, and those that take certain actions (``explain`` of the
contract). A request is in the share or not by where it stands alone, however often it is scored."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from tailrace.avro.columns.decoder import Ints
from tailrace.avro.columns.hashing import source_positions
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.models.columns import Coded
from tailrace.models.formats.load import LoadedModel
from tailrace.scorer.event import ScoredAnswers
from tailrace.scorer.explain import explain
from tailrace.scorer.findings import Contribution

log = logging.getLogger(__name__)


class Explanations:
    """What one contract has explained."""

    def __init__(self, contract: ModelContract) -> None:
        self._share, self._top = contract.explain.sample, contract.explain.top
        self._always = frozenset(contract.explain.always)

    def of(
        self, model: LoadedModel, columns: Mapping[str, Coded], answers: ScoredAnswers
    ) -> Mapping[int, Sequence[Contribution]]:
        """The explanations by row. There are none of a package of before it had a background, nor where the model
        raises on a mixture of rows: an answer does not wait for its explanation.
        """
        reference = model.reference
        if not (self._share or self._always) or reference is None or reference.background is None:
            return {}
        rows = self._rows(answers)
        if not len(rows):
            return {}
        try:
            return explain(
                model, reference.background_columns(model.manifest.inputs), columns, rows, self._top
            )
        except MemoryError:
            raise
        except Exception as error:  # whatever a model raises
            log.warning(
                "no explanation",
                extra={
                    "model": model.manifest.model,
                    "version": model.manifest.version,
                    "why": str(error)[:300],
                },
            )
            return {}

    def _rows(self, answers: ScoredAnswers) -> Ints:
        chosen = np.zeros(len(answers.bodies), dtype=np.bool_)
        if self._always:
            named = np.array([option.action in self._always for option in answers.options])
            chosen |= named[answers.choices]
            if answers.outputs.most_probable is not None:
                by_class = np.array([option.action is None for option in answers.options])
                wanted = np.array([name in self._always for name in answers.outputs.classes])
                chosen |= by_class[answers.choices] & wanted[answers.outputs.most_probable]
        if self._share:
            at = source_positions("explain", answers.topic, answers.partitions, answers.offsets)
            chosen |= at < self._share
        return np.flatnonzero(chosen)
