-- The tables of the closed loop's control topics: reports, training runs, clocks; and what runs measured.

ALTER TABLE `rollouts` ADD COLUMN IF NOT EXISTS `retired` Array(Int64);
ALTER TABLE `rollouts` ADD COLUMN IF NOT EXISTS `rolled_back` Array(Int64);

-- Has the stream moved away from the training data? One row per closed window, version, role and segment.
CREATE TABLE IF NOT EXISTS `drift_reports` (
    `_topic` LowCardinality(String),
    `_partition` UInt32,
    `_offset` UInt64,
    `_time` DateTime64(3, 'UTC'),
    `report_id` String,
    `model` LowCardinality(String),
    `version` Int64,
    `role` LowCardinality(String),
    `segment` LowCardinality(String),
    `window_start` DateTime64(3, 'UTC'),
    `window_end` DateTime64(3, 'UTC'),
    `contract_digest` LowCardinality(String),
    `artifact_digest` LowCardinality(String),
    `rows` Int64,
    `late` Int64,
    `alpha` Float64,
    `verdict` LowCardinality(String),
    `tests` Array(Tuple(feature String, test String, statistic Nullable(Float64), p_value Nullable(Float64), q_value Nullable(Float64), effect Nullable(Float64), n Int64, reference_n Int64, drifted Bool, histogram Array(Tuple(label String, count Int64, reference Float64))))
)
ENGINE = ReplacingMergeTree ORDER BY (_topic, _partition, _offset) SETTINGS non_replicated_deduplication_window = 10000;

-- How good were the predictions? One row per closed window, age, version, role and slice.
CREATE TABLE IF NOT EXISTS `performance_reports` (
    `_topic` LowCardinality(String),
    `_partition` UInt32,
    `_offset` UInt64,
    `_time` DateTime64(3, 'UTC'),
    `report_id` String,
    `model` LowCardinality(String),
    `version` Int64,
    `role` LowCardinality(String),
    `segment` LowCardinality(String),
    `against` Nullable(Int64),
    `window_start` DateTime64(3, 'UTC'),
    `window_end` DateTime64(3, 'UTC'),
    `age` Int64,
    `judged_at` DateTime64(3, 'UTC'),
    `contract_digest` LowCardinality(String),
    `artifact_digest` LowCardinality(String),
    `predictions` Int64,
    `labelled` Int64,
    `assumed` Int64,
    `unlabelled` Int64,
    `late_labels` Int64,
    `label_share` Nullable(Float64),
    `mature` Bool,
    `metrics` Array(Tuple(metric String, value Nullable(Float64), low Nullable(Float64), high Nullable(Float64), n Int64, interval String, error Nullable(Float64), holdout Nullable(Float64), drop Nullable(Float64), p_value Nullable(Float64))),
    `paired` Array(Tuple(metric String, version_value Nullable(Float64), against_value Nullable(Float64), gain Nullable(Float64), low Nullable(Float64), high Nullable(Float64), p_value Nullable(Float64), n Int64, sum Nullable(Float64), sum_squares Nullable(Float64))),
    `value_total` Nullable(Float64),
    `value_mean` Nullable(Float64),
    `verdict` LowCardinality(String),
    `reasons` Array(String)
)
ENGINE = ReplacingMergeTree ORDER BY (_topic, _partition, _offset) SETTINGS non_replicated_deduplication_window = 10000;

-- Plans, progress and results of retraining.
CREATE TABLE IF NOT EXISTS `training_runs` (
    `_topic` LowCardinality(String),
    `_partition` UInt32,
    `_offset` UInt64,
    `_time` DateTime64(3, 'UTC'),
    `run_id` String,
    `model` LowCardinality(String),
    `state` LowCardinality(String),
    `at` DateTime64(3, 'UTC'),
    `trigger` LowCardinality(String),
    `triggers` Array(Tuple(kind String, id String, at DateTime64(3, 'UTC'), reason String)),
    `changed_at` DateTime64(3, 'UTC'),
    `window_start` DateTime64(3, 'UTC'),
    `window_end` DateTime64(3, 'UTC'),
    `known_before` DateTime64(3, 'UTC'),
    `offsets` Array(Tuple(partition Int32, offset Int64)),
    `labels` Int64,
    `seed` Int64,
    `contract_digest` LowCardinality(String),
    `champion` Nullable(Int64),
    `templates` Array(String),
    `dataset_digest` Nullable(String),
    `rows` Nullable(Int64),
    `held_back` Nullable(Int64),
    `evaluations` Array(Tuple(who String, template Nullable(String), version Nullable(Int64), metric String, value Nullable(Float64), low Nullable(Float64), high Nullable(Float64), n Int64)),
    `content_digest` Nullable(String),
    `version` Nullable(Int64),
    `template` LowCardinality(Nullable(String)),
    `progress` Nullable(Float64),
    `reason` String
)
ENGINE = ReplacingMergeTree ORDER BY (_topic, _partition, _offset) SETTINGS non_replicated_deduplication_window = 10000;

-- Who tells each lane the time.
CREATE TABLE IF NOT EXISTS `clocks` (
    `_topic` LowCardinality(String),
    `_partition` UInt32,
    `_offset` UInt64,
    `_time` DateTime64(3, 'UTC'),
    `lane` LowCardinality(String),
    `owner` LowCardinality(String),
    `by` LowCardinality(String),
    `at` DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree ORDER BY (_topic, _partition, _offset) SETTINGS non_replicated_deduplication_window = 10000;

-- What was trained and what it was compared with, on the same held-back outcomes: the last word of each run.
CREATE VIEW IF NOT EXISTS `model_evaluations` AS
SELECT
    model, run_id, decided_at, run_state, dataset_digest, train_rows, held_back,
    evaluation.who AS who, evaluation.template AS template, evaluation.version AS version,
    evaluation.metric AS metric, evaluation.value AS value, evaluation.low AS low, evaluation.high AS high,
    evaluation.n AS n
FROM (
    SELECT model, run_id, at AS decided_at, state AS run_state, dataset_digest, rows AS train_rows, held_back, evaluations
    FROM training_runs
    WHERE notEmpty(evaluations)
    ORDER BY _offset DESC
    LIMIT 1 BY model, run_id
)
ARRAY JOIN evaluations AS evaluation;
