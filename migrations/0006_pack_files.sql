-- Packs that are read again: their files as they were read, and what decides who has the last word on a rule.

CREATE TABLE attune.pack_file (
    pack       bigint NOT NULL REFERENCES attune.pack (id) ON DELETE CASCADE,
    path       text NOT NULL,     -- below the folder of the pack
    content    bytea,             -- null: too large to be kept
    executable boolean NOT NULL,
    ref        text,              -- of the trigger, action or rule that it describes
    PRIMARY KEY (pack, path)
);

-- What the file of a rule said of `enabled` when it was read last; null for rules that people made.
ALTER TABLE attune.rule ADD COLUMN enabled_in_file boolean;

ALTER TABLE attune.action DROP CONSTRAINT action_runtime_ref_check;
ALTER TABLE attune.action ADD CONSTRAINT action_runtime_ref_check
    CHECK (runtime_ref IN ('core.builtin', 'core.shell', 'core.python', 'core.native'));
