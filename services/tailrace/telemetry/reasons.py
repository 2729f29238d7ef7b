"""Why something waits, as one sentence: equal reasons stand once, with the first few of what they are about."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

MOST = 3
"""How many topics, partitions or reasons are named; of the others only the number."""
LONGEST = 400
"""Characters of a reason, at most."""

# What differs between copies of one message of librdkafka: how long it took, how often it was said before.
_SUPPRESSED = r"(?:, )?\d+ identical error\(s\) suppressed"
_NOISE = re.compile(rf" \(after \d+ms in state \w+(?:{_SUPPRESSED})?\)|{_SUPPRESSED}|^\[thrd:[^\]]*\]: ")
# One message for each partition, joined: "credit.requests [3]: Broker: Not leader, credit.requests [4]: ...".
_ABOUT = re.compile(r"(?:^|[;,:] )([\w.-]+)(?: ?\[\d+\]|/\d+):? ")


def waiting_for(pairs: Iterable[tuple[str, str]]) -> str | None:
    """One sentence of who waits for what, None where nobody waits.

    Args:
        pairs: names, such as topics, each with its reason.
    """
    names_by_reason: dict[str, set[str]] = defaultdict(set)
    for name, reason in pairs:
        names_by_reason[plain(reason)].add(name)
    return one_of(
        f"{listed(sorted(names))} {'waits' if len(names) == 1 else 'wait'}: {reason}"
        for reason, names in sorted(names_by_reason.items(), key=lambda item: (-len(item[1]), item[0]))
    )


def one_of(reasons: Iterable[str]) -> str | None:
    """The first few reasons, each once, and how many more there are; None where there is none."""
    different = list(dict.fromkeys(map(plain, reasons)))
    return _first_of(different) if different else None


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - MOST
    return ", ".join(names[:MOST]) + (f" and {more} more" if more > 0 else "")


def plain(reason: str) -> str:
    """A reason on one line, without what a library adds to it, and with each of its parts once."""
    text = _merged(_NOISE.sub("", " ".join(reason.split())))
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def _merged(text: str) -> str:
    """A text that says the same of many partitions, with each message once and the topics that it is about."""
    starts = list(_ABOUT.finditer(text))
    if len(starts) < 2:
        return text
    topics_by_message: dict[str, dict[str, None]] = defaultdict(dict)
    for number, start in enumerate(starts):
        end = starts[number + 1].start() if number + 1 < len(starts) else len(text)
        topics_by_message[text[start.end() : end].strip(" ;,")][start.group(1)] = None
    head = text[: starts[0].start()].rstrip(" ;,:")
    sentences = [f"{listed(list(topics))}: {message}" for message, topics in topics_by_message.items()]
    body = _first_of(sentences)
    return f"{head}: {body}" if head else body


def _first_of(sentences: Sequence[str]) -> str:
    more = len(sentences) - MOST
    return "; ".join(sentences[:MOST]) + (f"; and {more} more reasons" if more > 0 else "")
