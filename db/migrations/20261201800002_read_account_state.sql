-- migrate:up
-- All that asked whether an account is active asks account_state(). Names, arguments and results stay as they were:
-- instances of the last version read the same fact.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';
SET LOCAL ROLE signgate_owner;

CREATE OR REPLACE VIEW signgate.key_records AS
SELECT k.id AS api_key_id, k.key_hash, k.user_id, u.tier, public.account_state(u) = 'active' AS user_is_active, k.scopes,
       k.mode, k.is_active, k.revoked_at, k.expires_at, k.grace_until, k.cidrs, k.daily_limit, k.per_minute, k.engine,
       k.pepper_version, k.updated_at
FROM public.api_keys k JOIN public.users u ON u.id = k.user_id;

-- What the keys service keeps in memory of these keys, whether they work or not, with why the account may not act;
-- a key that is not there has no row. Caller: the keys service.
CREATE OR REPLACE FUNCTION public.read_key_records(key_ids uuid[])
RETURNS TABLE (api_key_id uuid, key_hash text, user_id uuid, tier text, account_state text, banned_until timestamptz,
               scopes text[], revoked_at timestamptz, expires_at timestamptz, grace_until timestamptz, cidrs cidr[],
               daily_limit bigint, per_minute integer, engine text, pepper_version integer)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT k.id, k.key_hash, k.user_id, u.tier, public.account_state(u), u.banned_until, k.scopes, k.revoked_at,
           k.expires_at, k.grace_until, k.cidrs, k.daily_limit, k.per_minute, k.engine, k.pepper_version
    FROM public.api_keys k JOIN public.users u ON u.id = k.user_id
    WHERE k.id = ANY (key_ids)
$$;
GRANT EXECUTE ON FUNCTION public.read_key_records(uuid[]) TO signgate_keys;

CREATE OR REPLACE FUNCTION public.validate_api_key(p_key_hash text)
RETURNS TABLE (api_key_id uuid, user_id uuid, tier text, scopes text[], mode text, cidrs cidr[],
               daily_limit bigint, per_minute integer, expires_at timestamptz)
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE public.api_keys k SET last_used = now()
    FROM public.users u
    WHERE k.key_hash = p_key_hash AND u.id = k.user_id AND public.account_state(u) = 'active' AND k.is_active
      AND coalesce(least(k.expires_at, k.grace_until) > now(), true)
    RETURNING k.id, k.user_id, u.tier, k.scopes, k.mode, k.cidrs, k.daily_limit, k.per_minute, k.expires_at
$$;

-- `is_active`: the account may act.
CREATE OR REPLACE FUNCTION public.get_user_limits(user_ids uuid[])
RETURNS TABLE (user_id uuid, tier text, is_active boolean, pool text, daily_limit bigint, per_minute integer,
               burst integer)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT u.id, u.tier, public.account_state(u) = 'active', p.tier, coalesce(o.daily_limit, p.daily_limit),
           coalesce(o.per_minute, p.per_minute), coalesce(o.burst, p.burst)
    FROM public.users u
    CROSS JOIN public.plans p
    LEFT JOIN public.user_plan_overrides o
        ON o.user_id = u.id AND o.pool = p.tier AND coalesce(o.expires_at > now(), true)
    WHERE u.id = ANY (user_ids)
$$;

-- Makes the alerts that are due today, of these users or of everybody whose account may act: the highest threshold
-- that a pool has come to. Each only once a day, however often and by how many it is called. Returns how many are new.
-- Callers: the logger, the service role.
CREATE OR REPLACE FUNCTION public.raise_quota_alerts(p_user_ids uuid[] DEFAULT NULL, p_day date DEFAULT NULL)
RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    today CONSTANT date := coalesce(p_day, current_date);
    made integer;
BEGIN
    WITH used AS (
        SELECT q.user_id, q.request_count - coalesce(k.keyed, 0) AS free, coalesce(k.keyed, 0) AS keyed
        FROM public.quota_usage q
        JOIN public.users a ON a.id = q.user_id AND public.account_state(a) = 'active'
        LEFT JOIN LATERAL (SELECT sum(a.request_count) AS keyed FROM public.api_key_quota_usage a
                           WHERE a.user_id = q.user_id AND a.date = today) k ON true
        WHERE q.date = today AND (p_user_ids IS NULL OR q.user_id = ANY (p_user_ids))
    ), pool AS (
        SELECT u.user_id, p.tier, CASE p.tier WHEN 'free' THEN u.free ELSE u.keyed END AS used,
               coalesce(o.daily_limit, p.daily_limit) AS daily_limit
        FROM used u CROSS JOIN public.plans p
        LEFT JOIN public.user_plan_overrides o ON o.user_id = u.user_id AND o.pool = p.tier
            AND (o.expires_at IS NULL OR o.expires_at > now())
        WHERE p.tier IN ('free', 'api_key')
    )
    INSERT INTO public.quota_alerts (user_id, pool, date, threshold, used, daily_limit, mail, webhook)
    SELECT pool.user_id, pool.tier, today, CASE WHEN pool.used >= pool.daily_limit THEN 100 ELSE 80 END, pool.used,
           pool.daily_limit, CASE WHEN coalesce(s.mail, true) THEN 'pending' ELSE 'off' END,
           CASE WHEN s.webhook_url IS NULL THEN 'off' ELSE 'pending' END
    FROM pool LEFT JOIN public.alert_settings s ON s.user_id = pool.user_id
    WHERE pool.daily_limit > 0 AND pool.used * 100 >= pool.daily_limit * 80
    ON CONFLICT (user_id, date, pool, threshold) DO NOTHING;
    GET DIAGNOSTICS made = ROW_COUNT;
    RETURN made;
