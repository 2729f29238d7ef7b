"""How the local broker is closed: who may connect (SASL/SCRAM), and that nothing is allowed that is not granted."""

from __future__ import annotations

from collections.abc import Mapping

from tailrace.kafka_access.grants import ADMIN

MECHANISM = "SCRAM-SHA-256"
CLIENTS = {"KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "KAFKA_SASL_MECHANISM": MECHANISM}
"""What a client has to know beside its user and password."""

_ITERATIONS = 4096
"""The least that Kafka takes: passwords are 256 random bits, which no number of guesses finds."""

_TIMEOUT = 15.0

# Both listeners are on the loopback interface, so nothing is encrypted. SCRAM shows a password neither to a listener on
# the way nor to somebody else who took the broker's port. The controller's listener is this process's own: SCRAM cannot
# be checked before there is a controller, which knows the users.
SETTINGS = {
    "listener.security.protocol.map": "CLIENTS:SASL_PLAINTEXT,CONTROLLER:SASL_PLAINTEXT",
    "inter.broker.listener.name": "CLIENTS",
    "sasl.enabled.mechanisms": MECHANISM,
    "sasl.mechanism.inter.broker.protocol": MECHANISM,
    "listener.name.controller.sasl.enabled.mechanisms": "PLAIN",
    "sasl.mechanism.controller.protocol": "PLAIN",
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "false",
    "super.users": f"User:{ADMIN}",
}


def jaas(password: str) -> dict[str, str]:
    """How the broker shows itself to itself, and whom its controller lets in."""
    login = f'required username="{ADMIN}" password="{password}"'
    modules = "org.apache.kafka.common.security"
    return {
        f"listener.name.clients.{MECHANISM.lower()}.sasl.jaas.config": f"{modules}.scram.ScramLoginModule {login};",
        "listener.name.controller.plain.sasl.jaas.config": (
            f'{modules}.plain.PlainLoginModule {login} user_{ADMIN}="{password}";'
        ),
    }


def client_options(bootstrap: str, user: str, password: str) -> dict[str, str]:
    return {
        "bootstrap.servers": bootstrap,
        "security.protocol": CLIENTS["KAFKA_SECURITY_PROTOCOL"],
        "sasl.mechanism": MECHANISM,
        "sasl.username": user,
        "sasl.password": password,
    }


def format_arguments(password: str) -> str:
    """For the tool that formats the data folder, one a line: its command line can be read by anybody, a file not."""
    return f"--add-scram\n{MECHANISM}=[name={ADMIN},password={password}]\n"


def set_passwords(kafka: Mapping[str, str], passwords: Mapping[str, str]) -> None:
    """Makes the users, or gives them these passwords.

    Args:
        kafka: librdkafka's options of a user who may.

    Raises:
        KafkaException: Kafka does not do it.
    """
    from confluent_kafka.admin import (
        AdminClient,
        ScramCredentialInfo,
        ScramMechanism,
        UserScramCredentialAlteration,
        UserScramCredentialUpsertion,
    )

    how = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, _ITERATIONS)
    upserts: list[UserScramCredentialAlteration] = [
        UserScramCredentialUpsertion(user, how, password.encode()) for user, password in passwords.items()
    ]
    with AdminClient({"log_level": 0, **kafka}) as admin:  # must outlive its futures
        for done in admin.alter_user_scram_credentials(upserts).values():
            done.result(_TIMEOUT)
