"""The joiner's stores, in RocksDB and in memory, keep the same promises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.memory_key_value_store import MemoryKeyValueStore

from tailrace.joiner.progress import digest
from tailrace.joiner.rocks_store import RocksStore, open_store
from tailrace.joiner.store import KeyValueStore, Timer, request_key

KEYS = [request_key("m", b"%d" % number) for number in range(5)]


def timer(time: int, key: bytes) -> Timer:
    return Timer(time, digest(key), key)


@pytest.fixture(params=["rocks", "memory"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], KeyValueStore]:
    return MemoryKeyValueStore if request.param == "memory" else lambda: RocksStore(tmp_path / "store")


def test_what_was_written_is_there_until_it_is_deleted(make: Callable[[], KeyValueStore]) -> None:
    store = make()
    store.write({KEYS[0]: b"a", KEYS[1]: b"b"}, [])
    store.write({KEYS[0]: b"c"}, [KEYS[1], KEYS[2]])
    assert store.get_many(KEYS[:3]) == [b"c", None, None]
    assert store.get_many([]) == []
    assert store.get(KEYS[0]) == b"c"
    store.wipe()
    assert store.get(KEYS[0]) is None
    store.close()


def test_looks_come_by_time_from_the_first_up_to_the_last(make: Callable[[], KeyValueStore]) -> None:
    store = make()
    times = [-5, 0, 3, 3, 10**15, -(10**15)]
    timers = [timer(time, KEYS[at % 4]) for at, time in enumerate(times)]
    store.write(dict.fromkeys([one.key() for one in timers], b"") | {KEYS[0]: b"x"}, [])
    in_order = sorted(timers)
    assert list(store.timers((-5, 0), (4, 0))) == in_order[1:5]
    first, second = in_order[3:5]
    assert list(store.timers(first.spot, second.spot)) == [first]
    assert list(store.timers((-(1 << 62), 0), (1 << 62, 0))) == in_order
    store.write({}, [timers[1].key()])
    assert list(store.timers((-1, 0), (3, 0))) == []
    store.close()


keys = st.sampled_from(KEYS) | st.builds(
    lambda time, key: timer(time, key).key(), st.integers(-9, 9), st.sampled_from(KEYS)
)
steps = st.lists(st.tuples(st.dictionaries(keys, st.binary()), st.lists(keys, max_size=3)), max_size=8)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps)
def test_both_end_alike(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[dict[bytes, bytes], list[bytes]]]
) -> None:
    rocks, memory = RocksStore(tmp_path_factory.mktemp("both") / "store"), MemoryKeyValueStore()
    for puts, deletes in steps:
        for store in (rocks, memory):
            store.write(puts, deletes)
    assert rocks.get_many(KEYS) == memory.get_many(KEYS)
    for begin, end in (((-10, 0), (10, 0)), ((-3, 1 << 50), (4, 1 << 55)), ((2, 0), (2, 0))):
        assert list(rocks.timers(begin, end)) == list(memory.timers(begin, end))
    rocks.close()


def test_a_store_is_there_again_and_another_s_is_left_alone(tmp_path: Path) -> None:
    mine = open_store(tmp_path, "credit-0")
    mine.write({KEYS[0]: b"mine"}, [])
    other = open_store(tmp_path, "credit-0")
    assert other.get(KEYS[0]) is None
    mine.close()
    again = open_store(tmp_path, "credit-0")
    assert again.get(KEYS[0]) == b"mine"
    for store in (other, again):
        store.close()
