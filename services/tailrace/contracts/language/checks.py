"""Checks that concern several fields of a contract at once. Each yields all that it finds."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping

from pydantic import ValidationError

from tailrace.contracts.expressions.compiler import ColumnType, ExpressionError, Kind, compile_expression
from tailrace.contracts.language.durations import format_duration, parse_duration, parse_share
from tailrace.contracts.language.expression_columns import policy_columns, request_columns, value_columns
from tailrace.contracts.language.fields import ContextField, Feature, Section
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.language.names import RESERVED_FIELDS, RESERVED_MODEL_SUFFIX, RESERVED_MODELS
from tailrace.contracts.language.pydantic_problems import explain
from tailrace.contracts.language.sections import ALERT_PHRASES, match_alert
from tailrace.contracts.problems import FieldPath, Violation, did_you_mean
from tailrace.statistics.metrics import METRICS_OF
from tailrace.templates.table import TEMPLATE

Findings = Iterator[Violation]
_ACTION = "action of the policy"


def check_contract(contract: ModelContract) -> Findings:
    """Yields everything that is wrong."""
    findings = [finding for check in _FIRST for finding in check(contract)]
    # Expressions mean something only where the fields do.
    yield from findings or (finding for check in _THEN for finding in check(contract))


def _names(contract: ModelContract) -> Findings:
    for place in ("model", "lane"):
        name = getattr(contract, place)
        if name in RESERVED_MODELS:
            yield Violation((place,), f"{name!r} is the product's own", "choose another name")
        if name.endswith(RESERVED_MODEL_SUFFIX):
            other = name.removesuffix(RESERVED_MODEL_SUFFIX)
            what = f"{name!r} would share tables with the shadow predictions of {other!r}"
            yield Violation((place,), what, f"choose a name that does not end in {RESERVED_MODEL_SUFFIX}")
    taken: dict[str, str] = {}
    for path, name in _field_names(contract):
        if name in RESERVED_FIELDS and (path, name) != (("key", "name"), "request_id"):
            yield Violation(path, f"the name {name!r} is reserved", "choose another name")
        elif name.lower() in taken:
            what = f"the name {name!r} is taken by {taken[name.lower()]}"
            yield Violation(path, what, "give each field its own name")
        taken.setdefault(name.lower(), ".".join(str(part) for part in path))
    for path, name in _field_names(contract):
        if name.startswith("feature_") and name.removeprefix("feature_").lower() in taken:
            what = f"{name!r} would collide with a column of its own table"
            yield Violation(path, what, "choose another name")


def _field_names(contract: ModelContract) -> Iterator[tuple[FieldPath, str]]:
    yield ("key", "name"), contract.key.name
    yield ("event_time", "name"), contract.event_time.name
    yield from ((("features", name), name) for name in contract.features)
    yield from ((("context", name), name) for name in contract.context)
    yield ("target", "name"), contract.target.name


def _fields(contract: ModelContract) -> Findings:
    for name, feature in contract.features.items():
        yield from _field(("features", name), feature)
    for name, field in contract.context.items():
        yield from _field(("context", name), field)


def _field(path: FieldPath, field: Feature | ContextField) -> Findings:
    if field.type == "category":
        yield from _categories(path, field.categories)
        if field.unseen not in ("reject", *(field.categories or ())):
            remedy = "write reject or one of the categories"
            yield Violation((*path, "unseen"), f"{field.unseen!r} is no category of {path[-1]}", remedy)
        if "reject" in (field.categories or ()):
            yield Violation((*path, "categories"), "'reject' cannot be told from unseen: reject", "rename it")
    else:
        of = f"fields with categories, not type {field.type}"
        yield from _only_for(path, field, ("categories", "unseen"), of)
    if field.type not in ("number", "integer"):
        yield from _only_for(path, field, ("unit", "min", "max"), f"numbers, not type {field.type}")
    elif field.min is not None and field.max is not None and field.min > field.max:
        yield Violation((*path, "min"), f"{field.min:g} is more than max, {field.max:g}", "exchange them")
    if field.type == "integer":
        for name in ("min", "max"):
            bound = getattr(field, name)
            if bound is not None and bound != int(bound):
                remedy = "write a whole number, or type: number"
                yield Violation((*path, name), f"{bound:g} is no whole number", remedy)


def _only_for(
    path: FieldPath, section: Section, names: Collection[str], of: str, remedy: str = "leave it out"
) -> Findings:
    for name in names:
        if getattr(section, name) is not None:
            yield Violation((*path, name.removesuffix("_ms")), f"is only for {of}", remedy)


def _one_of(path: FieldPath, word: str, known: Collection[str], what: str) -> Findings:
    if word not in known:
        yield Violation(path, f"{word!r} is no {what}", did_you_mean(word, known))


def _template_options(contract: ModelContract) -> Findings:
    """Those of a team's template are known where it is installed, which need not be here."""
    template = TEMPLATE.get(contract.training.template)
    if template is None:
        return
    try:
        template.options.model_validate(contract.training.options or {})
    except ValidationError as error:
        for details in error.errors():
            finding = explain(details, template.options)
            yield finding._replace(path=("training", "options", *finding.path))


