-- migrate:up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';
SET LOCAL ROLE signgate_owner;

-- The profile beside auth.users, made and removed by triggers on it; the ids are equal.
CREATE TABLE IF NOT EXISTS public.users (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    email text UNIQUE NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    last_login timestamptz,
    is_active boolean NOT NULL DEFAULT true,
    tier text NOT NULL DEFAULT 'free' CHECK (tier IN ('free', 'api_key')),
    display_name text CHECK (length(display_name) BETWEEN 1 AND 100)
);

ALTER TABLE public.users ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.users FORCE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS owner_all ON public.users;
CREATE POLICY owner_all ON public.users TO signgate_owner USING (true) WITH CHECK (true);
DROP POLICY IF EXISTS users_view_own ON public.users;
CREATE POLICY users_view_own ON public.users FOR SELECT TO authenticated
    USING (id = (SELECT auth.uid()));
-- Which columns they may update, the grant below says.
DROP POLICY IF EXISTS users_update_own ON public.users;
CREATE POLICY users_update_own ON public.users FOR UPDATE TO authenticated
    USING (id = (SELECT auth.uid())) WITH CHECK (id = (SELECT auth.uid()));
DROP POLICY IF EXISTS service_role_all ON public.users;
CREATE POLICY service_role_all ON public.users TO service_role USING (true) WITH CHECK (true);
-- The auth service answers for all accounts: it looks them up before it knows who asks.
DROP POLICY IF EXISTS auth_service_reads ON public.users;
CREATE POLICY auth_service_reads ON public.users FOR SELECT TO signgate_auth USING (true);
DROP POLICY IF EXISTS auth_service_updates ON public.users;
CREATE POLICY auth_service_updates ON public.users FOR UPDATE TO signgate_auth USING (true) WITH CHECK (true);
DROP POLICY IF EXISTS quota_service_reads ON public.users;
CREATE POLICY quota_service_reads ON public.users FOR SELECT TO signgate_quota USING (true);

GRANT SELECT ON public.users TO authenticated;
GRANT UPDATE (display_name) ON public.users TO authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.users TO service_role;
GRANT SELECT ON public.users TO signgate_auth;
GRANT UPDATE (last_login, is_active, tier, display_name) ON public.users TO signgate_auth;
GRANT SELECT (id, is_active, tier) ON public.users TO signgate_quota;
RESET ROLE;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
