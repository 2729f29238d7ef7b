"""``tailrace apply``: what a contract would change, whether it may, and how it comes into force."""

from __future__ import annotations

import getpass
import itertools
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tailrace.avro.registry import IncompatibleSchema, RegistryClient
from tailrace.connection import Connection
from tailrace.contracts.language.diff import Change, changes
from tailrace.contracts.language.load import check_contract_file
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.language.without_effect import misleading_fields
from tailrace.contracts.language.yaml_file import YamlFile, read_yaml
from tailrace.contracts.problems import ContractError, Violation
from tailrace.contracts.records.record_types import ContractRecord
from tailrace.contracts.state.contracts import HOLD, WITHDRAW, AppliedContract, Contracts, record_of
from tailrace.contracts.state.fold_topics import fold_all
from tailrace.contracts.state.records import ControlRecords
from tailrace.contracts.succession import VersionInService, check_succession
from tailrace.control.deliver import deliver
from tailrace.control.registration import incompatibilities, register_schemas
from tailrace.errors import TailraceError, UsageError
from tailrace.signing.signers import OWNER

InService = Mapping[str, Collection[VersionInService]]
"""By model, the versions that answer or stand by."""
_AT_ONCE = 4
"""Lanes whose schemas and tables are made at the same time: mostly they wait for answers."""


class Outrun(TailraceError):
    """Somebody else applied another contract of the model at the same time and was first."""


@dataclass(frozen=True)
class ApplyPlan:
    """What applying one contract comes to.

    Attributes:
        file: where it was read from.
        follows: the revision in force; 0 where there is none.
        changes: field by field; none where the same contract is in force already.
        unfit: why versions in service cannot serve under it, each with its number and role.
        is_held: whether it waits, or is to wait, until every version that answers fits it.
        was_held: whether the same contract waits already.
    """

    file: str
    contract: ModelContract
    source_text: str
    follows: int
    changes: list[Change]
    unfit: Sequence[str] = ()
    is_held: bool = False
    was_held: bool = False

    @property
    def is_needed(self) -> bool:
        is_new = self.follows == 0 or bool(self.changes)
        return is_new and not (self.is_held and self.was_held)

    def record(self, by: str, now_ms: int) -> ContractRecord:
        """The record for ``tailrace.contracts`` (schema ``contract.avsc``)."""
        contract = self.contract
        applied = AppliedContract(
            contract.model,
            self.follows + 1,
            contract.digest,
            contract.resolved_json,
            self.source_text,
            by,
            now_ms,
        )
        return record_of(applied, HOLD if self.is_held else None, by, now_ms)


def contract_files(paths: Sequence[Path], project: Path) -> list[Path]:
    """The files that are meant: those named, those in folders named, or else the project's contracts/models.

    Raises:
        TailraceError: there is none.
    """
    asked = paths or [project / "contracts" / "models"]
    files = [file for path in asked for file in (sorted(path.glob("*.yaml")) if path.is_dir() else [path])]
    if not files:
        where = ", ".join(str(path) for path in asked)
        raise TailraceError(
            f"no contract in {where}: write one with `tailrace init FILE.csv --target COLUMN --name M`"
        )
    return files


def plan(
    files: Sequence[Path],
    contracts: Contracts,
    in_service: InService | None = None,
    *,
    when_published: bool = False,
) -> list[ApplyPlan]:
    """Reads and checks contract files, each also against what is in force and against those before it.

    Args:
        files: YAML files.
        contracts: what is in force; left as it is.
        in_service: by model, the versions that answer or stand by.
        when_published: whether a change that a version in service could not serve is held and not refused.

    Raises:
        ContractError: lists every problem of every file. Nothing may be applied then.
    """
    problems = []
    planned: dict[str, ApplyPlan] = {}
    for file in files:
        try:
            yaml = read_yaml(file)
            contract = check_contract_file(yaml)
            if contract.model in planned:
                what = f"{planned[contract.model].file} has the same model"
                yaml.refuse([Violation(("model",), what, "give each model one file")])
            in_use = (in_service or {}).get(contract.model, ())
            planned[contract.model] = _plan_one(yaml, contract, contracts, planned, in_use, when_published)
        except ContractError as error:
            problems += error.problems
    if problems:
        raise ContractError(problems)
    return list(planned.values())


