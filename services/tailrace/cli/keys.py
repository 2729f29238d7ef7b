"""Whose packages and commands count here: ``tailrace keys``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from tailrace.cli.app import app
from tailrace.cli.output import JsonOption, emit, say
from tailrace.connection import home_dir
from tailrace.contracts.language.names import MODEL_PATTERN
from tailrace.errors import TailraceError, UsageError
from tailrace.signing.signers import OWNER, PUBLISHER, SERVICES

keys = typer.Typer(help="Whose packages and commands count in this home.", no_args_is_help=True)
app.add_typer(keys, name="keys")

SignerOption = Annotated[
    str, typer.Option("--signer", "-s", help="Whose key: owner, publisher, or a service's name.")
]
ModelsOption = Annotated[
    list[str] | None,
    typer.Option("--model", "-m", help="Trusted for this model only; may be given again for more."),
]


@keys.command()
def new(models: ModelsOption = None, signer: SignerOption = OWNER, as_json: JsonOption = False) -> None:
    """Make a new signing key for the owner of this home, or for a service, which signs with it from now on.

    A service takes it up without a restart. The key before it stays trusted until it is revoked. Other homes have to
    trust the owner's new public key.

    Example: tailrace keys new --signer rollout
    """
    from tailrace.signing.trust import new_signing_key

    key = new_signing_key(home_dir(), _names(models), _signer(signer, SERVICES, OWNER))
    folder = home_dir() / "keys" / "trusted" / signer / (models[0] if models else "")
    emit({"key_id": key.key_id, "signer": signer, "public_key": folder / f"{key.key_id}.pub"}, as_json)
    if signer == OWNER:
        say("elsewhere: `tailrace keys trust FILE.pub` with this public key's file")


@keys.command()
def trust(
    file: Annotated[
        Path, typer.Argument(help="PEM file of an Ed25519 public key.", exists=True, dir_okay=False)
    ],
    models: ModelsOption = None,
    signer: SignerOption = PUBLISHER,
    as_json: JsonOption = False,
) -> None:
    """Trust a public key: what it signs is taken up here, by what runs as well.

    A publisher's counts for packages and commands, the owner's for contracts and clocks too, a service's for what that
    service writes.

    Example: tailrace keys trust 1f0c2d3e4b5a6978.pub --model credit
    """
    from tailrace.signing.keys import read_public_key
    from tailrace.signing.trust import TrustStore

    names, who = _names(models), _signer(signer, SERVICES, OWNER, PUBLISHER)
    key_id = TrustStore(home_dir() / "keys").trust(read_public_key(file), names, who)
    emit({"key_id": key_id, "trusted_for": ", ".join(names) or "every model"}, as_json)


@keys.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id, as `tailrace keys list` prints it.")],
    until: Annotated[
        list[str] | None,
        typer.Option(
            "--until",
            help="TOPIC=OFFSET: what it signed there from this offset on counts for nothing; may be repeated.",
        ),
    ] = None,
    entirely: Annotated[
        bool, typer.Option("--entirely", help="Nothing that it ever signed counts, and Kafka is not asked.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Revoke a key: nothing that it signs from now on counts, and no version that it has signed is taken up any more.

    What was decided by what it signed until now stays decided; --until TOPIC=OFFSET says from where on it was stolen.
    What answers already goes on until it is replaced or its service restarts. Where the key was stolen, restart the
    services afterwards, so that none goes by a record that came in the same moment.

    Example: tailrace keys revoke 1f0c2d3e4b5a6978
    """
    from tailrace.signing.trust import TrustStore

    given = _offsets(until)
    TrustStore(home_dir() / "keys").revoke(key_id, given if entirely else _ends() | given)
    emit({"key_id": key_id, "revoked": True}, as_json)
    say(
        "`tailrace models` shows the versions that it has signed as untrusted; one of them that answers goes on "
        "until you `tailrace promote` or `tailrace rollback` to another"
    )


@keys.command("list")
def list_(as_json: JsonOption = False) -> None:
    """List the public keys that this home knows: whose each is, for which kinds of record and models it is trusted.

    Example: tailrace keys list
    """
    from tailrace.contracts.state.kinds import KINDS
    from tailrace.signing.keys import key_path, read_private_key
    from tailrace.signing.trust import TrustStore

    home = home_dir()
    paths = [key_path(home, signer) for signer in (OWNER, *SERVICES)]
    own = {read_private_key(path).key_id for path in paths if path.exists()}
    known = TrustStore(home / "keys").known()
    if not known:
        say("no key is known here yet: `tailrace up` makes one, `tailrace keys trust` takes another's")
    emit(
        [
            {
                "key_id": key.key_id,
                "state": "revoked" if key.revoked else "trusted",
                "signer": ", ".join(key.signers),
                "kinds": ", ".join(kind.name for kind in KINDS.values() if {*kind.signers} & {*key.signers}),
                "models": "every model" if key.models is None else ", ".join(key.models),
                "own": key.key_id in own,
            }
            for key in known
        ],
        as_json,
    )


def _names(models: list[str] | None) -> list[str]:
    for name in models or []:
        if not re.fullmatch(MODEL_PATTERN, name):
            raise UsageError(f"{name!r} is no model's name: small letters, digits, hyphens")
    return models or []


def _signer(name: str, services: Sequence[str], *others: str) -> str:
    known = (*others, *services)
    if name not in known:
        raise UsageError(f"--signer {name}: it is one of {', '.join(known)}")
    return name


def _offsets(given: list[str] | None) -> dict[str, int]:
    offsets = {}
    for text in given or []:
        topic, _, offset = text.partition("=")
        if not offset.isdigit():
            raise UsageError(f"--until {text}: TOPIC=OFFSET is expected, such as tailrace.rollouts=120")
        offsets[topic] = int(offset)
    return offsets


def _ends() -> dict[str, int]:
    """Up to where the control topics have come."""
    from tailrace.connection import connect
    from tailrace.contracts.state.kinds import KIND_OF_TOPIC
    from tailrace.streaming.backends.kafka.reading import Ends

    try:
        return {at.topic: end for at, end in Ends(connect()).of([*KIND_OF_TOPIC]).items()}
    except TailraceError as away:
        raise TailraceError(
            f"{away}. Where the key is to count for nothing, and never to have counted, `--entirely` does without Kafka"
        ) from away
