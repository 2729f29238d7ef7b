-- The version that answers a share of the requests, as each step of a rollout leaves it; and answers by fallbacks.

ALTER TABLE `rollouts` ADD COLUMN IF NOT EXISTS `canary_version` Nullable(Int64);
ALTER TABLE `rollouts` ADD COLUMN IF NOT EXISTS `canary_share` Nullable(Float64);
ALTER TABLE `rollouts` ADD COLUMN IF NOT EXISTS `canary_salt` Nullable(String);
ALTER TABLE `rollouts` ADD COLUMN IF NOT EXISTS `canary_step` Nullable(Int32);
ALTER TABLE `performance_reports` ADD COLUMN IF NOT EXISTS `fallbacks` Int64;
