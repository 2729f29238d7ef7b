"""Contracts that are applied together: lanes side by side, and nothing more once one has failed."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tailrace.connection import Connection
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.state.contracts import Contracts
from tailrace.contracts.state.records import ControlRecords
from tailrace.control import apply as applying
from tailrace.errors import Unavailable

TEXT = """model: {}
owner: {{team: works}}
lane: {}
features: {{pressure: {{type: number}}}}
target: {{name: failed, type: boolean}}
"""
NOWHERE = Connection({"bootstrap.servers": "127.0.0.1:1"}, "http://127.0.0.1:1")


@pytest.fixture(autouse=True)
def without_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(applying, "incompatibilities", lambda registry, contract: [])
    monkeypatch.setattr(applying, "_topics", lambda *given: None)
    monkeypatch.setattr(applying, "_publish", lambda *given: None)
    monkeypatch.setattr(ControlRecords, "of", lambda *given: None)


def apply_all(folder: Path, lanes: dict[str, str], messages: list[str]) -> None:
    files = [folder / f"{model}.yaml" for model in lanes]
    for file, (model, lane) in zip(files, lanes.items(), strict=True):
        file.write_text(TEXT.format(model, lane))
    applying.apply(NOWHERE, applying.plan(files, Contracts()), Contracts(), messages.append)


def test_lanes_are_made_at_the_same_time_and_the_contracts_of_one_in_turn(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    both = threading.Barrier(2, timeout=60)
    registered: list[str] = []

    def register(registry: object, contract: ModelContract) -> None:
        registered.append(contract.model)
        if contract.model in ("a1", "b"):
            both.wait()

    monkeypatch.setattr(applying, "register_schemas", register)
    messages: list[str] = []
    apply_all(tmp_path, {"a1": "a", "a2": "a", "b": "b"}, messages)
    assert sorted(registered) == ["a1", "a2", "b"]
    assert registered.index("a1") < registered.index("a2")
    assert [line for line in messages if line.endswith("(2 of 2)")]


def test_after_a_failure_no_other_lane_is_begun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    begun: list[str] = []

    def register(registry: object, contract: ModelContract) -> None:
        begun.append(contract.model)
        raise Unavailable("the registry is away")

    monkeypatch.setattr(applying, "register_schemas", register)
    with pytest.raises(Unavailable, match="registry is away"):
        apply_all(tmp_path, {f"m{n}": f"lane{n}" for n in range(40)}, [])
    assert len(begun) <= 4, "as many as are made at the same time"
