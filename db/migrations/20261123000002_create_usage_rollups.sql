-- migrate:up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '30min';  -- what there is already is counted once, below
SET LOCAL ROLE signgate_owner;

-- What usage_logs holds, counted by hour and by day; kept by ingest_usage() in the same statement, so it is
-- exact at any moment, and outlives the rows that retention drops. (Rows that the service role writes into
-- usage_logs itself, instead of by log_api_usage(), are not counted.) The nil UUID stands for a user or a key
-- that there is none of (any more), '' for no reason and no engine. latency_ms is that of latency_bucket().
CREATE TABLE IF NOT EXISTS public.usage_hours (
    user_id uuid NOT NULL,
    hour timestamptz NOT NULL,
    api_key_id uuid NOT NULL,
    success boolean NOT NULL,
    error_message text NOT NULL,
    engine text NOT NULL,
    latency_ms integer NOT NULL,
    requests bigint NOT NULL,
    total_ms bigint NOT NULL,
    charged bigint NOT NULL,
    PRIMARY KEY (user_id, hour, api_key_id, success, error_message, engine, latency_ms)
) WITH (fillfactor = 85);
CREATE TABLE IF NOT EXISTS public.usage_days (
    user_id uuid NOT NULL,
    day timestamptz NOT NULL,
    api_key_id uuid NOT NULL,
    success boolean NOT NULL,
    error_message text NOT NULL,
    engine text NOT NULL,
    latency_ms integer NOT NULL,
    requests bigint NOT NULL,
    total_ms bigint NOT NULL,
    charged bigint NOT NULL,
    PRIMARY KEY (user_id, day, api_key_id, success, error_message, engine, latency_ms)
) WITH (fillfactor = 85);
-- The system's statistics, by range; rows arrive in the order of time.
CREATE INDEX IF NOT EXISTS usage_hours_hour ON public.usage_hours USING brin (hour) WITH (autosummarize);
CREATE INDEX IF NOT EXISTS usage_days_day ON public.usage_days USING brin (day) WITH (autosummarize);

DO $$
DECLARE
    tab text;
