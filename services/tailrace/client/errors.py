"""What can go wrong for an application, besides a usage error."""

from __future__ import annotations

from collections.abc import Sequence

from tailrace.errors import TailraceError


class Rejected(TailraceError):
    """The request breaks the contract: it was not sent, or went to dead letters instead of being answered.

    ``code`` is a stable word for machines (``unseen-category``), ``reason`` a sentence for people,
    ``field`` the field at fault where there is one.
    """

    def __init__(self, code: str, reason: str, field: str | None = None) -> None:
        super().__init__(f"{code}: {reason}" + (f" (field {field})" if field else ""))
        self.code = code
        self.reason = reason
        self.field = field


class Timeout(TailraceError, TimeoutError):
    """No answer came in time. The request is in the log all the same and will be answered."""


class DeliveryFailed(TailraceError):
    """Kafka did not take some of the records that were sent before, or has not said whether it did.

    Attributes:
        ids: their request ids.
        unknown: those of which nobody knows. Labels and actions may be sent again: saying the same twice changes
            nothing. A request that is sent again under its id, and was there already, is answered twice; the second
            answer's outcome says ``duplicate_of``.
    """

    def __init__(self, reason: str, ids: list[str], unknown: Sequence[str] = ()) -> None:
        shown = ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
        advice = "send them again"
        if unknown:
            advice = f"of {len(unknown)} it is not known whether Kafka has them: a request that is sent again may be "
            advice += "answered twice"
        super().__init__(f"{len(ids)} records were not delivered ({reason}): {shown}; {advice}")
        self.ids, self.unknown = ids, list(unknown)
