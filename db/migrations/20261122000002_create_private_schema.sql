-- migrate:up
-- Helpers, trigger functions and the partitions of usage_logs live in a schema that no role but the
-- owner may use, so that no interface over `public` shows them.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

CREATE SCHEMA IF NOT EXISTS signgate AUTHORIZATION signgate_owner;

DO $$
BEGIN
    -- dbmate's table is no exception to "row level security on every table". Not forced: dbmate owns it.
    IF to_regclass('public.schema_migrations') IS NOT NULL THEN
        ALTER TABLE public.schema_migrations ENABLE ROW LEVEL SECURITY;
        REVOKE ALL ON public.schema_migrations FROM PUBLIC, anon, authenticated, service_role;
    END IF;
END
$$;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
