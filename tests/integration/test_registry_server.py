"""Our registry against a real broker, by the interface that Confluent documents."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient
from tests.support.registry_server import LOGIN, registry_server

from tailrace.avro.registry import IncompatibleSchema, RegistryClient, UnknownSchema
from tailrace.errors import Unavailable
from tailrace.local.kafka import LocalKafka
from tailrace.local.ports import free_port
from tailrace.local.registry_log import TOPIC, RegistryLog
from tailrace.local.registry_state import RegistryState, guid_of


def record(*fields: str, default: bool = False) -> dict[str, Any]:
    of = [{"name": name, "type": "long", **({"default": 0} if default else {})} for name in fields]
    return {"type": "record", "name": "R", "fields": of}


def call(url: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    headers = {
        "Authorization": f"Basic {b64encode(LOGIN.encode()).decode()}",
        "Content-Type": "application/json",
    }
    request = urllib.request.Request(url + path, data=data, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            assert response.headers["Content-Type"] == "application/vnd.schemaregistry.v1+json"
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def register(url: str, subject: str, schema: Any) -> int:
    status, answer = call(url, "POST", f"/subjects/{quote(subject, safe='')}/versions", body_of(schema))
    assert status == 200, answer
    return int(answer["id"])


def body_of(schema: Any, **more: Any) -> dict[str, Any]:
    return {"schema": json.dumps(schema), **more}


@pytest.fixture(scope="module")
def url(kafka: LocalKafka) -> Iterator[str]:
    with registry_server({"bootstrap.servers": kafka.bootstrap}) as (address, _):
        yield address


def test_a_schema_is_registered_once_and_found_by_id_version_and_text(url: str) -> None:
    schema_id = register(url, "once-value", record("a"))
    assert register(url, "once-value", record("a")) == schema_id
    assert register(url, "once/other subject-value", record("a")) == schema_id
    second = register(url, "once-value", record("a", "b", default=True))
    assert second != schema_id
    text = json.dumps(record("a"), separators=(",", ":"))
    shown = {
        "subject": "once-value",
        "version": 1,
        "id": schema_id,
        "guid": guid_of(text),
        "schemaType": "AVRO",
        "schema": text,
    }
    assert call(url, "GET", f"/schemas/ids/{schema_id}") == (200, {"schema": text})
    assert call(url, "GET", f"/schemas/ids/{schema_id}/schema") == (200, record("a"))
    assert call(url, "GET", f"/schemas/ids/{schema_id}/subjects")[1] == [
        "once-value", "once/other subject-value",
    ]  # fmt: skip
    assert call(url, "GET", f"/schemas/ids/{second}/versions")[1] == [{"subject": "once-value", "version": 2}]
    assert call(url, "GET", "/subjects?subjectPrefix=once")[1] == ["once-value", "once/other subject-value"]
    assert call(url, "GET", "/subjects/once-value/versions") == (200, [1, 2])
    assert call(url, "GET", "/subjects/once-value/versions/1") == (200, shown)
    assert call(url, "GET", "/subjects/once-value/versions/latest")[1]["id"] == second
    assert call(url, "GET", "/subjects/once-value/versions/-1")[1]["id"] == second
    assert call(url, "GET", "/subjects/once-value/versions/1/schema") == (200, record("a"))
    assert call(url, "GET", "/subjects/once-value/versions/1/referencedby") == (200, [])
    spaced = {"schema": json.dumps(dict(reversed(record("a").items())), indent=4)}
    assert call(url, "POST", "/subjects/once-value", spaced) == (200, shown)


def test_schemas_are_listed_by_subject_and_version(url: str) -> None:
    ids = [
        register(url, "list-a", record("la")),
        register(url, "list-a", record("la", "lb", default=True)),
        register(url, "list-b", record("la")),
    ]

    def listed(query: str) -> list[tuple[str, int, int]]:
        status, answer = call(url, "GET", f"/schemas?subjectPrefix=list-{query}")
        assert status == 200
        return [(each["subject"], each["version"], each["id"]) for each in answer]

    everything = [("list-a", 1, ids[0]), ("list-a", 2, ids[1]), ("list-b", 1, ids[2])]
    assert listed("") == listed("&offset=0&limit=-1") == everything
    assert set(everything) <= {(s["subject"], s["version"], s["id"]) for s in call(url, "GET", "/schemas")[1]}
    assert listed("&latestOnly=true") == everything[1:]
    assert listed("&offset=1&limit=1") == everything[1:2]
    assert call(url, "DELETE", "/subjects/list-a/versions/1") == (200, 1)
    assert listed("") == everything[1:]
    assert listed("&deleted=true") == everything
    assert call(url, "GET", "/subjects?subjectPrefix=list-&limit=1") == (200, ["list-a"])
    assert call(url, "GET", "/subjects/list-a/versions?deleted=true&offset=1") == (200, [2])


def test_a_schema_has_one_guid_wherever_it_is(kafka: LocalKafka, url: str) -> None:
    schema_id = register(url, "guid-value", record("g"))
    guid = call(url, "GET", "/subjects/guid-value/versions/1")[1]["guid"]
    text = json.dumps(record("g"), separators=(",", ":"))
    assert call(url, "GET", f"/schemas/guids/{guid}") == (200, {"schemaType": "AVRO", "schema": text})
    assert call(url, "GET", f"/schemas/guids/{guid.upper()}")[0] == 200
    assert call(url, "GET", f"/schemas/guids/{guid}/ids") == (200, [{"context": ".", "id": schema_id}])
    assert guid_of(json.dumps(dict(reversed(record("g").items())), indent=4)) == guid
    assert guid_of(json.dumps(record("h"))) != guid
    with registry_server({"bootstrap.servers": kafka.bootstrap}) as (other, _):
        assert call(other, "GET", f"/schemas/guids/{guid}")[1]["schema"] == text


def test_the_latest_version_is_that_with_no_metadata(url: str) -> None:
    register(url, "meta-value", record("m"))
    second = register(url, "meta-value", record("m", "n", default=True))
    assert call(url, "GET", "/subjects/meta-value/metadata")[1]["id"] == second
    assert call(url, "GET", "/subjects/meta-value/metadata?key=owner&value=me")[1]["error_code"] == 40403
    assert call(url, "GET", "/subjects/nobody/metadata")[1]["error_code"] == 40401


def test_the_default_context_s_prefix_is_the_same_as_none(url: str) -> None:
    schema_id = register(url, ":.:context-value", record("c"))
    for name in ("context-value", ":.:context-value", "%3A.%3Acontext-value"):
        answer = call(url, "GET", f"/subjects/{name}/versions/latest")[1]
        assert (answer["subject"], answer["id"]) == ("context-value", schema_id)
    assert call(url, "GET", "/subjects?subjectPrefix=:.:context") == (200, ["context-value"])
    assert call(url, "GET", "/subjects?subjectPrefix=:*:context") == (200, ["context-value"])
    assert call(url, "PUT", "/config/:.:context-value", {"compatibility": "FULL"})[0] == 200
    assert call(url, "GET", "/config/context-value") == (200, {"compatibilityLevel": "FULL"})
    assert call(url, "GET", "/contexts") == (200, ["."])
    refused = call(url, "POST", "/subjects/:.other:context-value/versions", body_of(record("c")))
    assert (refused[0], refused[1]["error_code"]) == (422, 42208)
    assert call(url, "GET", "/subjects/:.other:context-value/versions")[1]["error_code"] == 40401


def test_it_says_which_cluster_it_stands_on(kafka: LocalKafka, url: str) -> None:
    with AdminClient({"bootstrap.servers": kafka.bootstrap}) as admin:
        cluster = admin.list_topics(timeout=30).cluster_id
    clusters = {"kafka-cluster": cluster, "schema-registry-cluster": "schema-registry"}
    assert call(url, "GET", "/v1/metadata/id") == (
        200,
        {"scope": {"path": [], "clusters": clusters}, "id": ""},
    )


ERRORS = [
    ("GET", "/schemas/ids/99999", None, 404, 40403),
    ("GET", "/schemas/ids/abc", None, 404, 404),
    ("GET", "/subjects/nobody/versions", None, 404, 40401),
    ("GET", "/subjects/nobody/versions/1", None, 404, 40401),
    ("GET", "/subjects/errors/versions/7", None, 404, 40402),
    ("GET", "/subjects/errors/versions/0", None, 422, 42202),
    ("GET", "/subjects/errors/versions/first", None, 422, 42202),
    ("POST", "/subjects/errors", body_of(record("z")), 404, 40403),
    ("POST", "/subjects/nobody", body_of(record("a")), 404, 40401),
    ("POST", "/subjects/errors/versions", body_of(record("a", "b")), 409, 409),
    ("POST", "/subjects/errors/versions", {"schema": "{}"}, 422, 42201),
    ("POST", "/subjects/errors/versions", {"schema": '{"type": "nonsense"}'}, 422, 42201),
    ("POST", "/subjects/errors/versions", {"schema": "no json"}, 422, 42201),
    ("POST", "/subjects/errors/versions", {"schema": 5}, 422, 42201),
    ("POST", "/subjects/errors/versions", {}, 422, 42201),
    ("POST", "/subjects/errors/versions", [], 422, 42201),
    ("POST", "/subjects/errors/versions", b"no json", 422, 42201),
    ("POST", "/subjects/errors/versions", body_of({}, schemaType="JSON"), 422, 42201),
    ("POST", "/subjects/errors/versions", body_of(record("a"), references=[{"name": "x"}]), 422, 42201),
    ("POST", "/subjects/errors/versions", body_of(record("a"), id=5), 422, 42205),
    ("POST", "/compatibility/subjects/nobody/versions/1", body_of(record("a")), 404, 40401),
    ("GET", "/schemas/guids/no-such", None, 404, 40403),
    ("GET", "/schemas?limit=few", None, 404, 404),
    ("PUT", "/config", {"compatibility": "SOMEHOW"}, 422, 42203),
    ("PUT", "/mode", {"mode": "IMPORT"}, 422, 42204),
    ("GET", "/config/errors", None, 404, 40408),
    ("DELETE", "/config/errors", None, 404, 40408),
    ("GET", "/mode/errors", None, 404, 40409),
    ("DELETE", "/subjects/nobody", None, 404, 40401),
    ("DELETE", "/subjects/errors?permanent=true", None, 422, 42205),
    ("GET", "/no/such/path", None, 404, 404),
    ("PUT", "/subjects", {}, 405, 405),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "code"), ERRORS)
def test_errors_have_confluent_s_codes(
    url: str, method: str, path: str, body: Any, status: int, code: int
) -> None:
    register(url, "errors", record("a"))
    found, answer = call(url, method, path, body)
    assert (found, answer["error_code"]) == (status, code), answer
    assert answer["message"]


def test_levels_decide_what_may_follow(url: str) -> None:
    assert call(url, "GET", "/config") == (200, {"compatibilityLevel": "BACKWARD"})
    register(url, "levels", record("a"))
    check = "/compatibility/subjects/levels/versions"
    worse, better = body_of(record("a", "b")), body_of(record("a", "b", default=True))
    assert call(url, "POST", f"{check}/latest", worse) == (200, {"is_compatible": False})
    assert call(url, "POST", f"{check}/1", better) == (200, {"is_compatible": True})
    status, answer = call(url, "POST", f"{check}?verbose=true", worse)
    assert status == 200
    assert answer["is_compatible"] is False
    assert "b" in answer["messages"][0]

    assert call(url, "GET", "/config/levels?defaultToGlobal=true")[1] == {"compatibilityLevel": "BACKWARD"}
    assert call(url, "PUT", "/config/levels", {"compatibility": "forward"})[1] == {"compatibility": "FORWARD"}
    assert call(url, "GET", "/config/levels") == (200, {"compatibilityLevel": "FORWARD"})
    assert call(url, "POST", f"{check}/latest", worse) == (200, {"is_compatible": True})
    assert call(url, "PUT", "/config/levels", {"compatibility": "NONE"})[0] == 200
    register(url, "levels", {**record("x"), "name": "Other"})
    assert call(url, "DELETE", "/config/levels") == (200, {"compatibilityLevel": "NONE"})
    assert call(url, "POST", "/subjects/levels/versions", worse)[0] == 409


def test_deleted_versions_stay_readable_by_id_and_come_back_under_it(url: str) -> None:
    first, second = register(url, "gone", record("a")), register(url, "gone", record("a", "b", default=True))
    assert call(url, "DELETE", "/subjects/gone/versions/1") == (200, 1)
    assert call(url, "GET", "/subjects/gone/versions") == (200, [2])
    assert call(url, "GET", "/subjects/gone/versions?deleted=true") == (200, [1, 2])
    assert call(url, "GET", "/subjects/gone/versions/1")[1]["error_code"] == 40402
    assert call(url, "DELETE", "/subjects/gone") == (200, [2])
    assert call(url, "GET", "/subjects/gone/versions")[1]["error_code"] == 40404
    assert "gone" not in call(url, "GET", "/subjects")[1]
    assert "gone" in call(url, "GET", "/subjects?deleted=true")[1]
    assert call(url, "GET", f"/schemas/ids/{first}/schema") == (200, record("a"))
    assert register(url, "gone", record("a", "b", default=True)) == second
    assert call(url, "GET", "/subjects/gone/versions") == (200, [3])


def test_read_only_takes_no_schemas(url: str) -> None:
    assert call(url, "GET", "/mode") == (200, {"mode": "READWRITE"})
    assert call(url, "PUT", "/mode/still", {"mode": "READONLY"}) == (200, {"mode": "READONLY"})
    refused = call(url, "POST", "/subjects/still/versions", body_of(record("a")))
    assert (refused[0], refused[1]["error_code"]) == (422, 42205)
    assert call(url, "DELETE", "/mode/still") == (200, {"mode": "READONLY"})
    register(url, "still", record("a"))


def test_our_client_speaks_to_it(url: str) -> None:
    client = RegistryClient(url, LOGIN)
    assert client.latest("ours-value") is None
    assert client.check_compatible("ours-value", record("a")) == (True, [])
    client.set_level("ours-value", "FULL_TRANSITIVE")
    schema_id = client.register("ours-value", record("a"))
    assert RegistryClient(url, LOGIN).schema(schema_id) == record("a")
    assert client.latest("ours-value") == (schema_id, 1, record("a"))
    compatible, reasons = client.check_compatible("ours-value", record("a", "b"))
    assert not compatible
    assert "reader field missing default value" in reasons[0]
    with pytest.raises(IncompatibleSchema, match="cannot read"):
        client.register("ours-value", record("a", "b"))
    with pytest.raises(UnknownSchema):
        client.schema(77_777)


def test_several_registries_give_one_id_to_one_schema_and_never_one_to_two(kafka: LocalKafka) -> None:
    options = {"bootstrap.servers": kafka.bootstrap}
    given: dict[tuple[int, int], int] = {}
    with registry_server(options) as (one, log), registry_server(options) as (other, _):

        def write(address: str, writer: int) -> None:
            client = RegistryClient(address, LOGIN, timeout=30)
            for number in range(6):
                schema = record(f"own{writer}_{number}") if number % 2 else record(f"shared_{number}")
                given[writer, number] = client.register(f"many-{writer}-{number}", schema)

        threads = [
            threading.Thread(target=write, args=(address, writer))
            for writer, address in enumerate((one, other, one, other))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(given) == 24
        assert len(set(given.values())) == 3 + 4 * 3, "three schemas of all, three of each"
        for (writer, number), schema_id in given.items():
            name = f"own{writer}_{number}" if number % 2 else f"shared_{number}"
            assert (
                RegistryClient(one, LOGIN).schema(schema_id)
                == RegistryClient(other, LOGIN).schema(schema_id)
                == record(name)
            )
        afresh = RegistryLog(options)
        assert afresh.read() == log.read(), "a registry that starts anew knows the same"
        afresh.close()


def test_the_log_is_compacted_and_in_confluent_s_form(kafka: LocalKafka, url: str) -> None:
    schema_id = register(url, "form-value", record("form"))
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap,
            "group.id": "form",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    consumer.assign([TopicPartition(TOPIC.name, 0, 0)])
    state, written = RegistryState(), None
    while True:
        message = consumer.poll(10)
        assert message is not None
        if message.error():
            break
        state.apply(message.key(), message.value())
        if b"form-value" in message.key():
            written = json.loads(message.key()), json.loads(message.value())
    consumer.close()
    text = json.dumps(record("form"), separators=(",", ":"))
    value = {"subject": "form-value", "version": 1, "id": schema_id, "schema": text, "deleted": False}
    assert written == ({"keytype": "SCHEMA", "subject": "form-value", "version": 1, "magic": 1}, value)
    assert state.id_of(text) == schema_id
    assert TOPIC.config()["cleanup.policy"] == "compact"


def test_without_kafka_known_ids_are_still_answered() -> None:
    with registry_server({"bootstrap.servers": f"127.0.0.1:{free_port()}"}, patience=0.3) as (url, log):
        key = {"keytype": "SCHEMA", "subject": "s", "version": 1, "magic": 1}
        value = {"subject": "s", "version": 1, "id": 5, "schema": '"long"', "deleted": False}
        log.cached().apply(json.dumps(key).encode(), json.dumps(value).encode())
        assert call(url, "GET", "/schemas/ids/5") == (200, {"schema": '"long"'})
        status, answer = call(url, "GET", "/subjects")
        assert (status, answer["error_code"]) == (500, 50001)
        with pytest.raises(Unavailable):
            RegistryClient(url, LOGIN).register("s", record("a"))
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(f"{url}/readyz", timeout=20)
        assert urllib.request.urlopen(f"{url}/livez", timeout=20).status == 200
