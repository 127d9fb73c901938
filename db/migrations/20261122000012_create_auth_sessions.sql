-- migrate:up
-- Sessions, and the family of refresh tokens of each. Tokens are stored as keyed hashes only.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

DO $$
BEGIN
    IF NOT signgate.owns_auth() THEN
        RETURN;
    END IF;
    SET LOCAL ROLE signgate_owner;

    CREATE TABLE IF NOT EXISTS auth.sessions (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),  -- the access tokens' `session_id`
        user_id uuid NOT NULL REFERENCES auth.users (id) ON DELETE CASCADE,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        refreshed_at timestamptz,
        not_after timestamptz,                -- refused from then on, however often refreshed
        revoked_at timestamptz,
        aal text NOT NULL DEFAULT 'aal1' CHECK (aal IN ('aal1', 'aal2')),
        amr jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(amr) = 'array'),
        factor_id uuid,                       -- the factor that raised it to aal2
        user_agent text CHECK (length(user_agent) <= 256),
        ip inet
    );
    CREATE INDEX IF NOT EXISTS sessions_user ON auth.sessions (user_id, created_at DESC);

    CREATE TABLE IF NOT EXISTS auth.refresh_tokens (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        token_hash text NOT NULL UNIQUE,
        session_id uuid NOT NULL REFERENCES auth.sessions (id) ON DELETE CASCADE,
        user_id uuid NOT NULL REFERENCES auth.users (id) ON DELETE CASCADE,
        parent uuid REFERENCES auth.refresh_tokens (id) ON DELETE CASCADE,  -- the one it was exchanged for
        created_at timestamptz NOT NULL DEFAULT now(),
        used_at timestamptz,                  -- when it was first exchanged
        revoked_at timestamptz
    );
    CREATE INDEX IF NOT EXISTS refresh_tokens_session ON auth.refresh_tokens (session_id, created_at DESC);
    CREATE INDEX IF NOT EXISTS refresh_tokens_user ON auth.refresh_tokens (user_id);
    CREATE INDEX IF NOT EXISTS refresh_tokens_parent ON auth.refresh_tokens (parent);

    PERFORM signgate.give_to_auth_service('auth.sessions');
    PERFORM signgate.give_to_auth_service('auth.refresh_tokens');
    RESET ROLE;
END
$$;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
