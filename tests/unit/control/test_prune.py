"""Which chunks of a model nothing needs any more."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from tailrace.cli.app import app
from tailrace.control.prune import ChunkAt, RetainedPredictions, Since, unneeded
from tailrace.errors import UsageError
from tailrace.models.rollout_state.fold import CanaryState, RolloutState

DAY = 86_400_000
KEPT = 30 * DAY
NOW = 1000 * DAY


def chunks(*versions: int, model: str = "credit") -> list[ChunkAt]:
    """Two chunks of each version, of 10 and 5 bytes."""
    return [
        ChunkAt(f"{model}/{v}/model/{i}", 0, 10 * v + i, size)
        for v in versions
        for i, size in enumerate((10, 5))
    ]


def records(*versions: int) -> dict[int, dict[str, Any]]:
    return {
        v: {
            "chunks": [
                {"part": "model", "index": i, "partition": 0, "offset": 10 * v + i, "size": 1, "sha256": ""}
                for i in range(2)
            ]
        }
        for v in versions
    }


def state(champion: int | None = None, known: int = 9, **more: Any) -> RolloutState:
    return RolloutState("credit", champion=champion, known=frozenset(range(1, known + 1)), **more)


def gone(history: list[Since], *versions: int, now: int = NOW, earliest: int | None = None) -> dict[int, str]:
    kept = RetainedPredictions(KEPT, earliest)
    pruned = unneeded("credit", chunks(*versions), records(*versions), history, kept, now)
    assert all(v.keys == tuple(c.key for c in chunks(v.version)) and v.bytes == 15 for v in pruned)
    return {v.version: v.why for v in pruned}


def test_what_the_rollout_names_is_needed() -> None:
    now = state(
        4,
        previous=3,
        shadow=(5,),
        candidates=(6,),
        canary=CanaryState(7, 0.1, "salt", 1),
        rejected=(2,),
        known=8,
    )
    history = [Since(0, state(1, known=1)), Since(DAY, now)]
    whys = gone(history, *range(1, 10))
    # 1 answered long ago, 2 and 8 never scored, and no step has been about 9 yet.
    assert whys.keys() == {1, 2, 8}
    assert "not scored since 1970-01-02T00:00:00Z" in whys[1]
    assert "never scored" in whys[2]


@pytest.mark.parametrize("role", ["champion", "shadow", "canary"])
def test_a_version_is_needed_while_predictions_that_it_made_are_kept(role: str) -> None:
    scoring = {
        "champion": state(1),
        "shadow": state(2, shadow=(1,)),
        "canary": state(2, canary=CanaryState(1, 0.1, "salt", 1)),
    }[role]
    left = NOW - 40 * DAY
    history = [Since(0, scoring), Since(left, state(2, retired=(1,)))]
    assert gone(history, 1, 2, now=left + KEPT) == {}
    assert gone(history, 1, 2, now=left + KEPT + 1).keys() == {1}
    # It came back in between: the last time counts.
    assert gone(history, 1, 2).keys() == {1}
    history += [Since(NOW - 20 * DAY, scoring), Since(NOW - 10 * DAY, state(2, retired=(1,)))]
    assert gone(history, 1, 2) == {}


@pytest.mark.parametrize("earliest", [0, DAY, DAY + 1, NOW, None])
def test_a_version_is_needed_while_a_prediction_is_there_that_it_may_have_made(earliest: int | None) -> None:
    """Kafka deletes by segments, later than it might."""
    history = [Since(0, state(1)), Since(DAY, state(2, retired=(1,)))]
    assert gone(history, 1, 2, earliest=earliest).keys() == (
        set() if earliest is not None and earliest <= DAY else {1}
    )


def test_what_was_let_go_and_not_removed_goes_the_next_time() -> None:
    history = [Since(0, state(1)), Since(NOW - 1, state(2, retired=(1,), pruned=frozenset({1})))]
    assert gone(history, 1, 2, earliest=0) == {1: "it was let go before"}


def test_without_a_rollout_nothing_is_decided() -> None:
    assert gone([], 1, 2) == {}


def test_chunks_of_no_manifest_go_and_those_of_other_models_stay() -> None:
    history = [Since(0, state(1))]
    present = [*chunks(1, 2), *chunks(1, 2, model="churn"), *chunks(1, model="credit-eu")]
    odd = [ChunkAt("credit", 0, 900, 1), ChunkAt("credit/x/model/0", 0, 901, 1), ChunkAt("", 0, 902, 1)]
    (pruned,) = unneeded("credit", present + odd, records(1), history, RetainedPredictions(KEPT, None), NOW)
    assert (pruned.version, pruned.why, pruned.published) == (2, "no manifest names it", False)
    assert pruned.keys == ("credit/2/model/0", "credit/2/model/1")


def test_what_stands_under_a_key_that_a_needed_version_uses_is_left_alone_and_the_rest_goes() -> None:
    history = [Since(0, state(1))]
    stray = ChunkAt("credit/1/model/0", 0, 5, 10)
    assert (
        unneeded("credit", [stray, *chunks(1)], records(1), history, RetainedPredictions(KEPT, None), NOW)
        == []
    )
    beyond = ChunkAt("credit/1/model/2", 0, 6, 10)
    (pruned,) = unneeded(
        "credit", [stray, beyond, *chunks(1)], records(1), history, RetainedPredictions(KEPT, None), NOW
    )
    assert (pruned.version, pruned.keys, pruned.published) == (1, ("credit/1/model/2",), False)


def test_of_a_version_that_is_not_needed_everything_goes() -> None:
    history = [Since(0, state(1)), Since(DAY, state(2, retired=(1,)))]
    stray = [ChunkAt("credit/1/model/0", 0, 5, 10), ChunkAt("credit/1/card/0", 0, 6, 10)]
    (pruned,) = unneeded(
        "credit", [*stray, *chunks(1)], records(1), history, RetainedPredictions(KEPT, None), NOW
    )
    assert pruned.keys == ("credit/1/model/0", "credit/1/card/0", "credit/1/model/1")
    assert (pruned.bytes, pruned.published) == (35, True)


def test_pruning_is_for_one_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("SCHEMA_REGISTRY_URL", "http://127.0.0.1:1")
    done = CliRunner().invoke(app, ["models", "--prune"])
    assert isinstance(done.exception, UsageError)
