-- migrate:up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';
SET LOCAL ROLE signgate_owner;

CREATE TABLE IF NOT EXISTS public.api_keys (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),  -- stands in the key itself, in base62
    user_id uuid NOT NULL REFERENCES public.users (id) ON DELETE CASCADE,
    key_hash text UNIQUE NOT NULL,                  -- HMAC-SHA-256 under the pepper of pepper_version
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    created_at timestamptz NOT NULL DEFAULT now(),
    last_used timestamptz,
    is_active boolean NOT NULL DEFAULT true,        -- false exactly when revoked_at is set
    -- What listing needs to show which key it is, and nothing that helps to guess it.
    prefix text NOT NULL DEFAULT '' CHECK (length(prefix) <= 16),
    last4 text NOT NULL DEFAULT '' CHECK (length(last4) <= 4),
    scopes text[] NOT NULL DEFAULT ARRAY['sign', 'usage:read', 'quota:read'] CHECK (cardinality(scopes) > 0),
    mode text NOT NULL DEFAULT 'live' CHECK (mode IN ('live', 'test')),
    expires_at timestamptz,
    revoked_at timestamptz,
    cidrs cidr[] NOT NULL DEFAULT ARRAY[]::cidr[] CHECK (cardinality(cidrs) <= 32),  -- empty: from anywhere
    daily_limit bigint CHECK (daily_limit > 0),     -- NULL: the plan's alone counts
    per_minute integer CHECK (per_minute > 0),      -- likewise
    engine text CHECK (length(engine) BETWEEN 1 AND 64),
    pepper_version integer NOT NULL DEFAULT 1 CHECK (pepper_version > 0),
    rotated_from uuid REFERENCES public.api_keys (id) ON DELETE SET NULL,
    grace_until timestamptz,                        -- set once it has a successor: works on until then
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT api_keys_active_or_revoked CHECK (is_active = (revoked_at IS NULL))
) WITH (fillfactor = 85);  -- last_used changes all the time: leave room for updates in place

-- A user's keys, newest first.
CREATE INDEX IF NOT EXISTS api_keys_user ON public.api_keys (user_id, created_at DESC, id DESC);
-- The foreign key's own look-up when a key is deleted.
CREATE INDEX IF NOT EXISTS api_keys_rotated_from ON public.api_keys (rotated_from) WHERE rotated_from IS NOT NULL;

ALTER TABLE public.api_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.api_keys FORCE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS owner_all ON public.api_keys;
CREATE POLICY owner_all ON public.api_keys TO signgate_owner USING (true) WITH CHECK (true);
DROP POLICY IF EXISTS users_manage_own ON public.api_keys;
CREATE POLICY users_manage_own ON public.api_keys TO authenticated
    USING (user_id = (SELECT auth.uid())) WITH CHECK (user_id = (SELECT auth.uid()));
DROP POLICY IF EXISTS service_role_all ON public.api_keys;
CREATE POLICY service_role_all ON public.api_keys TO service_role USING (true) WITH CHECK (true);

-- Users make keys by create_api_key() and rotate_api_key() only, never see a hash, and revoke
-- instead of deleting: the audit trail and the usage of a key outlive it.
GRANT SELECT (id, user_id, name, created_at, last_used, is_active, prefix, last4, scopes, mode, expires_at,
              revoked_at, cidrs, daily_limit, per_minute, engine, rotated_from, grace_until, updated_at)
    ON public.api_keys TO authenticated;
GRANT UPDATE (name, scopes, expires_at, revoked_at, is_active, cidrs, daily_limit, per_minute, engine)
    ON public.api_keys TO authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.api_keys TO service_role;
RESET ROLE;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
