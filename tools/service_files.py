"""Puts the table of services into the files that name each of them: ``python -m tools.service_files``.

Of what is listed in an order of its own, such as a topic's readers, the order stays, and what is new comes last.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from textwrap import wrap

from tailrace.contracts.records import lanes
from tailrace.kafka_access.grants import ADMIN, USERS
from tailrace.services import ENTRIES, SERVICES, ServiceEntry

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = tuple(dict.fromkeys(entry.folder for entry in ENTRIES))
_TOPICS = (*lanes.CONTROL_TOPICS, *lanes.Lane("LANE").topics)
_MOST = 12

Edit = Callable[[str], str]


def current() -> Iterator[tuple[Path, str]]:
    """Each file that names services, as it should be."""
    edits: dict[str, Edit] = {
        "compose.yaml": _compose,
        "observability/prometheus.yml": _prometheus,
        "docs/architecture.md": _architecture,
        "docs/production.md": _production,
        "docs/keys.md": _keys,
        "pyproject.toml": _import_contracts,
    }
    for name, edit in edits.items():
        yield ROOT / name, edit((ROOT / name).read_text())
    for path in sorted((ROOT / "contracts" / "topics").glob("*.yaml")):
        yield path, _topic(path.read_text())


def _put(text: str, pattern: str, block: str) -> str:
    """The text with the one place that fits the pattern replaced."""
    changed, places = re.subn(pattern, lambda _: block, text, flags=re.MULTILINE)
    assert places == 1, f"{pattern!r} fits {places} places"
    return changed


def _kept(listed: Iterable[str], wanted: Sequence[str]) -> list[str]:
    kept = [name for name in listed if name in wanted]
    return kept + [name for name in wanted if name not in kept]


def _compose(text: str) -> str:
    users = "".join(f"      - {{source: kafka-{user}, target: {user}}}\n" for user in USERS)
    text = _put(text, r"(?:^      - \{source: kafka-[\w-]+, target: (?!kafka-password)[\w-]+\}\n)+", users)
    services = "".join(
        f"  {name}:\n    <<: *service\n    command: [run, {name}]\n    environment:\n      <<: *environment\n"
        f"      KAFKA_SASL_USERNAME: {name}\n    secrets:\n      - {{source: kafka-{name}, target: kafka-password}}\n\n"
        for name in SERVICES
    )
    text = _put(text, r"(?:^  [\w-]+:\n    <<: \*service\n(?:    .*\n)+\n)+", services)
    secrets = "".join(
        f"  kafka-{user}:\n    environment: KAFKA_PASSWORD_{_variable(user)}\n" for user in (ADMIN, *USERS)
    )
    return _put(text, r"(?:^  kafka-[\w-]+:\n    environment: KAFKA_PASSWORD_\w+\n)+", secrets)


def _prometheus(text: str) -> str:
    targets = ", ".join(f'"{name}:8080"' for name in SERVICES)
    return _put(text, r"targets: \[.*\]", f"targets: [{targets}]")


def _production(text: str) -> str:
    names = " \\\n    ".join(wrap(" ".join(map(_variable, (ADMIN, *USERS))), 88))
    return _put(text, r"for name in [A-Z_ \\\n]+; do", f"for name in {names}; do")


def _variable(user: str) -> str:
    return user.upper().replace("-", "_")


def _keys(text: str) -> str:
    return _put(text, r"each service's own \([\w, -]+\)", f"each service's own ({', '.join(SERVICES)})")


def _architecture(text: str) -> str:
    head = "| service | reads | writes | state |\n| --- | --- | --- | --- |\n"
    listed = re.findall(r"^\| \[([\w-]+)\]\(\.\./services/tailrace/\w+/README\.md\) \|", text, re.MULTILINE)
    by_name = {entry.name: entry for entry in ENTRIES}
    rows = "".join(map(_row, (by_name[name] for name in _kept(listed, SERVICES))))
    text = _put(text, re.escape(head) + r"(?:^\|.*\n)+", head + rows)
    [rooms] = re.findall(r"^      ((?:\w+/ )+) +the services: none imports another$", text, re.MULTILINE)
    folders = " ".join(f"{name}/" for name in _kept(rooms.replace("/", "").split(), FOLDERS))
    return text.replace(f"      {rooms}", f"      {folders} ")


def _row(entry: ServiceEntry) -> str:
    link = f"[{entry.name}](../services/tailrace/{entry.folder}/README.md)"
    return f"| {link} | {_named(entry.reads)} | {_named(entry.writes)} | {entry.state} |\n"


def _named(topics: tuple[str, ...]) -> str:
    if len(topics) > _MOST:
        return f"every topic but {_named(tuple(topic for topic in _TOPICS if topic not in topics))}"
    return ", ".join(topic.removeprefix("LANE.").removeprefix("tailrace.") for topic in topics) or "nothing"


def _import_contracts(text: str) -> str:
    modules = re.search(
        r"^name = \"Services never import each other\"\n.*\nmodules = \[(.*)\]$", text, re.MULTILINE
    )
    layer = re.search(r"^  \"(clock(?: \| \w+)+)\",$", text, re.MULTILINE)
    assert modules
    assert layer
    listed = [name.strip(' "').removeprefix("tailrace.") for name in modules[1].split(",")]
    text = text.replace(modules[1], ", ".join(f'"tailrace.{name}"' for name in _kept(listed, FOLDERS)))
    return text.replace(layer[1], " | ".join(_kept(layer[1].split(" | "), FOLDERS)))


def _topic(text: str) -> str:
    [topic] = re.findall(r"^topic: (\S+)$", text, re.MULTILINE)
    listed_as = {
        "read_by": [entry.name for entry in ENTRIES if topic in entry.reads],
        "written_by": [entry.name for entry in ENTRIES if topic in entry.writes],
    }
    for field, ours in listed_as.items():
        [listed] = re.findall(rf"^{field}: \[(.*)\]$", text, re.MULTILINE)
        names = [name for name in listed.split(", ") if name]
        others = [name for name in names if name not in SERVICES]
        text = text.replace(f"{field}: [{listed}]", f"{field}: [{', '.join(_kept(names, [*ours, *others]))}]")
    return text


def main() -> None:
    for path, text in current():
        path.write_text(text)


if __name__ == "__main__":
    main()
