"""A team's template is loaded when a run needs it and not before, and what is wrong with it is said."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.distributions import install

from tailrace.contracts.language.load import load_contract
from tailrace.errors import UsageError
from tailrace.models.train import learning_task, unfitted
from tailrace.templates.table import TEMPLATE, TEMPLATES
from tailrace.templates.team_templates import TemplateRefused, find_template

NAME = "acme-trees:shallow"
ENTRY_POINTS = "[tailrace.templates]\nshallow = acme_trees.shallow:SHALLOW\n"
MODULE = '''
from sklearn.tree import DecisionTreeClassifier
from tailrace.templates.template import Template, TemplateOptions

class Options(TemplateOptions):
    depth: int = 2
    """Levels of the tree."""

def estimator(task, options, seed):
    return DecisionTreeClassifier(max_depth=options.depth, random_state=seed)

SHALLOW = Template("shallow", "A small tree.", estimator, Options)
'''
CONTRACT = """
model: m
owner: {team: t}
features: {x: {type: number}}
target: {name: y, type: boolean}
training: {template: "acme-trees:shallow", options: {depth: OPTION}}
"""
Installed = Callable[..., Path]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installed:
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "acme_trees"]:
        monkeypatch.delitem(sys.modules, name)

    def put(module: str = MODULE, entry_points: str = ENTRY_POINTS, version: str = "1.2") -> Path:
        files = {"acme_trees/__init__.py": "", "acme_trees/shallow.py": module}
        return install(tmp_path, "acme-trees", files, entry_points, version)

    yield put  # type: ignore[misc]
    for name in [name for name in sys.modules if name.partition(".")[0] == "acme_trees"]:
        del sys.modules[name]


def test_a_contract_names_it_and_nothing_is_loaded(installed: Installed) -> None:
    installed()
    contract = load_contract(CONTRACT.replace("OPTION", "3"))
    assert contract.training.template == NAME
    assert "acme_trees" not in sys.modules
    template, origin = find_template(NAME)
    assert "acme_trees.shallow" in sys.modules
    assert origin is not None
    assert (origin.name, origin.distribution, origin.version) == (NAME, "acme-trees", "1.2")
    assert unfitted(template, contract, options=contract.training.options).max_depth == 3
    assert template.unfitted(learning_task(contract), 0).max_depth == 2
    wrong = load_contract(CONTRACT.replace("OPTION", "deep"))
    with pytest.raises(
        UsageError, match=r"training\.options\.depth: .*integer.*: correct it in the contract of m"
    ):
        unfitted(template, wrong, options=wrong.training.options)


def test_the_digest_is_that_of_the_files_and_not_of_the_installation(
    installed: Installed, tmp_path: Path
) -> None:
    def digest() -> str:
        _, origin = find_template(NAME)
        assert origin is not None
        return origin.digest

    info = installed()
    first = digest()
    (info / "INSTALLER").write_text("uv\n")
    (info / "direct_url.json").write_text("{}")
    assert digest() == first
    (tmp_path / "acme_trees" / "__init__.py").write_text("# changed\n")
    assert digest() != first


def test_own_templates_come_from_no_distribution() -> None:
    assert len(TEMPLATE) == len(TEMPLATES)
    assert all(find_template(name) == (template, None) for name, template in TEMPLATE.items())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"entry_points": ""},
            r"acme-trees 1\.2 has no template shallow .*: none\): correct acme-trees:shallow",
        ),
        (
            {"entry_points": ENTRY_POINTS.replace("shallow =", "deep =")},
            r"entry points of tailrace\.templates: deep",
        ),
        (
            {"module": "raise RuntimeError('no')"},
            r"cannot be loaded \(RuntimeError: no\): correct acme_trees\.shallow",
        ),
        ({"module": ""}, "cannot be loaded \\(AttributeError"),
        (
            {"module": "SHALLOW = 5"},
            "is no tailrace.templates.template.Template .*'Bring a template of your own'",
        ),
        ({"module": MODULE.replace("estimator, Options)", "5, Options)")}, "is no tailrace"),
        ({"module": MODULE.replace("estimator, Options)", "estimator, dict)")}, "is no tailrace"),
    ],
)
def test_what_does_not_keep_the_protocol(change: dict[str, str], says: str, installed: Installed) -> None:
    installed(**change)
    with pytest.raises(TemplateRefused, match=says):
        find_template(NAME)


def test_what_is_not_installed() -> None:
    with pytest.raises(
        TemplateRefused, match=r"needs the distribution acme-trees, .*`pip install acme-trees` there"
    ):
        find_template(NAME)
    with pytest.raises(TemplateRefused, match="no template 'of-a-later-tailrace' here"):
        find_template("of-a-later-tailrace")


def test_a_module_that_is_no_file_of_its_distribution(
    installed: Installed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed()
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(tmp_path / "acme_trees", elsewhere / "acme_trees")
    monkeypatch.syspath_prepend(elsewhere)
    with pytest.raises(TemplateRefused, match=r"which is no file of its distribution.*not in editable form"):
        find_template(NAME)


def test_a_file_that_is_missing(installed: Installed, tmp_path: Path) -> None:
    installed()
    (tmp_path / "acme_trees" / "__init__.py").unlink()
    with pytest.raises(TemplateRefused, match="install it anew from its wheel"):
        find_template(NAME)
