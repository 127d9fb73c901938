-- migrate:up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';
SET LOCAL ROLE signgate_owner;

-- Where a user wants to be told; without a row: by mail, and by no webhook. Reached by functions only, for
-- the webhook's secret signs what it receives.
CREATE TABLE IF NOT EXISTS public.alert_settings (
    user_id uuid PRIMARY KEY REFERENCES public.users (id) ON DELETE CASCADE,
    mail boolean NOT NULL DEFAULT true,
    webhook_url text CHECK (length(webhook_url) <= 2048),
    webhook_secret text,
    updated_at timestamptz NOT NULL DEFAULT now(),
    CHECK ((webhook_url IS NULL) = (webhook_secret IS NULL))
);

-- Each is made once: a pool's day has come to 80 or to 100 % of its limit. A state is `pending`, `sent`,
-- `failed` (given up), or `off` (not wanted).
CREATE TABLE IF NOT EXISTS public.quota_alerts (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL REFERENCES public.users (id) ON DELETE CASCADE,
    pool text NOT NULL REFERENCES public.plans (tier),
    date date NOT NULL,
    threshold bigint NOT NULL CHECK (threshold IN (80, 100)),
    used bigint NOT NULL,
    daily_limit bigint NOT NULL,
    mail text NOT NULL CHECK (mail IN ('pending', 'sent', 'failed', 'off')),
    webhook text NOT NULL CHECK (webhook IN ('pending', 'sent', 'failed', 'off')),
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (user_id, date, pool, threshold)
);
CREATE INDEX IF NOT EXISTS quota_alerts_pending ON public.quota_alerts (next_attempt_at)
    WHERE mail = 'pending' OR webhook = 'pending';

ALTER TABLE public.alert_settings ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.alert_settings FORCE ROW LEVEL SECURITY;
ALTER TABLE public.quota_alerts ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.quota_alerts FORCE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS owner_all ON public.alert_settings;
CREATE POLICY owner_all ON public.alert_settings TO signgate_owner USING (true) WITH CHECK (true);
DROP POLICY IF EXISTS owner_all ON public.quota_alerts;
CREATE POLICY owner_all ON public.quota_alerts TO signgate_owner USING (true) WITH CHECK (true);
DROP POLICY IF EXISTS users_view_own ON public.quota_alerts;
CREATE POLICY users_view_own ON public.quota_alerts FOR SELECT TO authenticated
    USING (user_id = (SELECT auth.uid()));
DROP POLICY IF EXISTS service_role_all ON public.quota_alerts;
CREATE POLICY service_role_all ON public.quota_alerts TO service_role USING (true) WITH CHECK (true);
GRANT SELECT ON public.quota_alerts TO authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.quota_alerts TO service_role;

-- A user's wishes, without the secret. Always one row. Callers: that user, the service role. Errors: 42501.
CREATE OR REPLACE FUNCTION public.get_alert_settings(p_user_id uuid) RETURNS TABLE (mail boolean, webhook_url text)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM signgate.require_self(p_user_id);
    RETURN QUERY SELECT coalesce(s.mail, true), s.webhook_url
        FROM (SELECT p_user_id AS id) u LEFT JOIN public.alert_settings s ON s.user_id = u.id;
END
$$;

-- Sets a user's wishes. A secret of NULL leaves the one there is; without a URL there is none.
-- Returns whether the webhook has a secret that was not given now. Callers: that user, the service role.
-- Errors: 42501; 23514 when a URL comes without a secret and there is none.
CREATE OR REPLACE FUNCTION public.set_alert_settings(
    p_user_id uuid, p_mail boolean, p_webhook_url text, p_webhook_secret text
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM signgate.require_self(p_user_id);
    INSERT INTO public.alert_settings AS s (user_id, mail, webhook_url, webhook_secret)
    SELECT p_user_id, p_mail, p_webhook_url,
           CASE WHEN p_webhook_url IS NOT NULL THEN coalesce(
               p_webhook_secret, (SELECT o.webhook_secret FROM public.alert_settings o WHERE o.user_id = p_user_id)) END
    ON CONFLICT (user_id) DO UPDATE SET
        mail = excluded.mail, webhook_url = excluded.webhook_url, webhook_secret = excluded.webhook_secret,
        updated_at = now();
    RETURN p_webhook_url IS NOT NULL AND p_webhook_secret IS NULL;
END
$$;

-- Makes the alerts that are due today, of these users or of everybody: the highest threshold that a pool
-- has come to. Each only once a day, however often and by how many it is called. Returns how many are new.
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

-- Takes up to p_count alerts that are to be delivered now; nobody else gets them for p_hold.
-- Caller: the logger.
CREATE OR REPLACE FUNCTION public.claim_quota_alerts(p_count integer, p_hold interval) RETURNS TABLE (
    id uuid, user_id uuid, pool text, date date, threshold bigint, used bigint, daily_limit bigint,
    created_at timestamptz, attempts integer, email text, webhook_url text, webhook_secret text
)
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    WITH due AS (
        SELECT a.id FROM public.quota_alerts a
        WHERE (a.mail = 'pending' OR a.webhook = 'pending') AND a.next_attempt_at <= now()
        ORDER BY a.next_attempt_at LIMIT p_count FOR UPDATE SKIP LOCKED
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

-- What came of an attempt: new states (NULL leaves one as it is), and when to try again what is pending.
-- Caller: the logger.
CREATE OR REPLACE FUNCTION public.settle_quota_alert(p_id uuid, p_mail text, p_webhook text, p_wait interval)
RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE public.quota_alerts a
    SET mail = coalesce(p_mail, a.mail), webhook = coalesce(p_webhook, a.webhook), next_attempt_at = now() + p_wait
    WHERE a.id = p_id
$$;

GRANT EXECUTE ON FUNCTION public.get_alert_settings(uuid) TO authenticated, service_role;
GRANT EXECUTE ON FUNCTION public.set_alert_settings(uuid, boolean, text, text) TO authenticated, service_role;
GRANT EXECUTE ON FUNCTION public.raise_quota_alerts(uuid[], date) TO signgate_logger, service_role;
GRANT EXECUTE ON FUNCTION public.claim_quota_alerts(integer, interval) TO signgate_logger;
GRANT EXECUTE ON FUNCTION public.settle_quota_alert(uuid, text, text, interval) TO signgate_logger;
RESET ROLE;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
