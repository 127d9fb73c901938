-- migrate:up
-- What mails carry, and PKCE flows. Codes and link tokens are stored as keyed hashes only.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

DO $$
BEGIN
    IF NOT signgate.owns_auth() THEN
        RETURN;
    END IF;
    SET LOCAL ROLE signgate_owner;

    CREATE TABLE IF NOT EXISTS auth.flow_state (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        user_id uuid REFERENCES auth.users (id) ON DELETE CASCADE,
        auth_code_hash text UNIQUE,           -- NULL until the mailed link was followed
        code_challenge text NOT NULL CHECK (length(code_challenge) BETWEEN 43 AND 128),
        code_challenge_method text NOT NULL CHECK (code_challenge_method IN ('s256', 'plain')),
        authentication_method text NOT NULL,  -- becomes the session's `amr`
        redirect_to text,
        created_at timestamptz NOT NULL DEFAULT now(),
        auth_code_issued_at timestamptz,
        expires_at timestamptz NOT NULL,
        used_at timestamptz
    );
    CREATE INDEX IF NOT EXISTS flow_state_user ON auth.flow_state (user_id);
    CREATE INDEX IF NOT EXISTS flow_state_expires ON auth.flow_state (expires_at);

    CREATE TABLE IF NOT EXISTS auth.one_time_tokens (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        user_id uuid NOT NULL REFERENCES auth.users (id) ON DELETE CASCADE,
        purpose text NOT NULL CHECK (purpose IN ('signup', 'magiclink', 'recovery', 'invite', 'email_change_current',
                                                 'email_change_new', 'reauthentication')),
        email text NOT NULL,                  -- where the mail went
        code_hash text NOT NULL,              -- of the few digits people type
        link_hash text UNIQUE,                -- of the long token in the link
        attempts integer NOT NULL DEFAULT 0 CHECK (attempts BETWEEN 0 AND 5),  -- wrong codes so far
        redirect_to text,
        flow_state_id uuid REFERENCES auth.flow_state (id) ON DELETE CASCADE,
        created_at timestamptz NOT NULL DEFAULT now(),
        expires_at timestamptz NOT NULL,
        used_at timestamptz,
        UNIQUE (user_id, purpose)             -- a new code replaces the one before
    );
    CREATE INDEX IF NOT EXISTS one_time_tokens_expires ON auth.one_time_tokens (expires_at);
    CREATE INDEX IF NOT EXISTS one_time_tokens_flow ON auth.one_time_tokens (flow_state_id);

    PERFORM signgate.give_to_auth_service('auth.flow_state');
    PERFORM signgate.give_to_auth_service('auth.one_time_tokens');
    RESET ROLE;
END
$$;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
