"""What a person reads when a contract is wrong: every problem, with its line, its field and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.contracts.language.load import load_contract
from tailrace.contracts.problems import ContractError
from tailrace.errors import TailraceError

VALID = """\
model: m
owner: {team: t}
features:
  a: {type: number, min: 0}
  b: {categories: [x, y]}
target: {name: t, type: boolean}
labels: {horizon: 30d}
"""


def complaints(text: str) -> list[str]:
    with pytest.raises(ContractError) as error:
        load_contract(text)
    return [line.removeprefix("contract:") for line in str(error.value).splitlines()]


def test_every_slip_is_named_at_once_with_its_line() -> None:
    text = """\
model: Credit
owner: {tem: risk}
polcy: []
features:
  income: {type: nmber, min: "0"}
  purpose: {categories: [1, car]}
  debt ratio: {type: number}
target: {name: defaulted, type: boolean}
labels:
  horizon: 5 days
  join: {by: ky}
explore: {share: 5, from: refuse}
training:
  triggers:
    - {drift: alert, labels: 4}
    - {labls: 1}
"""
    assert complaints(text) == [
        "1: model: 'Credit' is no valid name; it must match ^[a-z][a-z0-9]*(-[a-z0-9]+)*$",
        "2: owner.team: is missing; add 'team'",
        "2: owner.tem: is no field of a contract here; did you mean 'team'?",
        "3: polcy: is no field of a contract here; did you mean 'policy'?",
        "5: features.income.type: 'nmber' is not allowed; did you mean 'number'?",
        "5: features.income.min: must be a number, not the text '0'",
        '6: features.purpose.categories[0]: must be text, not 1; write it in quotes: "1"',
        "7: features.debt ratio: 'debt ratio' is no valid name; it must match ^[A-Za-z][A-Za-z0-9_]*$",
        (
            "10: labels.horizon: '5 days' is not a duration; write a whole number and a unit: 500ms, 30s, 5min, "
            "12h or 7d"
        ),
        "11: labels.join.by: 'ky' is not allowed; did you mean 'key'?",
        "12: explore.share: 5 is not a share; write a percentage between 0% and 100%, such as 5% or 0.5%",
        "12: explore.do: is missing; add 'do'",
        "15: training.triggers[0]: says 2 things; write exactly one of drift, quality, every, labels",
        "16: training.triggers[1].labls: is no field of a contract here; did you mean 'labels'?",
    ]


@pytest.mark.parametrize(
    ("extra", "complaint"),
    [
        # policy and expressions
        (
            "policy: [{do: x}, {do: y}]",
            "8: policy[0]: always matches, so that the rules after it never do; add when, or move it to the end",
        ),
        (
            "policy: [{when: \"b = 'z'\", do: x}]",
            "8: policy[0].when: there is no category 'z' here; choose one of x, y",
        ),
        (
            'policy: [{when: "scor < 1", do: x}]',
            "8: policy[0].when: there is no field 'scor' here; did you mean 'score'?",
        ),
        (
            'policy: [{when: "score", do: x}]',
            "8: policy[0].when: is a number, where true or false is needed; compare it with something",
        ),
        (
            'policy: [{when: "score < 1", do: x, name: n}, {do: y, name: n}]',
            "8: policy[1].name: the name 'n' is taken; give each rule its own name",
        ),
        (
            'rules: [{name: r, require: "score > 1"}]',
            "8: rules[0].require: there is no field 'score' here; choose one of a, b",
        ),
        ('value: "t"', "8: value: is true or false, where a number is needed"),
        (
            "policy: [{do: x}]\nexplore: {share: 1%, from: y, do: x}",
            "9: explore.from: 'y' is no action of the policy; choose one of x",
        ),
        (
            "explain: {always: [appprove]}",
            "8: explain.always[0]: 'appprove' is no action of the policy; choose one of false, true",
        ),
        # metrics, slices, ages
        (
            "quality: {metrics: [rmse]}",
            (
                "8: quality.metrics[0]: 'rmse' is no metric of a binary model; "
                "choose one of auc, log_loss, brier, accuracy, balanced_accuracy, f1"
            ),
        ),
        (
            "gates: {ratchet: {metric: mae}}",
            (
                "8: gates.ratchet.metric: 'mae' is no metric of a binary model; "
                "choose one of auc, log_loss, brier, accuracy, balanced_accuracy, f1"
            ),
        ),
        (
            "quality: {slices: [a]}",
            (
                "8: quality.slices[0]: 'a' is of type number and makes no groups; "
                "name a field with categories, or a boolean one"
            ),
        ),
        (
            "quality: {slices: [\"a > 'x'\"]}",
            "8: quality.slices[0]: a is a number and 'x' is text: they are never equal; compare like with like",
        ),
        ("drift: {by: [c]}", "8: drift.by[0]: there is no field 'c'; choose one of a, b"),
        (
            "quality: {judge_at: [0d, 40d]}",
            "8: quality.judge_at[1]: 40d is after labels.horizon, 30d; no label is waited for after the horizon",
        ),
        (
            "quality: {judge_at: [10d, 0d]}",
            "8: quality.judge_at: the ages do not rise; list them from the youngest to the oldest",
        ),
        (
            "alerts: {severe: [quality drops]}",
            "8: alerts.severe[0]: 'quality drops' names no alert; did you mean 'quality drop'?",
        ),
        (
            "alerts: {severe: [drift on c]}",
            "8: alerts.severe[0]: there is no feature 'c'; choose one of a, b",
        ),
        (
            "gates: {directions: [{raise: b, score: not_up}]}",
            "8: gates.directions[0].raise: 'b' is no number and cannot rise; name a numeric feature",
        ),
        (
            "experiment: {}",
            (
                "8: experiment: compares what answers are worth, and the contract does not say what that is; add "
                "value, such as value: \"CASE WHEN action = 'approve' ...\""
            ),
        ),
        (
            'value: "1"\nexperiment: {assign: thompson, epsilon: 0%}',
            (
                "9: experiment.epsilon: leaves arms without a request; write more than 0%, so that every arm goes on "
                "answering some"
            ),
        ),
        (
            'value: "1"\nexperiment: {share: 0%}',
            (
                "9: experiment.share: leaves arms without a request; write more than 0%, so that every arm goes on "
                "answering some"
            ),
        ),
        (
            "rollout: {canary: {steps: [5%, 1%]}}",
            "8: rollout.canary.steps: the shares do not rise; such as [1%, 10%, 50%]",
        ),
        # retention
        (
            "keep: {predictions: 10d}",
            (
                "8: keep.predictions: 10d is shorter than labels.horizon and the longest window together, 37d; "
                "keep them longer, or leave it out"
            ),
        ),
        (
            "keep: {labels: 30d}",
            (
                "8: keep.labels: 30d is shorter than labels.horizon and event_time.lateness together, 721h; "
                "keep them longer, or leave it out"
            ),
        ),
        (
            "keep: {outcomes: 30d}",
            (
                "8: keep.outcomes: 30d is shorter than labels.horizon and training.window together, 210d; "
                "keep them longer, or leave it out"
            ),
        ),
        # guardrails
        (
            "guardrails: {fallback: [{constant: 0.5}, {previous: true}]}",
            "8: guardrails.fallback[0]: always answers, so that the steps after it never do; move it to the end",
        ),
        (
            "guardrails: {fallback: [{constant: x}]}",
            "8: guardrails.fallback[0].constant: 'x' is no answer of a binary model; write a number",
        ),
        # names
        (
            "context: {score: {type: number}}",
            "8: context.score: the name 'score' is reserved; choose another name",
        ),
        (
            "context: {A: {type: string}}",
            "8: context.A: the name 'A' is taken by features.a; give each field its own name",
        ),
        (
            "context: {feature_a: {type: string}}",
            "8: context.feature_a: 'feature_a' would collide with a column of its own table; choose another name",
        ),
        ("key: {name: a}", "4: features.a: the name 'a' is taken by key.name; give each field its own name"),
        ("lane: tailrace", "8: lane: 'tailrace' is the product's own; choose another name"),
        (
            "lane: x-shadow",
            (
                "8: lane: 'x-shadow' would share tables with the shadow predictions of 'x'; "
                "choose a name that does not end in -shadow"
            ),
        ),
        # fields
        (
            "context: {d: {type: number, min: 3, max: 1}}",
            "8: context.d.min: 3 is more than max, 1; exchange them",
        ),
        (
            "context: {d: {type: integer, min: 0.5}}",
            "8: context.d.min: 0.5 is no whole number; write a whole number, or type: number",
        ),
        (
            "context: {d: {type: string, max: 1}}",
            "8: context.d.max: is only for numbers, not type string; leave it out",
        ),
        (
            "context: {d: {categories: [p, q, p]}}",
            "8: context.d.categories: 'p' stands twice; keep one of them",
        ),
        (
            "context: {d: {categories: [p, q], unseen: r}}",
            "8: context.d.unseen: 'r' is no category of d; write reject or one of the categories",
        ),
        (
            "context: {d: {type: category}}",
            "8: context.d: has type category and no categories; add categories: [a, b, ...]",
        ),
        # the file itself
        ("features: {}", '8: "features" stands twice; keep one of them'),
        ("policy: {do: x}", "8: policy: must be a list, not a mapping; write [a, b, ...]"),
        (
            "\tx: 1",
            (
                "8: not YAML: found character '\\t' that cannot start any token; "
                "check the indentation, brackets and quotes around this line"
            ),
        ),
        (
            "training: {template: logistic-regresion}",
            "8: training.template: 'logistic-regresion' is not allowed; did you mean 'logistic-regression'?",
        ),
        (
            "training: {template: random-forest, options: {tres: 5}}",
            "8: training.options.tres: is no field of a contract here; did you mean 'trees'?",
        ),
        (
            "training: {template: random-forest, options: {trees: many}}",
            "8: training.options.trees: must be a whole number, not the text 'many'",
        ),
        (
            "training: {options: {trees: 5}}",
            "8: training.options.trees: is no field of a contract here",
        ),
        ("drift: {min_rows: .5}", "8: drift.min_rows: must be a whole number, not 0.5"),
        ("drift: {window: 0d}", "8: drift.window: must be longer than zero"),
    ],
)
def test_one_slip_at_a_time(extra: str, complaint: str) -> None:
    assert complaints(f"{VALID}{extra}\n") == [complaint]


NO_JOIN_BY_KEY = (
    "7: labels.join.by: joins nothing: this version of Tailrace joins labels by request_id alone; "
    "leave join out, and send with each label the request_id of its request"
)


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [
        *(
            (
                labels,
                NO_JOIN_BY_KEY,
            )
            for labels in ("{join: {by: key}}", "{join: key}", "{join: {by: key, within: 1d, take: last}}")
        ),
        (
            "{join: {take: last}}",
            "7: labels.join.take: is only for a join by key, which is not here yet; leave it out",
        ),
        (
            "{never: {assume: maybe}}",
            "7: labels.never.assume: 'maybe' is no value of the target; write one of false, true",
        ),
        (
            "{known_only_for: [aprove]}",
            "7: labels.known_only_for[0]: 'aprove' is no action of the policy; choose one of false, true",
        ),
    ],
)
def test_labels(labels: str, complaint: str) -> None:
    assert complaint in complaints(VALID.replace("{horizon: 30d}", labels))


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        (
            "{name: t, type: boolean, positive: x}",
            "6: target.positive: is only for a target with categories, not boolean; leave it out",
        ),
        (
            "{name: t, categories: [p, q, r], positive: p}",
            "6: target.positive: is for two categories; leave it out for several classes",
        ),
        (
            "{name: t, categories: [yes, no], positive: ye}",
            "6: target.positive: 'ye' is no category of the target; did you mean 'yes'?",
        ),
        (
            "{name: a, type: boolean}",
            "6: target.name: the name 'a' is taken by features.a; give each field its own name",
        ),
    ],
)
def test_target(target: str, complaint: str) -> None:
    assert complaint in complaints(VALID.replace("{name: t, type: boolean}", target))


def test_yaml_1_2_keeps_no_and_on_as_text() -> None:
    contract = load_contract(VALID.replace("[x, y]", "[NO, yes, on, off]"))
    assert contract.features["b"].categories == ["NO", "yes", "on", "off"]


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n", "just words\n"])
def test_what_is_no_mapping_says_how_to_begin(text: str) -> None:
    assert complaints(text)[0].endswith("start with `model: NAME`")


def test_a_file_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(VALID.replace("owner", "ownr"))
    with pytest.raises(ContractError) as error:
        load_contract(path)
    assert str(path) + ":2: ownr: is no field of a contract here; did you mean 'owner'?" in str(error.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(TailraceError, match="cannot be read"):
        load_contract(tmp_path / "missing.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"model: caf\xe9\n")
    with pytest.raises(TailraceError, match="cannot be read"):
        load_contract(tmp_path / "latin.yaml")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("policy: &x [*x]", "8: holds too much, or an alias of itself; write it without aliases"),
        (
            "context: !!python/object:os.system x",
            ("8: the tag tag:yaml.org,2002:python/object:os.system is not allowed; leave it out"),
        ),
        ("context: !!set {a}", "8: the tag tag:yaml.org,2002:set is not allowed; leave it out"),
        ("? [a]: b", "8: a key that is no text; write name: value"),
        ("labels: {horizon: 1d}", '8: "labels" stands twice; keep one of them'),
    ],
)
def test_yaml_that_is_more_than_data(line: str, complaint: str) -> None:
    assert complaints(f"{VALID}{line}\n") == [complaint]


def test_characters_that_no_yaml_has() -> None:
    assert complaints(VALID + "\x07")[0].startswith("1: not YAML: unacceptable character")


_JUNK = [
    "{",
    "]",
    ":",
    "- ",
    "&a",
    "*a",
    "!!binary x",
    "? [1]",
    "<<: *a",
    "1",
    "null",
    ".inf",
    "2020-01-01",
    "'",
    "#",
    "|",
    "\t",
    "1e400",
    "{}",
    "x: y",
    "0o7",
    "!!omap",
    "é",
]
_EVERYTHING = (
    (Path(__file__).parents[2] / "contract" / "model_contracts" / "everything.yaml").read_text().splitlines()
)


@settings(max_examples=80)
@given(st.data())
def test_whatever_is_written_is_refused_properly_or_stays_itself(data: st.DataObject) -> None:
    lines = list(_EVERYTHING)
    for _ in range(data.draw(st.integers(1, 3))):
        number = data.draw(st.integers(0, len(lines) - 1))
        place = data.draw(st.integers(0, len(lines[number])))
        junk = data.draw(st.sampled_from(_JUNK))
        lines[number] = lines[number][:place] + junk + lines[number][place + data.draw(st.integers(0, 3)) :]
    try:
        contract = load_contract("\n".join(lines))
    except TailraceError:
        return
    assert load_contract(contract.resolved_json) == contract


@pytest.mark.parametrize(
    ("written", "remedy"),
    [
        ("01", 'write it in quotes: "01"'),
        ("true", 'write it in quotes: "true"'),
        ("1.50", 'write it in quotes: "1.50"'),
    ],
)
def test_a_category_that_yaml_takes_for_another_type_is_quoted_as_it_stands(
    written: str, remedy: str
) -> None:
    text = (
        f"model: m\nowner: {{team: t}}\nfeatures:\n  k: {{categories: [{written}, b]}}\n"
        "target: {name: y, type: boolean}\n"
    )
    with pytest.raises(ContractError, match=f"must be text, not {written}; {remedy}"):
        load_contract(text)
