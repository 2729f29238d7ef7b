"""How many files of the scorer's a request passes through, so that it can be followed by reading them.

serving/ and versions.py are passed over: they look at batches, partitions and packages, and at no request.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

from tests.support.scoring import REQUEST, serving

import tailrace.scorer

MOST_FILES = 15
SCORER = Path(tailrace.scorer.__file__).parent


def test_a_request_passes_through_at_most_fifteen_files() -> None:
    bench = serving()
    bench.requests(REQUEST)  # what is read and made once, before the first answer
    files: set[Path] = set()

    def called(frame: FrameType, event: str, arg: Any) -> None:
        if event == "call":
            files.add(Path(frame.f_code.co_filename))

    sys.setprofile(called)
    try:
        output = bench.requests(REQUEST)
    finally:
        sys.setprofile(None)
    assert len(bench.events(output)) == 1
    passed = {str(file.relative_to(SCORER)) for file in files if file.is_relative_to(SCORER)}
    own = {file for file in passed if not file.startswith(("serving/", "versions.py"))}
    assert own >= {"pipeline.py", "processor.py", "batch.py", "steps/check_input.py", "steps/event.py"}
    assert len(own) <= MOST_FILES, sorted(own)
