"""Asks the loop for something, signed by the home's key, and waits for the answer of who carries it out."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tailrace.connection import Connection
from tailrace.contracts.records import lanes
from tailrace.contracts.records.record_types import CommandRecord, RolloutRecord, TrainingRunRecord
from tailrace.contracts.state.fold import ControlState, Taken
from tailrace.contracts.state.fold_topics import fold_all
from tailrace.contracts.state.records import ControlRecords
from tailrace.control.apply import applied_by
from tailrace.control.deliver import deliver
from tailrace.errors import TailraceError
from tailrace.models.rollout_state.fold import PRUNE, Rollouts
from tailrace.signing.records import sign_command
from tailrace.signing.trust import own_key
from tailrace.streaming.backends.abstract import read_to_end
from tailrace.streaming.backends.kafka.reading import TopicReader

ANSWER_S = 30.0
RETRAIN = "retrain"
# What these ask for is right or wrong whatever else was decided meanwhile.
_FOLLOW_ANY = (RETRAIN, PRUNE)


@dataclass(frozen=True)
class CommandAnswer:
    """What became of a command: the rollout step that it led to, the training run, or why it was refused."""

    command_id: str
    step: RolloutRecord | None = None
    refusal: str | None = None
    run: TrainingRunRecord | None = None


class Wanted(NamedTuple):
    command: str
    version: int | None = None
    reason: str = ""
    arms: Sequence[int] = ()


def ask(
    connection: Connection,
    home: Path,
    command: str,
    model: str,
    version: int | None = None,
    reason: str = "",
    timeout_s: float = ANSWER_S,
    arms: Sequence[int] = (),
) -> CommandAnswer:
    """Writes a command that follows the rollout as it stands, and waits for the answer: the trainer's to ``retrain``,
    the rollout service's to everything else.

    Raises:
        TailraceError: no answer came in time, or Kafka does not take the command.
    """
    (answer,) = ask_each(connection, home, model, [Wanted(command, version, reason, arms)], timeout_s)
    return answer


def ask_each(
    connection: Connection, home: Path, model: str, wanted: Sequence[Wanted], timeout_s: float = ANSWER_S
) -> list[CommandAnswer]:
    """As ``ask``, for several commands that do not depend on each other. Their answers, in the same order."""
    key = own_key(home)
    records = ControlRecords.of(connection)
    reader = TopicReader(connection, [lanes.ROLLOUTS, lanes.ALERTS, lanes.TRAINING_RUNS])
    try:
        fold = Rollouts()
        state = ControlState(records, fold)
        state.take(message for message in read_to_end(reader) if message.topic() == lanes.ROLLOUTS)
        asked: list[CommandRecord] = [
            {
                "command_id": str(uuid.uuid4()),
                "model": model,
                "command": each.command,
                "version": each.version,
                "arms": [*each.arms],
                "follows": None if each.command in _FOLLOW_ANY else fold.state(model).revision,
                "by": applied_by(),
                "reason": each.reason or f"tailrace {each.command}",
                "issued_at": int(time.time() * 1000),
            }
            for each in wanted
        ]
        signed = (records.record("Command", sign_command(records.home, each, key)) for each in asked)
        deliver(connection, signed, "the command", timeout_s)
        return _answers(reader, state, asked, timeout_s)
    finally:
        reader.close()


def rollouts(connection: Connection) -> Rollouts:
    fold = Rollouts()
    fold_all(connection, fold)
    return fold


def _answers(
    reader: TopicReader, state: ControlState, asked: Sequence[CommandRecord], timeout_s: float
) -> list[CommandAnswer]:
    """The steps that came into force, the runs that were planned, or the alerts, that name the commands."""
    answers: dict[str, CommandAnswer] = {}
    waiting = {command["command_id"] for command in asked}
    deadline = time.monotonic() + timeout_s
    while waiting and time.monotonic() < deadline:
        for message in reader.poll(0.2):
            for answer in (each for taken in state.take([message]) for each in _answers_in(taken)):
                if answer.command_id in waiting:
                    waiting.remove(answer.command_id)
                    answers[answer.command_id] = answer
                    deadline = time.monotonic() + timeout_s
    if waiting:
        service = "trainer" if asked[0]["command"] == RETRAIN else "rollout"
        raise TailraceError(
            f"the {service} did not answer within {timeout_s:.0f} s; the command {min(waiting)} stands and will be "
            f"carried out when it comes back: see `tailrace status` and `tailrace logs {service}`"
        )
    return [answers[command["command_id"]] for command in asked]


def _answers_in(taken: Taken) -> Iterator[CommandAnswer]:
    """Whose answers a record is."""
    record: Any = taken.record
    if record is None:
        return
    if taken.topic == lanes.ROLLOUTS:
        if taken.came and record["command_id"] is not None:
            yield CommandAnswer(record["command_id"], step=record)
    elif taken.topic == lanes.TRAINING_RUNS:
        for trigger in record["triggers"]:
            yield CommandAnswer(trigger["id"], run=record)
    elif "command_id" in record["detail"]:
        yield CommandAnswer(record["detail"]["command_id"], refusal=record["summary"])
