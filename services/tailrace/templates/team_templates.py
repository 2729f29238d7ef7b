"""Templates that a team brings: entry points of the group ``tailrace.templates``, loaded when a run needs one.

A contract names one ``DISTRIBUTION:NAME``; the distribution is code that an operator installed, and a contract
only chooses.
"""

from __future__ import annotations

import hashlib
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeGuard

from pydantic import BaseModel, ConfigDict, Field

from tailrace.errors import TailraceError
from tailrace.templates.table import TEMPLATE
from tailrace.templates.template import Template, TemplateOptions

GROUP = "tailrace.templates"
TEAM_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}:[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$"
"""The distribution, a colon, the entry point's name. Tailrace's own have no colon."""

_OF_AN_INSTALLATION = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")


class TemplateRefused(TailraceError):
    """A team's template is not installed here, or is none; says what to do."""


class TemplateOrigin(BaseModel):
    """The distribution that a team's template came from.

    ``digest`` is the SHA-256 (hex) of its files, and equal wherever the same wheel is installed.
    """

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    name: str
    distribution: str
    version: str
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class FoundTemplate(NamedTuple):
    """A template, and where it is from: None where it is Tailrace's own."""

    template: Template
    origin: TemplateOrigin | None


def find_template(name: str) -> FoundTemplate:
    """The template that a contract names. Runs a team's code where it names a team's.

    Raises:
        TemplateRefused: it is not installed, or does not keep the protocol.
    """
    if name in TEMPLATE:
        return FoundTemplate(TEMPLATE[name], None)
    if not re.fullmatch(TEAM_PATTERN, name):
        raise TemplateRefused(f"there is no template {name!r} here: use the Tailrace that knows it")
    distribution, entry_name = name.split(":")
    installed = _installed(distribution, name)
    entry = _entry(installed, entry_name, name)
    files = _files(installed, name)
    named = {"name": name, "distribution": installed.name, "version": installed.version}
    origin = TemplateOrigin(**named, digest=_digest(files))
    return FoundTemplate(_load(entry, frozenset(files.values()), name), origin)


def _installed(distribution: str, name: str) -> metadata.Distribution:
    try:
        return metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        raise TemplateRefused(
            f"the template {name} needs the distribution {distribution}, which is not installed where training runs: "
            f"`pip install {distribution}` there, or name another in training.template"
        ) from None


def _entry(installed: metadata.Distribution, entry_name: str, name: str) -> metadata.EntryPoint:
    entries = {entry.name: entry for entry in installed.entry_points.select(group=GROUP)}
    if entry_name not in entries:
        offered = ", ".join(sorted(entries)) or "none"
        raise TemplateRefused(
            f"{installed.name} {installed.version} has no template {entry_name} (entry points of {GROUP}: {offered}): "
            f"correct {name} in training.template, or install a version that has it"
        )
    return entries[entry_name]


def _files(installed: metadata.Distribution, name: str) -> dict[str, Path]:
    """Its files by name, but for what each installation writes anew."""
    files = {
        file.as_posix(): Path(str(file.locate())).resolve()
        for file in installed.files or ()
        if ".." not in file.parts
        and "__pycache__" not in file.parts
        and not (file.parts[0].endswith(".dist-info") and file.name in _OF_AN_INSTALLATION)
    }
    if not files or not all(path.is_file() for path in files.values()):
        raise TemplateRefused(
            f"files of {installed.name}, which has the template {name}, are missing or not listed in its RECORD: "
            "install it anew from its wheel"
        )
    return files


def _digest(files: dict[str, Path]) -> str:
    digest = hashlib.sha256()
    for file, path in sorted(files.items()):
        digest.update(f"{file}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _load(entry: metadata.EntryPoint, files: frozenset[Path], name: str) -> Template:
    try:
        loaded: Any = entry.load()
    except MemoryError:
        raise  # the run's limit, which the run tells of
    except Exception as error:  # whatever a team's module raises
        raise TemplateRefused(
            f"the template {name} cannot be loaded ({type(error).__name__}: {error}): correct {entry.value} in its "
            "distribution"
        ) from error
    if not _keeps_protocol(loaded):
        raise TemplateRefused(
            f"{entry.value}, the template {name}, is no tailrace.templates.template.Template with an estimator to call "
            "and a class of TemplateOptions: CONTRIBUTING.md, 'Bring a template of your own', has one"
        )
    source = getattr(sys.modules[entry.module], "__file__", None)
    if source is None or Path(source).resolve() not in files:
        raise TemplateRefused(
            f"the template {name} was loaded from {source}, which is no file of its distribution, so that its digest "
            "would say nothing: install the distribution from a wheel, not in editable form"
        )
    return loaded


def _keeps_protocol(loaded: Any) -> TypeGuard[Template]:
    return (
        isinstance(loaded, Template)
        and callable(loaded.estimator)
        and isinstance(loaded.options, type)
        and issubclass(loaded.options, TemplateOptions)
    )
