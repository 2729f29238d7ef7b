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


_HEAD = f"""\
# Kafka's users, and what each may do

Made by `python -m tailrace.kafka_access.matrix > docs/kafka-users.md` from the table of services
(`services/tailrace/services.py`) and `services/tailrace/kafka_access/grants.py`; do not edit. What is
not here is refused, and so is whoever is none of these users. `{ADMIN}`, the broker's own super user,
may do anything.

R read, W write (both imply d), d describe (that it is there, how far it goes), c create, A alter (users
and rights), s describe settings, S alter settings. `LANE` is any lane, a name that ends in `*` a prefix.
"""
_SECTIONS = (
    ("Topics", "topic", TOPIC),
    ("Consumer groups", "group", GROUP),
    ("Transactional ids", "transactional id", TRANSACTIONAL_ID),
    ("The cluster", "", CLUSTER),
)


def page() -> str:
    """The page, in Markdown."""
    lines = [_HEAD]
    for heading, title, resource in _SECTIONS:
        of_resource = [grant for grant in templates() if grant.resource == resource]
        lines += [f"## {heading}", "", *_matrix(title, of_resource), ""]
    return "\n".join(lines)


def _matrix(title: str, grants: Sequence[Grant]) -> Iterator[str]:
    """A table: a line for each name, a column for each user who may do anything with one of them."""
    users = [user for user in USERS if any(grant.user == user for grant in grants)]
    yield f"| {title} | " + " | ".join(users) + " |"
    yield "| --- |" + " --- |" * len(users)
    for name in dict.fromkeys(grant.name for grant in grants):
        cells = [_cell([g for g in grants if (g.user, g.name) == (user, name)]) for user in users]
        yield f"| `{name}` | " + " | ".join(cells) + " |"


def _cell(of_user: Sequence[Grant]) -> str:
    letters = "".join(_LETTERS[grant.operation] for grant in of_user if grant.allowed)
    return letters + "".join(f"not {_LETTERS[grant.operation]}" for grant in of_user if not grant.allowed)


if __name__ == "__main__":
    print(page(), end="")
