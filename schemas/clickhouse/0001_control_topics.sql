-- The tables of the control topics, of dead letters, and of what could not be decoded.
-- A row is one record of a topic, at (_topic, _partition, _offset); _time is when it was appended.

-- Applied revisions of model contracts.
CREATE TABLE IF NOT EXISTS `contracts` (
    `_topic` LowCardinality(String),
    `_partition` UInt32,
    `_offset` UInt64,
    `_time` DateTime64(3, 'UTC'),
    `model` LowCardinality(String),
    `revision` Int64,
    `follows` Int64,
    `digest` String,
    `source_text` String,
    `resolved` String,
    `applied_by` LowCardinality(String),
    `applied_at` DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree ORDER BY (_topic, _partition, _offset) SETTINGS non_replicated_deduplication_window = 10000;

-- Published model versions; the packages' bytes stay in Kafka.
CREATE TABLE IF NOT EXISTS `manifests` (
    `_topic` LowCardinality(String),
    `_partition` UInt32,
    `_offset` UInt64,
    `_time` DateTime64(3, 'UTC'),
    `model` LowCardinality(String),
    `version` Int64,
    `manifest` String,
    `digest` String,
    `signature` String,
    `key_id` LowCardinality(String),
    `chunks` Array(Tuple(part String, index Int32, partition Int32, offset Int64, size Int32, sha256 String)),
    `published_at` DateTime64(3, 'UTC'),
    `published_by` LowCardinality(String)
)
ENGINE = ReplacingMergeTree ORDER BY (_topic, _partition, _offset) SETTINGS non_replicated_deduplication_window = 10000;

-- Steps of rollouts, each with the state that it leads to.
CREATE TABLE IF NOT EXISTS `rollouts` (
    `_topic` LowCardinality(String),
    `_partition` UInt32,
    `_offset` UInt64,
    `_time` DateTime64(3, 'UTC'),
    `model` LowCardinality(String),
    `revision` Int64,
    `follows` Int64,
    `step` LowCardinality(String),
    `version` Nullable(Int64),
    `champion` Nullable(Int64),
    `previous` Nullable(Int64),
    `shadow` Array(Int64),
    `candidates` Array(Int64),
    `rejected` Array(Int64),
    `frozen` Bool,
    `off` Bool,
    `reason` String,
    `by` LowCardinality(String),
    `command_id` Nullable(String),
    `source_topic` LowCardinality(String),
    `source_partition` Int32,
    `source_offset` Int64,
    `contract_digest` LowCardinality(Nullable(String)),
    `evidence` Map(LowCardinality(String), String)
)
ENGINE = ReplacingMergeTree ORDER BY (_topic, _partition, _offset) SETTINGS non_replicated_deduplication_window = 10000;

-- What people asked for.
CREATE TABLE IF NOT EXISTS `commands` (
    `_topic` LowCardinality(String),
    `_partition` UInt32,
    `_offset` UInt64,
    `_time` DateTime64(3, 'UTC'),
    `command_id` String,
    `model` LowCardinality(String),
    `command` LowCardinality(String),
    `version` Nullable(Int64),
    `follows` Nullable(Int64),
    `by` LowCardinality(String),
    `reason` String,
    `issued_at` DateTime64(3, 'UTC'),
    `key_id` LowCardinality(Nullable(String)),
    `signature` Nullable(String)
)
ENGINE = ReplacingMergeTree ORDER BY (_topic, _partition, _offset) SETTINGS non_replicated_deduplication_window = 10000;

-- What a person should know.
CREATE TABLE IF NOT EXISTS `alerts` (
    `_topic` LowCardinality(String),
    `_partition` UInt32,
    `_offset` UInt64,
    `_time` DateTime64(3, 'UTC'),
    `alert_id` String,
    `state` LowCardinality(String),
    `kind` LowCardinality(String),
    `severity` LowCardinality(String),
    `model` LowCardinality(Nullable(String)),
    `version` Nullable(Int64),
    `service` LowCardinality(String),
    `summary` String,
    `detail` Map(LowCardinality(String), String),
    `source_topic` LowCardinality(Nullable(String)),
    `source_partition` Nullable(Int32),
    `source_offset` Nullable(Int64),
    `at` DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree ORDER BY (_topic, _partition, _offset) SETTINGS non_replicated_deduplication_window = 10000;

-- What services refused, of every lane: why, where it came from, and its bytes.
CREATE TABLE IF NOT EXISTS `dead_letters` (
    `_topic` LowCardinality(String),
    `_partition` UInt32,
    `_offset` UInt64,
    `_time` DateTime64(3, 'UTC'),
    `code` LowCardinality(String),
    `reason` String,
    `field` LowCardinality(Nullable(String)),
    `source_topic` LowCardinality(String),
    `source_partition` Int32,
    `source_offset` Int64,
    `service` LowCardinality(String),
    `key` Nullable(String),
    `value` Nullable(String),
    `headers` Array(Tuple(name String, value String)),
    `sha256` Nullable(String)
)
ENGINE = ReplacingMergeTree ORDER BY (_topic, _partition, _offset) SETTINGS non_replicated_deduplication_window = 10000;

-- Records that the sink itself could not decode: why, and their bytes.
CREATE TABLE IF NOT EXISTS `unreadable` (
    `_topic` LowCardinality(String),
    `_partition` UInt32,
    `_offset` UInt64,
    `_time` DateTime64(3, 'UTC'),
    `code` LowCardinality(String),
    `reason` String,
    `key` Nullable(String),
    `value` Nullable(String),
    `headers` Array(Tuple(name String, value String))
)
ENGINE = ReplacingMergeTree ORDER BY (_topic, _partition, _offset) SETTINGS non_replicated_deduplication_window = 10000;
