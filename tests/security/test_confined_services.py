"""Each service is held by the kernel to its own folders, its own key and password, and to the ports of what it stands
on; and it works all the same, in a running home.

Attempts are made in child processes that take a service's limits as `tailrace run` does, in a home in which all is
there but what runs: in place of Kafka, registry and ClickHouse the test listens.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.support.landlock import needs_landlock, needs_ports

from tailrace.access.credentials import APPLICATION, HTTP, KAFKA, Credentials
from tailrace.access.credentials import SERVICES as SERVICES_TOKEN
from tailrace.access.home_servers import make_tokens
from tailrace.confinement import landlock
from tailrace.connection import running_addresses
from tailrace.kafka_access.grants import ADMIN, USERS
from tailrace.local.environment import program_environment
from tailrace.local.home import Home
from tailrace.local.kafka_security import CLIENTS
from tailrace.local.ports import HOST, free_port
from tailrace.services import SERVICES, TABLE
from tailrace.signing.trust import make_keys

pytestmark = needs_landlock

AS_SERVICE = """
import os, socket, subprocess, sys
from pathlib import Path
from tailrace.local.confined import confine_service
home, name = Path(os.environ["TAILRACE_HOME"]), sys.argv[1]
confine_service(name)
"""
AS_REGISTRY = """
import os, socket, subprocess, sys
from pathlib import Path
from tailrace.confinement.profiles import hold
from tailrace.local.confined import registry_limits
home = Path(os.environ["TAILRACE_HOME"])
hold(registry_limits(home, int(os.environ["TAILRACE_HEALTH_PORT"]), os.environ))
"""
TRIED = """
try:
    exec(sys.argv[2])
except OSError as error:
    print("refused", error.errno)
else:
    print("done")
"""
REFUSED, DONE = "refused 13", "done"


class Prepared(NamedTuple):
    """A home as it is beside running services, in a project's folder."""

    path: Path
    home: Path


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    path = tmp_path_factory.mktemp("prepared")
    home = Home(path / ".tailrace")
    home.prepare()
    make_keys(home.root)
    make_tokens(home.root)
    for user in (ADMIN, *USERS):
        Credentials(home.root).make(KAFKA, user)
    with ExitStack() as servers:
        listening = [servers.enter_context(socket.create_server((HOST, 0))) for _ in range(3)]
        kafka, registry, clickhouse = (f"{HOST}:{server.getsockname()[1]}" for server in listening)
        addresses = {"KAFKA_BOOTSTRAP_SERVERS": kafka, "SCHEMA_REGISTRY_URL": f"http://{registry}"}
        home.write(home.addresses, {**addresses, "CLICKHOUSE_URL": f"http://{clickhouse}", **CLIENTS})
        process = {"name": "kafka", "address": kafka, "port": int(kafka.rpartition(":")[2])}
        home.write(home.state, {"processes": [process]})
        for name in SERVICES:
            assert (
                attempt(Prepared(path, home.root), name, "pass") == DONE
            )  # its folders are there from now on
        yield Prepared(path, home.root)


