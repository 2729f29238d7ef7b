"""Whose packages and commands count here: ``tailrace keys``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from tailrace.cli.app import app
from tailrace.cli.output import JsonOption, emit, say
from tailrace.contracts.names import MODEL_PATTERN
from tailrace.kit.connection import home_dir
from tailrace.kit.errors import UsageError

keys = typer.Typer(help="Whose packages and commands count in this home.", no_args_is_help=True)
app.add_typer(keys, name="keys")

ModelsOption = Annotated[
    list[str] | None,
    typer.Option("--model", "-m", help="Trusted for this model only; may be given again for more."),
]


@keys.command()
def new(models: ModelsOption = None, as_json: JsonOption = False) -> None:
    """Make a new signing key for this home, with which it signs from now on.

    The key before it stays trusted until it is revoked. Other homes have to trust the new public key.

    Example: tailrace keys new
    """
    from tailrace.models.trust import new_signing_key

    key = new_signing_key(home_dir(), _names(models))
    folder = home_dir() / "keys" / "trusted" / (models[0] if models else "")
    emit({"key_id": key.key_id, "public_key": folder / f"{key.key_id}.pub"}, as_json)
    say("elsewhere: `tailrace keys trust FILE.pub` with this public key's file")


@keys.command()
def trust(
    file: Annotated[
        Path, typer.Argument(help="PEM file of an Ed25519 public key.", exists=True, dir_okay=False)
    ],
    models: ModelsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Trust a public key: what it signs is taken up here, by what runs as well.

    Example: tailrace keys trust 1f0c2d3e4b5a6978.pub --model credit
    """
    from tailrace.models.trust import TrustStore, read_public_key

    names = _names(models)
    key_id = TrustStore(home_dir() / "keys").trust(read_public_key(file), names)
    emit({"key_id": key_id, "trusted_for": ", ".join(names) or "every model"}, as_json)


@keys.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id, as `tailrace keys list` prints it.")],
    as_json: JsonOption = False,
) -> None:
    """Revoke a key: no version and no command that it has signed is taken up any more.

    What answers already goes on until it is replaced or its service restarts.

    Example: tailrace keys revoke 1f0c2d3e4b5a6978
    """
    from tailrace.models.trust import TrustStore

    TrustStore(home_dir() / "keys").revoke(key_id)
    emit({"key_id": key_id, "revoked": True}, as_json)
    say(
        "`tailrace models` shows the versions that it has signed as untrusted; one of them that answers goes on "
        "until you `tailrace promote` or `tailrace rollback` to another"
    )


@keys.command("list")
def list_(as_json: JsonOption = False) -> None:
    """List the public keys that this home knows, for which models each is trusted, and which is its own.

    Example: tailrace keys list
    """
    from tailrace.models.trust import TrustStore, signing_key

    home = home_dir()
    own = signing_key(home).key_id if (home / "keys" / "signing.key").exists() else None
    found = TrustStore(home / "keys").known()
    if not found:
        say("no key is known here yet: `tailrace up` makes one, `tailrace keys trust` takes another's")
    emit(
        [
            {
                "key_id": key.key_id,
                "state": "revoked" if key.revoked else "trusted",
                "models": "every model" if key.models is None else ", ".join(key.models),
                "own": key.key_id == own,
            }
            for key in found
        ],
        as_json,
    )


def _names(models: list[str] | None) -> list[str]:
    for name in models or []:
        if not re.fullmatch(MODEL_PATTERN, name):
            raise UsageError(f"{name!r} is no model's name: small letters, digits, hyphens")
    return models or []