def _categories(path: FieldPath, given: list[str] | None) -> Findings:
    if given is None:
        yield Violation(path, "has type category and no categories", "add categories: [a, b, ...]")
    elif len(set(given)) < len(given):
        twice = next(value for value in given if given.count(value) > 1)
        yield Violation((*path, "categories"), f"{twice!r} stands twice", "keep one of them")


def _target(contract: ModelContract) -> Findings:
    target = contract.target
    if target.type == "category":
        yield from _categories(("target",), target.categories)
        path: FieldPath = ("target", "positive")
        if target.positive is not None and len(target.categories or ()) != 2:
            yield Violation(path, "is for two categories", "leave it out for several classes")
        elif target.positive is not None:
            yield from _one_of(path, target.positive, target.categories or (), "category of the target")
    else:
        of = f"a target with categories, not {target.type}"
        yield from _only_for(("target",), target, ("categories", "positive"), of)


def _labels(contract: ModelContract) -> Findings:
    labels = contract.labels
    path: FieldPath = ("labels", "join")
    if labels.join.by != "request_id":
        what = "joins nothing: this version of Tailrace joins labels by request_id alone"
        remedy = "leave join out, and send with each label the request_id of its request"
        yield Violation((*path, "by"), what, remedy)
    yield from _only_for(path, labels.join, ("within_ms", "take"), "a join by key, which is not here yet")
    yield from _actions(contract, ("labels", "known_only_for"), labels.known_only_for)
    if labels.never is not None:
        assume = labels.never.assume
        fits = {
            "boolean": isinstance(assume, bool),
            "number": isinstance(assume, float | int) and not isinstance(assume, bool),
            "category": assume in contract.classes,
        }[contract.target.type]
        if not fits:
            remedy = f"write one of {', '.join(contract.classes)}" if contract.classes else "write a number"
            yield Violation(("labels", "never", "assume"), f"{assume!r} is no value of the target", remedy)


def _actions(contract: ModelContract, path: FieldPath, given: Collection[str]) -> Findings:
    for index, action in enumerate(given):
        yield from _one_of((*path, index), action, contract.actions, _ACTION)


def _policy(contract: ModelContract) -> Findings:
    columns = policy_columns(contract)
    for index, rule in enumerate(contract.policy):
        path: FieldPath = ("policy", index)
        if rule.when is not None:
            yield from _expression((*path, "when"), rule.when, columns)
        elif index < len(contract.policy) - 1:
            what = "always matches, so that the rules after it never do"
            yield Violation(path, what, "add when, or move it to the end")
    yield from _unique(("policy",), [rule.name for rule in contract.policy])
    if contract.explore:
        policy_actions = list(dict.fromkeys(rule.do for rule in contract.policy)) or contract.classes
        for name, action in (("from", contract.explore.from_action), ("do", contract.explore.do)):
            yield from _one_of(("explore", name), action, policy_actions, _ACTION)
    yield from _actions(contract, ("explain", "always"), contract.explain.always)


