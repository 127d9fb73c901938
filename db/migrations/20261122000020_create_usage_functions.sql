-- migrate:up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';
SET LOCAL ROLE signgate_owner;

-- Writes usage events, in one statement: rows of usage_logs, and for those that were not there before,
-- quota_usage, api_key_quota_usage and api_keys.last_used. Member i of each array is event i.
--
-- Idempotent by (id, created_at), also when several run at once: an event counts once, ever. An event of a
-- user or a key that is gone keeps its row, without them; what a deleted key was charged stays charged
-- to its owner. Rows are written in one order, so that concurrent calls wait and do not deadlock.
-- Times are cut to microseconds by the caller; charged_days may be NULL (the day of created_at).
--
-- Returns how many rows are new, how many were there, and how many signatures were charged now.
-- Caller: the logger. Errors: 22023 (arrays of unequal length); 23502, 23514 (an event that can't be a
-- row: the whole call is undone); 23503 (a user or key was deleted meanwhile: try again).
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
        RETURNING id, created_at, user_id, api_key_id, charged, charged_day
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
    )
    SELECT count(*), n - count(*), coalesce(sum(new.charged), 0) FROM new;
END
$$;

-- Writes one request. Charges nothing unless p_charged says so (update_quota_usage() is the other way to
-- count it). Returns its id; the same id and created_at again change nothing.
-- Callers: the logger, the service role. Errors as ingest_usage().
CREATE OR REPLACE FUNCTION public.log_api_usage(
    p_user_id uuid,
    p_api_key_id uuid,
    p_room_url text,
    p_success boolean,
    p_response_time_ms integer,
    p_error_message text DEFAULT NULL,
    p_id uuid DEFAULT gen_random_uuid(),
    p_created_at timestamptz DEFAULT now(),
    p_engine text DEFAULT NULL,
    p_pool text DEFAULT NULL,
    p_charged integer DEFAULT 0
) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM public.ingest_usage(
        ARRAY[p_id], ARRAY[p_user_id], ARRAY[p_api_key_id], ARRAY[p_room_url], ARRAY[p_success],
        ARRAY[p_response_time_ms], ARRAY[p_error_message], ARRAY[p_created_at], ARRAY[p_engine], ARRAY[p_pool],
        ARRAY[NULL::uuid], ARRAY[p_charged], ARRAY[NULL::date]);
    RETURN p_id;
END
$$;

GRANT EXECUTE ON FUNCTION public.ingest_usage(
    uuid[], uuid[], uuid[], text[], boolean[], integer[], text[], timestamptz[], text[], text[], uuid[], integer[], date[]
) TO signgate_logger;
GRANT EXECUTE ON FUNCTION public.log_api_usage(
    uuid, uuid, text, boolean, integer, text, uuid, timestamptz, text, text, integer
) TO signgate_logger, service_role;
RESET ROLE;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
