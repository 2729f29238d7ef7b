"""Whose signatures count, by model, and what happens when that changes while things run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.support.scoring import REQUEST, Bench, Publisher
from typer.testing import CliRunner

from tailrace.cli.app import app
from tailrace.contracts.state.records import ControlRecords
from tailrace.errors import TailraceError, UsageError
from tailrace.models.errors import PackageRefused
from tailrace.scorer.processor import ScoringProcessor
from tailrace.signing.keys import SigningKey
from tailrace.signing.records import sign_command
from tailrace.signing.trust import TrustStore, make_keys, own_key, signing_key
from tailrace.streaming.inline_executor import Inline
from tailrace.testing.memory_registry import MemoryRegistry


@pytest.fixture
def trust(tmp_path: Path) -> TrustStore:
    return TrustStore(tmp_path / "keys")


def refusal(trust: TrustStore, key: SigningKey, model: str = "credit") -> str | None:
    command = {"command": "promote", "model": model, "version": 2, "follows": 1}
    return trust.command_refusal(sign_command(trust.home, command, key))


def run(home: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    monkeypatch.setenv("TAILRACE_HOME", str(home))
    done = CliRunner().invoke(app, ["keys", *arguments, "--json"])
    if done.exception is not None:
        raise done.exception
    return json.loads(done.stdout)


def test_a_key_is_trusted_for_all_models_or_for_those_named(trust: TrustStore) -> None:
    everywhere, credit = SigningKey.generate(), SigningKey.generate()
    trust.trust(everywhere.public)
    trust.trust(credit.public, ["credit", "churn"])
    assert refusal(trust, everywhere) is refusal(trust, everywhere, "fraud") is None
    assert refusal(trust, credit) is refusal(trust, credit, "churn") is None
    assert "not trusted here for fraud" in (refusal(trust, credit, "fraud") or "")
    # A model's name comes from a topic too.
    assert trust.public_key(credit.key_id, "../trusted/credit") is None
    assert trust.public_key(credit.key_id, "") is None


def test_a_revoked_key_counts_for_nothing_until_it_is_trusted_again(trust: TrustStore) -> None:
    key, other = SigningKey.generate(), SigningKey.generate()
    for each in (key, other):
        trust.trust(each.public)
        trust.trust(each.public, ["credit"])
    trust.revoke(key.key_id)
    trust.revoke(key.key_id)
    assert "revoked" in (refusal(trust, key) or "")
    revoked, trusted = (trust.folder / name / "owner" for name in ("revoked", "trusted"))
    (revoked / f"{key.key_id}.pub").rename(trust.folder / "elsewhere.pub")
    kept = revoked / "credit" / f"{key.key_id}.pub"
    assert f"revoked here: `tailrace keys trust {kept} --model credit`" in (refusal(trust, key) or "")
    (trust.folder / "elsewhere.pub").rename(revoked / f"{key.key_id}.pub")
    assert refusal(trust, other) is None
    # Whoever copies its file back by hand has not read the list.
    trust.trust(other.public)
    (trusted / f"{key.key_id}.pub").write_bytes((revoked / f"{key.key_id}.pub").read_bytes())
    assert "revoked" in (refusal(trust, key) or "")
    trust.trust(key.public, ["credit"])
    assert refusal(trust, key) is None
    for unknown in (SigningKey.generate().key_id, "../../x", ""):
        with pytest.raises(UsageError, match="keys list"):
            trust.revoke(unknown)


def test_what_looks_at_the_past_counts_a_revoked_key_for_what_it_was_trusted_for(trust: TrustStore) -> None:
    past = TrustStore(trust.folder, past=True)
    everywhere, credit, stranger = (SigningKey.generate() for _ in range(3))
    trust.trust(everywhere.public)
    trust.trust(credit.public, ["credit"])
    for key in (everywhere, credit):
        assert refusal(past, key) is None
        trust.revoke(key.key_id)
        assert "revoked" in (refusal(trust, key) or "")
        assert refusal(past, key) is None
    assert refusal(past, everywhere, "churn") is None
    assert refusal(past, credit, "churn") is not None
    assert "not trusted" in (refusal(past, stranger) or "")


def test_a_home_that_has_revoked_its_own_key_does_not_trust_it_again_by_itself(tmp_path: Path) -> None:
    key = signing_key(tmp_path)
    TrustStore(tmp_path / "keys").revoke(key.key_id)
    assert signing_key(tmp_path).key_id == key.key_id
    assert "revoked" in (refusal(TrustStore(tmp_path / "keys"), key) or "")
    with pytest.raises(UsageError, match="tailrace keys new"):
        own_key(tmp_path)


def test_keys_by_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, other = tmp_path / "home", tmp_path / "other"
    first = signing_key(home)
    made = run(home, monkeypatch, "new")
    assert made["key_id"] == own_key(home).key_id != first.key_id
    assert oct((home / "keys" / "signing.key").stat().st_mode)[-3:] == "600"
    assert refusal(TrustStore(home / "keys"), first) is None

    theirs = run(other, monkeypatch, "trust", made["public_key"], "--model", "credit")
    assert theirs == {"key_id": made["key_id"], "trusted_for": "credit"}
    assert refusal(TrustStore(other / "keys"), own_key(home)) is None
    assert refusal(TrustStore(other / "keys"), own_key(home), "churn") is not None

    run(home, monkeypatch, "revoke", first.key_id, "--entirely")
    listed = {key["key_id"]: key for key in run(home, monkeypatch, "list")}
    assert {k: (v["state"], v["own"]) for k, v in listed.items()} == {
        first.key_id: ("revoked", False),
        made["key_id"]: ("trusted", True),
    }
    assert run(other, monkeypatch, "list")[0]["models"] == "credit"


def test_files_that_hold_no_public_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signing_key(tmp_path)
    foreign = generate_private_key(SECP256R1()).public_key()
    (tmp_path / "ec.pub").write_bytes(foreign.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    (tmp_path / "none.pub").write_text("nothing")
    for file, why in (
        ("ec.pub", "not the PEM"),
        ("none.pub", "not the PEM"),
        ("keys/signing.key", "private key"),
    ):
        with pytest.raises(UsageError, match=why):
            run(tmp_path, monkeypatch, "trust", str(tmp_path / file))
    with pytest.raises(UsageError, match="no model's name"):
        run(tmp_path, monkeypatch, "trust", str(tmp_path / "none.pub"), "--model", "../x")


class Scorer:
    """A scorer whose versions 1 and 2 are opened; ``distrusted`` are versions whose key was revoked."""

    def __init__(self) -> None:
        self.distrusted: set[int] = set()
        self.publisher = Publisher()
        logic = ScoringProcessor(
            "champion", self.publisher.control.by("scorer"), self.publisher.open, Inline(), self.verify
        )
        self.bench = Bench(logic, self.publisher)
        self.bench.control(
            self.publisher.contract(),
            self.publisher.manifest(1),
            self.publisher.manifest(2),
            self.publisher.rollout(version=1, champion=1),
        )
        self.step(2, previous=1)

    def verify(self, record: Mapping[str, Any]) -> None:
        if record["version"] in self.distrusted:
            raise PackageRefused("signature", "revoked")

    def step(self, champion: int, **state: Any) -> None:
        self.bench.control(self.publisher.rollout(version=champion, champion=champion, **state))

    def answers(self) -> tuple[int, list[dict[str, Any]]]:
        """The version that answers, and what people are told."""
        output = self.bench.requests(REQUEST)
        (prediction,) = self.bench.events(output)
        return prediction["version"], self.bench.alerts(output)


def test_a_running_scorer_takes_up_nothing_that_a_revoked_key_has_signed() -> None:
    scorer = Scorer()
    assert scorer.answers() == (2, [])
    scorer.distrusted = {1, 2}
    assert scorer.answers() == (2, [])  # what answers goes on
    scorer.step(1, previous=2)  # opened long ago, and kept warm
    version, (alert,) = scorer.answers()
    assert (version, alert["kind"], alert["version"]) == (2, "package-refused", 1)
    assert alert["detail"]["check"] == "signature"
    assert scorer.answers() == (2, [])  # told once
    scorer.distrusted = {2}
    assert scorer.answers() == (1, [])  # trusted again


# By service ---


def test_a_services_key_is_listed_with_what_it_may_sign_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_keys(tmp_path)
    first = own_key(tmp_path, "rollout")
    made = run(tmp_path, monkeypatch, "new", "--signer", "rollout")
    assert made["signer"] == "rollout"
    assert made["key_id"] == own_key(tmp_path, "rollout").key_id != first.key_id
    listed = {key["key_id"]: key for key in run(tmp_path, monkeypatch, "list")}
    assert [listed[k]["kinds"] for k in (first.key_id, made["key_id"])] == ["Contract, Rollout, Alert"] * 2
    assert [listed[k]["own"] for k in (first.key_id, made["key_id"])] == [False, True]
    assert listed[own_key(tmp_path).key_id]["kinds"] == "Contract, Clock, ModelManifest, Command"
    with pytest.raises(UsageError, match="it is one of owner, rollout"):
        run(tmp_path, monkeypatch, "new", "--signer", "mallory")


def test_a_key_is_revoked_from_where_the_log_is_or_where_a_person_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_keys(tmp_path)
    key = own_key(tmp_path, "rollout").key_id
    for variable in ("KAFKA_BOOTSTRAP_SERVERS", "SCHEMA_REGISTRY_URL"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(TailraceError, match="`--entirely` does without Kafka"):
        run(tmp_path, monkeypatch, "revoke", key)
    with pytest.raises(UsageError, match="TOPIC=OFFSET"):
        run(tmp_path, monkeypatch, "revoke", key, "--until", "tailrace.rollouts")
    run(tmp_path, monkeypatch, "revoke", key, "--entirely", "--until", "tailrace.rollouts=7")
    trust = TrustStore(tmp_path / "keys")
    counts = [trust.public_key(key, "credit", ["rollout"], ("tailrace.rollouts", at)) for at in (6, 7)]
    assert [count is not None for count in counts] == [True, False]


def test_a_service_without_its_key_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="`tailrace keys new --signer scorer`"):
        ControlRecords.of_home(MemoryRegistry(), tmp_path, "scorer")


def test_a_home_made_before_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "data" / "kafka").mkdir(parents=True)
    (tmp_path / "data" / "kafka" / "meta.properties").touch()
    for use in (make_keys, lambda home: ControlRecords.of_home(MemoryRegistry(), home)):
        with pytest.raises(TailraceError, match="tailrace down --purge"):
            use(tmp_path)
