-- migrate:up
-- Second factors.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

DO $$
BEGIN
    IF NOT signgate.owns_auth() THEN
        RETURN;
    END IF;
    SET LOCAL ROLE signgate_owner;

    CREATE TABLE IF NOT EXISTS auth.mfa_factors (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        user_id uuid NOT NULL REFERENCES auth.users (id) ON DELETE CASCADE,
        friendly_name text NOT NULL DEFAULT '' CHECK (length(friendly_name) <= 64),
        factor_type text NOT NULL CHECK (factor_type = 'totp'),
        status text NOT NULL DEFAULT 'unverified' CHECK (status IN ('unverified', 'verified')),
        secret bytea NOT NULL,                -- encrypted by the service, under a key that is not here
        last_used_step bigint,                -- the last time step taken: a code counts once
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        last_challenged_at timestamptz
    );
    CREATE UNIQUE INDEX IF NOT EXISTS mfa_factors_name ON auth.mfa_factors (user_id, friendly_name)
        WHERE friendly_name <> '';
    CREATE INDEX IF NOT EXISTS mfa_factors_user ON auth.mfa_factors (user_id);

    CREATE TABLE IF NOT EXISTS auth.mfa_challenges (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        factor_id uuid NOT NULL REFERENCES auth.mfa_factors (id) ON DELETE CASCADE,
        created_at timestamptz NOT NULL DEFAULT now(),
        expires_at timestamptz NOT NULL,
        verified_at timestamptz,
        attempts integer NOT NULL DEFAULT 0 CHECK (attempts BETWEEN 0 AND 5),
        ip inet
    );
    CREATE INDEX IF NOT EXISTS mfa_challenges_factor ON auth.mfa_challenges (factor_id);

    CREATE TABLE IF NOT EXISTS auth.mfa_recovery_codes (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        user_id uuid NOT NULL REFERENCES auth.users (id) ON DELETE CASCADE,
        code_hash text NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        used_at timestamptz,
        UNIQUE (user_id, code_hash)
    );

    PERFORM signgate.give_to_auth_service('auth.mfa_factors');
    PERFORM signgate.give_to_auth_service('auth.mfa_challenges');
    PERFORM signgate.give_to_auth_service('auth.mfa_recovery_codes');
    RESET ROLE;
END
$$;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
