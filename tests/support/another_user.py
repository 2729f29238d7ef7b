"""What another user of the machine can do, for tests of what that one cannot."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

NOBODY = 65534


def as_another_user(what: Callable[[], Any]) -> Any:
    """Calls ``what`` in a process of the user 65534, who is in no other group; its result has to be JSON's.

    The process is a fork: what it needs is loaded already, since that user may not read where Python is.
    Skips the test where this process may not change its id; on a build machine (CI=true) that fails it.
    """
    if os.geteuid() != 0:
        reason = "only root may change its user id: this attack was not tried"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _call(what, writing)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, text
    return json.loads(text)


def readable(paths: Iterable[Path]) -> list[str]:
    """Those of the files that this process may read."""
    opened = []
    for path in paths:
        try:
            os.close(os.open(path, os.O_RDONLY))
        except PermissionError:
            continue
        opened.append(str(path))
    return opened


def _call(what: Callable[[], Any], writing: int) -> None:
    """In the child, which never comes back from here."""
    try:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        os.write(writing, json.dumps(what()).encode())
    except BaseException as error:
        os.write(writing, repr(error).encode())
        os._exit(1)
    os._exit(0)
