"""Who may do what at Kafka, as a page: ``python -m tailrace.kafka_access.matrix > docs/kafka-users.md``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tailrace.kafka_access.grants import (
    ADMIN,
    CLUSTER,
    GROUP,
    TOPIC,
    TRANSACTIONAL_ID,
    USERS,
    Grant,
    templates,
)

_LETTERS = {
    "READ": "R",
    "WRITE": "W",
    "DESCRIBE": "d",
    "CREATE": "c",
    "ALTER": "A",
    "DESCRIBE_CONFIGS": "s",
    "ALTER_CONFIGS": "S",
    "ALL": "any",
}


def page() -> str:
    """The page, in Markdown."""
    everything = list(templates())
    return "\n".join(
        [
            "# Kafka's users, and what each may do",
            "",
            "Made by `python -m tailrace.kafka_access.matrix > docs/kafka-users.md` from the table of services",
            "(`services/tailrace/services.py`) and `services/tailrace/kafka_access/grants.py`; do not edit. What is",
            f"not here is refused, and so is whoever is none of these users. `{ADMIN}`, the broker's own super user,",
            "may do anything.",
            "",
            "R read, W write (both imply d), d describe (that it is there, how far it goes), c create, A alter (users",
            "and rights), s describe settings, S alter settings. `LANE` is any lane, a name that ends in `*` a prefix.",
            "",
            "## Topics",
            "",
            *_matrix("topic", _of(everything, TOPIC)),
            "",
            "## Consumer groups",
            "",
            *_matrix("group", _of(everything, GROUP)),
            "",
            "## Transactional ids",
            "",
            *_matrix("transactional id", _of(everything, TRANSACTIONAL_ID)),
            "",
            "## The cluster",
            "",
            *_matrix("", _of(everything, CLUSTER)),
            "",
        ]
    )


def _of(everything: Sequence[Grant], resource: str) -> list[Grant]:
    return [grant for grant in everything if grant.resource == resource]


def _matrix(title: str, about: Sequence[Grant]) -> Iterator[str]:
    """A table: a line for each name, a column for each user who may do anything with one of them."""
    users = [user for user in USERS if any(grant.user == user for grant in about)]
    yield f"| {title} | " + " | ".join(users) + " |"
    yield "| --- |" + " --- |" * len(users)
    for name in dict.fromkeys(grant.name for grant in about):
        cells = [_cell([g for g in about if (g.user, g.name) == (user, name)]) for user in users]
        yield f"| `{name}` | " + " | ".join(cells) + " |"


def _cell(of_user: Sequence[Grant]) -> str:
    letters = "".join(_LETTERS[grant.operation] for grant in of_user if grant.allowed)
    return letters + "".join(f"not {_LETTERS[grant.operation]}" for grant in of_user if not grant.allowed)


if __name__ == "__main__":
    print(page(), end="")
