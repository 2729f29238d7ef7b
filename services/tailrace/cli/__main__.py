"""``python -m tailrace.cli``: the command line where its script is not on the path."""

from __future__ import annotations

from tailrace.cli.main import run

run()