END
$$;

-- Takes up to p_count alerts that are to be delivered now; no other call gets them for p_hold. Those of an account
-- that may not act wait.
-- Caller: the logger.
CREATE OR REPLACE FUNCTION public.claim_quota_alerts(p_count integer, p_hold interval) RETURNS TABLE (
    id uuid, user_id uuid, pool text, date date, threshold bigint, used bigint, daily_limit bigint,
    created_at timestamptz, attempts integer, email text, webhook_url text, webhook_secret text
)
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    WITH due AS (
        SELECT a.id FROM public.quota_alerts a JOIN public.users o ON o.id = a.user_id
        WHERE public.account_state(o) = 'active' AND (a.mail = 'pending' OR a.webhook = 'pending')
          AND a.next_attempt_at <= now()
        ORDER BY a.next_attempt_at LIMIT p_count FOR UPDATE OF a SKIP LOCKED
    ), taken AS (
        UPDATE public.quota_alerts a SET next_attempt_at = now() + p_hold, attempts = a.attempts + 1
        FROM due WHERE a.id = due.id RETURNING a.*
    )
    SELECT t.id, t.user_id, t.pool, t.date, t.threshold, t.used, t.daily_limit, t.created_at, t.attempts,
           CASE WHEN t.mail = 'pending' THEN u.email END,
           CASE WHEN t.webhook = 'pending' THEN s.webhook_url END,
           CASE WHEN t.webhook = 'pending' THEN s.webhook_secret END
    FROM taken t JOIN public.users u ON u.id = t.user_id LEFT JOIN public.alert_settings s ON s.user_id = t.user_id
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
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    no_user CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
    first_hour timestamptz := date_trunc('hour', p_start + interval '1 hour' - interval '1 microsecond', 'UTC');
    last_hour timestamptz := date_trunc('hour', p_end, 'UTC');  -- excluded
BEGIN
    IF first_hour >= last_hour THEN
        first_hour := p_end;
        last_hour := p_end;
    END IF;
    RETURN QUERY
        WITH counted AS (
            SELECT coalesce(l.user_id, no_user) AS user_id, l.success,
                   signgate.latency_bucket(l.response_time_ms) AS ms, count(*) AS n, sum(l.charged) AS charged,
                   sum(l.response_time_ms) AS total
            FROM public.usage_logs l
            WHERE (l.created_at >= p_start AND l.created_at < first_hour)
               OR (l.created_at >= last_hour AND l.created_at < p_end)
            GROUP BY 1, 2, 3
            UNION ALL
            SELECT h.user_id, h.success, h.latency_ms, sum(h.requests), sum(h.charged), sum(h.total_ms)
            FROM public.usage_hours h WHERE h.hour >= first_hour AND h.hour < last_hour
            GROUP BY 1, 2, 3
        ), part AS (
            SELECT ms, sum(n) AS n, sum(n) FILTER (WHERE success) AS good, sum(charged) AS charged,
                   sum(total) AS total
            FROM counted GROUP BY ms
        ), ranked AS (
            SELECT part.*, sum(n) OVER (ORDER BY ms) AS upto, sum(n) OVER () AS all_of_them FROM part
        )
        SELECT coalesce(sum(r.n), 0)::bigint, coalesce(sum(r.good), 0)::bigint,
               (coalesce(sum(r.n), 0) - coalesce(sum(r.good), 0))::bigint, coalesce(sum(r.charged), 0)::bigint,
               (sum(r.total) / sum(r.n))::double precision,
               min(r.ms) FILTER (WHERE r.upto >= 0.5 * r.all_of_them)::double precision,
               min(r.ms) FILTER (WHERE r.upto >= 0.95 * r.all_of_them)::double precision,
               min(r.ms) FILTER (WHERE r.upto >= 0.99 * r.all_of_them)::double precision,
               (SELECT count(*) FROM public.users),
               (SELECT count(DISTINCT c.user_id) FROM counted c WHERE c.user_id <> no_user),
               (SELECT count(*) FROM public.api_keys k JOIN public.users u ON u.id = k.user_id
                WHERE k.is_active AND public.account_state(u) = 'active'
                  AND coalesce(least(k.expires_at, k.grace_until) > now(), true)),
               (SELECT coalesce(jsonb_object_agg(t.tier, t.n), '{}')
                FROM (SELECT tier, count(*) AS n FROM public.users GROUP BY tier) t)
        FROM ranked r;
END
$$;
RESET ROLE;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
