-- migrate:up
-- Accounts, where the schema `auth` is ours. Column names are Supabase's where the meaning is the same.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

DO $$
BEGIN
    IF NOT signgate.owns_auth() THEN
        RETURN;
    END IF;
    SET LOCAL ROLE signgate_owner;

    CREATE TABLE IF NOT EXISTS auth.users (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        aud text NOT NULL DEFAULT 'authenticated',
        role text NOT NULL DEFAULT 'authenticated' CHECK (role IN ('authenticated', 'service_role')),
        email text NOT NULL CHECK (length(email) BETWEEN 3 AND 254),
        encrypted_password text,              -- argon2id in PHC form; NULL: no password was set
        email_confirmed_at timestamptz,
        invited_at timestamptz,
        confirmation_sent_at timestamptz,
        recovery_sent_at timestamptz,
        email_change text CHECK (length(email_change) BETWEEN 3 AND 254),  -- waits to be confirmed
        email_change_sent_at timestamptz,
        -- Which of the two addresses has confirmed: 0 none, 1 one of them.
        email_change_confirm_status smallint NOT NULL DEFAULT 0 CHECK (email_change_confirm_status IN (0, 1)),
        reauthentication_sent_at timestamptz,
        last_sign_in_at timestamptz,
        password_changed_at timestamptz,
        banned_until timestamptz,
        phone text,
        is_anonymous boolean NOT NULL DEFAULT false,
        raw_app_meta_data jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(raw_app_meta_data) = 'object'),
        raw_user_meta_data jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(raw_user_meta_data) = 'object'),
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now()
    );
    CREATE UNIQUE INDEX IF NOT EXISTS users_email ON auth.users (lower(email));
    -- Administrators list accounts newest first.
    CREATE INDEX IF NOT EXISTS users_created ON auth.users (created_at DESC, id DESC);

    CREATE TABLE IF NOT EXISTS auth.identities (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        user_id uuid NOT NULL REFERENCES auth.users (id) ON DELETE CASCADE,
        provider text NOT NULL,
        provider_id text NOT NULL,            -- for `email`: the user's own id
        identity_data jsonb NOT NULL DEFAULT '{}',
        last_sign_in_at timestamptz,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        UNIQUE (provider, provider_id)
    );
    CREATE INDEX IF NOT EXISTS identities_user ON auth.identities (user_id);

    PERFORM signgate.give_to_auth_service('auth.users');
    PERFORM signgate.give_to_auth_service('auth.identities');
    RESET ROLE;
END
$$;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
