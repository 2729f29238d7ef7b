-- The arms of experiments, as each step of a rollout leaves them; and what says how far a value may be off.

ALTER TABLE `rollouts` ADD COLUMN IF NOT EXISTS `experiment_assign` Nullable(String);
ALTER TABLE `rollouts` ADD COLUMN IF NOT EXISTS `experiment_share` Nullable(Float64);
ALTER TABLE `rollouts` ADD COLUMN IF NOT EXISTS `experiment_salt` Nullable(String);
ALTER TABLE `rollouts` ADD COLUMN IF NOT EXISTS `experiment_arms` Array(Tuple(arm String, version Int64, probability Float64, requests Int64, mean Nullable(Float64), deviation Nullable(Float64), best Nullable(Float64)));
ALTER TABLE `commands` ADD COLUMN IF NOT EXISTS `arms` Array(Int64);
ALTER TABLE `performance_reports` ADD COLUMN IF NOT EXISTS `value_squares` Nullable(Float64);
