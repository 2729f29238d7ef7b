"""The contracts that ship, and the schema by which editors check contracts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tailrace.contracts.language.json_schema import schema_text
from tailrace.contracts.language.load import load_contract
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.language.without_effect import unused_fields
from tailrace.contracts.language.yaml_file import read_yaml
from tailrace.contracts.problems import ContractError
from tailrace.files.data_mapping import find_mapping

REPO = Path(__file__).parents[2]
GIVEN = sorted((Path(__file__).parent / "model_contracts").glob("*.yaml"))
SHIPPED = sorted((REPO / "contracts" / "models").glob("*.yaml"))
ALL = [pytest.param(path, id=path.stem) for path in (*GIVEN, *SHIPPED)]
SCHEMA_FILE = REPO / "contracts" / "model-contract.schema.json"


def editor_says(data: Any) -> list[str]:
    schema = json.loads(SCHEMA_FILE.read_text())
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(data)]


def test_both_given_files_and_three_shipped_ones_are_there() -> None:
    assert {path.stem for path in GIVEN} == {"minimal", "everything"}
    assert {path.stem for path in SHIPPED} >= {"credit", "electricity", "wine"}


@pytest.mark.parametrize("path", ALL)
def test_is_valid_and_stays_itself_when_resolved(path: Path) -> None:
    contract = load_contract(path)
    again = ModelContract.from_resolved(contract.resolved_json)
    assert again == contract
    assert again.digest == contract.digest
    assert list(again.features) == list(contract.features)
    # The resolved form is a contract too, and means the same.
    assert load_contract(contract.resolved_json).digest == contract.digest


@pytest.mark.parametrize("path", ALL)
def test_editors_accept_it_as_written_and_resolved(path: Path) -> None:
    assert editor_says(read_yaml(path).data) == []
    assert editor_says(load_contract(path).to_dict()) == []


def test_the_editors_schema_is_current() -> None:
    current = SCHEMA_FILE.read_text() == schema_text()
    assert current, f"python -m tailrace.contracts.language.json_schema > {SCHEMA_FILE.relative_to(REPO)}"


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        ("policy:", "polcy:"),
        ("type: number,", "type: nmber,"),
        ("missing: impute", "mising: impute"),
        ("lateness: 1h", "lateness: 1 hour"),
        ("share: 0.5%", "share: 0.005"),
        ("join: request_id", "join: requestid"),
        ("metrics: [auc,", "metrics: [auk,"),
        ("{every: 30d}", "{every: 30d, labels: 1}"),
        ("{previous: true}", "{}"),
        ("age: {type: integer, ", "age: {"),
    ],
)
def test_editors_and_check_both_refuse_a_slip(written: str, instead: str, tmp_path: Path) -> None:
    everything = GIVEN[0].read_text()
    assert everything.count(written) >= 1
    path = tmp_path / "slip.yaml"
    path.write_text(everything.replace(written, instead))
    assert editor_says(read_yaml(path).data)
    with pytest.raises(ContractError):
        load_contract(path)


def test_what_has_no_effect_yet_says_so_and_names_fields_that_exist() -> None:
    contract = load_contract(GIVEN[0])
    resolved = contract.to_dict()
    unused = list(unused_fields(contract))
    assert {each.entry.misleads for each in unused} == {True, False}
    for path, _ in unused:
        section: Any = resolved
        for part in path:
            section = section[part]
    assert not {path for path, _ in unused} & {(name,) for name in resolved}


@pytest.mark.parametrize("model", ["electricity", "wine"])
def test_the_real_files_have_a_mapping(model: str) -> None:
    mapping = find_mapping(REPO, model)
    assert mapping is not None
    assert mapping.model == model
