"""What is asked of a registry with Confluent's interface: of our own, and of one that others made.

By our own client, by Confluent's for Python, @kafkajs/confluent-schema-registry and franz-go's, each with its own
settings, and by requests as the interface documents them.
"""

from __future__ import annotations

import base64
import copy
import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import fastavro
import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from tests.support.apicurio import apicurio_registry
from tests.support.contracts import contract as credit_contract
from tests.support.language_programs import go_program, node_program, output
from tests.support.registry_server import LOGIN, registry_server

from tailrace.access.home_servers import with_userinfo
from tailrace.avro.codec import Codec
from tailrace.avro.registry import IncompatibleSchema, RegistryClient, UnknownSchema
from tailrace.contracts.records.control_codec import CONTROL_RECORDS, ControlCodec, control_schema
from tailrace.contracts.records.schemas import lane_schemas, request_schema, subject
from tailrace.contracts.state.lane_clocks import LaneClock, record_of
from tailrace.control.registration import incompatibilities, register_control_schemas, register_schemas
from tailrace.local.kafka import LocalKafka


class Address(NamedTuple):
    """A registry's URL with its credentials, and how Confluent's client is given them."""

    url: str
    confluent: dict[str, Any]


@pytest.fixture(scope="module", params=["ours", "apicurio"])
def registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    if request.param == "apicurio":
        with apicurio_registry(request.config, tmp_path_factory.mktemp("apicurio")) as url:
            yield Address(url, {"url": url})
    else:
        # A broker of its own: other tests list the subjects that the shared one's registries keep.
        broker = LocalKafka(tmp_path_factory.mktemp("kafka"))
        broker.start()
        try:
            with registry_server({"bootstrap.servers": broker.bootstrap}) as (url, _):
                yield Address(with_userinfo(url, LOGIN), {"url": url, "basic.auth.user.info": LOGIN})
        finally:
            broker.stop()


def record(*fields: str, default: bool = False, name: str = "R") -> dict[str, Any]:
    of = [{"name": field, "type": "long", **({"default": 0} if default else {})} for field in fields]
    return {"type": "record", "name": name, "fields": of}