def _unique(path: FieldPath, names: list[str]) -> Findings:
    for index, name in enumerate(names):
        if name in names[:index]:
            what = f"the name {name!r} is taken"
            yield Violation((*path, index, "name"), what, "give each rule its own name")


def _rules(contract: ModelContract) -> Findings:
    for index, rule in enumerate(contract.rules):
        yield from _expression(("rules", index, "require"), rule.require, request_columns(contract))
    yield from _unique(("rules",), [rule.name for rule in contract.rules])


def _guardrails(contract: ModelContract) -> Findings:
    fallback = contract.guardrails.fallback
    wanted: Kind = "text" if contract.task == "multiclass" else "number"
    for index, step in enumerate(fallback):
        path: FieldPath = ("guardrails", "fallback", index)
        if index < len(fallback) - 1 and (step.do is not None or step.constant is not None):
            yield Violation(path, "always answers, so that the steps after it never do", "move it to the end")
        if step.rule is not None:
            yield from _expression((*path, "rule"), step.rule, request_columns(contract), wanted)
        if step.constant is not None and isinstance(step.constant, str) != (wanted == "text"):
            what = f"{step.constant!r} is no answer of a {contract.task} model"
            remedy = "write a class" if wanted == "text" else "write a number"
            yield Violation((*path, "constant"), what, remedy)
        elif isinstance(step.constant, str):
            yield from _one_of((*path, "constant"), step.constant, contract.classes, "class")


def _drift(contract: ModelContract) -> Findings:
    for index, name in enumerate(contract.drift.by):
        yield from _groups(contract, ("drift", "by", index), name)


def _groups(contract: ModelContract, path: FieldPath, name: str) -> Findings:
    """A field that splits rows into groups: known, and of few values."""
    fields = contract.features | contract.context
    if name not in fields:
        yield Violation(path, f"there is no field {name!r}", did_you_mean(name, fields))
    elif fields[name].type not in ("category", "boolean"):
        what = f"{name!r} is of type {fields[name].type} and makes no groups"
        yield Violation(path, what, "name a field with categories, or a boolean one")


def _slices(contract: ModelContract, path: FieldPath, slices: list[str]) -> Findings:
    for index, text in enumerate(slices):
        if text.isidentifier():
            yield from _groups(contract, (*path, index), text)
        else:
            yield from _expression((*path, index), text, request_columns(contract))


def _quality(contract: ModelContract) -> Findings:
    quality = contract.quality
    ages = quality.judge_at_ms
    if any(later <= earlier for earlier, later in itertools.pairwise(ages)):
        remedy = "list them from the youngest to the oldest"
        yield Violation(("quality", "judge_at"), "the ages do not rise", remedy)
    horizon = contract.labels.horizon_ms
    for index, age in enumerate(ages):
        if age > horizon:
            what = f"{format_duration(age)} is after labels.horizon, {format_duration(horizon)}"
            yield Violation(("quality", "judge_at", index), what, "no label is waited for after the horizon")
    for index, metric in enumerate(quality.metrics):
        yield from _metric(contract, ("quality", "metrics", index), metric)
    for metric in quality.drop:
        yield from _metric(contract, ("quality", "drop", metric), metric)
    yield from _slices(contract, ("quality", "slices"), quality.slices)
    if ratio := quality.selection_ratio:
        path: FieldPath = ("quality", "selection_ratio")
        yield from _groups(contract, (*path, "of"), ratio.of)
        yield from _one_of((*path, "favourable"), ratio.favourable, contract.actions, _ACTION)


def _metric(contract: ModelContract, path: FieldPath, metric: str) -> Findings:
    fitting = METRICS_OF[contract.task]
    if metric not in fitting:
        what = f"{metric!r} is no metric of a {contract.task} model"
        yield Violation(path, what, f"choose one of {', '.join(fitting)}")


def _value(contract: ModelContract) -> Findings:
    if contract.value is not None:
        yield from _expression(("value",), contract.value, value_columns(contract), "number")


