-- Requests with an Idempotency-Key: what each of them has made, and what it was answered.

CREATE TABLE attune.idempotency_key (
    scope       text NOT NULL,        -- who asks, and the route
    key         text NOT NULL,
    fingerprint bytea NOT NULL,       -- SHA-256 of the request
    subject     bigint,               -- the event or execution; null only inside the transaction that makes it
    answer      text,                 -- the body of the first answer; null until there was one
    created     timestamptz NOT NULL,
    PRIMARY KEY (scope, key)
    -- Every row is updated in the transaction that inserts it: with room on its page no index hears of it (HOT).
) WITH (fillfactor = 50);
CREATE INDEX idempotency_key_created ON attune.idempotency_key (created);
