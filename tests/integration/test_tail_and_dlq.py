"""``tailrace tail`` and ``dlq`` on a real broker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from typing import Any

import pytest
from tests.support.environment import environment
from tests.support.lane import HandmadeLane

from tailrace.cli.dead_letters import RESENT
from tailrace.connection import Connection
from tailrace.streaming import dead_letters
from tailrace.streaming.backends.kafka.reading import read_all, read_at
from tailrace.streaming.records import DeadLetter, Message, Record, RecordRef
from tailrace.streaming.watermark_records import watermark_record


class Shell:
    """Runs ``tailrace`` against the stack."""

    def __init__(self, connection: Connection) -> None:
        self.env = os.environ | environment(connection)

    def run(self, *args: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tailrace.cli", *args]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=60)
        assert done.returncode == expect, done.stdout + done.stderr
        return done

    def json(self, *args: str, expect: int = 0) -> Any:
        return json.loads(self.run(*args, "--json", expect=expect).stdout)


@pytest.fixture(scope="module")
def shell(stack: Connection) -> Shell:
    return Shell(stack)


@pytest.fixture(scope="module")
def lane(stack: Connection) -> HandmadeLane:
    return HandmadeLane(stack, f"d{uuid.uuid4().hex[:10]}")


def _message(lane: HandmadeLane, source: RecordRef) -> Message:
    return read_at(lane.connection, source.topic, [source[1:]])[source[1:]]


def test_tail_decodes_avro_json_marks_and_dead_letters(shell: Shell, lane: HandmadeLane) -> None:
    topic = lane.lane.requests
    lane.write([lane.request(7)])
    lane.write([Record(topic, b'{"income": 3}', None)])
    lane.write([watermark_record(topic, 0, 86_400_000)])
    (source,) = lane.write([Record(topic, b"\x07garbage", b"k")])
    letter = DeadLetter(lane.lane.dead_letters, _message(lane, source), "wrong-magic", "no such format")
    lane.write([dead_letters.to_record(letter, "scorer")])

    last = [
        json.loads(line)
        for line in shell.run("tail", topic, "--limit", "3", "--marks", "--json").stdout.splitlines()
    ]
    assert [{**r, **r.get("value", {})}.get("income") for r in last] == [3, None, None]
    assert last[1]["mark"].startswith("1970-01-02T00:00:00")
    assert (last[2]["bytes"], last[2]["key"]) == ("\x07garbage", "k")
    assert (last[2]["topic"], last[2]["partition"], last[2]["offset"]) == tuple(source)
    assert "r7" in shell.run("tail", topic).stdout
    refused = shell.run("tail", lane.lane.dead_letters).stdout
    assert "wrong-magic" in refused
    assert str(source) in refused


def test_tail_shows_records_and_marks_on_demand(shell: Shell, lane: HandmadeLane) -> None:
    topic = lane.lane.actions
    lane.write([Record(topic, b'{"request_id": "first"}', b"k")])
    lane.write(
        [watermark_record(topic, 0, time) for time in range(300)]
    )  # more than tail looks back at first
    lane.write([Record(topic, b'{"request_id": "last"}', b"k")])
    lines = shell.run("tail", topic, "--limit", "2", "--json").stdout.splitlines()
    assert [json.loads(line)["value"]["request_id"] for line in lines] == ["first", "last"]
    (seen,) = [
        json.loads(line) for line in shell.run("tail", topic, "--limit", "1", "--json").stdout.splitlines()
    ]
    assert seen["value"] == {"request_id": "last"}
    with_marks = shell.run("tail", topic, "--limit", "5", "--marks").stdout.splitlines()
    assert len(with_marks) == 5
    assert sum("mark " in line for line in with_marks) >= 3


def test_tail_follows(shell: Shell, lane: HandmadeLane) -> None:
    command = [sys.executable, "-m", "tailrace.cli", "tail", lane.lane.labels, "--follow", "--json"]
    with subprocess.Popen(command, env=shell.env, stdout=subprocess.PIPE, text=True) as tail:
        assert tail.stdout is not None
        try:
            lane.write([Record(lane.lane.labels, b'{"request_id": "first"}', b"k")])
            assert json.loads(tail.stdout.readline())["value"] == {"request_id": "first"}
            lane.write([Record(lane.lane.labels, b'{"request_id": "second"}', b"k")])
            assert json.loads(tail.stdout.readline())["value"] == {"request_id": "second"}
        finally:
            tail.send_signal(signal.SIGINT)
    assert tail.returncode == 130


def test_a_dead_letter_is_sent_again_once(shell: Shell, lane: HandmadeLane) -> None:
    asked = lane.request(8)._replace(headers=[("trace", b"abc")])
    large = lane.request(9)._replace(value=b"{" + b"x" * 100_000)
    sources = lane.write([asked, large])
    letters = [
        DeadLetter(lane.lane.dead_letters, _message(lane, s), code, "too high", "income")
        for s, code in zip(sources, ["out-of-range", "not-json"], strict=True)
    ]
    at, cut = lane.write([dead_letters.to_record(letter, "scorer") for letter in letters])

    listed = shell.json("dlq", "list", "--model", lane.model, "--code", "out-of-range")
    assert [(row["dead_letter"], row["source"], row["field"]) for row in listed] == [
        (str(at), str(sources[0]), "income")
    ]
    shown = shell.json("dlq", "show", str(at))
    assert (shown["reason"], shown["value"]["income"], shown["headers"]) == (
        "too high",
        8.0,
        {"trace": "abc"},
    )

    assert shell.json("dlq", "resend", str(at))[0]["sent"] is True
    assert shell.json("dlq", "resend", str(at), expect=1)[0]["sent"] is False
    assert shell.json("dlq", "resend", str(at), "--again")[0]["sent"] is True
    refused = shell.json("dlq", "resend", str(cut), expect=1)[0]
    assert "beginning" in refused["why_not"]

    again = [m for m in read_all(lane.connection, lane.lane.requests) if m.value() == asked.value]
    assert [m.key() for m in again] == [asked.key] * 3
    assert {m.partition() for m in again} == {sources[0].partition}
    assert [dict(m.headers() or ()) for m in again[1:]] == [{"trace": b"abc", RESENT: str(at).encode()}] * 2


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["dlq", "show", "nonsense"], 2, "topic/partition/offset"),
        (["dlq", "show", "{lane}.dead-letters/0/999"], 2, "dlq list"),
        (["dlq", "resend"], 2, "coordinates"),
        (["dlq", "list", "--model", "nobody"], 2, "nobody"),
        (["tail", "no.such.topic"], 1, "no.such.topic"),
        (["predict", "nobody", "{}"], 2, "tailrace apply"),
        (["predict", "{lane}", "not json"], 2, "JSON"),
        (["predict", "{lane}", '{"incme": 1}'], 1, "incme"),
        (["replay", "no-such-file.csv", "--model", "{lane}"], 2, "no-such-file"),
        (["clock", "{lane}", "moon"], 2, "`wall`"),
        (["freeze", "nobody"], 2, "tailrace apply"),
    ],
)
def test_errors_say_what_to_do_next(
    shell: Shell, lane: HandmadeLane, arguments: list[str], code: int, says: str
) -> None:
    done = shell.run(*(a.replace("{lane}", lane.model) for a in arguments), expect=code)
    assert says in done.stderr
    assert done.stdout == ""


def test_the_clock_of_a_lane_is_said_and_given_to_the_wall(shell: Shell, lane: HandmadeLane) -> None:
    def owner(*arguments: str) -> object:
        return json.loads(shell.run("clock", lane.model, *arguments, "--json").stdout)["owner"]

    assert owner() is None
    assert owner("wall") == "wall"
    assert owner() == "wall"
