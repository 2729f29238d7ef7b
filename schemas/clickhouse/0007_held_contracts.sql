-- Whether a record of tailrace.contracts applies a contract (null), or holds, withdraws or releases one.

ALTER TABLE `contracts` ADD COLUMN IF NOT EXISTS `step` LowCardinality(Nullable(String));
