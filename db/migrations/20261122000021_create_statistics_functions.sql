-- migrate:up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';
SET LOCAL ROLE signgate_owner;

-- A user's requests from p_start to before p_end, of all their keys or of one. Always one row; times are
-- milliseconds, NULL when there was no request.
-- Callers: that user, the service role. Errors: 42501.
CREATE OR REPLACE FUNCTION public.get_user_usage_stats(
    p_user_id uuid,
    p_start timestamptz DEFAULT now() - interval '30 days',
    p_end timestamptz DEFAULT now(),
    p_api_key_id uuid DEFAULT NULL
) RETURNS TABLE (
    total_requests bigint, successful_requests bigint, failed_requests bigint, charged bigint,
    average_response_time_ms double precision, p50_response_time_ms double precision,
    p95_response_time_ms double precision, p99_response_time_ms double precision, last_request_at timestamptz
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM signgate.require_self(p_user_id);
    RETURN QUERY
        SELECT count(*), count(*) FILTER (WHERE l.success), count(*) FILTER (WHERE NOT l.success),
               coalesce(sum(l.charged), 0), avg(l.response_time_ms)::double precision,
               percentile_cont(0.5) WITHIN GROUP (ORDER BY l.response_time_ms),
               percentile_cont(0.95) WITHIN GROUP (ORDER BY l.response_time_ms),
               percentile_cont(0.99) WITHIN GROUP (ORDER BY l.response_time_ms),
               max(l.created_at)
        FROM public.usage_logs l
        WHERE l.user_id = p_user_id AND l.created_at >= p_start AND l.created_at < p_end
          AND (p_api_key_id IS NULL OR l.api_key_id = p_api_key_id);
END
$$;

-- Everybody's requests from p_start to before p_end, and how many accounts and keys there are now.
-- `active_users` made a request in the time; `active_api_keys` work now. Always one row.
-- Callers: the logger (for administrators), the service role.
CREATE OR REPLACE FUNCTION public.get_system_usage_stats(
    p_start timestamptz DEFAULT now() - interval '24 hours', p_end timestamptz DEFAULT now()
) RETURNS TABLE (
    total_requests bigint, successful_requests bigint, failed_requests bigint, charged bigint,
    average_response_time_ms double precision, p50_response_time_ms double precision,
    p95_response_time_ms double precision, p99_response_time_ms double precision,
    total_users bigint, active_users bigint, active_api_keys bigint, users_by_tier jsonb
)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT count(*), count(*) FILTER (WHERE l.success), count(*) FILTER (WHERE NOT l.success),
           coalesce(sum(l.charged), 0), avg(l.response_time_ms)::double precision,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY l.response_time_ms),
           percentile_cont(0.95) WITHIN GROUP (ORDER BY l.response_time_ms),
           percentile_cont(0.99) WITHIN GROUP (ORDER BY l.response_time_ms),
           (SELECT count(*) FROM public.users),
           count(DISTINCT l.user_id),
           (SELECT count(*) FROM public.api_keys k JOIN public.users u ON u.id = k.user_id
            WHERE k.is_active AND u.is_active AND coalesce(least(k.expires_at, k.grace_until) > now(), true)),
           (SELECT coalesce(jsonb_object_agg(t.tier, t.n), '{}')
            FROM (SELECT tier, count(*) AS n FROM public.users GROUP BY tier) t)
    FROM public.usage_logs l
    WHERE l.created_at >= p_start AND l.created_at < p_end
$$;

GRANT EXECUTE ON FUNCTION public.get_user_usage_stats(uuid, timestamptz, timestamptz, uuid)
    TO authenticated, service_role;
GRANT EXECUTE ON FUNCTION public.get_system_usage_stats(timestamptz, timestamptz) TO signgate_logger, service_role;
RESET ROLE;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
