-- Alerts: what goes wrong becomes an event, so that rules can act on it.

CREATE TABLE attune.alert (
    kind           text NOT NULL,
    subject        text NOT NULL,
    event          bigint NOT NULL,         -- the newest that was raised about it
    -- Its events are one chain, and so is all that rules make of them. What belongs to such a chain raises no alert.
    correlation_id uuid NOT NULL UNIQUE,
    raised         timestamptz NOT NULL,
    PRIMARY KEY (kind, subject)
);

-- The rules and the actions whose newest executions did not complete, as long as that is so.
CREATE TABLE attune.streak (
    kind      text NOT NULL CHECK (kind IN ('rule', 'action')),
    ref       text NOT NULL,
    failures  integer NOT NULL,
    first     timestamptz NOT NULL,
    last      timestamptz NOT NULL,
    execution bigint NOT NULL,              -- the newest of them
    PRIMARY KEY (kind, ref)
);

-- Whether somebody was told of it, or need not be. After a disaster there may be many that were.
ALTER TABLE attune.dead_letter ADD COLUMN alerted boolean NOT NULL DEFAULT false;
CREATE INDEX dead_letter_not_alerted ON attune.dead_letter (id) WHERE NOT alerted;

-- The execution that has caused an event, if one has: the way back through a chain goes by primary keys.
ALTER TABLE attune.event ADD COLUMN execution bigint;

-- The rules that were stopped because they fire themselves, until an alert tells of it.
CREATE TABLE attune.loop (
    rule_ref text PRIMARY KEY,
    stopped  integer NOT NULL,
    first    timestamptz NOT NULL,
    last     timestamptz NOT NULL,
    event    bigint NOT NULL                -- the newest for which one was not fired
);