def _alerts(contract: ModelContract) -> Findings:
    for index, phrase in enumerate(contract.alerts.severe):
        path: FieldPath = ("alerts", "severe", index)
        match = match_alert(phrase)
        if match is None:
            yield Violation(path, f"{phrase!r} names no alert", did_you_mean(phrase, ALERT_PHRASES.values()))
            continue
        _, places = match
        if "field" in places and places["field"] not in contract.features:
            remedy = did_you_mean(places["field"], contract.features)
            yield Violation(path, f"there is no feature {places['field']!r}", remedy)
        if "metric" in places:
            yield from _metric(contract, path, places["metric"])
        for name, parse in (("share", parse_share), ("duration", parse_duration)):
            if name in places:
                try:
                    parse(places[name])
                except ValueError as error:
                    what, _, remedy = str(error).partition("; ")
                    yield Violation(path, what, remedy)


def _gates(contract: ModelContract) -> Findings:
    gates = contract.gates
    for name in ("beat_champion", "beat_baseline", "ratchet", "not_worse_on"):
        gate = getattr(gates, name)
        if gate is not None:
            yield from _metric(contract, ("gates", name, "metric"), gate.metric)
    if gates.not_worse_on:
        yield from _slices(contract, ("gates", "not_worse_on", "slices"), gates.not_worse_on.slices)
    for index, direction in enumerate(gates.directions):
        path: FieldPath = ("gates", "directions", index, "raise")
        name = direction.raise_field
        if name not in contract.features:
            remedy = did_you_mean(name, contract.features)
            yield Violation(path, f"there is no feature {name!r}", remedy)
        elif contract.features[name].type not in ("number", "integer"):
            yield Violation(path, f"{name!r} is no number and cannot rise", "name a numeric feature")


def _rollout(contract: ModelContract) -> Findings:
    if contract.rollout.canary:
        steps = [0.0, *contract.rollout.canary.steps]
        if any(later <= earlier for earlier, later in itertools.pairwise(steps)):
            path = "rollout", "canary", "steps"
            yield Violation(path, "the shares do not rise", "such as [1%, 10%, 50%]")


def _experiment(contract: ModelContract) -> Findings:
    experiment = contract.experiment
    if experiment is None:
        return
    if contract.value is None:
        what = "compares what answers are worth, and the contract does not say what that is"
        remedy = "add value, such as value: \"CASE WHEN action = 'approve' ...\""
        yield Violation(("experiment",), what, remedy)
    for name in ("share", "epsilon"):
        if getattr(experiment, name) == 0 and (name == "share" or experiment.assign != "fixed"):
            remedy = "write more than 0%, so that every arm goes on answering some"
            yield Violation(("experiment", name), "leaves arms without a request", remedy)


def _keep(contract: ModelContract) -> Findings:
    why = {
        "predictions_ms": "labels.horizon and the longest window",
        "labels_ms": "labels.horizon and event_time.lateness",
        "outcomes_ms": "labels.horizon and training.window",
    }
    for name, least in contract.least_keep_ms().items():
        given = getattr(contract.keep, name)
        if given < least:
            what = f"{format_duration(given)} is shorter than {why[name]} together, {format_duration(least)}"
            yield Violation(("keep", name.removesuffix("_ms")), what, "keep them longer, or leave it out")
    if contract.keep.requests_ms < contract.event_time.lateness_ms:
        what = f"{format_duration(contract.keep.requests_ms)} is shorter than event_time.lateness"
        yield Violation(("keep", "requests"), what, "keep them longer")


def _expression(
    path: FieldPath, text: str, columns: Mapping[str, ColumnType], want: Kind = "boolean"
) -> Findings:
    try:
        compile_expression(text, columns, want)
    except ExpressionError as error:
        yield Violation(path, error.what, error.remedy)


_FIRST: tuple[Callable[[ModelContract], Findings], ...] = (_names, _fields, _target, _template_options)
_THEN: tuple[Callable[[ModelContract], Findings], ...] = (
    _rules,
    _labels,
    _policy,
    _guardrails,
    _drift,
    _quality,
    _value,
    _alerts,
    _gates,
    _rollout,
    _experiment,
    _keep,
)
