"""Why something waits, in one sentence."""

from __future__ import annotations

from tailrace.telemetry.reasons import LONGEST, one_of, plain, waiting_for

REFUSED = (
    "sasl_plaintext://127.0.0.1:19092/bootstrap: Connect to ipv4#127.0.0.1:19092 failed: Connection refused"
)


def test_what_38_topics_wait_for_is_said_once() -> None:
    pairs = [(f"lane{n:02}.predictions", "ClickHouse cannot be reached") for n in range(38)]
    assert waiting_for(pairs) == (
        "lane00.predictions, lane01.predictions, lane02.predictions and 35 more wait: ClickHouse cannot be reached"
    )


def test_partitions_of_one_topic_are_one_and_nobody_waits_for_nothing() -> None:
    assert waiting_for([("a", "no model")] * 6) == "a waits: no model"
    assert waiting_for([]) is None


def test_the_reason_of_most_comes_first_and_others_are_counted() -> None:
    pairs = [("a", "x"), ("b", "y"), ("c", "y"), ("d", "z"), ("e", "w"), ("f", "v")]
    assert waiting_for(pairs) == "b, c wait: y; f waits: v; e waits: w; and 2 more reasons"
    assert one_of(["b", "a", "b"]) == "b; a"
    assert one_of([]) is None


def test_copies_of_a_library_s_message_are_one() -> None:
    copies = [
        f"{REFUSED} (after {n}ms in state CONNECT, {n} identical error(s) suppressed)" for n in range(38)
    ]
    assert (
        waiting_for((f"t{n:02}", text) for n, text in enumerate(copies))
        == f"t00, t01, t02 and 35 more wait: {REFUSED}"
    )


def test_a_message_for_each_of_38_partitions_is_one_with_its_topics() -> None:
    leaderless = "Broker: Leader not available"
    text = "Failed to query offsets: " + ", ".join(
        f"lane{n // 6}.requests [{n % 6}]: {leaderless}" for n in range(38)
    )
    assert plain(text) == (
        f"Failed to query offsets: lane0.requests, lane1.requests, lane2.requests and 4 more: {leaderless}"
    )
    assert plain("; ".join(f"pumps.requests/{n}: {leaderless}" for n in range(6))) == (
        f"pumps.requests: {leaderless}"
    )


def test_different_messages_for_partitions_are_kept_apart() -> None:
    assert plain("a [0]: gone, a [1]: late, b [0]: gone") == "a, b: gone; a: late"


def test_a_reason_about_one_partition_stays_as_it_is() -> None:
    reason = "Kafka says 2 is committed of lane.requests/0, where it was 5. Restart this service"
    assert plain(reason) == reason


def test_a_reason_is_one_line_of_bounded_length() -> None:
    assert plain("a\n  b\n") == "a b"
    assert len(plain("x" * 5000)) == LONGEST
