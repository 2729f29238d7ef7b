"""The joiner's stores, in RocksDB and in memory, keep the same promises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tailrace.joiner.rocks_store import RocksStore, open_store
from tailrace.joiner.store import MemoryStore, Store, look_key, request_key

KEYS = [request_key("m", b"%d" % number) for number in range(5)]


@pytest.fixture(params=["rocks", "memory"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    return MemoryStore if request.param == "memory" else lambda: RocksStore(tmp_path / "store")


def test_what_was_written_is_there_until_it_is_deleted(make: Callable[[], Store]) -> None:
    store = make()
    store.write({KEYS[0]: b"a", KEYS[1]: b"b"}, [])
    store.write({KEYS[0]: b"c"}, [KEYS[1], KEYS[2]])
    assert store.get_many(KEYS[:3]) == [b"c", None, None]
    assert store.get_many([]) == []
    assert store.get(KEYS[0]) == b"c"
    store.wipe()
    assert store.get(KEYS[0]) is None
    store.close()


def test_looks_come_by_time_from_the_first_up_to_the_last(make: Callable[[], Store]) -> None:
    store = make()
    times = [-5, 0, 3, 3, 10**15, -(10**15)]
    looks = [look_key(time, KEYS[at % 4]) for at, time in enumerate(times)]
    store.write(dict.fromkeys(looks, b"") | {KEYS[0]: b"x"}, [])
    assert store.looks(-5, 4) == [
        (look_key(t, KEYS[k]), KEYS[k]) for t, k in ((-5, 0), (0, 1), (3, 2), (3, 3))
    ]
    assert store.looks(-(1 << 62), 1 << 62)[0] == (look_key(-(10**15), KEYS[1]), KEYS[1])
    assert len(store.looks(-(1 << 62), 1 << 62)) == len(times)
    store.write({}, [looks[1]])
    assert [key for key, _ in store.looks(-1, 3)] == []
    store.close()


keys = st.sampled_from(KEYS) | st.builds(look_key, st.integers(-9, 9), st.sampled_from(KEYS))
steps = st.lists(st.tuples(st.dictionaries(keys, st.binary()), st.lists(keys, max_size=3)), max_size=8)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps)
def test_both_end_alike(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[dict[bytes, bytes], list[bytes]]]
) -> None:
    rocks, memory = RocksStore(tmp_path_factory.mktemp("both") / "store"), MemoryStore()
    for puts, deletes in steps:
        for store in (rocks, memory):
            store.write(puts, deletes)
    assert rocks.get_many(KEYS) == memory.get_many(KEYS)
    for begin, end in ((-10, 10), (-3, 4), (2, 2)):
        assert rocks.looks(begin, end) == memory.looks(begin, end)
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
