-- Executions that are tried again, that take turns, and that carry who runs them until when.

ALTER TABLE attune.action
    ADD COLUMN max_retries   integer NOT NULL DEFAULT 0 CHECK (max_retries >= 0),
    ADD COLUMN retry_delay   double precision NOT NULL DEFAULT 10 CHECK (retry_delay >= 0),
    ADD COLUMN retry_backoff text NOT NULL DEFAULT 'constant'
                             CHECK (retry_backoff IN ('constant', 'linear', 'exponential')),
    ADD COLUMN retry_jitter  double precision NOT NULL DEFAULT 0 CHECK (retry_jitter BETWEEN 0 AND 1),
    ADD COLUMN retry_on      text[] NOT NULL DEFAULT '{failed,timeout}'
                             CHECK (retry_on <@ '{failed,timeout,abandoned}');

ALTER TABLE attune.rule
    ADD COLUMN overlap text NOT NULL DEFAULT 'allow' CHECK (overlap IN ('allow', 'skip', 'queue'));

-- What was recorded of definitions before has no word of these.
UPDATE attune.revision
   SET definition = definition || '{"max_retries": 0, "retry_delay": 10, "retry_backoff": "constant", "retry_jitter": 0,
                                    "retry_on": ["failed", "timeout"]}'
 WHERE kind = 'action' AND definition IS NOT NULL;
UPDATE attune.revision SET definition = definition || '{"overlap": "allow"}'
 WHERE kind = 'rule' AND definition IS NOT NULL;

ALTER TABLE attune.execution
    -- Of the first attempt this is 0; each further one names the first as its original_execution.
    ADD COLUMN retry_count  integer NOT NULL DEFAULT 0,
    ADD COLUMN retry_reason text,
    -- A retry waits until then.
    ADD COLUMN not_before   timestamptz,
    -- Which run of Attune runs it, when it has to have ended, and until when nobody may call it lost.
    ADD COLUMN boot         uuid,
    ADD COLUMN deadline     timestamptz,
    ADD COLUMN lease_until  timestamptz;
CREATE UNIQUE INDEX execution_retry ON attune.execution (original_execution, retry_count) WHERE retry_count > 0;
CREATE INDEX execution_original ON attune.execution (original_execution) WHERE original_execution IS NOT NULL;

ALTER TABLE attune.enforcement DROP CONSTRAINT enforcement_status_check;
ALTER TABLE attune.enforcement ADD CONSTRAINT enforcement_status_check
    CHECK (status IN ('created', 'processed', 'disabled', 'skipped', 'failed'));

-- Rules that do not overlap: whose turn it is, and who waits. The row lock puts "one has ended" and "one more is asked
-- for" in order; a rule that nobody runs keeps its row.
CREATE TABLE attune.rule_turn (
    rule      bigint PRIMARY KEY,
    execution bigint UNIQUE
);
CREATE TABLE attune.rule_queue (
    rule      bigint NOT NULL,
    execution bigint NOT NULL UNIQUE,
    PRIMARY KEY (rule, execution)
);
