"""A full disk, a quota that is used up, no more descriptors: known wherever the error comes from."""

from __future__ import annotations

import errno
import os

import pytest

from tailrace.shortages import shortage, shortage_in

SHORT = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)


@pytest.mark.parametrize("number", SHORT)
def test_each_is_known_by_its_number_and_by_its_words(number: int) -> None:
    assert (by_number := shortage(OSError(number, "whatever"))) is not None
    assert by_number.startswith(os.strerror(number))
    # RocksDB says it through Rust, Kafka through Java.
    assert (
        shortage(Exception(f"IO error: {os.strerror(number)}: While appending to file 000012.sst"))
        == by_number
    )
    assert shortage_in(f"java.io.IOException: {os.strerror(number)}") == by_number


def test_it_is_known_through_what_it_was_wrapped_in() -> None:
    def fail() -> None:
        try:
            raise OSError(errno.ENOSPC, "full")
        except OSError as error:
            raise ValueError("the store cannot be written") from error

    with pytest.raises(ValueError, match="cannot be written") as wrapped:
        fail()
    assert "free some of the disk" in (shortage(wrapped.value) or "")


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "no"), ValueError("row 28 is bad"), KeyError("x")])
def test_other_errors_are_none(error: Exception) -> None:
    assert shortage(error) is None
