"""``tailrace run init``: what must be there before the services start. Doing it again changes nothing.

Control topics, ClickHouse's fixed tables, the home's signing key, and the contracts of the project in the
current folder.
"""

from __future__ import annotations

from tailrace.kit.connection import connect, home_dir
from tailrace.kit.topics import control_topics, ensure_topics


def main() -> None:
    from tailrace.models.trust import signing_key

    connection = connect()
    topics = control_topics()
    for difference in ensure_topics(connection.kafka, topics):
        print(f"warning: {difference}", flush=True)
    print(f"topics        {len(topics)} control topics", flush=True)
    signing_key(home_dir())
