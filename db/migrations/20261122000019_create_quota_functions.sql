-- migrate:up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';
SET LOCAL ROLE signgate_owner;

-- Days are UTC days everywhere, whatever the session's time zone.
CREATE OR REPLACE FUNCTION signgate.utc_today() RETURNS date
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT (now() AT TIME ZONE 'UTC')::date $$;

-- The limits in force of each user in each pool: the plan's, or an override's that has not ended. Users
-- that do not exist have no rows. Callers: the quota service, the service role.
CREATE OR REPLACE FUNCTION public.get_user_limits(user_ids uuid[])
RETURNS TABLE (user_id uuid, tier text, is_active boolean, pool text, daily_limit bigint, per_minute integer,
               burst integer)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT u.id, u.tier, u.is_active, p.tier, coalesce(o.daily_limit, p.daily_limit),
           coalesce(o.per_minute, p.per_minute), coalesce(o.burst, p.burst)
    FROM public.users u
    CROSS JOIN public.plans p
    LEFT JOIN public.user_plan_overrides o
        ON o.user_id = u.id AND o.pool = p.tier AND coalesce(o.expires_at > now(), true)
    WHERE u.id = ANY (user_ids)
$$;

-- What a user was charged on a UTC day (NULL: today), in all and by pool. Always one row.
-- Callers: that user, the quota service, the service role. Errors: 42501.
CREATE OR REPLACE FUNCTION public.get_user_quota_usage(p_user_id uuid, p_date date DEFAULT NULL)
RETURNS TABLE (date date, request_count integer, free_count integer, api_key_count integer)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM signgate.require_self(p_user_id);
    date := coalesce(p_date, signgate.utc_today());
    request_count := coalesce(
        (SELECT q.request_count FROM public.quota_usage q WHERE q.user_id = p_user_id AND q.date = get_user_quota_usage.date), 0);
    api_key_count := coalesce(
        (SELECT sum(k.request_count) FROM public.api_key_quota_usage k
         WHERE k.user_id = p_user_id AND k.date = get_user_quota_usage.date), 0);
    free_count := request_count - api_key_count;
    RETURN NEXT;
END
$$;

-- Whether a user's day (UTC, today) is used up in a pool (NULL: the one of their tier), against the limit
-- in force or a given one. `exceeded`: not one more signature fits. No row: no such user.
-- Callers: that user, the quota service, the service role. Errors: 42501.
CREATE OR REPLACE FUNCTION public.check_user_quota_limit(
    p_user_id uuid, p_daily_limit bigint DEFAULT NULL, p_pool text DEFAULT NULL
) RETURNS TABLE (exceeded boolean, used bigint, daily_limit bigint, remaining bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM signgate.require_self(p_user_id);
    RETURN QUERY
        SELECT counted.used >= counted.allowed, counted.used, counted.allowed,
               greatest(counted.allowed - counted.used, 0)
        FROM (
            SELECT coalesce(p_daily_limit, l.daily_limit) AS allowed,
                   (CASE l.pool WHEN 'free' THEN q.free_count ELSE q.api_key_count END)::bigint AS used
            FROM public.get_user_limits(ARRAY[p_user_id]) l, public.get_user_quota_usage(p_user_id) q
            WHERE l.pool = coalesce(p_pool, l.tier)
        ) counted;
END
$$;

-- Adds to a user's count of a UTC day (NULL: today), and to a key's when it is given; returns the user's
-- new count. Not idempotent: the logger counts by ingest_usage(). Callers: the logger, the service role.
-- Errors: 22023 (p_count is not positive), 23503 (no such user).
CREATE OR REPLACE FUNCTION public.update_quota_usage(
    p_user_id uuid, p_count integer DEFAULT 1, p_api_key_id uuid DEFAULT NULL, p_date date DEFAULT NULL
) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    day CONSTANT date := coalesce(p_date, signgate.utc_today());
    total integer;
BEGIN
    IF p_count IS NULL OR p_count <= 0 THEN
        RAISE EXCEPTION 'the count must be positive' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    INSERT INTO public.quota_usage AS q (user_id, date, request_count) VALUES (p_user_id, day, p_count)
    ON CONFLICT (user_id, date) DO UPDATE SET request_count = q.request_count + excluded.request_count
    RETURNING q.request_count INTO total;
    IF p_api_key_id IS NOT NULL THEN
        INSERT INTO public.api_key_quota_usage AS k (api_key_id, user_id, date, request_count)
        VALUES (p_api_key_id, p_user_id, day, p_count)
        ON CONFLICT (api_key_id, date) DO UPDATE SET request_count = k.request_count + excluded.request_count;
    END IF;
    RETURN total;
END
$$;

GRANT EXECUTE ON FUNCTION public.get_user_limits(uuid[]) TO signgate_quota, service_role;
GRANT EXECUTE ON FUNCTION public.get_user_quota_usage(uuid, date) TO authenticated, signgate_quota, service_role;
GRANT EXECUTE ON FUNCTION public.check_user_quota_limit(uuid, bigint, text)
    TO authenticated, signgate_quota, service_role;
GRANT EXECUTE ON FUNCTION public.update_quota_usage(uuid, integer, uuid, date) TO signgate_logger, service_role;
RESET ROLE;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
