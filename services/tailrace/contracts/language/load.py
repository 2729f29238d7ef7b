"""Reads contract files: YAML, each field by itself, then what concerns several fields at once."""

from __future__ import annotations

from pathlib import Path

from tailrace.contracts.language.checks import check_contract
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.language.yaml_file import YamlFile, read_yaml


def load_contract(source: Path | str) -> ModelContract:
    """Reads and checks a contract: a file where a Path is given, YAML text where a str is.

    Raises:
        ContractError: lists every problem with file, line, field, what is wrong and what to do.
        TailraceError: the file cannot be read.
    """
    return check_contract_file(read_yaml(source))


def check_contract_file(file: YamlFile) -> ModelContract:
    """As :func:`load_contract`, for a file that was read."""
    return file.parse(ModelContract, check_contract)
