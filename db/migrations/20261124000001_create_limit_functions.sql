-- migrate:up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';
SET LOCAL ROLE signgate_owner;

-- Changes a plan; NULLs leave what there is. Returns it as it is now; no row: there is no such plan.
-- Callers: the quota service (for administrators), the service role. Errors: 23514 (a limit that is none).
CREATE OR REPLACE FUNCTION public.set_plan(p_tier text, p_daily_limit bigint, p_per_minute integer, p_burst integer)
RETURNS TABLE (tier text, daily_limit bigint, per_minute integer, burst integer, updated_at timestamptz)
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE public.plans p
    SET daily_limit = coalesce(p_daily_limit, p.daily_limit), per_minute = coalesce(p_per_minute, p.per_minute),
        burst = coalesce(p_burst, p.burst), updated_at = now()
    WHERE p.tier = p_tier
    RETURNING p.tier, p.daily_limit, p.per_minute, p.burst, p.updated_at
$$;

-- Replaces what a user has in a pool instead of the plan's limits; without any limit, takes it away.
-- Returns it as it is now, or no row. Callers: the quota service (for administrators), the service role.
-- Errors: 23503 (no such user or pool), 23514 (a limit that is none).
CREATE OR REPLACE FUNCTION public.set_user_plan_override(
    p_user_id uuid, p_pool text, p_daily_limit bigint, p_per_minute integer, p_burst integer,
    p_expires_at timestamptz, p_reason text
) RETURNS SETOF public.user_plan_overrides
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF coalesce(p_daily_limit, p_per_minute, p_burst) IS NULL THEN
        PERFORM FROM public.users WHERE id = p_user_id;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'no such user' USING ERRCODE = 'foreign_key_violation';
        END IF;
        DELETE FROM public.user_plan_overrides WHERE user_id = p_user_id AND pool = p_pool;
        RETURN;
    END IF;
    RETURN QUERY
        INSERT INTO public.user_plan_overrides AS o
            (user_id, pool, daily_limit, per_minute, burst, expires_at, reason)
        VALUES (p_user_id, p_pool, p_daily_limit, p_per_minute, p_burst, p_expires_at, p_reason)
        ON CONFLICT (user_id, pool) DO UPDATE
            SET daily_limit = excluded.daily_limit, per_minute = excluded.per_minute, burst = excluded.burst,
                expires_at = excluded.expires_at, reason = excluded.reason, updated_at = now()
        RETURNING o.*;
END
$$;

GRANT EXECUTE ON FUNCTION public.set_plan(text, bigint, integer, integer) TO signgate_quota, service_role;
GRANT EXECUTE ON FUNCTION public.set_user_plan_override(uuid, text, bigint, integer, integer, timestamptz, text)
    TO signgate_quota, service_role;
RESET ROLE;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
