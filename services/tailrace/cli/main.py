"""The command line: one Typer application, each group of commands in a file of its own.

Data goes to stdout, everything else to stderr; ``--json`` where a command reports; exit 0 ok, 1 failed, 2 usage.
"""

from __future__ import annotations

import sys


def run() -> None:
    """Entry point of the ``tailrace`` script."""
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
    except UsageError as error:
        print(f"tailrace: {error}", file=sys.stderr)
        sys.exit(2)
    except TailraceError as error:
        print(f"tailrace: {error}", file=sys.stderr)
        sys.exit(1)
    except Unavailable as error:
        print(f"tailrace: {error} (is it up? `tailrace status` says)", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if (short := shortage(error)) is None:
            raise
        print(f"tailrace: {short} ({error})", file=sys.stderr)
        sys.exit(1)
