"""The Typer application that the command files hang their commands on."""

from __future__ import annotations

import importlib

import typer

app = typer.Typer(
    name="tailrace",
    help="The feedback loop for machine-learning models in production, on Kafka.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# Each of these registers its commands on `app` when imported. Heavy imports belong inside the commands.
for _module in (
    *("local", "contracts", "models", "keys", "credentials", "rollout", "experiment", "traffic", "look"),
    *("rebuild", "verify", "explain", "demo"),
):
    importlib.import_module(f"tailrace.cli.{_module}")