def _plan_one(
    yaml: YamlFile,
    contract: ModelContract,
    contracts: Contracts,
    planned: Mapping[str, ApplyPlan],
    in_service: Collection[VersionInService],
    when_published: bool,
) -> ApplyPlan:
    model, waiting = contract.model, contracts.held.get(contract.model)
    earlier = [applied.contract for applied in contracts.history.get(model, [])]
    others = {name: applied.contract for name, applied in contracts.current.items()}
    others |= {name: other.contract for name, other in planned.items()}
    neighbours = [
        other for name, other in sorted(others.items()) if name != model and other.lane == contract.lane
    ]
    revision, current = contracts.revision(model), earlier[-1] if earlier else None
    if current is not None and current.digest == contract.digest:
        return ApplyPlan(yaml.name, contract, yaml.text, revision, [])
    was_held = waiting is not None and waiting.digest == contract.digest
    bearable = when_published or was_held
    yaml.refuse(misleading_fields(contract))
    yaml.refuse(check_succession(contract, earlier, neighbours, () if bearable else in_service))
    broken = [(version, version.broken_by(contract, current)) for version in in_service]
    return ApplyPlan(
        yaml.name,
        contract,
        yaml.text,
        revision,
        changes(current.to_dict() if current else {}, contract.to_dict()),
        [f"version {v.number} ({v.role}): {why.what}" for v, misfits in broken for why in misfits],
        any(version.answers for version, misfits in broken if misfits),
        was_held,
    )


def keep_ms(contracts: Collection[ModelContract]) -> dict[str, int]:
    """How long a lane's topics are kept: as long as any of its contracts asks, by field of ``keep``."""
    names = ("requests", "predictions", "labels", "outcomes", "dead_letters")
    return {name: max(getattr(contract.keep, f"{name}_ms") for contract in contracts) for name in names}


def apply(
    connection: Connection, plans: Sequence[ApplyPlan], contracts: Contracts, say: Callable[[str], None]
) -> None:
    """Brings planned contracts into force: topics, schemas and tables first, then the record that says so.

    Every step may be repeated. What is done before a later step fails is harmless: topics, schemas and tables
    that nothing uses yet.

    Args:
        contracts: what is in force; what is applied is added.
        say: told of what is not as it should be and could not be changed, and, of many contracts, what is done.

    Raises:
        IncompatibleSchema: the registry holds schemas that the new ones break; nothing is applied.
        Outrun: other contracts of some of the models came first; those of the others are in force.
        Unavailable: Kafka, the registry or ClickHouse cannot be reached.
    """
    registry = RegistryClient(connection.registry, connection.registry_auth)
    needed = [plan for plan in plans if plan.is_needed]
    new = [plan.contract for plan in needed]
    # Producers write by the newest schema: that of a contract that is held is registered when it comes into force.
    held = {plan.contract.model for plan in needed if plan.is_held}
    lanes_of: dict[str, list[ModelContract]] = {}
    for contract in new:
        lanes_of.setdefault(contract.lane, []).append(contract)
    with _tables(connection, plans, say) as make_tables, ThreadPoolExecutor(_AT_ONCE) as pool:
        refused = pool.map(partial(incompatibilities, registry), new)
        if reasons := [*itertools.chain.from_iterable(refused)]:
            raise IncompatibleSchema("the registry refuses: " + "\n".join(reasons))
        if make_tables is None and needed:
            say("warning: CLICKHOUSE_URL is not set: no tables are made there")

        failed = threading.Event()

        def make_lane(lane: str) -> None:
            # Contracts of one lane share subjects; those of different lanes share nothing.
            with _set_where_it_fails(failed):
                for contract in lanes_of[lane]:
                    if failed.is_set():
                        return
                    if contract.model not in held:
                        register_schemas(registry, contract)
                    if make_tables is not None:
                        make_tables(contract)

        with _set_where_it_fails(failed):
            if needed:
                # First: a broker that makes topics answers nobody else, the registry least of all.
                _topics(connection, new, contracts, say)
            work = {pool.submit(make_lane, lane): lane for lane in lanes_of}
            for number, done in enumerate(as_completed(work), 1):
                done.result()
                if len(work) > 1:
                    say(f"schemas and tables of {work[done]} ({number} of {len(work)})")
    if needed:
        _publish(connection, ControlRecords.of(connection, OWNER), needed, contracts)


@contextmanager
def _set_where_it_fails(failed: threading.Event) -> Iterator[None]:
    try:
        yield
    except BaseException:
        failed.set()
        raise


