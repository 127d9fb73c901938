-- migrate:up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

DO $$
BEGIN
    IF NOT signgate.owns_auth() THEN
        RETURN;
    END IF;
    SET LOCAL ROLE signgate_owner;

    -- Append-only: the auth service adds and reads, and can neither change nor delete.
    CREATE TABLE IF NOT EXISTS auth.audit_log (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        action text NOT NULL CHECK (length(action) BETWEEN 1 AND 64),
        user_id uuid,                         -- whose account; no foreign key: it outlives the account
        actor_kind text NOT NULL CHECK (actor_kind IN ('user', 'service_role', 'system', 'anonymous')),
        actor_id uuid,
        ip inet,
        user_agent text CHECK (length(user_agent) <= 256),
        request_id text CHECK (length(request_id) <= 128),
        details jsonb NOT NULL DEFAULT '{}'   -- never an address, a code or a token
    );
    CREATE INDEX IF NOT EXISTS audit_log_user ON auth.audit_log (user_id, created_at DESC);
    CREATE INDEX IF NOT EXISTS audit_log_created ON auth.audit_log USING brin (created_at);

    PERFORM signgate.give_to_auth_service('auth.audit_log');
    REVOKE UPDATE, DELETE ON auth.audit_log FROM signgate_auth;
    RESET ROLE;
END
$$;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
