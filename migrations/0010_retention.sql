-- What is removed by age must make room for what comes: the sizes of these tables level off by a twentieth above what is
-- in them, not by a fifth.

ALTER TABLE attune.event SET (autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE attune.event_match SET (autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE attune.enforcement SET (autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE attune.execution SET (autovacuum_vacuum_scale_factor = 0.05);

-- Whatever shares a chain with a dead letter stays. After a disaster there may be many.
CREATE INDEX dead_letter_correlation_id ON attune.dead_letter (correlation_id);
