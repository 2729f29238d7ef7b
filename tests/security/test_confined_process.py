"""A process that confined itself, tried from inside: each attempt in a child process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.support.landlock import needs_landlock, needs_ports
from tests.support.waiting import until_answers

from tailrace.confinement import landlock
from tailrace.confinement.landlock import AccessLimits, confine
from tailrace.errors import TailraceError
from tailrace.local.ports import HOST, free_port
from tailrace.local.process import Process

# Signals of others are out of reach since version 6 of Landlock.
KILLED = "refused 1" if landlock.version() >= 6 else "done"

CHILD = """
import os, socket, subprocess, sys
from pathlib import Path
from tailrace.confinement.landlock import AccessLimits, confine
from tailrace.confinement.system import DEVICES, system_paths
home, connect, bind = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
confine(AccessLimits((home / "own", *DEVICES), system_paths(), frozenset([connect]), frozenset([bind])))
try:
    exec(sys.argv[4])
except OSError as error:
    print("refused", error.errno)
else:
    print("done")
"""


def attempt(home: Path, code: str, connect: int = 9, bind: int = 0) -> str:
    (home / "own").mkdir(exist_ok=True)
    (home / "keys").mkdir(exist_ok=True)
    (home / "keys" / "signing.key").write_text("secret")
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(home), str(connect), str(bind), code],
        capture_output=True,
        text=True,
        check=True,
        cwd=home,
    )
    return done.stdout.strip()


@needs_landlock
@pytest.mark.parametrize(
    ("code", "answer"),
    [
        ("(home / 'own' / 'a').write_text('x'); (home / 'own' / 'a').read_text()", "done"),
        ("(home / 'own' / 'a').mkdir(); (home / 'own' / 'a').rename(home / 'own' / 'b')", "done"),
        ("import json, sqlite3, xml.dom", "done"),
        ("(home / 'keys' / 'signing.key').read_text()", "refused 13"),
        ("list((home / 'keys').iterdir())", "refused 13"),
        ("(home / 'out').write_text('x')", "refused 13"),
        ("(home / 'keys' / 'signing.key').unlink()", "refused 13"),
        ("os.truncate(home / 'keys' / 'signing.key', 0)", "refused 13"),
        (
            "os.symlink(home / 'keys', home / 'own' / 'way'); (home / 'own' / 'way' / 'signing.key').read_text()",
            "refused 13",
        ),
        ("os.link(home / 'keys' / 'signing.key', home / 'own' / 'key')", "refused 18"),
        ("Path('/etc/shadow').read_text()", "refused 13"),
        ("Path(f'/proc/{os.getppid()}/environ').read_bytes()", "refused 13"),
        ("os.kill(os.getppid(), 0)", KILLED),
        ("Path(f'/proc/self/root{home}/keys/signing.key').read_text()", "refused 13"),
        ("subprocess.run(['cat', str(home / 'keys' / 'signing.key')], check=True)", "CalledProcessError"),
    ],
)
def test_files(tmp_path: Path, code: str, answer: str) -> None:
    if answer == "CalledProcessError":  # children inherit it
        with pytest.raises(subprocess.CalledProcessError):
            attempt(tmp_path, code)
    else:
        assert attempt(tmp_path, code) == answer


@needs_ports
def test_it_connects_to_the_ports_it_names_and_to_no_other(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as allowed, socket.create_server(("127.0.0.1", 0)) as other:
        port = allowed.getsockname()[1]
        code = "socket.create_connection(('127.0.0.1', {}), 5)"
        assert attempt(tmp_path, code.format(port), port) == "done"
        assert attempt(tmp_path, code.format(other.getsockname()[1]), port) == "refused 13"


@needs_ports
def test_it_binds_the_ports_it_names_and_no_other(tmp_path: Path) -> None:
    first, second = free_port(), free_port()
    code = "socket.create_server(('127.0.0.1', {}))"
    assert attempt(tmp_path, code.format(first), bind=first) == "done"
    assert attempt(tmp_path, code.format(second), bind=first) == "refused 13"


@needs_landlock
def test_who_has_threads_is_told_and_stays_as_it_is() -> None:
    """They would go on unconfined. Harmless here: it raises before anything is given up."""
    done = threading.Event()
    other = threading.Thread(target=done.wait)
    other.start()
    try:
        with pytest.raises(TailraceError, match="before it starts any"):
            confine(AccessLimits((), ()))
    finally:
        done.set()
        other.join()


def test_without_landlock_nothing_is_confined_and_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from tailrace.confinement.profiles import describe

    monkeypatch.setattr(landlock, "version", lambda: 0)
    assert confine(AccessLimits((), ())) == 0
    assert describe(0) == "not confined: this kernel has no Landlock"


@needs_landlock
def test_the_local_clickhouse_is_confined_whole(tmp_path: Path) -> None:
    """As `tailrace up` starts it: its log says so, and so does the kernel of each of its threads."""
    port = free_port()
    env = os.environ | {"TAILRACE_HOME": str(tmp_path), "TAILRACE_PORT": str(port)}
    process = Process([sys.executable, "-m", "tailrace.cli", "run", "clickhouse"], tmp_path / "log", env)
    process.launch()
    try:
        until_answers(process, f"http://{HOST}:{port}")
        assert "confined by Landlock" in process.last_words()
        threads = list(Path(f"/proc/{process.pid}/task").iterdir())
        assert len(threads) > 3
        for thread in threads:
            assert "NoNewPrivs:\t1" in (thread / "status").read_text()
    finally:
        process.stop(10)
