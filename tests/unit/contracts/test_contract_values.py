"""Durations, shares and the digest: one meaning, one canonical form, one digest."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.contracts.language.durations import format_duration, format_share, parse_duration, parse_share
from tailrace.contracts.language.load import load_contract
from tailrace.contracts.language.model_contract import ModelContract

UNITS = {"ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}


@given(number=st.integers(0, 10**9 - 1), unit=st.sampled_from(sorted(UNITS)))
def test_a_duration_is_its_milliseconds_and_has_one_canonical_spelling(number: int, unit: str) -> None:
    milliseconds = parse_duration(f"{number}{unit}")
    assert milliseconds == number * UNITS[unit]
    if milliseconds < 10**9 * UNITS["d"]:
        canonical = format_duration(milliseconds)
        assert format_duration(parse_duration(canonical)) == canonical
        assert parse_duration(canonical) == milliseconds


def test_equal_durations() -> None:
    assert parse_duration("5min") == parse_duration("300s") == parse_duration("300000ms")
    assert format_duration(parse_duration("300s")) == "5min"
    assert format_duration(parse_duration("24h")) == "1d"
    assert format_duration(0) == "0s"


@pytest.mark.parametrize(
    "text", ["", "5", "5 min", "min", "-5s", "1.5h", "05s", "5m", "5sec", "1w", "5min\n", "٥s"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@given(st.decimals(0, 100, places=6, allow_nan=False))
def test_a_share_is_between_0_and_1_and_has_one_canonical_spelling(percent: Any) -> None:
    share = parse_share(f"{percent:f}%")
    assert 0 <= share <= 1
    assert share == pytest.approx(float(percent) / 100, abs=1e-15)
    assert parse_share(format_share(share)) == share


@pytest.mark.parametrize("text", ["", "5", "0.05", "101%", "100.5%", "-1%", "5 %", "%", "1e1%", "5%\n"])
def test_what_is_no_share(text: str) -> None:
    with pytest.raises(ValueError, match="is not a share"):
        parse_share(text)


CONTRACT: dict[str, Any] = {
    "model": "m",
    "owner": {"team": "t", "alerts": "a@b.c"},
    "event_time": {"name": "at", "lateness": "1h", "skew": "5min"},
    "features": {
        "a": {"type": "number", "min": 0},
        "b": {"categories": ["x", "y"]},
        "c": {"type": "boolean"},
    },
    "context": {"d": {"type": "string"}, "e": {"type": "integer", "min": 1, "max": 9}},
    "target": {"name": "t", "type": "boolean"},
    "labels": {"horizon": "90d"},
    "policy": [{"when": "score < 0.2", "do": "approve"}, {"do": "refer"}],
    "explore": {"share": "0.5%", "from": "refer", "do": "approve"},
    "keep": {"requests": "30d", "predictions": "100d"},
}


def shuffled(data: Any, random_: random.Random) -> Any:
    if isinstance(data, dict):
        items = list(data.items())
        random_.shuffle(items)
        return {name: shuffled(value, random_) for name, value in items}
    return [shuffled(value, random_) for value in data] if isinstance(data, list) else data


@settings(max_examples=25)
@given(st.integers(0, 2**32))
def test_the_digest_does_not_depend_on_the_order_of_keys(seed: int) -> None:
    original = load_contract(json.dumps(CONTRACT))
    other = load_contract(json.dumps(shuffled(CONTRACT, random.Random(seed))))
    assert other.digest == original.digest


@pytest.mark.parametrize(
    ("section", "spelling"),
    [
        ("event_time", {"name": "at", "lateness": "60min", "skew": "300s"}),
        ("event_time", {"name": "at"}),
        ("labels", {"horizon": "2160h"}),
        ("labels", {"horizon": "90d", "join": "request_id"}),
        ("labels", {"horizon": "90d", "join": {"by": "request_id"}, "known_only_for": []}),
        ("explore", {"share": "0.50%", "from": "refer", "do": "approve"}),
        ("lane", "m"),
        ("value", None),
        ("policy", [{"when": "score < 0.2", "do": "approve", "name": "approve-1"}, {"do": "refer"}]),
        (
            "context",
            {"d": {"type": "string", "missing": "pass"}, "e": {"type": "integer", "min": 1.0, "max": 9}},
        ),
        (
            "features",
            {**CONTRACT["features"], "b": {"type": "category", "categories": ["x", "y"], "unseen": "reject"}},
        ),
        ("keep", {"requests": "720h", "predictions": "100d", "outcomes": "270d"}),
        ("rollout", {"back_if": {"alert": "severe"}}),
    ],
)
def test_another_spelling_of_the_same_has_the_same_digest(section: str, spelling: Any) -> None:
    original = load_contract(json.dumps(CONTRACT))
    other = load_contract(json.dumps({**CONTRACT, section: spelling}))
    assert other == original
    assert other.digest == original.digest


@pytest.mark.parametrize(
    ("section", "change"),
    [
        ("policy", [{"when": "score < 0.3", "do": "approve"}, {"do": "refer"}]),
        ("policy", [{"do": "refer"}]),
        ("features", {**CONTRACT["features"], "b": {"categories": ["y", "x"]}}),
        ("labels", {"horizon": "91d"}),
        ("rollout", {"back_if": {"alert": "none"}}),
    ],
)
def test_another_meaning_has_another_digest(section: str, change: Any) -> None:
    changed = {**CONTRACT, section: change}
    if section == "policy" and len(change) == 1:
        changed.pop("explore")
    assert load_contract(json.dumps(changed)).digest != load_contract(json.dumps(CONTRACT)).digest


def test_what_was_published_reads_back_as_it_was() -> None:
    original = load_contract(json.dumps(CONTRACT))
    again = ModelContract.from_resolved(original.resolved_json.encode())
    assert again == original
    assert again.resolved_json == original.resolved_json
    assert list(again.features) == ["a", "b", "c"]


def test_units_and_defaults_are_as_documented() -> None:
    contract = load_contract(json.dumps(CONTRACT))
    day = 86_400_000
    assert contract.event_time.lateness_ms == 3_600_000
    assert contract.keep.labels_ms == 181 * day  # two horizons and the lateness, in whole days
    assert contract.keep.outcomes_ms == 270 * day
    assert contract.quality.judge_at_ms == [0, 90 * day]
    assert contract.explore is not None
    assert contract.explore.share == 0.005
    assert [rule.name for rule in contract.policy] == ["approve-1", "refer-2"]
    assert contract.actions == ["approve", "refer"]


@pytest.mark.parametrize(
    ("target", "task", "classes", "positive"),
    [
        ({"name": "t", "type": "boolean"}, "binary", ["false", "true"], "true"),
        ({"name": "t", "categories": ["bad", "good"], "positive": "good"}, "binary", ["bad", "good"], "good"),
        ({"name": "t", "categories": ["bad", "good"]}, "multiclass", ["bad", "good"], None),
        ({"name": "t", "type": "number"}, "regression", [], None),
    ],
)
def test_the_target_decides_the_task(
    target: Any, task: str, classes: list[str], positive: str | None
) -> None:
    given = {name: CONTRACT[name] for name in ("model", "owner", "features")}
    contract = load_contract(json.dumps({**given, "target": target}))
    assert (contract.task, contract.classes, contract.positive_class) == (task, classes, positive)
    assert contract.actions == (classes or ["none"])
