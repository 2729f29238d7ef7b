"""The AsyncAPI 3 document of everything that flows, generated from topic files, schemas and one model contract.

``python -m tailrace.control.asyncapi contracts/models/credit.yaml > contracts/asyncapi.yaml``

Specification: https://www.asyncapi.com/docs/reference/specification/v3.0.0
"""

from __future__ import annotations

import io
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records.control_codec import CONTROL_RECORDS, control_schema
from tailrace.contracts.records.json_form import json_form
from tailrace.contracts.records.json_input import JSON_KINDS
from tailrace.contracts.records.schemas import lane_schemas
from tailrace.control.apply import keep_ms
from tailrace.streaming.backends.kafka.topics import Topic, control_topics, lane_topics
from tailrace.streaming.dead_letters import HEADERS

Json = dict[str, Any]

_AVRO = "application/vnd.apache.avro"
_SCHEMA_FORMAT = f"{_AVRO};version=1.9.0"
_BINDING = "0.5.0"
_PARTITIONS = 32
# Names such as `off` are text in YAML 1.2 and truth values to the many readers of 1.1.
_YAML_1_1_WORDS = frozenset({"y", "n", "yes", "no", "on", "off"})
_ABOUT = """\
Every topic of Tailrace with its records, and who writes and reads it. The lane's topics are those of one model as an
example; another model has the same topics under its own name, with its own features in the schemas.
Generated: change the topic files, the schemas or the contract, and generate it again."""


def document(contract: ModelContract) -> Json:
    """The document, with this contract's lane as the example."""
    topics = [*control_topics(), *lane_topics(contract.lane, keep_ms([contract]), _PARTITIONS)]
    schemas: Json = {topic: control_schema(name) for name, topic in CONTROL_RECORDS.items()}
    schemas |= lane_schemas(contract)
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Tailrace", "version": version("tailrace"), "description": _ABOUT},
        "defaultContentType": _AVRO,
        "servers": {"kafka": _server()},
        "channels": {_id(topic): _channel(topic) for topic in topics},
        "operations": dict(operation for topic in topics for operation in _operations(topic)),
        "components": {
            "messages": {_id(topic): _message(topic, schemas.get(topic.name)) for topic in topics}
            | {f"{_id(topic)}_json": _json_message(contract, topic) for topic in topics if _json_kind(topic)}
        },
    }


def to_yaml(content: Json) -> str:
    """The document as text that YAML 1.1 and 1.2 read alike; the same text for the same content."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = 1_000_000
    yaml.representer.ignore_aliases = lambda _: True
    buffer = io.StringIO()
    yaml.dump(_quoted(content), buffer)
    return buffer.getvalue()


def _quoted(node: Any) -> Any:
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString, LiteralScalarString

    if isinstance(node, dict):
        return {key: _quoted(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_quoted(value) for value in node]
    if isinstance(node, str) and node.lower() in _YAML_1_1_WORDS:
        return DoubleQuotedScalarString(node)
    return LiteralScalarString(node) if isinstance(node, str) and "\n" in node else node


def main() -> None:
    from tailrace.contracts.language.load import load_contract

    sys.stdout.write(to_yaml(document(load_contract(Path(sys.argv[1])))))


def _id(topic: Topic) -> str:
    return topic.name.replace(".", "_")


def _server() -> Json:
    return {
        "host": "{bootstrap}",
        "protocol": "kafka",
        "description": "The cluster, and the registry of the schemas.",
        "variables": {"bootstrap": {"default": "127.0.0.1:9092", "description": "KAFKA_BOOTSTRAP_SERVERS"}},
        "bindings": {
            "kafka": {
                "schemaRegistryUrl": "http://127.0.0.1:8081",
                "schemaRegistryVendor": "confluent",
                "bindingVersion": _BINDING,
            }
        },
    }


def _channel(topic: Topic) -> Json:
    config = topic.config()
    return {
        "address": topic.name,
        "description": topic.about,
        "servers": [{"$ref": "#/servers/kafka"}],
        "messages": {
            name: {"$ref": f"#/components/messages/{message}"} for name, message in _messages(topic).items()
        },
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "partitions": topic.partitions,
                "topicConfiguration": {
                    "cleanup.policy": [config["cleanup.policy"]],
                    "retention.ms": int(config["retention.ms"]),
                    "max.message.bytes": int(config["max.message.bytes"]),
                },
                "bindingVersion": _BINDING,
            }
        },
        "x-owner": topic.owner,
        "x-message-timestamp-type": config["message.timestamp.type"],
    }


def _message(topic: Topic, schema: Any | None) -> Json:
    message: Json = {"name": topic.value, "contentType": _AVRO if schema else "application/octet-stream"}
    binding: Json = {"key": _key(topic), "bindingVersion": _BINDING}
    if schema:
        message["payload"] = {"schemaFormat": _SCHEMA_FORMAT, "schema": schema}
        binding |= {
            "schemaIdLocation": "payload",
            "schemaIdPayloadEncoding": "confluent",
            "schemaLookupStrategy": "TopicNameStrategy",
        }
    if topic.name.endswith(".dead-letters"):
        headers = {name: {"type": "string", "description": about} for name, about in HEADERS.items()}
        message["headers"] = {"type": "object", "properties": headers}
    return message | {"bindings": {"kafka": binding}}


def _json_message(contract: ModelContract, topic: Topic) -> Json:
    return {
        "name": f"{topic.value}Json",
        "contentType": "application/json",
        "payload": json_form(contract, JSON_KINDS[_json_kind(topic)]),
        "bindings": {"kafka": {"key": _key(topic), "bindingVersion": _BINDING}},
    }


def _json_kind(topic: Topic) -> str:
    suffix = topic.name.rpartition(".")[2]
    return suffix if topic.lane and suffix in JSON_KINDS else ""


def _messages(topic: Topic) -> dict[str, str]:
    """What the channel calls its messages, and where they are among the components."""
    json_too = {f"{topic.value}Json": f"{_id(topic)}_json"} if _json_kind(topic) else {}
    return {topic.value: _id(topic), **json_too}


def _key(topic: Topic) -> Json:
    return {"type": "string", "description": f"{topic.key}, UTF-8"}


def _operations(topic: Topic) -> list[tuple[str, Json]]:
    channel = f"#/channels/{_id(topic)}"
    doing = [("send", "writes", who) for who in topic.written_by]
    doing += [("receive", "reads", who) for who in topic.read_by]
    return [
        (
            f"{who}_{action}_{_id(topic)}",
            {
                "action": action,
                "channel": {"$ref": channel},
                "title": f"{who} {does} {topic.name}",
                "messages": [{"$ref": f"{channel}/messages/{name}"} for name in _messages(topic)],
                "tags": [{"name": who}],
            },
        )
        for action, does, who in doing
    ]


if __name__ == "__main__":
    main()
