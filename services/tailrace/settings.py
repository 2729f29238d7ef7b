"""What can be set about a running service, by environment variables that begin with TAILRACE_.

Addresses and secrets of Kafka, registry and ClickHouse are apart, in connection.py.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from tailrace.errors import UsageError

PREFIX = "TAILRACE_"


class Settings(BaseSettings):
    """``TAILRACE_<NAME>`` for each field."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore")

    home: Path = Field(Path("./.tailrace"), description="Folder of what runs on this machine.")
    instance: str | None = Field(
        None,
        pattern=r"^[\w.-]+$",
        description="A name that only this instance of the service has, and has again when it is restarted.",
    )
    health_host: str = Field("127.0.0.1", description="Address on which /livez, /readyz and /metrics listen.")
    health_port: int = Field(0, ge=0, le=65535, description="Their port; 0 takes a free one and logs it.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="What is logged.")
    max_batch: int = Field(5_000, ge=1, le=100_000, description="Records in one transaction, at most.")
    batch_seconds: float = Field(
        30.0,
        ge=6.0,
        description="Time that one batch may take; who takes longer loses its partitions to others.",
    )
    package_memory_mb: int = Field(
        2_048, ge=64, description="Memory in MiB that one package may take while it is examined."
    )
    package_seconds: float = Field(
        10.0, gt=0, description="CPU time that the examination of one package may take."
    )
    train_memory_mb: int = Field(
        16_384, ge=512, description="Address space in MiB that one training run may take; more makes it fail."
    )
    train_seconds: int = Field(3_600, ge=1, description="Time that one training run may take.")


def read_settings(env: Mapping[str, str] | None = None) -> Settings:
    """The settings that the environment makes.

    Raises:
        UsageError: a variable has a wrong value, or is nearly the name of a setting.
    """
    for name in os.environ if env is None else env:
        _check_name(name)
    try:
        if env is None:
            return Settings()
        values = {name.removeprefix(PREFIX).lower(): v for name, v in env.items() if name.startswith(PREFIX)}
        return Settings.model_validate(values)
    except ValidationError as invalid:
        faults = [f"{PREFIX}{str(f['loc'][0]).upper()}={f['input']}: {f['msg']}" for f in invalid.errors()]
        raise UsageError("; ".join(faults)) from None


def _check_name(name: str) -> None:
    known = [PREFIX + field.upper() for field in Settings.model_fields]
    meant = difflib.get_close_matches(name, known, n=1, cutoff=0.88)
    if meant and name.startswith(PREFIX) and name not in known:
        raise UsageError(f"{name} is not a setting: {meant[0]} is")
