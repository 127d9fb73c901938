-- migrate:up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';
SET LOCAL ROLE signgate_owner;

-- Signatures charged in a UTC day, of both pools together.
CREATE TABLE IF NOT EXISTS public.quota_usage (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL REFERENCES public.users (id) ON DELETE CASCADE,
    date date NOT NULL,
    request_count integer NOT NULL DEFAULT 0 CHECK (request_count >= 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (user_id, date)
) WITH (fillfactor = 85);

-- The part of it that each key was charged: the pool `free` is the difference.
CREATE TABLE IF NOT EXISTS public.api_key_quota_usage (
    api_key_id uuid NOT NULL,  -- no foreign key: what a deleted key was charged stays charged to its pool
    user_id uuid NOT NULL REFERENCES public.users (id) ON DELETE CASCADE,
    date date NOT NULL,
    request_count integer NOT NULL DEFAULT 0 CHECK (request_count >= 0),
    PRIMARY KEY (api_key_id, date)
) WITH (fillfactor = 85);
CREATE INDEX IF NOT EXISTS api_key_quota_usage_user ON public.api_key_quota_usage (user_id, date);
-- Counters are rebuilt a day at a time.
CREATE INDEX IF NOT EXISTS quota_usage_date ON public.quota_usage (date);

-- What a user has instead of the plan's limits; a NULL leaves the plan's.
CREATE TABLE IF NOT EXISTS public.user_plan_overrides (
    user_id uuid NOT NULL REFERENCES public.users (id) ON DELETE CASCADE,
    pool text NOT NULL REFERENCES public.plans (tier),
    daily_limit bigint CHECK (daily_limit >= 0),
    per_minute integer CHECK (per_minute > 0),
    burst integer CHECK (burst > 0),
    expires_at timestamptz,
    reason text CHECK (length(reason) <= 200),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, pool)
);

ALTER TABLE public.quota_usage ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.quota_usage FORCE ROW LEVEL SECURITY;
ALTER TABLE public.api_key_quota_usage ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.api_key_quota_usage FORCE ROW LEVEL SECURITY;
ALTER TABLE public.user_plan_overrides ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.user_plan_overrides FORCE ROW LEVEL SECURITY;

-- The same four policies on each: users read their own, the quota service reads all, the service role all.
DO $$
DECLARE
    tab text;
BEGIN
    FOREACH tab IN ARRAY ARRAY['quota_usage', 'api_key_quota_usage', 'user_plan_overrides'] LOOP
        EXECUTE format('DROP POLICY IF EXISTS owner_all ON public.%I', tab);
        EXECUTE format('CREATE POLICY owner_all ON public.%I TO signgate_owner USING (true) WITH CHECK (true)', tab);
        EXECUTE format('DROP POLICY IF EXISTS users_view_own ON public.%I', tab);
        EXECUTE format('CREATE POLICY users_view_own ON public.%I FOR SELECT TO authenticated
                            USING (user_id = (SELECT auth.uid()))', tab);
        EXECUTE format('DROP POLICY IF EXISTS quota_service_reads ON public.%I', tab);
        EXECUTE format('CREATE POLICY quota_service_reads ON public.%I FOR SELECT TO signgate_quota USING (true)', tab);
        EXECUTE format('DROP POLICY IF EXISTS service_role_all ON public.%I', tab);
        EXECUTE format('CREATE POLICY service_role_all ON public.%I TO service_role USING (true) WITH CHECK (true)', tab);
        EXECUTE format('GRANT SELECT ON public.%I TO authenticated, signgate_quota', tab);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON public.%I TO service_role', tab);
    END LOOP;
END
$$;
RESET ROLE;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
