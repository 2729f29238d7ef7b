"""Which version serves under which rollout revision.

Packages are opened in the background, one after the other, and what is opened is taken up between two
batches: so no request waits for a swap, and a batch has one revision per model. A package that is refused
changes nothing: what served goes on serving, under the revision under which it was taken up.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Literal, NamedTuple

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records.record_types import ModelManifestRecord
from tailrace.contracts.state.contracts import Contracts
from tailrace.errors import Unavailable
from tailrace.models.catalog import Catalog, Verify
from tailrace.models.errors import PackageRefused
from tailrace.models.formats.load import LoadedModel
from tailrace.models.rollout_state.fold import CanaryState, ExperimentState, Rollouts, RolloutState

Role = Literal["champion", "shadow"]
OpenVersion = Callable[[ModelManifestRecord, ModelContract], LoadedModel]


class ServingVersion(NamedTuple):
    number: int
    model: LoadedModel


class VersionRef(NamedTuple):
    """A version by its number and artifact digest."""

    number: int
    digest: str


@dataclass(frozen=True)
class Serving:
    """What answers for a model: the champion and, behind it, the canary or the arms; or the versions in shadow
    (possibly none).

    ``off`` is the champion in whose place the contract's fallback answers, where the model is switched off.
    """

    revision: int
    versions: tuple[ServingVersion, ...]
    off: VersionRef | None = None
    canary: CanaryState | None = None
    experiment: ExperimentState | None = None


class Refusal(NamedTuple):
    """A package that was refused, and under which contract."""

    model: str
    version: int
    digest: str
    contract_digest: str
    published_at: int
    check: str
    reason: str


class Versions:
    """The versions in service, for one role.

    Args:
        contracts, catalog, rollouts: the folds of the control topics, kept up to date by their owner.
        open_version: opens a package given its manifest record and contract; raises PackageRefused or Unavailable.
            Called on the executor.
        verify: checks again who has signed what was opened a while ago, given its manifest record; raises
            PackageRefused.
    """

    def __init__(
        self,
        role: Role,
        contracts: Contracts,
        catalog: Catalog,
        rollouts: Rollouts,
        open_version: OpenVersion,
        executor: Executor,
        verify: Verify | None = None,
    ) -> None:
        self._verify = verify
        self._role = role
        self._contracts = contracts
        self._catalog = catalog
        self._rollouts = rollouts
        self._open = open_version
        self._executor = executor
        self._serving: dict[str, Serving] = {}
        self._opened: dict[tuple[str, int], LoadedModel | Refusal | tuple[Future[LoadedModel], str]] = {}
        self.changes = 0
        """How often what serves has changed."""
        self.refusals: list[Refusal] = []
        """Refusals of which no alert was sent; who sends it removes them."""

    def serving(self, model: str) -> Serving | None:
        return self._serving.get(model)

    def served(self) -> set[tuple[str, int]]:
        """All that answers, by model and version, or in whose name the fallback does."""
        served = {(model, version.number) for model, s in self._serving.items() for version in s.versions}
        return served | {(model, s.off.number) for model, s in self._serving.items() if s.off is not None}

    def previous(self, model: str) -> ServingVersion | None:
        """The version before the champion in service, once it is opened: it may answer in the champion's place."""
        number = self._previous_number(model)
        opened = None if number is None else self._version(model, number)
        if number is None or not isinstance(opened, LoadedModel):
            return None
        return ServingVersion(number, opened)

    def previous_is_coming(self, model: str) -> bool:
        """Whether there is a version before the champion in service that is being opened."""
        number = self._previous_number(model)
        return number is not None and self._version(model, number) is None

    def _previous_number(self, model: str) -> int | None:
        serving = self._serving.get(model)
        return None if serving is None else self._rollouts.states(model)[serving.revision - 1].previous

    def revision(self, model: str) -> int:
        """The revision under which the model is served; 0 where it is not."""
        serving = self._serving.get(model)
        return serving.revision if serving else 0

    def take_up(self) -> None:
        """Starts opening what the rollouts name, and takes up what is ready. Does not wait."""
        for model, state in self._rollouts.current.items():
            if self.revision(model) != state.revision:
                self._take_up(model)

    def behind(self) -> dict[str, int]:
        """Models that are not served under their newest revision, with the one under which they are."""
        return {
            model: revision
            for model, state in self._rollouts.current.items()
            if (revision := self.revision(model)) != state.revision
        }

    def why_not(self, model: str) -> str:
        """Why a model has no version in service, for people."""
        state = self._rollouts.state(model)
        if state.champion is None:
            return f"{model} has no version in service: `tailrace train` or `tailrace publish` makes one"
        opened = self._opened.get((model, state.champion))
        if isinstance(opened, Refusal):
            return f"version {state.champion} of {model} was refused ({opened.check}): {opened.reason}"
        return f"version {state.champion} of {model} is being opened"

    def is_coming(self, model: str) -> bool:
        """Whether a newer revision names a champion that is being opened."""
        state = self._rollouts.state(model)
        if state.champion is None or self.revision(model) == state.revision:
            return False
        return not isinstance(self._opened.get((model, state.champion)), LoadedModel | Refusal)

    def waits_for_person(self, model: str) -> bool:
        """Whether nothing that is under way brings a version into service that is not."""
        state = self._rollouts.state(model)
        return state.champion is None or isinstance(self._opened.get((model, state.champion)), Refusal)

    def _take_up(self, model: str) -> None:
        """Takes up the newest revision that can be; behind a refused champion, the one before it."""
        states, answers = self._rollouts.states(model), self._role == "champion"
        for state in reversed(states[self.revision(model) :]):
            wanted = self._wanted(state)
            if state.off and answers and state.champion is not None:
                record = self._catalog.record(model, state.champion)
                if record is None:
                    return  # written before the rollout step, so it is on its way
                self._serve(model, Serving(state.revision, (), VersionRef(state.champion, record["digest"])))
                self._version(model, state.champion)  # kept warm for when it is on again
                return
            opened = [(number, self._trusted(model, number)) for number in wanted]
            if any(version is None for _, version in opened):
                return
            versions = tuple(ServingVersion(n, m) for n, m in opened if isinstance(m, LoadedModel))
            refused = {number for number, version in opened if isinstance(version, Refusal)}
            if not answers or refused <= _arms(state):
                beside = (state.canary, state.experiment) if answers else (None, None)
                self._serve(model, Serving(state.revision, versions, None, *beside))
                self._let_go(model, {*wanted, *self._wanted(states[-1]), state.previous})
                if answers and state.previous is not None:
                    self._version(model, state.previous)  # kept warm for a rollback
                return

    def _serve(self, model: str, serving: Serving) -> None:
        self._serving[model] = serving
        self.changes += 1

    def _wanted(self, state: RolloutState) -> tuple[int, ...]:
        if self._role == "shadow":
            return state.shadow
        if state.champion is None:
            return ()
        canary = () if state.canary is None else (state.canary.version,)
        return (state.champion, *canary, *sorted(_arms(state)))

    def _let_go(self, model: str, keep: set[int | None]) -> None:
        """Forgets what was opened and is not needed any more. What was refused stays refused."""
        for key, opened in list(self._opened.items()):
            if key[0] == model and key[1] not in keep and not isinstance(opened, Refusal):
                del self._opened[key]

    def _trusted(self, model: str, number: int) -> LoadedModel | Refusal | None:
        """The version, if whoever signed it is trusted still; what serves already goes on. A signature that
        was refused is looked at again, since people change whom they trust.
        """
        key, serving = (model, number), self._serving.get(model)
        if serving is not None and any(version.number == number for version in serving.versions):
            return self._version(model, number)
        before = self._opened.get(key)
        signature = isinstance(before, Refusal) and before.check == "signature"
        if self._verify is not None and (signature or isinstance(before, LoadedModel)):
            record, applied = self._catalog.record(model, number), self._contracts.current[model]
            assert record is not None  # it was opened
            try:
                self._verify(record)
            except PackageRefused as refused:
                if isinstance(before, Refusal):
                    return before
                return self._refuse(key, applied.digest, refused.check, refused.reason)
            if isinstance(before, Refusal):
                del self._opened[key]
        return self._version(model, number)

    def _version(self, model: str, number: int) -> LoadedModel | Refusal | None:
        """The opened version, why it is refused, or None while it is being opened."""
        key = (model, number)
        opened = self._opened.get(key)
        applied = self._contracts.current.get(model)
        if isinstance(opened, Refusal) and applied is not None and opened.contract_digest != applied.digest:
            opened = None  # another contract, another verdict
        if opened is None:
            record = self._catalog.record(model, number)
            if applied is None or record is None:
                return None  # written before the rollout step, so it is on its way
            future = self._executor.submit(self._open, record, applied.contract)
            opened = self._opened[key] = (future, applied.digest)
        return opened if isinstance(opened, LoadedModel | Refusal) else self._resolve(key, *opened)

    def _resolve(
        self, key: tuple[str, int], future: Future[LoadedModel], contract_digest: str
    ) -> LoadedModel | Refusal | None:
        if not future.done():
            return None
        error = future.exception()
        if error is None:
            loaded = self._opened[key] = future.result()
            return loaded
        if isinstance(error, Unavailable):
            del self._opened[key]  # asked for again the next time
            return None
        if not isinstance(error, Exception):
            raise error
        check = error.check if isinstance(error, PackageRefused) else "open"
        reason = error.reason if isinstance(error, PackageRefused) else f"{type(error).__name__}: {error}"
        return self._refuse(key, contract_digest, check, reason)

    def _refuse(self, key: tuple[str, int], contract_digest: str, check: str, reason: str) -> Refusal:
        record = self._catalog.record(*key)
        assert record is not None  # it was given to be opened
        digest, published_at = record["digest"], record["published_at"]
        refusal = Refusal(*key, digest, contract_digest, published_at, check, reason[:1000])
        self._opened[key] = refusal
        self.refusals.append(refusal)
        return refusal


def _arms(state: RolloutState) -> set[int]:
    """The versions that can be done without: the champion answers for an arm that is refused."""
    return set() if state.experiment is None else set(state.experiment.versions)
