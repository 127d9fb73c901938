-- migrate:up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';
SET LOCAL ROLE signgate_owner;

-- One row a request of a known caller. Partitioned by month of created_at, so its key has created_at
-- beside the id: a request's id and created_at belong together and never change, so the pair tells
-- duplicates as well as the id does.
CREATE TABLE IF NOT EXISTS public.usage_logs (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid REFERENCES public.users (id) ON DELETE SET NULL,
    api_key_id uuid REFERENCES public.api_keys (id) ON DELETE SET NULL,
    room_url text NOT NULL,
    success boolean NOT NULL,
    response_time_ms integer NOT NULL,
    error_message text,                   -- the stable reason when it was not signed
    created_at timestamptz NOT NULL DEFAULT now(),
    engine text,
    pool text CHECK (pool IN ('free', 'api_key')),
    charge_id uuid,
    charged integer NOT NULL DEFAULT 0 CHECK (charged >= 0),  -- signatures
    charged_day date,                     -- the UTC day that paid; may be the one after created_at's
    PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);

-- Rows of a month for which there is no partition: none is ever refused.
CREATE TABLE IF NOT EXISTS signgate.usage_logs_default PARTITION OF public.usage_logs DEFAULT;

-- My usage, newest first, by keyset on (created_at, id); my statistics by range; the foreign key.
CREATE INDEX IF NOT EXISTS usage_logs_user ON public.usage_logs (user_id, created_at DESC, id DESC);
-- The same for one key.
CREATE INDEX IF NOT EXISTS usage_logs_api_key ON public.usage_logs (api_key_id, created_at DESC, id DESC);
-- The system's statistics by range: rows arrive in the order of time, so a few pages of index do.
CREATE INDEX IF NOT EXISTS usage_logs_created ON public.usage_logs USING brin (created_at) WITH (autosummarize);

ALTER TABLE public.usage_logs ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.usage_logs FORCE ROW LEVEL SECURITY;
-- A partition has no policy: reached by its own name it refuses everybody.
ALTER TABLE signgate.usage_logs_default ENABLE ROW LEVEL SECURITY;
ALTER TABLE signgate.usage_logs_default FORCE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS owner_all ON signgate.usage_logs_default;
CREATE POLICY owner_all ON signgate.usage_logs_default TO signgate_owner USING (true) WITH CHECK (true);

DROP POLICY IF EXISTS owner_all ON public.usage_logs;
CREATE POLICY owner_all ON public.usage_logs TO signgate_owner USING (true) WITH CHECK (true);
DROP POLICY IF EXISTS users_view_own ON public.usage_logs;
CREATE POLICY users_view_own ON public.usage_logs FOR SELECT TO authenticated
    USING (user_id = (SELECT auth.uid()));
DROP POLICY IF EXISTS service_role_all ON public.usage_logs;
CREATE POLICY service_role_all ON public.usage_logs TO service_role USING (true) WITH CHECK (true);

GRANT SELECT ON public.usage_logs TO authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.usage_logs TO service_role;
RESET ROLE;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