def call(registry: Address, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(registry.confluent["url"] + path, data=data, method=method)
    request.add_header("Content-Type", "application/vnd.schemaregistry.v1+json")
    if login := registry.confluent.get("basic.auth.user.info"):
        request.add_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_our_client_gets_on_with_it(registry: Address) -> None:
    client = RegistryClient(registry.url, timeout=60)
    assert client.latest("ours-value") is None
    assert client.check_compatible("ours-value", record("a")) == (True, [])
    client.set_level("ours-value", "FULL_TRANSITIVE")
    first = client.register("ours-value", record("a"))
    anew = RegistryClient(registry.url, timeout=60)
    assert anew.register("ours-value", record("a")) == first
    assert anew.schema(first) == record("a")
    assert anew.latest("ours-value") == (first, 1, record("a"))
    assert not client.check_compatible("ours-value", record("a", "b"))[0]
    with pytest.raises(IncompatibleSchema, match="refuses the new schema of ours-value"):
        client.register("ours-value", record("a", "b"))
    wider = {**record("a"), "fields": [*record("a")["fields"], *record("b", default=True)["fields"]]}
    assert client.check_compatible("ours-value", wider) == (True, [])
    second = client.register("ours-value", wider)
    assert second != first
    assert client.latest("ours-value") == (second, 2, wider)
    assert RegistryClient(registry.url, timeout=60).register("ours-value", record("a")) == first
    with pytest.raises(UnknownSchema):
        client.schema(77_777)


def test_one_schema_has_one_id_under_all_subjects_whatever_their_names(registry: Address) -> None:
    client = RegistryClient(registry.url, timeout=60)
    names = ["shared-value", "a.lane-of.mine-value", "with / slash and space-value", "größe-value"]
    ids = {name: client.register(name, record("shared", name="Shared")) for name in names}
    assert len(set(ids.values())) == 1
    for name in names:
        assert client.latest(name) == (ids[name], 1, record("shared", name="Shared"))
    assert set(names) <= set(call(registry, "GET", "/subjects")[1])
    assert set(call(registry, "GET", f"/schemas/ids/{ids[names[0]]}/subjects")[1]) == set(names)


def test_many_at_once_get_ids_that_mean_one_schema_each(registry: Address) -> None:
    given: dict[tuple[int, int], int] = {}

    def write(writer: int) -> None:
        client = RegistryClient(registry.url, timeout=60)
        for number in range(4):
            given[writer, number] = client.register(f"many{number}-value", record("many", name=f"M{number}"))

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(given) == 16
    ids = [{given[writer, number] for writer in range(4)} for number in range(4)]
    assert all(len(each) == 1 for each in ids)
    assert len(set.union(*ids)) == 4


def test_a_contract_s_schemas_are_registered_and_held_to(registry: Address) -> None:
    client, contract = RegistryClient(registry.url, timeout=60), credit_contract()
    assert incompatibilities(client, contract) == []
    ids = register_schemas(client, contract)
    assert register_schemas(RegistryClient(registry.url, timeout=60), contract) == ids
    assert incompatibilities(client, contract) == []
    for topic, schema in lane_schemas(contract).items():
        name = subject(topic, contract.model, contract.lane)
        latest = client.latest(name)
        assert latest is not None
        assert (latest.id, latest.version, _parsed(latest.schema)) == (ids[name], 1, _parsed(schema))
        status, answer = call(registry, "GET", f"/config/{quote(name, safe='')}")
        assert (status, answer["compatibilityLevel"]) == (200, "FULL_TRANSITIVE")


def test_who_reads_a_control_topic_has_its_schema_before_its_first_record(registry: Address) -> None:
    client = RegistryClient(registry.url, timeout=60)
    register_control_schemas(client)
    register_control_schemas(RegistryClient(registry.url, timeout=60))
    for name, topic in CONTROL_RECORDS.items():
        latest = client.latest(f"{topic}-value")
        assert latest is not None
        assert (latest.version, _parsed(latest.schema)) == (1, _parsed(control_schema(name)))
    clock = record_of("a", LaneClock("wall", "clock", 1))
    written = ControlCodec(RegistryClient(registry.url, timeout=60)).encode("Clock", clock)
    assert ControlCodec(RegistryClient(registry.url, timeout=60)).decode("Clock", written) == clock


def _parsed(schema: Any) -> Any:
    """As Avro understands it: a registry may leave out a namespace that follows from the one around it."""
    return fastavro.parse_schema(copy.deepcopy(schema))


ERRORS = [
    ("GET", "/schemas/ids/99999", None, 404, 40403),
    ("GET", "/subjects/nobody/versions", None, 404, 40401),
    ("GET", "/subjects/nobody/versions/latest", None, 404, 40401),
    ("GET", "/subjects/errors-value/versions/7", None, 404, 40402),
    ("POST", "/subjects/errors-value", {"schema": json.dumps(record("z", name="Z"))}, 404, 40403),
    ("POST", "/subjects/nobody", {"schema": json.dumps(record("a"))}, 404, 40401),
    ("POST", "/subjects/errors-value/versions", {"schema": json.dumps(record("a", "b"))}, 409, 409),
    ("POST", "/subjects/errors-value/versions", {"schema": "{no json"}, 422, 42201),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "code"), ERRORS)
def test_errors_have_the_codes_that_clients_go_by(
    registry: Address, method: str, path: str, body: Any, status: int, code: int
) -> None:
    client = RegistryClient(registry.url, timeout=60)
    client.register("errors-value", record("a"))
    client.set_level("errors-value", "FULL_TRANSITIVE")
    answered, answer = call(registry, method, path, body)
    assert (answered, answer["error_code"]) == (status, code), answer
    assert answer["message"]


def _confluent(registry: Address) -> SchemaRegistryClient:
    return SchemaRegistryClient(dict(registry.confluent))


def test_confluent_s_serializer_and_our_codec_read_each_other(registry: Address) -> None:
    contract, topic = credit_contract(), "confluent.requests"
    schema, client = request_schema(contract), RegistryClient(registry.url, timeout=60)
    schema_id = client.register(f"{topic}-value", schema)
    context = SerializationContext(topic, MessageField.VALUE)
    serialize = AvroSerializer(
        _confluent(registry),
        json.dumps(schema),
        conf={"auto.register.schemas": False, "use.latest.version": True},
    )
    deserialize = AvroDeserializer(_confluent(registry))
    row = {field["name"]: _value(field["type"]) for field in schema["fields"]}
    written = serialize(row, context)
    assert written is not None
    assert int.from_bytes(written[1:5]) == schema_id
    ours = Codec(RegistryClient(registry.url, timeout=60))
    assert ours.decode(written).record == row
    assert deserialize(ours.encode(schema_id, row), context) == deserialize(written, context)


