"""The home folder: made, locked, described."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tailrace.access.credentials import HTTP, OPS, Credentials
from tailrace.access.home_identity import home_id
from tailrace.errors import TailraceError
from tailrace.local.home import Home, contract_files
from tailrace.local.updown import purge


def test_only_one_may_have_a_home_and_the_other_is_told_who_has_it(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    assert home.holder() is None
    script = "import sys; from tailrace.local.home import Home; from pathlib import Path; "
    script += "lock = Home(Path(sys.argv[1])).lock(); print('taken', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(home.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert home.holder() == other.pid
        with pytest.raises(TailraceError, match=f"already runs in .*process {other.pid}.*tailrace down"):
            home.lock()
        other.kill()
    # A crash gives it back.
    assert home.holder() is None
    home.lock().close()


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TailraceError, match=r"cannot be written.*--home"):
        Home(tmp_path / "file" / "home").prepare()


def test_a_home_stays_out_of_repositories_and_its_keys_out_of_sight(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.prepare()
    assert (tmp_path / ".gitignore").read_text() == "*\n"
    assert (tmp_path / "keys").stat().st_mode & 0o077 == 0


def test_files_are_replaced_whole(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.prepare()
    assert home.read(home.state) == {}
    home.write(home.state, {"pid": 1})
    home.write(home.state, {"pid": 2})
    assert home.read(home.state) == {"pid": 2}
    assert not [file for file in home.run.iterdir() if "state.json." in file.name]


def test_purge_removes_homes_and_nothing_else(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    purge(home)
    assert not home.root.exists()
    (tmp_path / "thesis").mkdir()
    with pytest.raises(TailraceError, match="is no home"):
        purge(Home(tmp_path / "thesis"))
    assert (tmp_path / "thesis").exists()


def test_a_project_s_contracts(tmp_path: Path) -> None:
    assert contract_files(tmp_path) == []
    folder = tmp_path / "contracts" / "models"
    folder.mkdir(parents=True)
    for name in ("wine.yaml", "credit.yml", "README.md", "old.yaml~"):
        (folder / name).touch()
    assert [file.name for file in contract_files(tmp_path)] == ["credit.yml", "wine.yaml"]


def test_a_home_made_before_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "data/kafka/logs").mkdir(parents=True)
    (tmp_path / "data/kafka/logs/meta.properties").write_text("")
    with pytest.raises(TailraceError, match="down --purge"):
        Home(tmp_path).prepare()
    for other in (2, 4):
        (tmp_path / "home.json").write_text(f'{{"format": {other}, "id": "x"}}')
        with pytest.raises(TailraceError, match=f"format {other}.*format 3.*down --purge"):
            Home(tmp_path).prepare()


def test_a_home_keeps_its_id_and_is_its_owners_alone(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    made = home_id(home.root)
    home.prepare()
    assert home_id(home.root) == made
    assert home.root.stat().st_mode & 0o777 == 0o700


def test_a_credential_is_made_once_renewed_at_will_and_readable_by_its_owner_alone(tmp_path: Path) -> None:
    credentials = Credentials(tmp_path)
    assert credentials.read(HTTP, OPS) is None
    made = credentials.make(HTTP, OPS)
    assert credentials.make(HTTP, OPS) == made == credentials.read(HTTP, OPS)
    assert credentials.renew(HTTP, OPS) != made
    assert credentials.path(HTTP, OPS).stat().st_mode & 0o777 == 0o600
