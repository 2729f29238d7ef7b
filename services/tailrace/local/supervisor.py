"""What ``tailrace up`` runs: Kafka, registry and ClickHouse where none are given, then the services."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tailrace.access.credentials import KAFKA, Credentials
from tailrace.access.home_servers import close_door, make_tokens
from tailrace.addresses import CLICKHOUSE_PORTS, HTTP_PORTS, without_credentials
from tailrace.avro.registry import RegistryClient
from tailrace.clickhouse.client import ClickHouse
from tailrace.confinement import landlock
from tailrace.connection import connect, kafka_address, kafka_login_names
from tailrace.errors import TailraceError
from tailrace.kafka_access.grants import ADMIN, USERS
from tailrace.local import kafka_security
from tailrace.local.health import HealthAnswer, ask, reason, starting
from tailrace.local.home import Home
from tailrace.local.kafka import LocalKafka, is_first_start
from tailrace.local.keeper import Keeper, KeptProgram
from tailrace.local.leftovers import stop_leftovers
from tailrace.local.ports import HOST, free_port, is_free
from tailrace.local.process import Process, processor_time
from tailrace.runtime.patience import Patience
from tailrace.services import SERVICES

LANE_PARTITIONS = 6
"""Partitions of a lane's topics on one machine; production's default is in streaming/backends/kafka/topics.py."""

_ANSWER = 10.0  # seconds for a cluster that is there to say something
_STILL = 60.0  # seconds without any progress of something that is to come up

Say = Callable[[str], None]


class Supervisor:
    """Starts everything in order, restarts what dies, stops everything in the reverse order.

    Addresses given in the environment (``KAFKA_BOOTSTRAP_SERVERS``, ``SCHEMA_REGISTRY_URL``, ``CLICKHOUSE_URL``) are
    used as they are, and nothing is started in their place. They are written and said without their credentials, which
    whatever is started has from the environment.

    Args:
        home: a prepared home, locked by the caller.
        project: the folder whose contracts are applied.
        say: told in a line what was reached.
        env: environment for what is started.
    """

    def __init__(self, home: Home, project: Path, say: Say, env: Mapping[str, str] | None = None) -> None:
        self._home = home
        self._project = project.absolute()
        self._say = say
        self._env = {k: v for k, v in (os.environ if env is None else env).items() if v}
        self._env |= {"TAILRACE_HOME": str(home.root), "PYTHONUNBUFFERED": "1"}
        self._ports: dict[str, int] = home.read(home.ports)
        self._keeper = Keeper(home)
        self._addresses: dict[str, str] = {}

    def start(self) -> None:
        """Returns when requests can be sent.

        Raises:
            TailraceError: something does not come up; what had been started is stopped again.
        """
        if leftovers := stop_leftovers(self._home):
            self._say(f"stopped what an earlier `tailrace up` had left running: {', '.join(leftovers)}")
        try:
            self._keeper.write(pid=os.getpid(), ready=False, project=str(self._project))
            self._start_infrastructure()
            self._initialise()
            self._start_services()
        except BaseException:
            self.stop()
            raise
        self._keeper.write(ready=True)

    def stop(self) -> None:
        """Ends the services, each with ten seconds to finish, then what they stand on."""
        self._home.addresses.unlink(missing_ok=True)
        self._keeper.stop()
        for kept in self._keeper.kept:
            close_door(self._home.root, kept.name)
        self._home.state.unlink(missing_ok=True)

    def _start_infrastructure(self) -> None:
        began = time.monotonic()
        self._check_given()
        make_tokens(self._home.root)
        if not landlock.version():
            self._say("confinement   none: this kernel has no Landlock (see docs/security.md)")
        if given := self._env.get("CLICKHOUSE_URL"):
            self._addresses["CLICKHOUSE_URL"] = without_credentials(given)
        else:
            # Needs no Kafka: comes up while Kafka does.
            self._launch_server("clickhouse", "CLICKHOUSE_URL")
        if "KAFKA_BOOTSTRAP_SERVERS" in self._env:
            self._addresses |= kafka_login_names(self._env) | kafka_address(self._env)
            self._look_for_kafka(self._addresses["KAFKA_BOOTSTRAP_SERVERS"])
        else:
            credentials = Credentials(self._home.root)
            kafka = LocalKafka(
                self._home.kafka_data,
                port=self._port("kafka"),
                log=self._home.log("kafka"),
                env=self._env,
                users={user: credentials.make(KAFKA, user) for user in (ADMIN, *USERS)},
            )
            if is_first_start(self._env):
                self._say("kafka         first start on this machine: fetching and preparing it")
            self._keeper.keep(KeptProgram("kafka", kafka, kafka.start, kafka.bootstrap))
            self._addresses |= {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap, **kafka_security.CLIENTS}
            self._addresses["TAILRACE_LANE_PARTITIONS"] = str(LANE_PARTITIONS)
            self._say(f"{'kafka':<13} {kafka.bootstrap}  ({time.monotonic() - began:.1f} s)")
        if given := self._env.get("SCHEMA_REGISTRY_URL"):
            self._addresses["SCHEMA_REGISTRY_URL"] = without_credentials(given)
        else:
            self._launch_server("registry", "SCHEMA_REGISTRY_URL")
        self._await_server("registry", self._addresses["SCHEMA_REGISTRY_URL"], "/readyz", HTTP_PORTS)
        self._await_server("clickhouse", self._addresses["CLICKHOUSE_URL"], "/ping", CLICKHOUSE_PORTS)
        self._home.write(self._home.addresses, self._addresses)

    def _check_given(self) -> None:
        """Refuses addresses that are none, before anything is started.

        Raises:
            UsageError: says what to set instead, without the credentials that may be in one.
        """
        if "KAFKA_BOOTSTRAP_SERVERS" in self._env:
            kafka_address(self._env)
        for name, client in (("SCHEMA_REGISTRY_URL", RegistryClient), ("CLICKHOUSE_URL", ClickHouse)):
            if name in self._env:
                client(self._env[name])

    def _look_for_kafka(self, given: str) -> None:
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        # With its security settings; the registry may not have an address yet.
        kafka = connect({"SCHEMA_REGISTRY_URL": "later", **self._env}, self._home.root).kafka
        try:
            with AdminClient({**kafka, "log_level": 0}) as admin:
                admin.list_topics(timeout=_ANSWER)
        except KafkaException as error:
            raise TailraceError(
                f"the Kafka in KAFKA_BOOTSTRAP_SERVERS, {given}, does not answer ({error.args[0].str()}): "
                "start it, correct its address or credentials, or unset it to have one started here"
            ) from error

    def _launch_server(self, name: str, variable: str) -> None:
        """A server listens at the address by which the others find it."""
        port = self._port(name)
        self._addresses[variable] = f"http://{HOST}:{port}"
        close_door(self._home.root, name)  # of a life that ended otherwise
        self._launch(name, self._addresses[variable], {"TAILRACE_PORT": str(port)})

    def _await_server(self, name: str, address: str, path: str, usual_ports: Mapping[str, int]) -> None:
        patience = Patience(_STILL)
        own = next((kept for kept in self._keeper.kept if kept.name == name), None)
        while not (answer := ask(address, path, usual_ports=usual_ports)).ok:
            if own is None:
                if answer.status is not None:
                    break  # a cluster's own: it may want credentials, which its clients have
                raise TailraceError(
                    f"the {name} set in the environment, {address}, does not answer ({answer.text}): "
                    "start it, or unset its variable to have one started here"
                )
            self._check(own, patience, answer)
            time.sleep(0.05)
        self._say(f"{name:<13} {address}")

    def _initialise(self) -> None:
        """Topics, tables, key and contracts, by a process of their own, so that this one stays small."""
        errors = self._home.log("init")
        with (
            errors.open("wb") as file,
            subprocess.Popen(
                _cli("run", "init"),
                cwd=self._project,
                env=self._env_for({}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
            ) as init,
        ):
            assert init.stdout is not None
            for line in init.stdout:
                self._say(line.rstrip())
        if init.returncode:
            last = "\n".join(errors.read_text(errors="replace").splitlines()[-15:])
            raise TailraceError(last.removeprefix("tailrace: "))

    def _start_services(self) -> None:
        services = []
        for name in SERVICES:
            port = self._port(name)
            settings = {"TAILRACE_HEALTH_PORT": str(port), "TAILRACE_INSTANCE": "0"}
            services.append(self._launch(name, f"http://{HOST}:{port}", settings))
        for kept in services:
            patience = Patience(_STILL)
            while not self._has_started(answer := ask(kept.address, "/readyz")):
                self._check(kept, patience, answer)
                time.sleep(0.05)
            self._say(f"{kept.name:<13} {kept.address}")

    @staticmethod
    def _has_started(answer: HealthAnswer) -> bool:
        """Whether a service is at its work; a scorer that waits for its first model is."""
        why = reason(answer)
        return why is None or (answer.status is not None and not starting(why))

    def _check(self, kept: KeptProgram, patience: Patience, answer: HealthAnswer) -> None:
        """Raises where waiting for a program any longer makes no sense: it dies, or makes no progress. Until it
        answers, progress is that it computes; from then on it says itself how far it is.
        """
        log = kept.program.log
        if kept.restarts > 1:
            raise TailraceError(
                f"{kept.name} does not stay up:\n{kept.program.last_words()}\nAll of it: {log}"
            )
        computed = processor_time(kept.program.pid) if answer.status is None else None
        if not patience.look(answer, computed):
            raise TailraceError(
                f"{kept.name} does not come up at {kept.address}: no progress for {patience.still_s:.0f} s "
                f"({reason(answer)}); its log: {log}"
            )

    def _launch(self, name: str, address: str, extra: Mapping[str, str]) -> KeptProgram:
        process = Process(_cli("run", name), self._home.log(name), self._env_for(extra))
        kept = KeptProgram(name, process, process.launch, address)
        self._keeper.keep(kept)
        return kept

    def _port(self, name: str) -> int:
        """The port of the last time where it is still free, so that addresses last; else another."""
        port = self._ports.get(name)
        if port is None or not is_free(port):
            port = free_port()
            self._ports[name] = port
            self._home.write(self._home.ports, self._ports)
        return port

    def _env_for(self, extra: Mapping[str, str]) -> dict[str, str]:
        return {**self._addresses, **self._env, **extra}


def _cli(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tailrace.cli", *arguments]
