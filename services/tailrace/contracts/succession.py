"""Whether a contract may follow the one in force: what producers, consumers and versions rely on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from tailrace.avro.registry import schema_text
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.problems import FieldPath, Violation
from tailrace.contracts.records.compatibility import LEVEL, breaks
from tailrace.contracts.records.schemas import avro_type, lane_schemas

NEW_MODEL = "make it a new model under another name"
WHEN_PUBLISHED = (
    "leave it as it is, or run `tailrace apply --when-published`, which holds the change until every version that "
    "answers fits it, and publish such a version"
)


class VersionInService(NamedTuple):
    """A version that answers or stands by.

    Attributes:
        role: ``champion``, ``canary`` or ``arm``, which answer; ``previous`` or ``shadow``, which stand by.
        misfits: why it could not serve under a contract.
    """

    number: int
    role: str
    misfits: Callable[[ModelContract], Iterable[Violation]]

    @property
    def answers(self) -> bool:
        return self.role not in ("previous", "shadow")

    def broken_by(self, new: ModelContract, current: ModelContract | None) -> list[Violation]:
        """Why it could not serve under ``new``, but for what keeps it from serving under ``current`` already."""
        now = set() if current is None else {(each.path, each.what) for each in self.misfits(current)}
        return [each for each in self.misfits(new) if (each.path, each.what) not in now]


def check_succession(
    new: ModelContract,
    earlier: Sequence[ModelContract],
    neighbours: Collection[ModelContract] = (),
    in_service: Collection[VersionInService] = (),
) -> Iterator[Violation]:
    """Yields every reason why ``new`` may not come into force.

    Args:
        new: the contract to be.
        earlier: all that were in force for this model, oldest first; their records are still on the topics.
        neighbours: contracts in force of other models on the same lane.
        in_service: versions that answer or stand by. Those that the change could be held for are to be left out.
    """
    if earlier:
        current = earlier[-1]
        for check in _IDENTITY:
            yield from check(current, new)
        yield from _schemas(new, earlier)
    yield from _versions(new, earlier[-1] if earlier else None, in_service)
    for neighbour in neighbours:
        if (new.key, new.event_time.name) != (neighbour.key, neighbour.event_time.name):
            what = f"differs from that of {neighbour.model!r}, which shares the lane {new.lane!r}"
            yield Violation(("key",), what, "use the same key and event time, or a lane of its own")


def _lane(current: ModelContract, new: ModelContract) -> Iterator[Violation]:
    if new.lane != current.lane:
        what = f"{current.lane!r} -> {new.lane!r}: requests, labels and history would be on different topics"
        yield Violation(("lane",), what, NEW_MODEL)


def _key(current: ModelContract, new: ModelContract) -> Iterator[Violation]:
    if new.key != current.key:
        was, is_ = (f"{key.name} ({key.type})" for key in (current.key, new.key))
        what = f"{was} -> {is_}: labels under the new key would never meet predictions under the old one"
        yield Violation(("key",), what, NEW_MODEL)


def _event_time(current: ModelContract, new: ModelContract) -> Iterator[Violation]:
    if new.event_time.name != current.event_time.name:
        was, is_ = current.event_time.name, new.event_time.name
        what = f"{was!r} -> {is_!r}: the records of producers that still send {was!r} would have no time"
        yield Violation(("event_time", "name"), what, NEW_MODEL)


def _target(current: ModelContract, new: ModelContract) -> Iterator[Violation]:
    for name in ("name", "type", "categories", "positive"):
        was, is_ = getattr(current.target, name), getattr(new.target, name)
        if was != is_:
            what = f"{was!r} -> {is_!r}: labels and versions of the old target would mean something else"
            yield Violation(("target", name), what, NEW_MODEL)


def _schemas(new: ModelContract, earlier: Sequence[ModelContract]) -> Iterator[Violation]:
    """Apache Avro's checker decides: every reader, old or new, must read every record, new or old."""
    on_lane = [contract for contract in earlier if contract.lane == new.lane]
    explained = set()
    for topic, schema in lane_schemas(new).items():
        # Most revisions change no schema.
        texts = list(dict.fromkeys(schema_text(lane_schemas(old)[topic]) for old in on_lane))
        reasons = breaks(LEVEL, schema_text(schema), texts)
        if not reasons:
            continue
        fields = _changed_types(new, on_lane)
        for path, was, is_ in fields:
            if path not in explained:
                explained.add(path)
                what = f"{was} -> {is_}: what has one type cannot be read as the other"
                yield Violation(path, what, "leave it as it is and add a field under a new name")
        if not fields and new.target == earlier[-1].target:
            for reason in reasons:
                yield Violation((), f"{topic}: {reason}", NEW_MODEL)


def _changed_types(new: ModelContract, earlier: Sequence[ModelContract]) -> list[tuple[FieldPath, str, str]]:
    """Features and context fields that once were of another type."""
    changed = {}
    for section, fields in (("features", new.features), ("context", new.context)):
        for name, field in fields.items():
            for old in earlier:
                was = (old.features | old.context).get(name)
                if was is not None and avro_type(was.type) != avro_type(field.type):
                    changed[(section, name, "type")] = ((section, name, "type"), was.type, field.type)
    return list(changed.values())


def _versions(
    new: ModelContract, current: ModelContract | None, in_service: Collection[VersionInService]
) -> Iterator[Violation]:
    for version in sorted(in_service, key=lambda version: version.number):
        for misfit in version.broken_by(new, current):
            what = f"version {version.number} ({version.role}) could not serve: {misfit.what}"
            yield Violation(misfit.path, what, WHEN_PUBLISHED)


_IDENTITY = (_lane, _key, _event_time, _target)
