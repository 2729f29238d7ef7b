-- A lane's clocks count in the order of their revisions.

ALTER TABLE `clocks` ADD COLUMN IF NOT EXISTS `revision` Int64;
ALTER TABLE `clocks` ADD COLUMN IF NOT EXISTS `follows` Int64;
