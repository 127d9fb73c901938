-- migrate:up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';
SET LOCAL ROLE signgate_owner;

-- A UTC day's requests, by when they arrived: as the rows are, and as usage_days counts them. One row, of one
-- snapshot. Callers: the logger, the service role.
CREATE OR REPLACE FUNCTION public.reconcile_usage_day(p_day date) RETURNS TABLE (
    requests bigint, signatures bigint, counted_requests bigint, counted_signatures bigint
)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
    SELECT (SELECT count(*) FROM public.usage_logs l WHERE l.created_at >= p_day AND l.created_at < p_day + 1),
           (SELECT count(*) FROM public.usage_logs l
            WHERE l.created_at >= p_day AND l.created_at < p_day + 1 AND l.success),
           (SELECT coalesce(sum(d.requests), 0)::bigint FROM public.usage_days d WHERE d.day = p_day::timestamptz),
           (SELECT coalesce(sum(d.requests), 0)::bigint FROM public.usage_days d
            WHERE d.day = p_day::timestamptz AND d.success)
$$;

-- Every user who was charged in a UTC day: what the rows charged, in all and in the pool of keys; and what
-- quota_usage and api_key_quota_usage say. Of one snapshot; those of p_user_ids, or everybody.
-- Callers: the logger, the service role.
CREATE OR REPLACE FUNCTION public.reconcile_charges(p_day date, p_user_ids uuid[] DEFAULT NULL) RETURNS TABLE (
    user_id uuid, in_rows bigint, in_rows_by_keys bigint, counted bigint, counted_by_keys bigint
)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
    WITH charged AS (
        -- The day that is charged is the counter's, which may be the one beside the request's.
        SELECT l.user_id, sum(l.charged) AS total, coalesce(sum(l.charged) FILTER (WHERE l.pool = 'api_key'), 0) AS keyed
        FROM public.usage_logs l
        WHERE l.created_at >= p_day - 1 AND l.created_at < p_day + 2 AND l.charged_day = p_day
          AND l.user_id IS NOT NULL AND (p_user_ids IS NULL OR l.user_id = ANY (p_user_ids))
        GROUP BY l.user_id
    ), counts AS (
        SELECT q.user_id, q.request_count AS total, coalesce(k.keyed, 0) AS keyed
        FROM public.quota_usage q
        LEFT JOIN (SELECT a.user_id, sum(a.request_count) AS keyed FROM public.api_key_quota_usage a
                   WHERE a.date = p_day GROUP BY a.user_id) k ON k.user_id = q.user_id
        WHERE q.date = p_day AND (p_user_ids IS NULL OR q.user_id = ANY (p_user_ids))
    )
    SELECT coalesce(charged.user_id, counts.user_id), coalesce(charged.total, 0)::bigint,
           coalesce(charged.keyed, 0)::bigint, coalesce(counts.total, 0)::bigint, coalesce(counts.keyed, 0)::bigint
    FROM charged FULL JOIN counts ON counts.user_id = charged.user_id
$$;

-- Which of these events are rows: their ids. Callers: the logger, the service role.
CREATE OR REPLACE FUNCTION public.find_usage(p_ids uuid[], p_created_ats timestamptz[]) RETURNS SETOF uuid
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT l.id FROM unnest(p_ids, p_created_ats) AS e (id, created_at)
    JOIN public.usage_logs l ON l.id = e.id AND l.created_at = e.created_at
$$;

GRANT EXECUTE ON FUNCTION public.reconcile_usage_day(date) TO signgate_logger, service_role;
GRANT EXECUTE ON FUNCTION public.reconcile_charges(date, uuid[]) TO signgate_logger, service_role;
GRANT EXECUTE ON FUNCTION public.find_usage(uuid[], timestamptz[]) TO signgate_logger, service_role;
RESET ROLE;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
