-- The version that answers a share of the requests, as each step of a rollout leaves it; and answers by fallbacks.

ALTER TABLE `rollouts` ADD COLUMN IF NOT EXISTS `canary` Nullable(Int64);
ALTER TABLE `rollouts` ADD COLUMN IF NOT EXISTS `canary_share` Float64;
ALTER TABLE `rollouts` ADD COLUMN IF NOT EXISTS `canary_salt` String;
ALTER TABLE `rollouts` ADD COLUMN IF NOT EXISTS `canary_step` Int32;
ALTER TABLE `performance_reports` ADD COLUMN IF NOT EXISTS `fallbacks` Int64;
