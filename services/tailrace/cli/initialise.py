"""``tailrace run init``: what must be there before the services start. Doing it again changes nothing.

Kernels are compiled; control topics and their schemas, ClickHouse's fixed tables, the home's signing keys, and the
contracts of the project in the current folder. It ends by itself; `tailrace up` runs it, and containers do.
"""

from __future__ import annotations

import importlib
import time
from functools import partial
from pathlib import Path

from tailrace.connection import connect, home_dir
from tailrace.errors import TailraceError, Unavailable
from tailrace.kernels.compiled import uncompiled
from tailrace.runtime.patience import Patience
from tailrace.telemetry.reasons import plain

_say = partial(print, flush=True)
_STILL = 60.0  # seconds for which Kafka, registry or ClickHouse may be away for one and the same reason


def main() -> None:
    """
    Raises:
        TailraceError: a contract is refused, or something stays away.
    """
    _compile()
    patience = Patience(_STILL)
    while True:
        try:
            return _initialise()
        except Unavailable as away:
            if not patience.look(plain(str(away))):
                raise TailraceError(f"gave up after {_STILL:.0f} s without progress: {away}") from away
            time.sleep(0.5)


def _compile() -> None:
    """What services could only compile for themselves, each for its own."""
    if modules := uncompiled():
        _say(f"init          first start on this machine: compiling {len(modules)} modules")
    for module in modules:
        importlib.import_module(module)


def _initialise() -> None:
    from tailrace.avro.registry import RegistryClient
    from tailrace.cli.control import contracts, in_service
    from tailrace.clickhouse.client import ClickHouse
    from tailrace.clickhouse.migrations import migrate
    from tailrace.control.apply import apply, plan
    from tailrace.control.registration import register_control_schemas
    from tailrace.local.home import contract_files
    from tailrace.services import SINK_GROUP
    from tailrace.signing.trust import make_keys
    from tailrace.streaming.backends.kafka.group_offsets import stored_by
    from tailrace.streaming.backends.kafka.topics import control_topics, ensure_topics

    key = make_keys(home_dir())
    connection = connect()
    topics = control_topics()
    for difference in ensure_topics(connection.kafka, topics):
        _say(f"warning: {difference}")
    register_control_schemas(RegistryClient(connection.registry, connection.registry_auth))
    migrations = migrate(ClickHouse.connect(connection), stored=stored_by(connection, SINK_GROUP))
    _say(f"init          {len(topics)} control topics, {len(migrations)} new migrations, key {key.key_id}")
    in_force = contracts(connection)
    # What a version could not serve waits: whoever starts everything has nothing running yet to hold it by.
    serving = in_service(connection, home_dir())
    plans = plan(contract_files(Path.cwd()), in_force, serving, when_published=True)
    apply(connection, plans, in_force, _say)
    for each in plans:
        what = f"revision {each.follows + 1} applied" if each.is_needed else "is in force"
        what = "is held until a version fits it" if each.is_held else what
        _say(f"contract      {each.contract.model}: {what}")
        for why in each.unfit:
            _say(f"warning: {each.contract.model}: {why}")
