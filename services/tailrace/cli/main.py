"""The command line: one Typer application, each group of commands in a file of its own.

Data goes to stdout, everything else to stderr; ``--json`` where a command reports; exit 0 ok, 1 failed, 2 usage.
"""

from __future__ import annotations

import sys


def run() -> None:
    try:
        from tailrace.cli.app import app
    except ModuleNotFoundError as missing:
        print(
            f"tailrace: {missing.name} is not installed: the command line needs `pip install 'tailrace[services]'` "
            "(and the extras local and train to run everything on one machine)",
            file=sys.stderr,
        )
        sys.exit(1)
    from tailrace.errors import TailraceError, Unavailable, UsageError
    from tailrace.shortages import shortage

    try:
        app()
        return
    except TailraceError as error:
        message, status = f"{error}", 2 if isinstance(error, UsageError) else 1
    except Unavailable as error:
        message, status = f"{error} (is it up? `tailrace status` says)", 1
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if (short := shortage(error)) is None:
            raise
        message, status = f"{short} ({error})", 1
    print(f"tailrace: {message}", file=sys.stderr)
    sys.exit(status)
