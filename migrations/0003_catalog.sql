-- Definitions: packs and what they bring, and the rules that people make.

CREATE TABLE attune.pack (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ref          text NOT NULL UNIQUE,
    label        text NOT NULL,
    description  text,
    version      text NOT NULL,
    conf_schema  jsonb NOT NULL DEFAULT '{}',
    config       jsonb NOT NULL DEFAULT '{}',
    meta         jsonb NOT NULL DEFAULT '{}',
    tags         text[] NOT NULL DEFAULT '{}',
    runtime_deps text[] NOT NULL DEFAULT '{}',
    dependencies text[] NOT NULL DEFAULT '{}',
    is_standard  boolean NOT NULL DEFAULT false,
    storage_path text NOT NULL,
    -- Of the files that the pack was installed from.
    checksum     text NOT NULL,
    created      timestamptz NOT NULL,
    updated      timestamptz NOT NULL
);

CREATE TABLE attune.trigger (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ref          text NOT NULL UNIQUE,
    pack         bigint NOT NULL REFERENCES attune.pack (id) ON DELETE CASCADE,
    pack_ref     text NOT NULL,
    label        text NOT NULL,
    description  text,
    enabled      boolean NOT NULL DEFAULT true,
    param_schema jsonb NOT NULL DEFAULT '{}',
    out_schema   jsonb NOT NULL DEFAULT '{}',
    created      timestamptz NOT NULL,
    updated      timestamptz NOT NULL
);
CREATE INDEX trigger_pack ON attune.trigger (pack);

CREATE TABLE attune.action (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ref             text NOT NULL UNIQUE,
    pack            bigint NOT NULL REFERENCES attune.pack (id) ON DELETE CASCADE,
    pack_ref        text NOT NULL,
    label           text NOT NULL,
    description     text,
    entrypoint      text NOT NULL,
    runtime_ref     text NOT NULL CHECK (runtime_ref IN ('core.builtin', 'core.shell', 'core.python')),
    param_schema    jsonb NOT NULL DEFAULT '{}',
    out_schema      jsonb NOT NULL DEFAULT '{}',
    output_format   text NOT NULL DEFAULT 'text' CHECK (output_format IN ('text', 'json', 'yaml', 'jsonl')),
    timeout_seconds integer CHECK (timeout_seconds > 0),
    created         timestamptz NOT NULL,
    updated         timestamptz NOT NULL
);
CREATE INDEX action_pack ON attune.action (pack);

CREATE TABLE attune.rule (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ref            text NOT NULL UNIQUE,
    pack           bigint NOT NULL REFERENCES attune.pack (id) ON DELETE CASCADE,
    pack_ref       text NOT NULL,
    label          text NOT NULL,
    description    text,
    action         bigint REFERENCES attune.action (id) ON DELETE SET NULL,
    action_ref     text NOT NULL,
    trigger        bigint REFERENCES attune.trigger (id) ON DELETE SET NULL,
    trigger_ref    text NOT NULL,
    conditions     jsonb NOT NULL DEFAULT '[]',
    action_params  jsonb NOT NULL DEFAULT '{}',
    trigger_params jsonb NOT NULL DEFAULT '{}',
    enabled        boolean NOT NULL,
    is_adhoc       boolean NOT NULL,
    owner_identity bigint REFERENCES attune.identity (id) ON DELETE SET NULL,
    created        timestamptz NOT NULL,
    updated        timestamptz NOT NULL
);
CREATE INDEX rule_pack ON attune.rule (pack);
CREATE INDEX rule_action_ref ON attune.rule (action_ref);
CREATE INDEX rule_trigger_ref ON attune.rule (trigger_ref);

-- One number for the state of all definitions; every change of a definition raises it in its own transaction. Its row
-- lock puts writers in order, so a reader that knows version n knows every change up to n.
CREATE TABLE attune.definition_version (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version  bigint NOT NULL
);
INSERT INTO attune.definition_version (version) VALUES (0);

-- What each definition was at each version: the feed from which caches catch up, and what `why` evaluates.
CREATE TABLE attune.revision (
    version    bigint NOT NULL,
    kind       text NOT NULL CHECK (kind IN ('pack', 'trigger', 'action', 'rule')),
    entity     bigint NOT NULL,
    ref        text NOT NULL,
    definition jsonb,    -- null: deleted
    created    timestamptz NOT NULL,
    PRIMARY KEY (kind, entity, version)
);
CREATE INDEX revision_version ON attune.revision (version);
