-- migrate:up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';
SET LOCAL ROLE signgate_owner;

-- One row a pool of quota. A user's keys draw on `api_key`; signing while logged in without a key
-- draws on `free`.
CREATE TABLE IF NOT EXISTS public.plans (
    tier text PRIMARY KEY CHECK (tier IN ('free', 'api_key')),
    daily_limit bigint NOT NULL CHECK (daily_limit >= 0),  -- signatures in a UTC day
    per_minute integer NOT NULL CHECK (per_minute > 0),    -- signatures a minute, refilled evenly
    burst integer NOT NULL CHECK (burst > 0),              -- how many of them at once
    updated_at timestamptz NOT NULL DEFAULT now()
);

INSERT INTO public.plans (tier, daily_limit, per_minute, burst)
VALUES ('free', 100, 20, 10), ('api_key', 10000, 600, 100)
ON CONFLICT (tier) DO NOTHING;

ALTER TABLE public.plans ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.plans FORCE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS owner_all ON public.plans;
CREATE POLICY owner_all ON public.plans TO signgate_owner USING (true) WITH CHECK (true);
-- Plans are no secret: nothing in them belongs to anyone.
DROP POLICY IF EXISTS everyone_reads ON public.plans;
CREATE POLICY everyone_reads ON public.plans FOR SELECT TO anon, authenticated, signgate_quota USING (true);
DROP POLICY IF EXISTS service_role_all ON public.plans;
CREATE POLICY service_role_all ON public.plans TO service_role USING (true) WITH CHECK (true);

GRANT SELECT ON public.plans TO anon, authenticated, signgate_quota;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.plans TO service_role;
RESET ROLE;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
