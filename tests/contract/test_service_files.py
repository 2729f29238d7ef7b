"""Files that name services name those of the table, and what signs is a service of it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
from tools.service_files import ROOT, current

from tailrace.contracts.state.kinds import KIND_OF_TOPIC
from tailrace.services import ENTRIES, SERVICES, ServiceEntry
from tailrace.signing import signers

FILES = dict(current())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_names_the_services_of_the_table(path: Path) -> None:
    assert path.read_text() == FILES[path], "run `make pages`"


def test_signers_are_services_and_whoever_writes_what_is_signed_signs() -> None:
    assert set(signers.SERVICES) <= set(SERVICES)
    writing = {entry.name for entry in ENTRIES if set(entry.writes) & set(KIND_OF_TOPIC)}
    assert writing <= set(signers.SERVICES)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_a_service_has_a_room_a_readme_and_a_start_under_its_name(entry: ServiceEntry) -> None:
    module = import_module(entry.module)
    assert callable(module.main)
    assert (ROOT / "services" / "tailrace" / entry.folder / "README.md").is_file()