def _topics(
    connection: Connection, new: Sequence[ModelContract], contracts: Contracts, say: Callable[[str], None]
) -> None:
    """Rights and topics of all lanes at once: what a cluster is asked for one by one, it also waits for one by one."""
    from tailrace.kafka_access.acls import grant_lanes
    from tailrace.streaming.backends.kafka.topics import align_topics, ensure_topics, lane_topics

    lanes_of = sorted({contract.lane for contract in new})
    if not grant_lanes(connection.kafka, lanes_of):
        say(
            "warning: this Kafka user may not say what others may do: have the rights of "
            f"{', '.join(lanes_of)} granted by `tailrace run kafka-users` under a user who may"
        )
    models = {contract.model for contract in new}
    topics = []
    for lane in lanes_of:
        stay = [applied.contract for applied in contracts.on_lane(lane) if applied.model not in models]
        come = [contract for contract in new if contract.lane == lane]
        topics += lane_topics(lane, keep_ms([*stay, *come]))
    if len(lanes_of) > 1:
        say(f"topics of {len(lanes_of)} lanes ({len(topics)})")
    for difference in align_topics(connection.kafka, ensure_topics(connection.kafka, topics)):
        say(f"warning: {difference}")


@contextmanager
def _tables(
    connection: Connection, plans: Sequence[ApplyPlan], say: Callable[[str], None]
) -> Iterator[Callable[[ModelContract], object] | None]:
    """What makes a contract's tables; None without a ClickHouse. Tables of contracts in force that are gone are made
    again, and what lacks rows is said in the end.
    """
    from tailrace.clickhouse.client import ClickHouse
    from tailrace.clickhouse.history import lacking, names_of_tables, remedies
    from tailrace.clickhouse.tables import ensure_tables, model_tables
    from tailrace.clickhouse.views import REPORTS, ensure_views
    from tailrace.services import SINK_GROUP
    from tailrace.streaming.backends.kafka.group_offsets import stored_by

    if connection.clickhouse is None:
        yield None
        return
    clickhouse = ClickHouse.connect(connection)
    try:
        clickhouse.create_database()
        own = {table for each in plans for table in model_tables(each.contract).values()}
        absent = own - names_of_tables(clickhouse)
        make = partial(ensure_tables, clickhouse, stored=stored_by(connection, SINK_GROUP), absent=absent)
        for each in plans:
            if not each.is_needed and not absent.isdisjoint(model_tables(each.contract).values()):
                make(each.contract)
        yield make
        # The sink makes the reports' table, and then the views of models that it finds: one of the two is the later.
        if REPORTS in names_of_tables(clickhouse):
            for each in plans:
                ensure_views(clickhouse, each.contract.model)
        lacks = {table: why for table, why in lacking(clickhouse).items() if table in own}
        for sentence in remedies(lacks):
            say(f"warning: ClickHouse's {sentence}")
    finally:
        clickhouse.close()


def _publish(
    connection: Connection, records: ControlRecords, needed: Sequence[ApplyPlan], contracts: Contracts
) -> None:
    """Writes the records, then reads on until they come by, and sees whether each was the first of its kind."""
    by, now_ms = applied_by(), int(time.time() * 1000)
    offsets = deliver(
        connection, (records.record("Contract", each.record(by, now_ms)) for each in needed), "the contracts"
    )
    fresh = Contracts()
    came = {taken.message.offset() for taken in fold_all(connection, fresh) if taken.came}
    contracts.__dict__.update(fresh.__dict__)
    for each, offset in zip(needed, offsets, strict=True):
        model = each.contract.model
        stands = (fresh.held if each.is_held else fresh.current).get(model)
        if stands is not None and stands.digest == each.contract.digest:
            came.add(offset)
    outrun = [
        f"{each.file}: {first.applied_by} applied another contract of {each.contract.model!r} at the same time and was "
        f"first (revision {first.revision}): run `tailrace apply` again to see what yours changes in it"
        for each, offset in zip(needed, offsets, strict=True)
        if offset not in came
        for first in [fresh.current[each.contract.model]]
    ]
    if outrun:
        raise Outrun("\n".join(outrun))


def withdraw(connection: Connection, model: str) -> AppliedContract:
    """Takes back the change of a contract that is held.

    Raises:
        UsageError: none is held of this model.
        TailraceError: it came into force meanwhile.
    """
    contracts = Contracts()
    fold_all(connection, contracts)
    held = contracts.held.get(model)
    if held is None:
        raise UsageError(
            f"no change of the contract of {model!r} is held: see `tailrace contracts show {model}`"
        )
    record = record_of(held, WITHDRAW, applied_by(), int(time.time() * 1000))
    deliver(connection, [ControlRecords.of(connection, OWNER).record("Contract", record)], "it")
    fresh = Contracts()
    fold_all(connection, fresh)
    if fresh.revision(model) != contracts.revision(model):
        raise TailraceError(
            f"another contract of {model} came into force meanwhile: see `tailrace contracts show {model}`, and apply "
            "the one that you want"
        )
    return held


def applied_by() -> str:
    """Who runs this, for the record."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return "unknown"
