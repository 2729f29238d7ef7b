"""init, contracts check and contracts show on the command line; apply is in the integration tests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.support.scoring import CONTRACT, Publisher
from typer.testing import CliRunner

from tailrace.cli.app import app
from tailrace.contracts.language.load import load_contract
from tailrace.contracts.language.without_effect import unused_fields
from tailrace.contracts.state.contracts import Contracts
from tailrace.control.apply import plan
from tailrace.errors import TailraceError, UsageError
from tailrace.models.catalog import Catalog
from tailrace.models.inputs import Input
from tailrace.models.rollout_state.fold import Rollouts
from tailrace.models.rollout_state.in_service import versions_in_service
from tailrace.testing.control_records import manifest_record
from tailrace.testing.formula_model import formula_model

GIVEN = Path(__file__).parents[2] / "contract" / "model_contracts"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "SCHEMA_REGISTRY_URL", "TAILRACE_HOME"):
        monkeypatch.delenv(name, raising=False)
    rows = "\n".join(f"{i},{i % 7},{i % 2}" for i in range(50))
    (tmp_path / "f.csv").write_text(f"size,weight,label\n{rows}\n")
    return tmp_path


def run(*args: str) -> str:
    result = CliRunner().invoke(app, list(args), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_init_writes_a_contract_that_check_accepts(project: Path) -> None:
    printed = run("init", "f.csv", "--target", "label", "--name", "mine", "--every", "30min")
    path = project / "contracts" / "models" / "mine.yaml"
    assert printed.strip() == path.read_text().strip()
    assert (project / "contracts" / "data" / "mine.yaml").exists()
    digest = load_contract(path).digest
    assert run("contracts", "check").strip() == f"contracts/models/mine.yaml: ok, mine {digest[:12]}"


def test_init_as_json_and_its_errors(project: Path) -> None:
    report = json.loads(run("init", "f.csv", "--target", "size > 9", "--name", "mine", "--json"))
    assert report["contract"] == "contracts/models/mine.yaml"
    with pytest.raises(UsageError, match="is there already"):
        run("init", "f.csv", "--target", "label", "--name", "mine")
    with pytest.raises(UsageError, match="--every: '30' is not a duration"):
        run("init", "f.csv", "--target", "label", "--name", "other", "--every", "30")
    with pytest.raises(UsageError, match="--name 'Mine': write it in small letters"):
        run("init", "f.csv", "--target", "label", "--name", "Mine")


def test_check_tells_all_problems_and_fails(project: Path) -> None:
    folder = project / "contracts" / "models"
    folder.mkdir(parents=True)
    with pytest.raises(TailraceError, match="write one with `tailrace init"):
        run("contracts", "check")
    (folder / "a.yaml").write_text((GIVEN / "minimal.yaml").read_text())
    (folder / "b.yaml").write_text((GIVEN / "minimal.yaml").read_text().replace("owner", "ownr"))
    with pytest.raises(TailraceError, match=r"contracts/models/b.yaml:3: ownr: .* did you mean 'owner'\?"):
        run("contracts", "check")
    result = CliRunner().invoke(app, ["contracts", "check", "--json"])
    report = json.loads(result.stdout)
    assert result.exit_code == 1
    assert report["ok"] is False
    assert [contract["file"] for contract in report["contracts"]] == ["contracts/models/a.yaml"]
    assert {"file", "line", "field", "what", "remedy"} == set(report["problems"][0])


def test_show_marks_what_has_no_effect_yet_and_leaves_the_rest_alone(project: Path) -> None:
    text = (GIVEN / "everything.yaml").read_text()
    shown = run("contracts", "show", str(GIVEN / "everything.yaml"))
    for before, after in zip(text.splitlines(), shown.splitlines(), strict=True):
        assert after == before or "# no effect yet" in after
    marked = {line.split(":")[0] for line in shown.splitlines() if line.endswith("# no effect yet")}
    assert {"  selection_ratio"} <= marked | {
        line.split(":")[0] for line in shown.splitlines() if "# no effect yet;" in line
    }
    assert not {"labels", "keep"} & marked
    # Remarks are comments: what is shown is the same contract.
    assert load_contract(shown).digest == load_contract(text).digest


def test_show_resolved_prints_all_defaults_as_a_contract(project: Path) -> None:
    path = GIVEN / "minimal.yaml"
    shown = run("contracts", "show", str(path), "--resolved")
    assert load_contract(shown).digest == load_contract(path).digest
    for section in load_contract(path).to_dict():
        assert f"\n{section}:" in f"\n{shown}"
    report = json.loads(run("contracts", "show", str(path), "--json"))
    assert report["contract"] == load_contract(path).to_dict()
    assert report["no_effect_yet"] == []
    report = json.loads(run("contracts", "show", str(GIVEN / "everything.yaml"), "--json"))
    assert {"owner.alerts", "context.sex.protected", "approvals.promote.role"} <= set(report["no_effect_yet"])


def test_check_refuses_fields_that_mislead_and_warns_of_those_that_come_later(project: Path) -> None:
    text = "model: a\nowner: {team: t, runbook: r}\nfeatures: {x: {type: number}}\ntarget: {name: y, type: boolean}\n"
    file = project / "contracts" / "models" / "a.yaml"
    for other in file.parent.glob("*.yaml"):
        other.unlink()
    file.write_text(text)
    report = json.loads(run("contracts", "check", "--json"))
    assert report["ok"]
    assert [(w["line"], w["field"]) for w in report["warnings"]] == [(2, "owner.runbook")]
    file.write_text(
        text + "service_levels: {staleness: 45d}\nalerts: {severe: [quality drop, no label for 3d]}\n"
    )
    with pytest.raises(TailraceError) as refused:
        run("contracts", "check")
    idle = "nothing acts on it in this version"
    assert [line.split(";")[0] for line in str(refused.value).splitlines()] == [
        f"contracts/models/a.yaml:5: service_levels.staleness: {idle}: no champion is too old",
        f"contracts/models/a.yaml:6: alerts.severe[1]: {idle}: no alert follows this phrase",
    ]


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ("labels: {join: {by: key, within: 3d}}\nkey: {name: k}", "labels.join.by"),
        (
            "quality: {selection_ratio: {of: s, favourable: 'true', at_least: 0.8}}\ncontext: {s: {type: boolean}}",
            None,
        ),
        ("approvals: {promote: {role: boss}}", "approvals.promote.role"),
        ("approvals: {promote: {not_author: true}}", "approvals.promote.not_author"),
    ],
)
def test_what_somebody_would_rely_on_in_vain_is_not_applied(
    tmp_path: Path, more: str, field: str | None
) -> None:
    text = "model: a\nowner: {team: t}\nfeatures: {x: {type: number}}\ntarget: {name: y, type: boolean}\n"
    file = tmp_path / "a.yaml"
    file.write_text(text + more)
    with pytest.raises(TailraceError, match=field or "quality.selection_ratio"):
        plan([file], Contracts())
    file.write_text(text + "approvals: {promote: {}}\nexperiment: {epsilon: 5%}\nvalue: '1'\n")
    assert [unused.path for unused in unused_fields(load_contract(file))] == [("experiment", "epsilon")]
    assert plan([file], Contracts())


def test_show_of_a_model_needs_what_runs(project: Path) -> None:
    with pytest.raises(TailraceError, match="tailrace up"):
        run("contracts", "show", "credit")


def test_a_version_is_in_service_that_answers_stands_by_is_an_arm_or_in_shadow() -> None:
    """What no one would run counts for nothing: what waits, was refused, or is published by nobody."""
    contract, catalog, rollouts = load_contract(CONTRACT), Catalog(None), Rollouts()
    for version in range(1, 8):
        inputs = (Input(name=f"of-{version}", type="number", categories=()),)
        manifest = formula_model(contract, version, inputs=inputs, impute={}).manifest
        record = manifest_record("credit", version, manifest.digest) | {"manifest": manifest.to_bytes()}
        catalog.apply(record)
    publisher = Publisher()
    arms = [{"arm": name, "version": v, "probability": 0.5} for name, v in (("a", 1), ("b", 3))]
    step = {
        "champion": 1, "previous": 2, "shadow": [4, 9], "candidates": [5], "rejected": [6],
        "experiment": {"assign": "fixed", "share": 1.0, "salt": "s", "arms": arms},
    }  # fmt: skip
    record = publisher.control.decode("Rollout", publisher.rollout(**step).value)
    assert rollouts.apply(record, 0)
    versions = versions_in_service(catalog, rollouts.state("credit"))
    roles = [(version.number, version.role) for version in versions]
    assert roles == [(1, "champion"), (2, "previous"), (3, "arm"), (4, "shadow")]
    assert all(f"reads of-{v.number}, which" in next(iter(v.misfits(contract))).what for v in versions)
