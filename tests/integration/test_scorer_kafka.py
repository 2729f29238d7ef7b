"""Scorer, shadow scorer and rollout as processes on a real broker: from the first version to swaps under
traffic.

The broker is this module's own, since control topics are shared by all that runs on one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from confluent_kafka import Producer
from onnx import TensorProto, helper
from prometheus_client.parser import text_string_to_metric_families
from tests.support import models
from tests.support.cluster import LANE, REQUEST, Cluster, Traffic, running_cluster
from tests.support.hostile import burden
from tests.support.reports import alert, report
from tests.support.waiting import until

from tailrace.avro.registry import RegistryClient
from tailrace.contracts.records import lanes
from tailrace.contracts.records.control_codec import ControlCodec
from tailrace.contracts.state.records import ControlRecords
from tailrace.control.commands import ask
from tailrace.control.publish import publish_package
from tailrace.errors import TailraceError, UsageError
from tailrace.models.formats.load import LoadedModel, load_model
from tailrace.models.manifest import Part, sha256
from tailrace.models.package.build import Package
from tailrace.signing.keys import SigningKey
from tailrace.signing.trust import own_key
from tailrace.streaming.backends.kafka.reading import read_all
from tailrace.verify.explained import explain_logged
from tailrace.verify.logged import Span
from tailrace.verify.reproduce import reproduce


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster"), "scorer", "rollout") as found:
        yield found


def requests(count: int, seed: int) -> list[dict[str, Any]]:
    frame, _ = models.rows(n=count, seed=seed)
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return [{**row, "age": int(row["age"])} for row in rows]


def computed(package: Any, request: dict[str, Any]) -> float:
    """The score of one request by the package alone, one row at a time."""
    model = LoadedModel(package.manifest, load_model(package.manifest, package.parts["model"]))
    columns = {
        i.name: np.array([request[i.name]], dtype=object)
        if i.type == "category"
        else np.array([np.nan if request[i.name] is None else float(request[i.name])])
        for i in package.manifest.inputs
    }
    for name, value in package.manifest.impute.items():
        if request[name] is None:
            columns[name][0] = value
    score = model.predict(columns, 1).score
    assert score is not None
    return float(score[0])


def test_requests_wait_for_the_first_version_and_then_each_is_answered_once(cluster: Cluster) -> None:
    sent = requests(200, seed=1)
    cluster.send(*sent)
    until(lambda: cluster.health("scorer", "/livez").ok, "the scorer is alive")
    until(
        lambda: "credit has no version in service" in cluster.health("scorer", "/readyz").text,
        "/readyz names the model that has no version",
    )
    assert cluster.events() == []
    cluster.publish(1)
    until(lambda: len(cluster.events()) == len(sent), "everything is answered")
    until(lambda: cluster.health("scorer", "/readyz").ok, "the scorer is ready")
    package = models.package()
    by_id = {f"r{number}": request for number, request in enumerate(sent, 1)}
    for event in cluster.events():
        request = by_id.pop(event["request_id"])
        assert {name: event["request"][name] for name in request} == request
        assert event["score"] == computed(package, request)
        assert event["action"] == ("approve" if event["score"] < 0.5 else "refuse")
        assert (event["version"], event["rollout_revision"]) == (1, 1)
    assert by_id == {}


BAD: dict[str, tuple[bytes | None, str]] = {
    "no value": (None, "empty"),
    "unknown schema": (b"\0\0\x0f\x42\x3fabc", "unknown-schema"),
    "wrong magic byte": (b"\x07abc", "wrong-magic"),
    "no json": (b"{nothing", "not-json"),
    "unknown field": (json.dumps(REQUEST | {"incme": 1}).encode(), "unknown-field"),
    "another model": (json.dumps(REQUEST | {"model": "churn"}).encode(), "unknown-model"),
    "out of range": (json.dumps(REQUEST | {"age": 7}).encode(), "out-of-range"),
    "unseen": (json.dumps(REQUEST | {"purpose": "boat"}).encode(), "unseen-category"),
    "too early": (json.dumps(REQUEST | {"event_time": "2100-01-01T00:00:00Z"}).encode(), "event-time-ahead"),
}


def test_bad_input_goes_to_the_dead_letters_and_json_without_a_key_is_answered(cluster: Cluster) -> None:
    before = len(cluster.events())
    for value, _ in BAD.values():
        cluster.raw(value, b"bad")
    cluster.raw(json.dumps(REQUEST).encode())
    cluster.flush()
    until(lambda: len(cluster.events()) == before + 1, "the good one is answered")
    letters = until(
        lambda: len(seen := cluster.observer.read(LANE.dead_letters)) == len(BAD) and seen,
        "all bad ones are dead letters",
    )
    codes = Counter(letter.headers["tailrace-code"].decode() for letter in letters)
    assert codes == Counter(code for _, code in BAD.values())
    answered = next(e for e in cluster.events() if e["request_id"].startswith("credit.requests/"))
    source = answered["source"]
    assert answered["request_id"] == f"{source['topic']}/{source['partition']}/{source['offset']}"


def answered_whole(cluster: Cluster) -> list[dict[str, Any]]:
    """Every request has one answer: a prediction or, counted apart, a dead letter."""
    asked = {s.at for s in cluster.observer.read(LANE.requests)}
    refused = {
        (h["tailrace-topic"].decode(), int(h["tailrace-partition"]), int(h["tailrace-offset"]))
        for h in (s.headers for s in cluster.observer.read(LANE.dead_letters))
    }
    assert len(refused) == len(BAD)

    def unanswered() -> set[tuple[str, int, int]]:
        return asked - refused - {place(e) for e in cluster.events()}

    until(lambda: not unanswered(), "everything is answered")
    events = cluster.events()
    assert len(events) == len({place(e) for e in events}) == len(asked - refused)
    return events


def place(event: dict[str, Any]) -> tuple[str, int, int]:
    source = event["source"]
    return source["topic"], source["partition"], source["offset"]


def test_a_scrape_says_what_was_answered_and_what_was_not(cluster: Cluster) -> None:
    events = cluster.events()

    def scraped() -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        text = cluster.health("scorer", "/metrics").text
        families = text_string_to_metric_families(text)
        return {(s.name, frozenset(s.labels.items())): s.value for f in families for s in f.samples}

    def of_version(name: str, **more: str) -> tuple[str, frozenset[tuple[str, str]]]:
        labels = {"model": "credit", "version": "1", "role": "champion", **more}
        return f"tailrace_{name}", frozenset(labels.items())

    samples = scraped()
    assert samples[of_version("requests_total")] == len(events)
    for action, count in Counter(event["action"] for event in events).items():
        assert samples[of_version("actions_total", action=action)] == count
    assert samples[of_version("latency_seconds_count")] == len(events)
    assert samples[of_version("latency_seconds_bucket", le="+Inf")] == len(events)
    for code, count in Counter(code for _, code in BAD.values()).items():
        letters = frozenset({("topic", LANE.dead_letters), ("code", code)})
        assert samples["tailrace_dead_letters_total", letters] == count


def test_a_new_policy_takes_effect_under_traffic(cluster: Cluster) -> None:
    first = cluster.contracts.current["credit"].digest
    with Traffic(cluster) as traffic:
        until(lambda: traffic.count >= 50, "some requests")
        answers = cluster.answering()
        second = cluster.apply(0.99).digest
        until(
            lambda: any(e["contract_digest"] == second for e in answers()), "answers under the new contract"
        )
    thresholds = {first: 0.5, second: 0.99}
    last: dict[int, str] = {}
    for event in answered_whole(cluster):
        digest, partition = event["contract_digest"], event["source"]["partition"]
        assert event["action"] == ("approve" if event["score"] < thresholds[digest] else "refuse")
        assert (last.get(partition), digest) != (second, first), "back to the contract of before"
        last[partition] = digest


def test_a_promotion_swaps_versions_and_no_request_waits(cluster: Cluster) -> None:
    cluster.publish(2, "forest")
    with Traffic(cluster) as traffic:
        until(lambda: traffic.count >= 50, "some requests")
        answers = cluster.answering()
        started = time.time() * 1000
        step = until(
            lambda: ask(cluster.connection, cluster.home, "promote", "credit", 2).step, "it is promoted"
        )
        assert step["champion"] == 2
        until(lambda: any(e["version"] == 2 for e in answers()), "answers of version 2")
        until(lambda: traffic.count >= 150, "some more")
    events = answered_whole(cluster)
    seen: dict[int, list[int]] = defaultdict(list)
    for event in events:
        seen[event["source"]["partition"]].append(event["rollout_revision"])
    for revisions in seen.values():
        assert revisions == sorted(revisions)
    champion_of = {1: 1, 2: 1, 3: 1, 4: 2}  # champion, candidate, shadow, promoted
    assert all(event["version"] == champion_of[event["rollout_revision"]] for event in events)
    # The time from a request's append to its answer's, around the swap and at other times.
    appended = {s.at: s.appended_ms for s in cluster.observer.read(LANE.requests)}
    waits = []
    for seen_event in cluster.observer.read(LANE.predictions):
        if seen_event.value is None:  # a watermark record
            continue
        source = cluster.observer.decode(seen_event.value)["source"]
        asked = appended[source["topic"], source["partition"], source["offset"]]
        if asked >= started:
            waits.append(seen_event.appended_ms - asked)
    assert max(waits) < 5_000, "a request waited for the swap"
    print(f"waits around the swap: median {np.median(waits):.0f} ms, longest {max(waits)} ms")


def test_a_version_signed_by_a_stranger_changes_nothing(cluster: Cluster) -> None:
    cluster.publish(3, key=SigningKey.generate())
    alert = until(
        lambda: next((a for a in cluster.alerts() if a["kind"] == "package-refused"), None),
        "an alert names the check",
    )
    assert (alert["version"], alert["detail"]["check"]) == (3, "signature")
    refused = ask(cluster.connection, cluster.home, "promote", "credit", 3)
    assert refused.step is None
    assert "no version 3" in (refused.refusal or "")
    cluster.send(REQUEST)
    events = answered_whole(cluster)
    assert max(e["version"] for e in events) == 2


def test_a_shadow_scores_the_same_requests_from_the_start(cluster: Cluster) -> None:
    answer = ask(cluster.connection, cluster.home, "shadow", "credit", 1)
    assert answer.step is not None
    assert answer.step["shadow"] == [1]
    cluster.run("shadow-scorer")
    answers = {(e["source"]["partition"], e["source"]["offset"]): e for e in cluster.events()}
    shadows = until(
        lambda: len(scored := cluster.events(LANE.shadow_predictions)) == len(answers) and scored,
        "all are scored in shadow",
    )
    for event in shadows:
        answer_of = answers.pop((event["source"]["partition"], event["source"]["offset"]))
        assert (event["role"], event["version"]) == ("shadow", 1)
        assert event["request"] == answer_of["request"]
        if answer_of["version"] == 1:
            assert event["score"] == answer_of["score"]
    assert answers == {}


def test_after_a_kill_the_scorer_goes_on_where_it_was(cluster: Cluster) -> None:
    with Traffic(cluster) as traffic:
        until(lambda: traffic.count >= 50, "some requests")
        cluster.processes["scorer"].kill()
        cluster.run("scorer")
        until(lambda: cluster.health("scorer", "/readyz").ok, "the scorer is back")
        until(lambda: traffic.count >= 100, "some more")
    events = answered_whole(cluster)
    assert events[-1]["version"] == 2


def test_switched_off_a_person_answers_and_on_again_the_champion(cluster: Cluster) -> None:
    with Traffic(cluster) as traffic:
        until(lambda: traffic.count >= 50, "some requests")
        answers = cluster.answering()
        off = ask(cluster.connection, cluster.home, "off", "credit").step
        assert off is not None
        until(lambda: any(e["served_by"] == "person" for e in answers()), "a person answers")
        on = ask(cluster.connection, cluster.home, "on", "credit").step
        assert on is not None
        until(lambda: any(e["rollout_revision"] == on["revision"] for e in answers()), "the champion again")
    for event in answered_whole(cluster):
        stands_in = event["rollout_revision"] == off["revision"]
        assert event["served_by"] == ("person" if stands_in else "model")
        assert event["served_cause"] == ("off" if stands_in else None)
        if stands_in:
            assert (event["version"], event["action"], event["score"]) == (2, "refer", None)


def test_a_version_is_tried_promoted_and_taken_back_by_itself_though_the_rollout_is_killed(
    cluster: Cluster,
) -> None:
    codec = ControlCodec(RegistryClient(cluster.connection.registry, cluster.connection.registry_auth))
    evaluator = ControlRecords.of(cluster.connection, "evaluator")
    producer = Producer(cluster.connection.kafka)

    def write(topic: str, name: str, *records: dict[str, Any]) -> None:
        for record in records:
            made = evaluator.record(name, record)
            producer.produce(topic, made.value, made.key, partition=0, headers=list(made.headers))
        assert producer.flush(30) == 0

    def steps() -> list[dict[str, Any]]:
        messages = read_all(cluster.connection, [lanes.ROLLOUTS])
        return [codec.decode("Rollout", message.value()) for message in messages]

    cluster.publish(3)  # the stranger has taken no number
    until(lambda: 3 in steps()[-1]["shadow"], "it is in shadow")
    known = len(steps())
    better = [0.25, 0.5] * 150
    write(lanes.PERFORMANCE_REPORTS, "PerformanceReport", report(3, 2, 0), report(3, 2, 1, better))
    for day in (2, 3):
        cluster.processes["rollout"].kill()
        cluster.run("rollout")
        write(lanes.PERFORMANCE_REPORTS, "PerformanceReport", report(3, 2, day, better))
    until(lambda: steps()[-1]["champion"] == 3, "it is promoted")
    cluster.processes["rollout"].kill()
    cluster.run("rollout")
    write(lanes.ALERTS, "Alert", alert(3, 1), alert(3, 3), alert(3, 3))
    until(lambda: steps()[-1]["champion"] == 2, "it is taken back")
    ask(cluster.connection, cluster.home, "freeze", "credit")  # all before it is folded by now
    later = steps()[known:]
    assert [step["step"] for step in later] == ["promote", "rollback", "freeze"]  # 1 was asked for
    assert [step["revision"] for step in later] == list(range(known + 1, known + 4))
    promoted, back, _ = later
    assert promoted["evidence"]["outcomes"] == "600"
    assert promoted["evidence"]["reports"].split() == [report(3, 2, day)["report_id"] for day in (1, 2)]
    assert back["evidence"]["alert"] == alert(3, 3)["alert_id"]


EVERYTHING = """
guardrails: {domain: {false_alarms: 5%}, coverage: 90%, score: {max: 0.95}, fallback: [{previous: true}, {do: refer}]}
explore: {share: 20%, from: refuse, do: approve}
explain: {sample: 2%}
"""
SCORED_AGAIN = 100_000 if os.environ.get("TAILRACE_CHAOS") == "long" else 2_000


def asked(cluster: Cluster, *command: str) -> tuple[int, dict[str, Any]]:
    """What a command says, and its exit code."""
    full = [sys.executable, "-m", "tailrace.cli", *command, "--json"]
    done = subprocess.run(full, env=cluster.env, capture_output=True, text=True, timeout=280)
    assert done.stdout, done.stderr
    print(done.stderr)
    return done.returncode, json.loads(done.stdout)


def reproduced(cluster: Cluster, *options: str) -> tuple[int, dict[str, Any]]:
    return asked(cluster, "reproduce", "credit", *options)


def test_everything_that_was_answered_is_reproduced_to_the_bit(cluster: Cluster) -> None:
    cluster.apply(0.5, EVERYTHING)
    sent, answers = requests(SCORED_AGAIN, seed=7), cluster.answering()
    draw, count = np.random.default_rng(7), 0
    while sent:
        size = int(draw.integers(1, max(2, SCORED_AGAIN // 6)))
        burst, sent = sent[:size], sent[size:]
        cluster.send(*burst)
        goal = count + len(burst)
        while count < goal:
            count += len(until(answers, "the burst is answered"))
    logged = [
        e for topic in (LANE.predictions, LANE.shadow_predictions) for e in cluster.observer.read(topic)
    ]
    predictions = [cluster.observer.decode(seen.value) for seen in logged if seen.value is not None]
    assert {e["served_by"] for e in predictions} >= {"model", "person"}
    assert any(e["explanation"] for e in predictions)
    assert {f["guard"] for e in predictions for f in e["guardrails"]} >= {"domain", "score"}
    assert any(len(e["prediction_set"] or ["one"]) != 1 for e in predictions)
    assert any(e["action_propensity"] == 0.2 for e in predictions)

    code, report = reproduced(cluster)
    assert report["differing"] == []
    assert (code, report["ok"], report["near"]) == (0, True, 0)
    assert report["equal"] == report["predictions"] >= len(predictions)
    seen = {(group["version"], group["role"]) for group in report["groups"]}
    assert {(1, "champion"), (2, "champion"), (3, "champion"), (1, "shadow")} >= seen >= {(2, "champion")}
    assert seen == {(e["version"], e["role"]) for e in predictions}

    by_model = next(e for e in predictions if e["served_by"] == "model" and e["version"] == 2)
    at = predictions.index(by_model)
    schema_id, altered = cluster.codec.decode([e.value for e in logged if e.value is not None][at])
    altered["score"] = float(np.nextafter(altered["score"], 1))
    cluster.raw(cluster.codec.encode(schema_id, altered), altered["key"].encode(), LANE.predictions)
    cluster.flush()
    code, report = reproduced(cluster, "--id", altered["request_id"])
    assert (code, report["equal"], report["different"]) == (1, report["predictions"] - 1, 1)
    ((differing,),) = (each["fields"] for each in report["differing"])
    assert differing.startswith(f"score: {altered['score']!r} / ")
    assert not reproduce(cluster.connection, "credit", Span(until=1), home=cluster.home).groups


def test_a_logged_answer_is_explained_as_it_was_and_adds_up(cluster: Cluster) -> None:
    events = {e["prediction_id"]: e for e in cluster.events() if e["explanation"]}
    name, event = next(iter(events.items()))
    code, explanation = asked(cluster, "explain", name, "--model", "credit")
    assert (code, explanation["as_logged"], explanation["prediction_id"]) == (0, True, name)
    logged = {c["feature"]: c["logged"] for c in explanation["contributions"]}
    assert {c["feature"]: c["contribution"] for c in event["explanation"]} == {
        feature: contribution for feature, contribution in logged.items() if contribution is not None
    }
    output = np.log(event["score"] / (1 - event["score"]))
    assert explanation["output"] == pytest.approx(output, abs=1e-9)
    whole = explanation["baseline"] + sum(c["contribution"] for c in explanation["contributions"])
    assert whole == pytest.approx(output, abs=1e-6)
    # The forest that answers is not additive: the explanation is a sample's, and says how far off it may be.
    assert not explanation["exact"]
    assert max(c["standard_error"] for c in explanation["contributions"]) > 0
    shadow = next(e for e in cluster.events(LANE.shadow_predictions) if e["version"] == 1)
    assert explain_logged(cluster.connection, shadow["prediction_id"], home=cluster.home).exact
    by_request = explain_logged(cluster.connection, event["request_id"], "credit", home=cluster.home)
    assert by_request.event["prediction_id"] == name
    nobody = next(e for e in cluster.events() if e["served_by"] == "person")
    with pytest.raises(TailraceError, match="person did"):
        explain_logged(cluster.connection, nobody["prediction_id"], home=cluster.home)
    with pytest.raises(UsageError, match="retained"):
        explain_logged(cluster.connection, "nothing", home=cluster.home)


SHADOW_S = 60.0 if os.environ.get("TAILRACE_CHAOS") == "long" else 1.5
OF_THE_REQUEST = ("prediction_id", "request_id", "key", "event_time", "source", "latency_ms")


def raising(request: dict[str, Any]) -> Package:
    """A version that passes its checks and raises on this request: it looks into a table beyond its end."""
    built = models.package()
    model = onnx.load_from_string(built.parts["model"])
    burden(
        helper.make_node("Cast", ["debt_ratio"], ["ratio"], to=TensorProto.FLOAT),
        helper.make_node("Equal", ["ratio", "that_one"], ["is_it"]),
        helper.make_node("Cast", ["is_it"], ["at_first"], to=TensorProto.INT64),
        helper.make_node("Mul", ["at_first", "beyond"], ["at"]),
        helper.make_node("Gather", ["table", "at"], ["found"]),
        helper.make_node("ReduceSum", ["found"], ["burden"], keepdims=0),
        initializers=(
            helper.make_tensor("that_one", TensorProto.FLOAT, [1], [request["debt_ratio"]]),
            helper.make_tensor("beyond", TensorProto.INT64, [1], [1000]),
            helper.make_tensor("table", TensorProto.FLOAT, [10], [0.0] * 10),
        ),
    )(model)
    parts = {**built.parts, "model": model.SerializeToString()}
    digests = {name: Part(sha256=sha256(data), size=len(data)) for name, data in parts.items()}
    return Package(built.manifest.model_copy(update={"parts": digests}), parts)


@pytest.mark.timeout(900)
def test_a_shadow_that_sleeps_falls_behind_or_crashes_changes_and_delays_no_answer(cluster: Cluster) -> None:
    bad = publish_package(cluster.connection, raising(REQUEST), own_key(cluster.home), cluster.home).version
    good = cluster.publish(kind="forest")
    shadow = cluster.processes.get("shadow-scorer") or cluster.run("shadow-scorer")
    for version in (bad, good):
        until(
            lambda version=version: ask(cluster.connection, cluster.home, "shadow", "credit", version).step,
            "it is in shadow",
        )
    until(lambda: cluster.health("shadow-scorer", "/readyz").ok, "the shadow scorer is ready")
    spans: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def measure(state: str) -> None:
        began = time.time() * 1000
        time.sleep(SHADOW_S)
        spans[state].append((began, time.time() * 1000))

    def scored() -> list[dict[str, Any]]:
        return [e for e in cluster.events(LANE.shadow_predictions) if e["version"] == good]

    until(lambda: cluster.send(REQUEST) or scored(), "it scores")
    with Traffic(cluster) as traffic:
        until(lambda: traffic.count >= 50, "some requests")
        measure("raises")
        os.kill(shadow.pid or 0, signal.SIGSTOP)
        measure("sleeps")
        os.kill(shadow.pid or 0, signal.SIGCONT)
        measure("catches up")
        shadow.kill()
        measure("is away")
        for _ in range(2):
            cluster.run("shadow-scorer")
            time.sleep(SHADOW_S / 2)
            cluster.processes["shadow-scorer"].kill()
        spans["crashes"].append((spans["is away"][0][1], time.time() * 1000))
        measure("is away")
    cluster.run("shadow-scorer")
    began = spans["raises"][0][0]
    during = {s.at for s in cluster.observer.read(LANE.requests) if s.appended_ms >= began}
    until(lambda: during <= {place(e) for e in scored()}, "the shadow has caught up")
    events = [e for e in cluster.events() if place(e) in during]
    assert len(events) == len(during) == len({place(e) for e in events})
    appended = {s.at: s.appended_ms for s in cluster.observer.read(LANE.requests)}
    answered = {
        place(cluster.observer.decode(s.value)): s.appended_ms
        for s in cluster.observer.read(LANE.predictions)
        if s.value is not None
    }
    waits = {
        state: [
            answered[at] - asked
            for at, asked in appended.items()
            if at in answered and any(began <= asked < ended for began, ended in times)
        ]
        for state, times in spans.items()
    }
    for state, values in waits.items():
        p50, p99 = np.percentile(values, [50, 99])
        print(f"the shadow {state}: n {len(values)}, p50 {p50:.0f}, p99 {p99:.0f}, longest {max(values)} ms")
    alone = waits.pop("is away")
    for state, values in waits.items():
        assert max(values) <= max(alone) + 1_000, state
        assert np.median(values) <= 2 * np.median(alone) + 50, state

    # Equal requests have equal answers, with the shadow and without, but for what says which request it was.
    answers: dict[str, set[str]] = defaultdict(set)
    for event in events:
        rest = {name: value for name, value in event.items() if name not in OF_THE_REQUEST}
        rest["request"] = {k: v for k, v in event["request"].items() if k != "request_id"}
        answers[repr(event["request"]["income"])].add(repr(rest))
    assert {len(values) for values in answers.values()} == {1}

    assert any(a["version"] == bad and a["service"] == "shadow-scorer" for a in cluster.alerts())
