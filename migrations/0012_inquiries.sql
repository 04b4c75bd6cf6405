-- Questions to people.

CREATE TABLE attune.inquiry (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    execution       bigint NOT NULL,
    -- Its execution does nothing but wait for the answer.
    waits           boolean NOT NULL,
    prompt          text NOT NULL,
    response_schema jsonb,
    assigned_to     bigint,
    context         jsonb,
    status          text NOT NULL CHECK (status IN ('pending', 'responded', 'timeout', 'cancelled')),
    response        jsonb,
    responded_by    text,
    timeout_at      timestamptz,
    responded_at    timestamptz,
    correlation_id  uuid NOT NULL,
    causation_id    uuid,
    depth           integer NOT NULL,
    created         timestamptz NOT NULL,
    updated         timestamptz NOT NULL
);
CREATE UNIQUE INDEX inquiry_waits ON attune.inquiry (execution) WHERE waits;
CREATE INDEX inquiry_execution ON attune.inquiry (execution);
CREATE INDEX inquiry_due ON attune.inquiry (timeout_at) WHERE status = 'pending' AND timeout_at IS NOT NULL;
-- Nothing goes of the chain of a question that is open.
CREATE INDEX inquiry_chain ON attune.inquiry (correlation_id) WHERE status = 'pending';
