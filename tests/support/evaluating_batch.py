"""Performance reports computed over a whole log at once, by polars and scikit-learn: nothing is added up in parts, no
outcome is taken back; of each prediction the last outcome counts that was known in time.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from scipy import stats
from sklearn import metrics as sk

from tailrace.streaming.backends.memory.log import MemoryLog
from tailrace.streaming.watermark_records import watermark_stream, watermark_time
from tailrace.testing.evaluated_lane import EvaluatedLane

STREAMS = ("predictions", "shadow-predictions")
Report = dict[str, Any]
Key = tuple[Any, ...]
KEY = ("version", "role", "segment", "against", "window_start", "age")


def key_of(report: Mapping[str, Any]) -> Key:
    return tuple(report[name] for name in KEY)


def expected_reports(log: MemoryLog, lab: EvaluatedLane) -> dict[Key, Report]:
    """The reports of a lane with a binary model: version, role, segment and so on, to what is in them."""
    predictions, least = _predictions(log, lab)
    outcomes = _outcomes(log, lab, least)
    quality, reports = lab.contract.quality, {}
    window = quality.window_ms
    starts = {
        t - t % window
        for table in (predictions, outcomes)
        for t in (table["event_time"] if len(table) else [])
    }
    for stream in STREAMS:
        for start in sorted(starts):
            for age in quality.judge_at_ms:
                judged_at = start + window + age
                if judged_at > least[stream]:
                    continue
                inside = pl.col("event_time").is_between(start, start + window, closed="left")
                mine = (pl.col("role") == "shadow") == (stream == "shadow-predictions")
                seen = [
                    table.filter(inside & mine & (pl.col("seen") < judged_at)) if len(table) else table
                    for table in (predictions, outcomes)
                ]
                for report in _window(lab, *seen):
                    reports[key_of({**report, "window_start": start, "age": age})] = report
    return reports


def _predictions(log: MemoryLog, lab: EvaluatedLane) -> tuple[pl.DataFrame, dict[str, int]]:
    least: dict[str, int] = dict.fromkeys(STREAMS, 2**62)
    rows = []
    for stream in STREAMS:
        topic = f"{lab.lane.name}.{stream}"
        for partition in range(log.topics()[topic]):
            stream_time = -(2**62)
            for message in log.messages(topic, partition):
                time = watermark_time(message)
                if message.value() == b"nonsense":
                    continue
                if time is None:
                    record = lab.codec.decode(message.value()).record
                    time = record["event_time"]
                    rows.append({**_flat(record), "seen": max(time, stream_time)})
                stream_time = max(stream_time, time)
            least[stream] = min(least[stream], stream_time)
    return pl.DataFrame(rows, infer_schema_length=None), least


def _outcomes(log: MemoryLog, lab: EvaluatedLane, least: dict[str, int]) -> pl.DataFrame:
    """Lowers ``least`` to what watermark records say."""
    rows = []
    for partition in range(log.topics()[lab.lane.outcomes]):
        stream_times = dict.fromkeys(STREAMS, -(2**62))
        for message in log.messages(lab.lane.outcomes, partition):
            if message.value() is None:
                stream = watermark_stream(message)
                stream_times[stream] = max(stream_times[stream], watermark_time(message))
            elif message.value() != b"nonsense":
                record = lab.codec.decode(message.value()).record
                champion = record["champion"] or {}
                rows.append(
                    {
                        **_flat(record["prediction"]),
                        **{
                            name: record[name]
                            for name in ("revision", "state", "duplicate_of", "late", "label", "action_taken")
                        },
                        **{
                            f"champion_{name}": champion.get(name)
                            for name in ("version", "score", "predicted_class", "action")
                        },
                        "seen": record["known_at"],
                    }
                )
        for stream in STREAMS:
            least[stream] = min(least[stream], stream_times[stream])
    return pl.DataFrame(rows, infer_schema_length=None)


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    names = (
        *("prediction_id", "event_time", "version", "role", "score", "predicted_class", "action"),
        *("served_by", "served_cause"),
    )
    return {name: record[name] for name in names} | {
        name: record["request"][name] for name in ("region", "employed", "amount")
    }


def _window(lab: EvaluatedLane, predictions: pl.DataFrame, outcomes: pl.DataFrame) -> list[Report]:
    by_key: dict[Key, dict[str, pl.DataFrame]] = defaultdict(dict)
    for kind, table in (("predictions", predictions), ("outcomes", outcomes)):
        if not len(table):
            continue
        for segment, rows in _segments(table):
            for (version, role), group in rows.group_by(["version", "role"]):
                by_key[version, role, segment, None][kind] = group
                if kind == "outcomes":
                    pairs = group.filter(
                        pl.col("champion_version").is_not_null() & pl.col("duplicate_of").is_null()
                    )
                    for (against,), both in pairs.group_by(["champion_version"]):
                        by_key[version, role, segment, against] = {**by_key[version, role, segment, None]}
                        by_key[version, role, segment, against]["pairs"] = both
    return [_report(lab, *key, tables) for key, tables in by_key.items()]


def _segments(table: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    segments = [("", table), ("amount > 50", table.filter(pl.col("amount") > 50))]
    segments += [
        (f"region={name}", table.filter(pl.col("region") == name)) for name in ("north", "south", "east")
    ]
    segments += [
        (f"employed={name}", table.filter(pl.col("employed") == (name == "true")))
        for name in ("true", "false")
    ]
    return [(name, rows) for name, rows in segments if len(rows)]


def _report(
    lab: EvaluatedLane,
    version: int,
    role: str,
    segment: str,
    against: int | None,
    tables: Mapping[str, pl.DataFrame],
) -> Report:
    contract = lab.contract
    everything = tables.get("outcomes", pl.DataFrame())
    repeats, counting = everything, everything
    if len(everything):
        repeats = everything.filter(pl.col("duplicate_of").is_not_null() & (pl.col("revision") == 1))
        counting = everything.filter(pl.col("duplicate_of").is_null())
    last = _last(counting)
    known = last.filter(pl.col("state") != "unlabelled") if len(last) else last
    made = tables.get("predictions", pl.DataFrame())
    possible = _possible(lab, made, last, repeats)
    pairs = _last(tables["pairs"]) if against is not None else last
    of_pairs = pairs.filter(pl.col("state") != "unlabelled") if len(pairs) else pairs
    share = min(len(known) / possible, 1.0) if possible > 0 else None
    own_action = of_pairs["action"].to_list() if len(of_pairs) else []
    taken = of_pairs["action_taken"].to_list() if len(of_pairs) else []
    shadow = of_pairs["champion_version"].is_not_null().to_list() if len(of_pairs) else []
    done = [
        own if in_shadow else one or own
        for own, one, in_shadow in zip(own_action, taken, shadow, strict=True)
    ]
    worth = _worth(of_pairs, done)
    return {
        "version": version,
        "role": role,
        "segment": segment,
        "against": against,
        "predictions": len(made) - len(repeats),
        "fallbacks": _fallbacks(made) - _fallbacks(repeats),
        "labelled": len(of_pairs),
        "assumed": len(pairs.filter(pl.col("state") == "assumed")) if len(pairs) else 0,
        "unlabelled": len(pairs) - len(of_pairs),
        "late_labels": _late(tables.get("pairs", counting)),
        "label_share": share,
        "mature": share is not None and share >= contract.quality.mature,
        "metrics": _metrics(of_pairs) if against is None else {},
        "gains": _gains(of_pairs) if against is not None else {},
        "value_total": math.fsum(worth) if against is None else None,
        "value_squares": math.fsum(each * each for each in worth) if against is None else None,
    }


def _last(outcomes: pl.DataFrame) -> pl.DataFrame:
    if not len(outcomes):
        return outcomes
    return outcomes.sort("revision").group_by("prediction_id").last()


def _possible(lab: EvaluatedLane, made: pl.DataFrame, last: pl.DataFrame, repeats: pl.DataFrame) -> int:
    """Predictions that can be labelled: by the policy's action (in shadow all), or what the last outcome says."""
    known_only_for = lab.contract.labels.known_only_for

    def at_first(row: Mapping[str, Any]) -> bool:
        return not known_only_for or row["role"] == "shadow" or row["action"] in known_only_for

    count = sum(at_first(row) for row in (made.to_dicts() if len(made) else []))
    for table, sign in ((last, 1), (repeats, -1)):
        for row in table.to_dicts() if len(table) else []:
            if sign < 0:
                count -= at_first(row)
                continue
            done = row["action_taken"] or row["champion_action"] or row["action"]
            really = row["state"] != "unlabelled" or not known_only_for or done in known_only_for
            count += int(really) - int(at_first(row))
    return count


