"""``tailrace run kafka-users``: makes Tailrace's users on a Kafka of one's own, and grants them what they need.

It connects as a user who may do that (``KAFKA_SASL_*``). The users' passwords are files named after them, in the folder
that ``TAILRACE_KAFKA_PASSWORDS`` names, or else in the home's credentials. Doing it again changes nothing, but brings
passwords and rights up to date. It ends by itself.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from tailrace.access.credentials import KAFKA, Credentials
from tailrace.connection import connect, home_dir
from tailrace.errors import TailraceError
from tailrace.kafka_access.acls import align_acls
from tailrace.kafka_access.grants import ADMIN, USERS
from tailrace.local.kafka_security import set_passwords


def main() -> None:
    """
    Raises:
        TailraceError: a password is missing, or Kafka does not do it.
    """
    from confluent_kafka import KafkaException

    passwords = read_passwords(os.environ)
    # The registry is not asked anything; it may not have an address yet.
    kafka = connect({"SCHEMA_REGISTRY_URL": "later", **os.environ}, user=ADMIN).kafka
    try:
        set_passwords(kafka, passwords)
    except KafkaException as error:
        raise TailraceError(f"Kafka does not take the users: {error.args[0].str()}") from error
    align_acls(kafka)
    print(f"kafka-users   {len(passwords)} users and their rights", flush=True)


def read_passwords(env: Mapping[str, str]) -> dict[str, str]:
    """The password of each user.

    Raises:
        TailraceError: one is missing.
    """
    given = env.get("TAILRACE_KAFKA_PASSWORDS")
    folder = Path(given) if given else Credentials(home_dir(env)).path(KAFKA, "")
    files = {user: folder / user for user in USERS}
    if missing := [str(file) for file in files.values() if not file.is_file()]:
        raise TailraceError(
            f"no password in {', '.join(missing)}: write one into each, or have all of them made by "
            "`tailrace up`"
        )
    return {user: file.read_text().strip() for user, file in files.items()}
