"""Fields of a contract that nothing acts on in this version: those that would mislead, and those that come later.

tests/static/test_contract_fields.py holds that every other field is read somewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from tailrace.contracts.language.sections import match_alert
from tailrace.contracts.problems import FieldPath, Violation

if TYPE_CHECKING:
    from tailrace.contracts.language.model_contract import ModelContract

_ANY = "*"


class WithoutEffect(NamedTuple):
    """A field without effect.

    Attributes:
        path: as in the file; ``*`` stands for each name, or each entry of a list.
        why: what does not happen.
        misleads: whether somebody would rely on it: such a contract is refused. Others are kept, with a warning.
        applies: whether a value is without effect, in this contract; where it is not said, each is.
    """

    path: tuple[str, ...]
    why: str
    misleads: bool = False
    applies: Callable[[Any, ModelContract], bool] = lambda value, contract: True


def _is_fixed(name: str) -> Callable[[Any, ModelContract], bool]:
    """Whether a field of an experiment with equal shares was set."""

    def applies(value: Any, contract: ModelContract) -> bool:
        plan = contract.experiment
        return (
            plan is not None
            and plan.assign == "fixed"
            and getattr(plan, name) != type(plan).model_fields[name].default
        )

    return applies


_DEAD_PHRASES = ("drift on a feature of importance", "no label for")


def _never_matches(phrase: str, contract: ModelContract) -> bool:
    pattern, _ = match_alert(phrase) or ("", {})
    return pattern.startswith(_DEAD_PHRASES)


WITHOUT_EFFECT = (
    WithoutEffect(
        ("labels", "join", "by"),
        "labels find predictions by request id alone",
        True,
        lambda by, _: by == "key",
    ),
    WithoutEffect(("labels", "join", "within"), "labels find predictions by request id alone", True),
    WithoutEffect(("labels", "join", "take"), "labels find predictions by request id alone", True),
    WithoutEffect(("quality", "selection_ratio"), "no ratio between groups is judged", True),
    WithoutEffect(("alerts", "severe", _ANY), "no alert follows this phrase", True, _never_matches),
    WithoutEffect(
        ("alerts", "severe", _ANY),
        "it is severe anyway",
        False,
        lambda phrase, _: phrase == "package refused",
    ),
    WithoutEffect(("approvals", "promote", "role"), "whoever has a trusted key may promote", True),
    WithoutEffect(("approvals", "promote", "not_author"), "whoever has a trusted key may promote", True),
    WithoutEffect(("approvals", "promote", "within"), "no request to promote lapses", True),
    WithoutEffect(("service_levels", "staleness"), "no champion is too old", True),
    WithoutEffect(("owner", "alerts"), "nobody is written to: alerts are on tailrace.alerts"),
    WithoutEffect(("owner", "runbook"), "no alert names it"),
    *(
        WithoutEffect((section, _ANY, name), why)
        for section in ("features", "context")
        for name, why in (
            ("protected", "it is kept as a remark: fairness is judged by quality.slices"),
            ("personal", "it is kept as a remark: nothing is erased"),
        )
    ),
    *(
        WithoutEffect(
            ("experiment", name), "the arms of a fixed experiment have equal shares", False, _is_fixed(name)
        )
        for name in ("epsilon", "outcomes")
    ),
)


class Unused(NamedTuple):
    """A field that a contract sets, and that nothing acts on."""

    path: FieldPath
    entry: WithoutEffect

    @property
    def violation(self) -> Violation:
        remedy = "leave it out" if self.entry.misleads else "it may stay"
        return Violation(self.path, f"nothing acts on it in this version: {self.entry.why}", remedy)


def unused_fields(contract: ModelContract) -> Iterator[Unused]:
    """Every field without effect that the contract sets to something."""
    resolved = contract.to_dict()
    for entry in WITHOUT_EFFECT:
        for path, value in _places(resolved, entry.path):
            if value not in (None, False, [], {}) and entry.applies(value, contract):
                yield Unused(path, entry)


def misleading_fields(contract: ModelContract) -> Iterator[Violation]:
    """Those that somebody would rely on in vain."""
    return (unused.violation for unused in unused_fields(contract) if unused.entry.misleads)


def _places(data: Any, path: tuple[str, ...], before: FieldPath = ()) -> Iterator[tuple[FieldPath, Any]]:
    if not path:
        yield before, data
        return
    name, *rest = path
    if isinstance(data, list) and name == _ANY:
        inner: Iterator[tuple[str | int, Any]] = iter(enumerate(data))
    elif isinstance(data, dict):
        inner = ((key, value) for key, value in data.items() if name in (_ANY, key))
    else:
        return
    for key, value in inner:
        yield from _places(value, tuple(rest), (*before, key))