BEGIN
    FOREACH tab IN ARRAY ARRAY['usage_hours', 'usage_days'] LOOP
        EXECUTE format('ALTER TABLE public.%I ENABLE ROW LEVEL SECURITY', tab);
        EXECUTE format('ALTER TABLE public.%I FORCE ROW LEVEL SECURITY', tab);
        EXECUTE format('DROP POLICY IF EXISTS owner_all ON public.%I', tab);
        EXECUTE format('CREATE POLICY owner_all ON public.%I TO signgate_owner USING (true) WITH CHECK (true)', tab);
        EXECUTE format('DROP POLICY IF EXISTS users_view_own ON public.%I', tab);
        EXECUTE format('CREATE POLICY users_view_own ON public.%I FOR SELECT TO authenticated
                            USING (user_id = (SELECT auth.uid()))', tab);
        EXECUTE format('DROP POLICY IF EXISTS service_role_all ON public.%I', tab);
        EXECUTE format('CREATE POLICY service_role_all ON public.%I TO service_role USING (true) WITH CHECK (true)', tab);
        EXECUTE format('GRANT SELECT ON public.%I TO authenticated', tab);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON public.%I TO service_role', tab);
    END LOOP;
END
$$;

-- A latency as it is counted: exact below 16 ms, above in eight steps an octave, each told by its middle:
-- off by at most 6.25 %.
CREATE OR REPLACE FUNCTION signgate.latency_bucket(ms integer) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN ms < 16 THEN ms ELSE
    ((ms >> (floor(ln(ms::double precision) / ln(2::double precision) + 1e-9)::integer - 3))
        << (floor(ln(ms::double precision) / ln(2::double precision) + 1e-9)::integer - 3))
    + ((1 << (floor(ln(ms::double precision) / ln(2::double precision) + 1e-9)::integer - 3)) >> 1)
END;

-- As in the first version (create_usage_functions), and the counts by hour and day as well.
CREATE OR REPLACE FUNCTION public.ingest_usage(
    ids uuid[],
    user_ids uuid[],
    api_key_ids uuid[],
    room_urls text[],
    successes boolean[],
    response_times_ms integer[],
    error_messages text[],
    created_ats timestamptz[],
    engines text[],
    pools text[],
    charge_ids uuid[],
    charges integer[],
    charged_days date[]
) RETURNS TABLE (inserted bigint, duplicates bigint, charged bigint)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    n CONSTANT integer := cardinality(ids);
    nobody CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
BEGIN
    IF n IS NULL OR (cardinality(user_ids), cardinality(api_key_ids), cardinality(room_urls), cardinality(successes),
        cardinality(response_times_ms), cardinality(error_messages), cardinality(created_ats), cardinality(engines),
        cardinality(pools), cardinality(charge_ids), cardinality(charges), cardinality(charged_days))
        IS DISTINCT FROM (n, n, n, n, n, n, n, n, n, n, n, n) THEN
        RAISE EXCEPTION 'the arrays differ in length' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN QUERY
    WITH event AS (
        SELECT e.*, u.id AS known_user, k.id AS known_key
        FROM unnest(ids, user_ids, api_key_ids, room_urls, successes, response_times_ms, error_messages, created_ats,
                    engines, pools, charge_ids, charges, charged_days)
            AS e (id, user_id, api_key_id, room_url, success, response_time_ms, error_message, created_at, engine,
                  pool, charge_id, charged, charged_day)
        LEFT JOIN public.users u ON u.id = e.user_id
        LEFT JOIN public.api_keys k ON k.id = e.api_key_id AND k.user_id = e.user_id
    ), new AS (
        INSERT INTO public.usage_logs (id, user_id, api_key_id, room_url, success, response_time_ms, error_message,
                                       created_at, engine, pool, charge_id, charged, charged_day)
        SELECT id, known_user, known_key, room_url, success, response_time_ms, error_message, created_at, engine,
               pool, charge_id, charged,
               CASE WHEN charged > 0 THEN coalesce(charged_day, (created_at AT TIME ZONE 'UTC')::date) END
        FROM event ORDER BY created_at, id
        ON CONFLICT (id, created_at) DO NOTHING
        RETURNING id, created_at, user_id, api_key_id, charged, charged_day,
                  success, error_message, engine, response_time_ms
    ), user_day AS (
        INSERT INTO public.quota_usage AS q (user_id, date, request_count)
        SELECT user_id, charged_day, sum(charged) FROM new
        WHERE charged > 0 AND user_id IS NOT NULL
        GROUP BY user_id, charged_day ORDER BY user_id, charged_day
        ON CONFLICT (user_id, date) DO UPDATE SET request_count = q.request_count + excluded.request_count
    ), gone AS (
        -- Events of keys that are gone: their pool was charged all the same, by the event's own key id.
        SELECT DISTINCT id, created_at, api_key_id FROM event WHERE known_key IS NULL AND api_key_id IS NOT NULL
    ), key_charge AS (
        SELECT api_key_id, user_id, charged_day, charged FROM new WHERE api_key_id IS NOT NULL
        UNION ALL
        SELECT gone.api_key_id, new.user_id, new.charged_day, new.charged
        FROM gone JOIN new ON new.id = gone.id AND new.created_at = gone.created_at
    ), key_day AS (
        INSERT INTO public.api_key_quota_usage AS q (api_key_id, user_id, date, request_count)
        SELECT api_key_id, user_id, charged_day, sum(charged) FROM key_charge
        WHERE charged > 0 AND user_id IS NOT NULL
        GROUP BY api_key_id, user_id, charged_day ORDER BY api_key_id, charged_day
        ON CONFLICT (api_key_id, date) DO UPDATE SET request_count = q.request_count + excluded.request_count
    ), used AS (
        SELECT api_key_id, max(created_at) AS at FROM new WHERE api_key_id IS NOT NULL GROUP BY api_key_id
    ), locked AS (
        SELECT k.id FROM public.api_keys k JOIN used ON used.api_key_id = k.id
        WHERE k.last_used IS NULL OR k.last_used < used.at
        ORDER BY k.id FOR NO KEY UPDATE OF k
    ), touched AS (
        UPDATE public.api_keys k SET last_used = greatest(k.last_used, used.at)
        FROM used JOIN locked ON locked.id = used.api_key_id WHERE k.id = used.api_key_id
    ), of_hour AS (
        SELECT coalesce(user_id, nobody) AS user_id, date_trunc('hour', created_at, 'UTC') AS hour,
               coalesce(api_key_id, nobody) AS api_key_id, success, coalesce(error_message, '') AS error_message,
               coalesce(engine, '') AS engine, signgate.latency_bucket(response_time_ms) AS latency_ms,
               count(*) AS requests, sum(response_time_ms) AS total_ms, sum(charged) AS charged
        FROM new GROUP BY 1, 2, 3, 4, 5, 6, 7
    ), by_hour AS (
        INSERT INTO public.usage_hours AS h (user_id, hour, api_key_id, success, error_message, engine, latency_ms,
                                             requests, total_ms, charged)
        SELECT * FROM of_hour ORDER BY 1, 2, 3, 4, 5, 6, 7
        ON CONFLICT (user_id, hour, api_key_id, success, error_message, engine, latency_ms)
        DO UPDATE SET requests = h.requests + excluded.requests, total_ms = h.total_ms + excluded.total_ms,
                      charged = h.charged + excluded.charged
    ), by_day AS (
        INSERT INTO public.usage_days AS d (user_id, day, api_key_id, success, error_message, engine, latency_ms,
                                            requests, total_ms, charged)
        SELECT user_id, date_trunc('day', hour, 'UTC'), api_key_id, success, error_message, engine, latency_ms,
               sum(requests), sum(total_ms), sum(charged)
        FROM of_hour GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY 1, 2, 3, 4, 5, 6, 7
        ON CONFLICT (user_id, day, api_key_id, success, error_message, engine, latency_ms)
        DO UPDATE SET requests = d.requests + excluded.requests, total_ms = d.total_ms + excluded.total_ms,
                      charged = d.charged + excluded.charged
    )
    SELECT count(*), n - count(*), coalesce(sum(new.charged), 0) FROM new;
END
$$;

-- Usage that is there already. Nobody writes meanwhile.
LOCK TABLE public.usage_logs IN SHARE ROW EXCLUSIVE MODE;
INSERT INTO public.usage_hours
SELECT coalesce(user_id, '00000000-0000-0000-0000-000000000000'), date_trunc('hour', created_at, 'UTC'),
       coalesce(api_key_id, '00000000-0000-0000-0000-000000000000'), success, coalesce(error_message, ''),
       coalesce(engine, ''), signgate.latency_bucket(response_time_ms), count(*), sum(response_time_ms), sum(charged)
FROM public.usage_logs GROUP BY 1, 2, 3, 4, 5, 6, 7
ON CONFLICT DO NOTHING;
INSERT INTO public.usage_days
SELECT user_id, date_trunc('day', hour, 'UTC'), api_key_id, success, error_message, engine, latency_ms,
       sum(requests), sum(total_ms), sum(charged)
FROM public.usage_hours GROUP BY 1, 2, 3, 4, 5, 6, 7
ON CONFLICT DO NOTHING;

-- A user or a key that is deleted: the counts stay, as nobody's.
CREATE OR REPLACE FUNCTION signgate.keep_counts_of_deleted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    nobody CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
    is_user CONSTANT boolean := TG_TABLE_NAME = 'users';
    owner_id CONSTANT uuid := CASE WHEN TG_TABLE_NAME = 'users' THEN OLD.id ELSE (to_jsonb(OLD) ->> 'user_id')::uuid END;
BEGIN
    WITH gone AS (
        DELETE FROM public.usage_hours WHERE user_id = owner_id AND (is_user OR api_key_id = OLD.id) RETURNING *
    )
    INSERT INTO public.usage_hours AS h
    SELECT CASE WHEN is_user THEN nobody ELSE owner_id END, hour, nobody, success, error_message, engine, latency_ms,
           sum(requests), sum(total_ms), sum(charged)
    FROM gone GROUP BY hour, success, error_message, engine, latency_ms
    ORDER BY hour, success, error_message, engine, latency_ms
    ON CONFLICT (user_id, hour, api_key_id, success, error_message, engine, latency_ms)
    DO UPDATE SET requests = h.requests + excluded.requests, total_ms = h.total_ms + excluded.total_ms,
                  charged = h.charged + excluded.charged;
    WITH gone AS (
        DELETE FROM public.usage_days WHERE user_id = owner_id AND (is_user OR api_key_id = OLD.id) RETURNING *
    )
    INSERT INTO public.usage_days AS d
    SELECT CASE WHEN is_user THEN nobody ELSE owner_id END, day, nobody, success, error_message, engine, latency_ms,
           sum(requests), sum(total_ms), sum(charged)
    FROM gone GROUP BY day, success, error_message, engine, latency_ms
    ORDER BY day, success, error_message, engine, latency_ms
    ON CONFLICT (user_id, day, api_key_id, success, error_message, engine, latency_ms)
    DO UPDATE SET requests = d.requests + excluded.requests, total_ms = d.total_ms + excluded.total_ms,
                  charged = d.charged + excluded.charged;
    RETURN NULL;
END
$$;
DROP TRIGGER IF EXISTS keep_counts ON public.users;
CREATE TRIGGER keep_counts AFTER DELETE ON public.users
    FOR EACH ROW EXECUTE FUNCTION signgate.keep_counts_of_deleted();
DROP TRIGGER IF EXISTS keep_counts ON public.api_keys;
CREATE TRIGGER keep_counts AFTER DELETE ON public.api_keys
    FOR EACH ROW EXECUTE FUNCTION signgate.keep_counts_of_deleted();

-- A user's requests from p_start to before p_end, counted: whole hours from usage_hours, or from usage_days
-- where p_by_day allows it, and what is left at both ends from the rows themselves. `at` is the beginning
-- of an hour or a day, or a moment.
-- Callers: that user, the service role. Errors: 42501.
CREATE OR REPLACE FUNCTION public.get_usage_counts(
    p_user_id uuid, p_start timestamptz, p_end timestamptz, p_by_day boolean DEFAULT true
) RETURNS TABLE (
    at timestamptz, api_key_id uuid, success boolean, error_message text, engine text, latency_ms integer,
    requests bigint, total_ms bigint, charged bigint
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    nobody CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
    first_hour timestamptz := date_trunc('hour', p_start + interval '1 hour' - interval '1 microsecond', 'UTC');
    last_hour timestamptz := date_trunc('hour', p_end, 'UTC');  -- excluded
    first_day timestamptz;
    last_day timestamptz;  -- excluded
BEGIN
    PERFORM signgate.require_self(p_user_id);
    IF first_hour >= last_hour THEN
        first_hour := p_end;
        last_hour := p_end;
    END IF;
    RETURN QUERY
        SELECT l.created_at, coalesce(l.api_key_id, nobody), l.success, coalesce(l.error_message, ''),
               coalesce(l.engine, ''), signgate.latency_bucket(l.response_time_ms), 1::bigint,
               l.response_time_ms::bigint, l.charged::bigint
        FROM public.usage_logs l
        WHERE l.user_id = p_user_id AND l.created_at >= p_start AND l.created_at < first_hour
        UNION ALL
        SELECT l.created_at, coalesce(l.api_key_id, nobody), l.success, coalesce(l.error_message, ''),
               coalesce(l.engine, ''), signgate.latency_bucket(l.response_time_ms), 1::bigint,
               l.response_time_ms::bigint, l.charged::bigint
        FROM public.usage_logs l
        WHERE l.user_id = p_user_id AND l.created_at >= last_hour AND l.created_at < p_end;
    first_day := date_trunc('day', first_hour + interval '1 day' - interval '1 microsecond', 'UTC');
    last_day := date_trunc('day', last_hour, 'UTC');
    IF NOT p_by_day OR first_day >= last_day THEN
        first_day := last_hour;
        last_day := last_hour;
    END IF;
    RETURN QUERY
        SELECT h.hour, h.api_key_id, h.success, h.error_message, h.engine, h.latency_ms, h.requests, h.total_ms,
               h.charged
        FROM public.usage_hours h
        WHERE h.user_id = p_user_id AND h.hour >= first_hour AND h.hour < first_day
        UNION ALL
        SELECT h.hour, h.api_key_id, h.success, h.error_message, h.engine, h.latency_ms, h.requests, h.total_ms,
               h.charged
        FROM public.usage_hours h
        WHERE h.user_id = p_user_id AND h.hour >= last_day AND h.hour < last_hour;
    RETURN QUERY
        SELECT d.day, d.api_key_id, d.success, d.error_message, d.engine, d.latency_ms, d.requests, d.total_ms,
               d.charged
        FROM public.usage_days d
        WHERE d.user_id = p_user_id AND d.day >= first_day AND d.day < last_day;
END
$$;

-- A user's requests from p_start to before p_end, of all their keys or of one. Always one row; times are
-- milliseconds, NULL when there was no request; percentiles are those of latency_bucket().
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
        WITH part AS (
            SELECT c.latency_ms AS ms, sum(c.requests) AS n, sum(c.requests) FILTER (WHERE c.success) AS good,
                   sum(c.charged) AS charged, sum(c.total_ms) AS total
            FROM public.get_usage_counts(p_user_id, p_start, p_end) c
            WHERE p_api_key_id IS NULL OR c.api_key_id = p_api_key_id
            GROUP BY c.latency_ms
        ), ranked AS (
            SELECT part.*, sum(n) OVER (ORDER BY ms) AS upto, sum(n) OVER () AS all_of_them FROM part
        )
        SELECT coalesce(sum(r.n), 0)::bigint, coalesce(sum(r.good), 0)::bigint,
               (coalesce(sum(r.n), 0) - coalesce(sum(r.good), 0))::bigint, coalesce(sum(r.charged), 0)::bigint,
               (sum(r.total) / sum(r.n))::double precision,
               min(r.ms) FILTER (WHERE r.upto >= 0.5 * r.all_of_them)::double precision,
               min(r.ms) FILTER (WHERE r.upto >= 0.95 * r.all_of_them)::double precision,
               min(r.ms) FILTER (WHERE r.upto >= 0.99 * r.all_of_them)::double precision,
               (SELECT l.created_at FROM public.usage_logs l
                WHERE l.user_id = p_user_id AND l.created_at >= p_start AND l.created_at < p_end
                  AND (p_api_key_id IS NULL OR l.api_key_id = p_api_key_id)
                ORDER BY l.created_at DESC LIMIT 1)
        FROM ranked r;
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
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    nobody CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
    first_hour timestamptz := date_trunc('hour', p_start + interval '1 hour' - interval '1 microsecond', 'UTC');
    last_hour timestamptz := date_trunc('hour', p_end, 'UTC');  -- excluded
BEGIN
    IF first_hour >= last_hour THEN
        first_hour := p_end;
        last_hour := p_end;
    END IF;
    RETURN QUERY
        WITH counted AS (
            SELECT coalesce(l.user_id, nobody) AS user_id, l.success,
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
               (SELECT count(DISTINCT c.user_id) FROM counted c WHERE c.user_id <> nobody),
               (SELECT count(*) FROM public.api_keys k JOIN public.users u ON u.id = k.user_id
                WHERE k.is_active AND u.is_active AND coalesce(least(k.expires_at, k.grace_until) > now(), true)),
               (SELECT coalesce(jsonb_object_agg(t.tier, t.n), '{}')
                FROM (SELECT tier, count(*) AS n FROM public.users GROUP BY tier) t)
        FROM ranked r;
END
$$;

GRANT EXECUTE ON FUNCTION public.get_usage_counts(uuid, timestamptz, timestamptz, boolean)
    TO authenticated, service_role;
RESET ROLE;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