def attempt(at: Prepared, name: str, code: str, **more: str) -> str:
    """What comes of the code in a process with the service's limits."""
    script = (AS_REGISTRY if name == "registry" else AS_SERVICE) + TRIED
    own = {"TAILRACE_HOME": str(at.home), "TAILRACE_HEALTH_PORT": str(free_port())}
    done = subprocess.run(
        [sys.executable, "-c", script, name, code],
        env=environment() | own | running_addresses(at.home) | more,
        cwd=at.path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def environment() -> dict[str, str]:
    foreign = ("KAFKA_", "SCHEMA_REGISTRY_", "CLICKHOUSE_", "TAILRACE_")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_reads_what_is_its_own(prepared: Prepared, name: str) -> None:
    code = f"""
(home / "keys" / "{name}" / "signing.key").read_text()
(home / "credentials" / "kafka" / "{name}" / "password").read_text()
(home / "credentials" / "http" / "services" / "token").read_text()
list((home / "keys" / "trusted").rglob("*")), list((home / "keys" / "revoked").iterdir())
(home / "home.json").read_text(), (home / "run" / "addresses.json").read_text()
(home / "cache" / "{name}" / "proof").write_text("x")
import tempfile; tempfile.TemporaryFile().close()
"""
    assert attempt(prepared, name, code) == DONE


@pytest.mark.parametrize("name", TABLE)
def test_a_service_reads_no_secret_of_another(prepared: Prepared, name: str) -> None:
    """The root key, every other key, every other password and token, other users' environments."""
    secrets = [*(prepared.home / "keys").rglob("signing.key"), *(prepared.home / "credentials").rglob("*")]
    own = {
        prepared.home / "keys" / name / "signing.key",
        *(() if name == "registry" else (prepared.home / "credentials" / "kafka" / name / "password",)),
        *(() if name == "registry" else (prepared.home / "credentials" / "http" / "services" / "token",)),
    }
    others = [str(file) for file in secrets if file.is_file() and file not in own and file.name != "lock"]
    assert len(others) >= len(SERVICES) + len(TABLE)
    others += [f"/proc/{os.getpid()}/{file}" for file in ("environ", "mem", "maps")]
    code = f"""
for file in {others!r}:
    try:
        open(file, "rb").read()
        print("read", file)
    except PermissionError:
        pass
"""
    assert attempt(prepared, name, code) == DONE


@pytest.mark.parametrize("name", TABLE)
def test_a_service_writes_nowhere_else(prepared: Prepared, name: str) -> None:
    """Not in another's folder or state, not in what is trusted, not in the project, not in the programs."""
    other = "scorer" if name != "scorer" else "rollout"
    folders = [
        *(
            prepared.home / "cache" / other,
            prepared.home / "cache" / other / "packages",
            prepared.home / "keys" / "trusted",
        ),
        *(
            prepared.home / "keys" / "revoked",
            prepared.home / "credentials" / "http" / "services",
            prepared.home / "access",
        ),
        *(
            prepared.home / "run",
            prepared.home / "data" / "kafka",
            prepared.home / "data" / "clickhouse",
            prepared.home,
        ),
        *(prepared.path, Path("/tmp"), Path(landlock.__file__).parent, Path.home()),
        *(() if name == "joiner" else (prepared.home / "state" / "joiner",)),
    ]
    code = f"""
for folder in {[str(folder) for folder in folders if folder.exists()]!r}:
    try:
        (Path(folder) / "planted").write_text("x")
        print("wrote", folder)
    except PermissionError:
        pass
"""
    assert attempt(prepared, name, code) == DONE
    assert attempt(prepared, name, "os.unlink(home / 'home.json')") == REFUSED


@needs_ports
@pytest.mark.parametrize("name", TABLE)
def test_a_service_connects_to_what_it_stands_on_alone(prepared: Prepared, name: str) -> None:
    addresses = running_addresses(prepared.home)
    port = {variable: int(addresses[variable].rpartition(":")[2]) for variable in _VARIABLES}
    code = f"socket.create_connection(('{HOST}', {{}}), 5)"
    assert attempt(prepared, name, code.format(port["KAFKA_BOOTSTRAP_SERVERS"])) == DONE
    theirs = REFUSED if name == "registry" else DONE
    assert attempt(prepared, name, code.format(port["SCHEMA_REGISTRY_URL"])) == theirs
    assert attempt(prepared, name, code.format(port["CLICKHOUSE_URL"])) == theirs
    with socket.create_server((HOST, 0)) as other:
        assert attempt(prepared, name, code.format(other.getsockname()[1])) == REFUSED
    bind = f"socket.create_server(('{HOST}', {{}}))"
    assert attempt(prepared, name, bind.format(mine := free_port()), TAILRACE_HEALTH_PORT=str(mine)) == DONE
    assert attempt(prepared, name, bind.format(free_port())) == REFUSED


_VARIABLES = ("KAFKA_BOOTSTRAP_SERVERS", "SCHEMA_REGISTRY_URL", "CLICKHOUSE_URL")


def test_with_a_kafka_of_others_the_network_is_left_as_it_is_and_files_are_not(prepared: Prepared) -> None:
    with socket.create_server((HOST, 0)) as other:
        port = other.getsockname()[1]
        code = f"socket.create_connection(('{HOST}', {port}), 5)"
        assert attempt(prepared, "scorer", code, KAFKA_BOOTSTRAP_SERVERS=f"{HOST}:{port}") == DONE
    code = "(home / 'keys' / 'signing.key').read_text()"
    assert attempt(prepared, "scorer", code, KAFKA_BOOTSTRAP_SERVERS="b1:9092,b2:9092") == REFUSED


def test_the_word_of_rollout_is_read_and_not_written(prepared: Prepared) -> None:
    """What it has examined scorers need not examine; no scorer's word counts for it, or for another scorer."""
    (prepared.home / "cache" / "scorer" / "examined").mkdir()
    code = "list((home / 'cache' / '{}' / 'examined').iterdir())"
    assert attempt(prepared, "scorer", code.format("rollout")) == DONE
    assert attempt(prepared, "scorer", "(home / 'cache' / 'rollout' / 'examined' / 'x').touch()") == REFUSED
    assert attempt(prepared, "shadow-scorer", code.format("scorer")) == REFUSED
    assert attempt(prepared, "rollout", code.format("scorer")) == REFUSED


def test_an_examiner_limits_the_memory_of_packages(prepared: Prepared) -> None:
    """On top of what it has itself, which it reads in /proc, as a child of the service."""
    code = """
from tailrace.models.package.examiner import ExaminationLimits, _take_limits
if os.fork() == 0:
    _take_limits(ExaminationLimits(memory_bytes=64 << 20))
    bytearray(32 << 20)
    try:
        bytearray(128 << 20)
    except MemoryError:
        os._exit(7)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 7
"""
    assert attempt(prepared, "rollout", code) == DONE


def test_a_renewed_credential_and_a_new_revocation_are_read(prepared: Prepared) -> None:
    """Files are replaced; what the kernel allows are the folders that they are in."""
    token = prepared.home / "credentials" / "http" / "services" / "token"
    revoked = prepared.home / "keys" / "revoked" / "proof"
    code = f"""
os.write(1, b"confined\\n")
sys.stdin.readline()
open({str(token)!r}).read(), open({str(revoked)!r}).read()
"""
    env = environment() | {"TAILRACE_HOME": str(prepared.home)} | running_addresses(prepared.home)
    with subprocess.Popen(
        [sys.executable, "-c", AS_SERVICE + TRIED, "sink", code],
        env=env,
        cwd=prepared.path,
        text=True,  # type: ignore[arg-type]
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout
        assert child.stdout.readline() == "confined\n"
        Credentials(prepared.home).renew(HTTP, SERVICES_TOKEN)
        revoked.write_text("")
        printed, _ = child.communicate("\n", 30)
    revoked.unlink()
    assert printed.strip() == DONE


def test_an_applications_login_in_the_environment_is_not_the_services(prepared: Prepared) -> None:
    """`eval "$(tailrace env)" && tailrace run scorer`: it comes as itself, and cannot read the other's password."""
    login = program_environment(Home(prepared.home), APPLICATION)
    code = """
from tailrace.connection import connect
assert connect(user=name).kafka["sasl.username"] == name, connect(user=name).kafka["sasl.username"]
"""
    env = {name: value for name, value in login.items() if name.startswith("KAFKA_")}
    assert env["KAFKA_SASL_USERNAME"] == "application"
    assert attempt(prepared, "scorer", code, **env) == DONE