def _fallbacks(table: pl.DataFrame) -> int:
    """Answers of somebody else, though not because the model was off."""
    rows = table.to_dicts() if len(table) else []
    return sum(row["served_by"] != "model" and row["served_cause"] != "off" for row in rows)


def _late(outcomes: pl.DataFrame) -> int:
    total = 0
    for _, revisions in outcomes.sort("revision").group_by("prediction_id") if len(outcomes) else []:
        before = None
        for row in revisions.sort("revision").to_dicts():
            label = row["label"] if row["state"] == "labelled" else None
            total += bool(row["late"] and label is not None and label != before)
            before = label
    return total


def _worth(rows: pl.DataFrame, actions: list[str]) -> list[float]:
    values = []
    for action, row in zip(actions, rows.to_dicts() if len(rows) else [], strict=True):
        if action != "approve":
            values.append(0.0)
        elif row["amount"] is not None:
            values.append(-0.6 * row["amount"] if row["label"] else 0.04 * row["amount"])
    return values


def _metrics(rows: pl.DataFrame) -> dict[str, float]:
    if not len(rows):
        return {}
    truth, score = rows["label"].to_numpy().astype(bool), rows["score"].to_numpy()
    chosen = (rows["predicted_class"] == "true").to_numpy()
    metrics = {
        "accuracy": sk.accuracy_score(truth, chosen),
        "balanced_accuracy": np.mean([(chosen[truth == c] == c).mean() for c in np.unique(truth)]),
        "f1": sk.f1_score(truth, chosen, zero_division=0),
        "log_loss": sk.log_loss(truth, score, labels=[False, True]),
        "brier": sk.brier_score_loss(truth, score),
    }
    if 0 < truth.sum() < len(truth):
        metrics["auc"] = sk.roc_auc_score(truth, score)
    return metrics


def _gains(rows: pl.DataFrame) -> dict[str, tuple[float, float | None]]:
    """Gain and p-value of means."""
    if not len(rows):
        return {}
    truth = rows["label"].to_numpy().astype(bool)
    gains = {}
    mine, theirs = rows["score"].to_numpy(), rows["champion_score"].to_numpy()
    for name, loss in (
        ("brier", lambda s: (s - truth) ** 2),
        ("log_loss", lambda s: -np.log(np.where(truth, s, 1 - s))),
    ):
        differences = loss(theirs) - loss(mine)
        p_value = None
        if len(differences) > 1 and differences.std() > 0:
            p_value = stats.ttest_1samp(differences, 0).pvalue
        gains[name] = (differences.mean(), p_value)
    if 0 < truth.sum() < len(truth):
        gains["auc"] = (sk.roc_auc_score(truth, mine) - sk.roc_auc_score(truth, theirs), None)
    return gains
