"""The Avro schemas of a lane's records, generated from the model's contract. Pure functions.

Field order is part of what is promised: a prediction nests its request, so that the request's bytes can be copied.
Every field of a request is nullable with the default null. So a contract may gain and lose fields without a break, and
a missing value is found by the contract's own rules instead of by the serializer of whoever wrote it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tailrace.contracts.records.lanes import Lane

if TYPE_CHECKING:
    from tailrace.contracts.language.model_contract import ModelContract

AvroSchema = dict[str, Any]

RESERVED = frozenset({"request_id", "model"})
"""Names that every request has, and that no feature or context field may therefore take."""

_TIMESTAMP: AvroSchema = {"type": "long", "logicalType": "timestamp-millis"}
_TYPES = {
    "number": "double",
    "integer": "long",
    "boolean": "boolean",
    "category": "string",
    "string": "string",
}


def avro_type(kind: str) -> str:
    """The Avro type of a contract's field type."""
    return _TYPES[kind]


def namespace(model: str) -> str:
    """The Avro namespace of a model's records; names there may not have dashes."""
    return f"tailrace.{model.replace('-', '_')}"


def request_schema(contract: ModelContract) -> AvroSchema:
    """``NAMESPACE.Request``: ids, event time, features, context; all nullable."""
    fields = [
        *_identity(contract, "When it happened, by the producer"),
        *(_nullable(name, _TYPES[f.type], _doc(f)) for name, f in contract.features.items()),
        *(
            _nullable(name, _TYPES[f.type], _doc(f, "Context: logged, never given to a model"))
            for name, f in contract.context.items()
        ),
    ]
    return _record(contract, "Request", f"A request to {contract.model}.", _unique(fields))


def label_schema(contract: ModelContract) -> AvroSchema:
    """``NAMESPACE.Label``: the truth about one request, once it is known."""
    target = _nullable(contract.target.name, _TYPES[contract.target.type], "What really happened.")
    fields = [
        *_identity(contract, "When the label became known"),
        target,
        _nullable("labelled_by", "string", "Who or what says so."),
    ]
    return _record(contract, "Label", f"The truth about a request to {contract.model}.", _unique(fields))


def action_schema(contract: ModelContract) -> AvroSchema:
    """``NAMESPACE.Action``: what was really done, which need not be what the policy said."""
    fields = [
        *_identity(contract, "When it was done"),
        _nullable("action", "string", "What was really done."),
        _nullable("by", "string", "Who or what did it."),
    ]
    return _record(contract, "Action", f"What was done about a request to {contract.model}.", _unique(fields))


def prediction_schema(contract: ModelContract) -> AvroSchema:
    """``NAMESPACE.Prediction``: one self-contained record from which a decision can be audited and reproduced."""
    fields = [
        _text("prediction_id", "ROLE:TOPIC/PARTITION/OFFSET, of the request: the same at each attempt."),
        _text("request_id", "The request's id, or its coordinates where it has none."),
        _text("key", "Canonical text of the contract's key field; also the record's key."),
        _field("event_time", _TIMESTAMP, "The request's event time, or when it was appended to the log."),
        _field("source", _SOURCE, "The request's coordinates."),
        _text("model", "Logical model."),
        _field("version", "long", "Version that scored."),
        _text("artifact_digest", "SHA-256 (hex) of the package's manifest."),
        _text("contract_digest", "SHA-256 (hex) of the contract in force."),
        _field("rollout_revision", "long", "Revision of the rollout in force."),
        _field(
            "runtime", _map("string"), "Versions of the libraries that computed it, and the kind of machine."
        ),
        _text("role", "champion, canary, arm or shadow: as routed; never changes."),
        _nullable("arm", "string", "Name of the arm, in an experiment."),
        _text("served_by", "Who answered in the end: model, previous, rule, constant or person."),
        _nullable("served_cause", "string", "Why it was not the model."),
        _field("request", request_schema(contract), "The request as received."),
        _field("replaced", _array(_REPLACED), "What was replaced before scoring."),
        _nullable("score", "double", "Probability of the positive class, for a binary target."),
        _field("probabilities", _map("double"), "Probability by class, for a target of several classes."),
        _nullable("predicted_class", "string", "The class, for a target with classes."),
        _nullable("value", "double", "The value, for a numeric target."),
        _text("action", "What the policy chose."),
        _nullable("rule", "string", "Name of the policy rule that chose it."),
        _field("action_propensity", "double", "Probability with which this action was chosen."),
        _field("arm_propensity", "double", "Probability with which this version was chosen."),
        _field("guardrails", _array(_FINDING), "What the guards found."),
        _field("guarded", "boolean", "Whether the policy was told that the answer may not be trusted."),
        _nullable("coverage", "double", "With which probability the set or the interval holds the truth."),
        _nullable("prediction_set", _array("string"), "For a target with classes: those that may be true."),
        _nullable("interval_low", "double", "For a numeric target: the lower end of its interval."),
        _nullable("interval_high", "double", "The upper end."),
        _field(
            "explanation", ["null", _array(_CONTRIBUTION)], "Contributions of features, where computed.", None
        ),
        _field("latency_ms", "double", "From reading the request to the finished answer, in milliseconds."),
    ]
    return _record(contract, "Prediction", f"An answer of {contract.model}.", fields)


