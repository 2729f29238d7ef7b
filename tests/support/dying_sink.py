"""A sink that kills itself with SIGKILL between two of its steps: ``python -m tests.support.dying_sink GROUP STEP N``.

It dies at the Nth time that it comes to the step: ``plan`` (before the plan is committed), ``planned`` (after),
``inserted`` (after an insert, before the next or the commit), ``lost`` (in an insert, of which it cannot know
whether it was taken: it never waits for the answer), ``committed`` (after the end is committed). ``never`` lives.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tailrace.runtime.service import Service, run_service
from tailrace.sink.app import make_sink
from tailrace.sink.loop import Sink


class Death:
    def __init__(self, step: str, times: int) -> None:
        self.step = step
        self.times = times

    def at(self, step: str) -> None:
        if step == self.step:
            self.times -= 1
            if self.times <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60)


def make(service: Service, group: str, death: Death) -> Sink:
    sink = make_sink(service)
    sink._group = group
    # Many small plans, so that there are many moments to die at.
    sink._max_rows = sink._blocks._max_rows = 200
    sink._linger_ns = 0
    insert, commit = sink._blocks._store.insert, sink._commit

    def dying_insert(
        table: str, columns: Mapping[str, Sequence[Any]], types: Mapping[str, str], token: str
    ) -> None:
        if death.step == "lost" and death.times == 1:
            threading.Thread(target=insert, args=(table, columns, types, token), daemon=True).start()
            time.sleep(0.003)
        death.at("lost")
        insert(table, columns, types, token)
        death.at("inserted")

    def dying_commit(consumer: Any, offsets: Mapping[Any, Any]) -> None:
        is_plan = any(committed.metadata for committed in offsets.values())
        if is_plan:
            death.at("plan")
        commit(consumer, offsets)
        death.at("planned" if is_plan else "committed")

    sink._blocks._store.insert = dying_insert  # type: ignore[method-assign]
    sink._commit = dying_commit  # type: ignore[method-assign]
    return sink


if __name__ == "__main__":
    group, step, times = sys.argv[1:]
    run_service("sink", lambda service: make(service, group, Death(step, int(times))))
