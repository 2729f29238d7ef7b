"""The HTTP status of each of ClickHouse's error codes, as a server gives it."""

from __future__ import annotations

STATUSES: dict[int, frozenset[int]] = {
    400: frozenset(
        {
            *(6, 8, 15, 25, 26, 27, 36, 37, 38, 41, 44, 53, 62, 72, 117, 123, 167, 168, 223, 321, 376, 427),
            *(441, 675, 676),
        }
    ),
    401: frozenset({194}),
    403: frozenset({192, 193, 497, 512, 516}),
    404: frozenset({46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 152, 336, 511}),
    408: frozenset({159}),
    411: frozenset({381}),
    413: frozenset({229}),
    415: frozenset({779}),
    501: frozenset({48}),
    503: frozenset({76, 209, 439}),
}
"""Every other code is 500."""

_BY_CODE = {code: status for status, codes in STATUSES.items() for code in codes}


def status_of(code: int) -> int:
    return _BY_CODE.get(code, 500)
