-- Who may do what.

CREATE TABLE attune.identity (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    login         text NOT NULL UNIQUE,
    display_name  text,
    password_hash text,
    -- Until permissions exist an identity is an administrator or may do nothing.
    administrator boolean NOT NULL DEFAULT false,
    frozen        boolean NOT NULL DEFAULT false,
    -- Tokens carry it; raising it revokes all tokens of the identity at once.
    token_epoch   integer NOT NULL DEFAULT 0,
    created       timestamptz NOT NULL,
    updated       timestamptz NOT NULL
);