def outcome_schema(contract: ModelContract) -> AvroSchema:
    """``NAMESPACE.Outcome``: a prediction and what became of it. The prediction is nested last, so that its bytes can
    be copied.
    """
    truth = _TYPES[contract.target.type]
    fields = [
        _text(
            "outcome_id", "The prediction's id, and what led to this revision: coordinates, or the horizon."
        ),
        _field(
            "revision", "int", "1 for the first outcome of a prediction, one more for each that replaces it."
        ),
        _nullable("replaces", "string", "The outcome that this one replaces."),
        _text("state", "labelled, unlabelled (none came by the horizon) or assumed (as the contract says)."),
        _nullable("duplicate_of", "string", "The prediction that counts, where its request was sent again."),
        _field(
            "known_at", _TIMESTAMP, "When the lane's clock knew both prediction and truth; not before either."
        ),
        _field("late", "boolean", "The label came behind the watermark of its partition."),
        _nullable("label", truth, "What really happened."),
        _nullable("label_time", _TIMESTAMP, "When the label became known, by its own account."),
        _nullable("label_source", _SOURCE, "The label's coordinates."),
        _nullable("labelled_by", "string", "Who or what said so."),
        _nullable("action_taken", "string", "What was really done, where an action said so."),
        _nullable("action_source", _SOURCE, "The action's coordinates."),
        _nullable(
            "before",
            _part(
                "Before" + contract.target.type.capitalize(),
                _text("state", ""),
                _nullable("label", truth, ""),
                _nullable("action_taken", "string", ""),
            ),
            "What the replaced outcome said, so that it can be taken back out of sums.",
        ),
        _nullable("champion", _ANSWERED, "In shadow: what answered the same request."),
        _field("prediction", prediction_schema(contract), "The prediction as logged."),
    ]
    doc = f"What became of an answer of {contract.model}."
    return dict(_once(_record(contract, "Outcome", doc, fields)))


def lane_schemas(contract: ModelContract) -> dict[str, AvroSchema]:
    """The value schema of each of the model's topics, by topic; dead letters have none, they are what came in."""
    lane = Lane(contract.lane)
    prediction = prediction_schema(contract)
    return {
        lane.requests: request_schema(contract),
        lane.predictions: prediction,
        lane.shadow_predictions: prediction,
        lane.labels: label_schema(contract),
        lane.actions: action_schema(contract),
        lane.outcomes: outcome_schema(contract),
    }


def subject(topic: str, model: str, lane: str) -> str:
    """The registry subject of a model's records on a topic of its lane.

    The model that the lane is named after has the usual ``TOPIC-value``; further models of a shared lane have
    ``TOPIC-RECORD``, as by Confluent's TopicRecordNameStrategy, so that each evolves by itself.

    Raises:
        KeyError: the topic is not one that carries typed records.
    """
    if model == lane:
        return f"{topic}-value"
    record = LANE_RECORDS[topic.removeprefix(f"{lane}.")]
    return f"{topic}-{namespace(model)}.{record}"


