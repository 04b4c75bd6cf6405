-- Schedules of rules on timer triggers. A change of such a rule writes its row here in the same transaction, so that the
-- row lock puts "the rule was changed" and "its timer fired" in order.

CREATE TABLE attune.timer (
    rule            bigint PRIMARY KEY REFERENCES attune.rule (id) ON DELETE CASCADE,
    -- Raised when the rule's schedule changes: a fire that was planned before it does nothing.
    generation      integer NOT NULL,
    -- Intervals count from here.
    anchor          timestamptz NOT NULL,
    next_fire_at    timestamptz,
    last_fired_at   timestamptz,
    execution_count bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

CREATE TABLE attune.timer_skip (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    rule     bigint NOT NULL,
    rule_ref text NOT NULL,
    first    timestamptz NOT NULL,
    last     timestamptz NOT NULL,
    -- Null: too many to have been counted.
    count    bigint,
    reason   text NOT NULL,
    created  timestamptz NOT NULL
);
CREATE INDEX timer_skip_rule ON attune.timer_skip (rule, id);