def _value(kind: Any) -> Any:
    """A value of the type: null where it takes that, else the plainest that is none of the defaults."""
    if isinstance(kind, list):
        return _value(next(branch for branch in kind if branch != "null"))
    kind = kind["type"] if isinstance(kind, dict) and isinstance(kind["type"], (str, list)) else kind
    return {"string": "text", "long": 7, "int": 7, "double": 1.5, "float": 1.5, "boolean": True}[kind]


def test_confluent_s_serializer_registers_by_itself(registry: Address) -> None:
    context = SerializationContext("auto.topic", MessageField.VALUE)
    schema = record("n", name="Auto")
    serialize = AvroSerializer(_confluent(registry), json.dumps(schema))
    written = serialize({"n": 5}, context)
    latest = RegistryClient(registry.url, timeout=60).latest("auto.topic-value")
    assert latest is not None
    assert written is not None
    assert int.from_bytes(written[1:5]) == latest.id
    assert AvroDeserializer(_confluent(registry))(written, context) == {"n": 5}


def test_confluent_s_client_asks_and_sets(registry: Address) -> None:
    client, name = _confluent(registry), "asked-value"
    first = client.register_schema(name, Schema(json.dumps(record("a")), "AVRO"))
    assert client.lookup_schema(name, Schema(json.dumps(record("a")), "AVRO")).schema_id == first
    assert client.get_latest_version(name).version == 1
    assert json.loads(client.get_version(name, 1).schema.schema_str) == record("a")
    client.set_compatibility(name, "BACKWARD")
    assert client.get_compatibility(name) == "BACKWARD"
    assert client.test_compatibility(name, Schema(json.dumps(record("a", "b", default=True)), "AVRO"))
    assert not client.test_compatibility(name, Schema(json.dumps(record("a", "b")), "AVRO"))
    assert name in client.get_subjects()
    assert client.get_versions(name) == [1]


DRIVERS = Path(__file__).parents[1] / "support" / "registry_drivers"
ROW = {"name": "Löwe, row", "number": -(2**53) - 1, "share": 0.25}
SCHEMA = {
    "type": "record",
    "name": "Row",
    "namespace": "drivers",
    "fields": [
        {"name": "name", "type": "string"},
        {"name": "number", "type": "long"},
        {"name": "share", "type": ["null", "double"], "default": None},
    ],
}


def _run(registry: Address, command: list[str], *arguments: str) -> Any:
    user, _, password = registry.confluent.get("basic.auth.user.info", "").partition(":")
    env = os.environ | {"REGISTRY_USER": user, "REGISTRY_PASSWORD": password}
    return json.loads(output([*command, registry.confluent["url"], *arguments], env=env))


def test_kafkajs_s_client_gets_on_with_it(registry: Address, request: pytest.FixtureRequest) -> None:
    command = node_program(request.config, "@kafkajs/confluent-schema-registry", DRIVERS / "node")
    client = RegistryClient(registry.url, timeout=60)
    schema_id = client.register("drivers-value", SCHEMA)
    codec = Codec(client)
    small = ROW | {"number": 7}  # JavaScript's numbers end at 2**53
    seen = _run(registry, command, codec.encode(schema_id, small).hex())
    assert seen["latest"] == schema_id
    assert seen["decoded"] == {"name": ROW["name"], "number": 7, "share": 0.25}
    encoded = codec.decode(bytes.fromhex(seen["encoded"]))
    assert encoded.record == {"name": "é, node", "number": 7, "share": None}
    assert seen["registered"] == seen["again"] == seen["looked_up"]
    latest = RegistryClient(registry.url, timeout=60).latest("node-value")
    assert latest is not None
    assert latest.id == seen["registered"]


def test_franz_go_s_client_gets_on_with_it(registry: Address, request: pytest.FixtureRequest) -> None:
    command = go_program(request.config, "franz-go's sr", DRIVERS / "golang")
    client = RegistryClient(registry.url, timeout=60)
    schema_id = client.register("drivers-value", SCHEMA)
    seen = _run(registry, command)
    latest = client.latest("go-value")
    assert latest is not None
    assert seen["latest"] == schema_id
    assert _parsed(json.loads(seen["schema"])) == _parsed(SCHEMA)
    assert seen["created"] == seen["looked_up"] == latest.id
    assert seen["versions"] == [1]
    assert {"drivers-value", "go-value"} <= set(seen["subjects"])
    assert (seen["level"], seen["compatible"]) == ("FULL_TRANSITIVE", False)
    assert seen["refused"]
    assert seen["unknown"]
    if registry.confluent.get("basic.auth.user.info") == LOGIN:  # Apicurio's names no subjects there
        assert {f"drivers-value/1={schema_id}", f"go-value/1={latest.id}"} <= set(seen["listed"])
