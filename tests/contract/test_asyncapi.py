"""contracts/asyncapi.yaml is current, and valid by somebody else's model of AsyncAPI 3."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import avro.schema
import pytest
import yaml

from tailrace.contracts.language.load import load_contract
from tailrace.control.asyncapi import document, to_yaml
from tailrace.package_data import data_dir
from tailrace.streaming.backends.kafka.topics import topic_files

with warnings.catch_warnings(
    action="ignore"
):  # two of its fields are called `schema`, as the specification has it
    from asyncapi3.models import AsyncAPI3

PATH = data_dir("contracts", "models").parent / "asyncapi.yaml"
CREDIT = load_contract(data_dir("contracts", "models", "credit.yaml"))
DOCUMENT: dict[str, Any] = yaml.safe_load(to_yaml(document(CREDIT)))


def test_the_file_is_what_would_be_generated_now() -> None:
    command = "python -m tailrace.control.asyncapi contracts/models/credit.yaml > contracts/asyncapi.yaml"
    assert PATH.read_text() == to_yaml(document(CREDIT)), f"generate it again: {command}"


def test_it_is_valid() -> None:
    AsyncAPI3.model_validate(DOCUMENT)


BREAKS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no title": lambda d: d["info"].pop("title"),
    "another version": lambda d: d.update(asyncapi="2.6.0"),
    "no such action": lambda d: d["operations"]["scorer_receive_credit_requests"].update(action="eat"),
    "an operation on nothing": lambda d: d["operations"]["scorer_receive_credit_requests"].pop("channel"),
    "an unknown field": lambda d: d["channels"]["credit_requests"].update(nonsense=1),
    "an unknown binding": lambda d: d["channels"]["credit_requests"]["bindings"]["kafka"].update(x=1),
}


@pytest.mark.parametrize("broken", BREAKS)
def test_the_judge_sees_what_is_broken(broken: str) -> None:
    changed = copy.deepcopy(DOCUMENT)
    BREAKS[broken](changed)
    with pytest.raises(ValueError, match="validation error"):
        AsyncAPI3.model_validate(changed)


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for inner in node.values():
            yield from references(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from references(inner)


def look_up(reference: str) -> Any:
    node: Any = DOCUMENT
    for part in reference.removeprefix("#/").split("/"):
        node = node[part]
        if isinstance(node, dict) and "$ref" in node and part in reference.split("/")[:-1]:
            node = look_up(node["$ref"])
    return node


def test_every_reference_leads_somewhere() -> None:
    found = set(references(DOCUMENT))
    assert len(found) > 20
    for reference in found:
        assert look_up(reference)


def test_every_topic_schema_writer_and_reader_is_in_it() -> None:
    addresses = {channel["address"] for channel in DOCUMENT["channels"].values()}
    assert addresses == {name.replace("LANE.", "credit.") for name in topic_files()}
    documented = {
        (o["tags"][0]["name"], o["action"], o["channel"]["$ref"]) for o in DOCUMENT["operations"].values()
    }
    expected = {
        (service, action, "#/channels/" + name.replace("LANE.", "credit.").replace(".", "_"))
        for name, topic in topic_files().items()
        for action, people in (("send", topic.written_by), ("receive", topic.read_by))
        for service in people
    }
    assert documented == expected
    messages = DOCUMENT["components"]["messages"].values()
    schemas = [m["payload"]["schema"] for m in messages if "schema" in m.get("payload", {})]
    without = ("tailrace.model-chunks", "tailrace.window-state", "LANE.dead-letters", "LANE.rekeyed")
    assert len(schemas) == len(topic_files()) - len(without)
    for schema in schemas:
        avro.schema.parse(json.dumps(schema))