LANE_RECORDS = {
    "requests": "Request",
    "predictions": "Prediction",
    "shadow-predictions": "Prediction",
    "labels": "Label",
    "actions": "Action",
    "outcomes": "Outcome",
}
"""By topic of a lane, the name of what it holds."""


def _identity(contract: ModelContract, time: str) -> list[AvroSchema]:
    fields = [_nullable("request_id", "string", "The producer's id of the request.")]
    if contract.key.name != "request_id":
        key_type = "string" if contract.key.type == "string" else "long"
        doc = "The key: what all that concerns one thing shares."
        fields.append(_nullable(contract.key.name, key_type, doc))
    fields.append(_nullable("model", "string", "Logical model, where several share the lane."))
    doc = f"{time}; where missing, when it was appended to the log."
    return [*fields, _nullable(contract.event_time.name, _TIMESTAMP, doc)]


def _unique(fields: list[AvroSchema]) -> list[AvroSchema]:
    # The key may be a feature or a context field as well; it stands where the ids stand.
    return list({field["name"]: field for field in reversed(fields)}.values())[::-1]


def _record(contract: ModelContract, name: str, doc: str, fields: list[AvroSchema]) -> AvroSchema:
    space = namespace(contract.model)
    return {"type": "record", "name": name, "namespace": space, "doc": doc, "fields": fields}


def _doc(field: Any, lead: str = "") -> str:
    unit = f"in {field.unit}" if getattr(field, "unit", None) else ""
    return ", ".join(part for part in (lead, unit) if part) + ("." if lead or unit else "")


_REQUIRED = object()


def _field(name: str, kind: Any, doc: str, default: Any = _REQUIRED) -> AvroSchema:
    field: AvroSchema = {"name": name, "type": kind}
    if doc:
        field["doc"] = doc
    if default is not _REQUIRED:
        field["default"] = default
    return field


def _text(name: str, doc: str) -> AvroSchema:
    return _field(name, "string", doc)


def _nullable(name: str, kind: Any, doc: str) -> AvroSchema:
    return _field(name, ["null", kind], doc, None)


def _once(schema: Any, seen: set[str] | None = None) -> Any:
    """The schema with each named type spelled out the first time and named from then on, as Avro wants it."""
    seen = set() if seen is None else seen
    if isinstance(schema, list):
        return [_once(branch, seen) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") == "record":
        full = f"{schema['namespace']}.{schema['name']}"
        if full in seen:
            return full
        seen.add(full)
    return {
        key: _once(value, seen) if key in ("type", "items", "values", "fields") else value
        for key, value in schema.items()
    }


def _array(items: Any) -> AvroSchema:
    return {"type": "array", "items": items}


def _map(values: Any) -> AvroSchema:
    return {"type": "map", "values": values}


def _part(name: str, *fields: AvroSchema) -> AvroSchema:
    return {"type": "record", "name": name, "namespace": "tailrace", "fields": list(fields)}


_SOURCE = _part("Source", _text("topic", ""), _field("partition", "int", ""), _field("offset", "long", ""))
_REPLACED = _part(
    "Replaced",
    _text("field", "Which field."),
    _nullable("value", "string", "What the model was given instead, as text."),
    _text("reason", "Why."),
)
_FINDING = _part(
    "Finding",
    _text("guard", "Which guard."),
    _nullable("field", "string", "About which field."),
    _text("detail", "What it found."),
)
_CONTRIBUTION = _part("Contribution", _text("feature", ""), _field("contribution", "double", ""))
_ANSWERED = _part(
    "Answered",
    _text("prediction_id", ""),
    _field("version", "long", ""),
    _nullable("score", "double", ""),
    _field("probabilities", _map("double"), ""),
    _nullable("predicted_class", "string", ""),
    _nullable("value", "double", ""),
    _text("action", ""),
)
