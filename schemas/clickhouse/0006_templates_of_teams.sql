-- The distribution that a training run's template came from, where a team brought it.

ALTER TABLE `training_runs` ADD COLUMN IF NOT EXISTS `template_distribution` Nullable(String);
ALTER TABLE `training_runs` ADD COLUMN IF NOT EXISTS `template_version` Nullable(String);
ALTER TABLE `training_runs` ADD COLUMN IF NOT EXISTS `template_digest` Nullable(String);
