-- The bus: what waits, what was done, what died.

-- One row per durable queue that a message is bound to, from its publication until its consumer's transaction deletes it.
-- The key serves both who takes a delivery and who reads a queue in order: message ids (UUIDv7) grow with time.
CREATE TABLE attune.delivery (
    queue          text NOT NULL,
    message_id     uuid NOT NULL,
    correlation_id uuid NOT NULL,
    causation_id   uuid,
    depth          integer NOT NULL,
    message_type   text NOT NULL,
    version        text NOT NULL,
    source         text NOT NULL,
    -- json, not jsonb: it is written once, read back at most once, and never looked into.
    payload        json NOT NULL,
    published_at   timestamptz NOT NULL,
    available_at   timestamptz NOT NULL,
    attempt        integer NOT NULL CHECK (attempt >= 1),
    error          text,
    PRIMARY KEY (queue, message_id)
) WITH (
    -- Rows live for milliseconds: clean by count and without pauses, or the index outgrows the table.
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_insert_threshold = -1,
    autovacuum_vacuum_cost_delay = 0
);

-- One row per attempt at a delivery, written by the transaction that settled it. Days are dropped as partitions.
CREATE TABLE attune.trace (
    queue          text NOT NULL,
    message_id     uuid NOT NULL,
    correlation_id uuid NOT NULL,
    causation_id   uuid,
    depth          integer NOT NULL,
    message_type   text NOT NULL,
    source         text NOT NULL,
    consumer       text NOT NULL,
    published_at   timestamptz NOT NULL,
    delivered_at   timestamptz NOT NULL,
    done_at        timestamptz NOT NULL,
    attempt        integer NOT NULL,
    outcome        text NOT NULL CHECK (outcome IN ('done', 'retry', 'dead')),
    error          text
) PARTITION BY RANGE (done_at);
CREATE INDEX trace_correlation_id ON attune.trace (correlation_id);
-- For a day without a partition: a clock that jumps must not stop the pipeline.
CREATE TABLE attune.trace_other PARTITION OF attune.trace DEFAULT;

-- The parking queue `attune.dlx.queue`.
CREATE TABLE attune.dead_letter (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue          text NOT NULL,
    message_id     uuid NOT NULL,
    correlation_id uuid NOT NULL,
    causation_id   uuid,
    depth          integer NOT NULL,
    message_type   text NOT NULL,
    version        text NOT NULL,
    source         text NOT NULL,
    payload        jsonb NOT NULL,
    subject        text,
    attempts       integer NOT NULL,
    error          text NOT NULL,
    published_at   timestamptz NOT NULL,
    created        timestamptz NOT NULL,
    UNIQUE (queue, message_id)
);
CREATE INDEX dead_letter_subject ON attune.dead_letter (subject);
