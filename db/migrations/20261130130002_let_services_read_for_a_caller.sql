-- migrate:up
-- What a service reads of one user it reads as its own role, from its own tables: row level security takes
-- the user from the claims, so a statement that forgets its WHERE still shows one user's rows. Expands
-- only: instances of the last version go on as members of `authenticated` until db/contract ends that.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';
SET LOCAL ROLE signgate_owner;

-- The keys service: keys without their hashes, and their history.
DROP POLICY IF EXISTS keys_service_for_caller ON public.api_keys;
CREATE POLICY keys_service_for_caller ON public.api_keys TO signgate_keys
    USING (user_id = (SELECT auth.uid())) WITH CHECK (user_id = (SELECT auth.uid()));
GRANT SELECT (id, user_id, name, created_at, last_used, is_active, prefix, last4, scopes, mode, expires_at,
              revoked_at, cidrs, daily_limit, per_minute, engine, rotated_from, grace_until, updated_at)
    ON public.api_keys TO signgate_keys;
GRANT UPDATE (name, scopes, expires_at, revoked_at, is_active, cidrs, daily_limit, per_minute, engine)
    ON public.api_keys TO signgate_keys;
DROP POLICY IF EXISTS keys_service_for_caller ON public.key_audit;
CREATE POLICY keys_service_for_caller ON public.key_audit FOR SELECT TO signgate_keys
    USING (user_id = (SELECT auth.uid()));
GRANT SELECT ON public.key_audit TO signgate_keys;
DROP POLICY IF EXISTS keys_service_reads ON public.plans;
CREATE POLICY keys_service_reads ON public.plans FOR SELECT TO signgate_keys USING (true);
GRANT SELECT (tier, daily_limit, per_minute) ON public.plans TO signgate_keys;
GRANT EXECUTE ON FUNCTION public.create_api_key(
    uuid, text, text, uuid, text, text, text[], text, timestamptz, cidr[], bigint, integer, text, integer, integer
) TO signgate_keys;
GRANT EXECUTE ON FUNCTION public.rotate_api_key(uuid, uuid, uuid, text, text, text, integer, timestamptz)
    TO signgate_keys;

-- The logger: usage and alerts.
DROP POLICY IF EXISTS logger_service_for_caller ON public.usage_logs;
CREATE POLICY logger_service_for_caller ON public.usage_logs FOR SELECT TO signgate_logger
    USING (user_id = (SELECT auth.uid()));
GRANT SELECT ON public.usage_logs TO signgate_logger;
DROP POLICY IF EXISTS logger_service_for_caller ON public.quota_alerts;
CREATE POLICY logger_service_for_caller ON public.quota_alerts FOR SELECT TO signgate_logger
    USING (user_id = (SELECT auth.uid()));
GRANT SELECT ON public.quota_alerts TO signgate_logger;
GRANT EXECUTE ON FUNCTION public.get_usage_counts(uuid, timestamptz, timestamptz, boolean) TO signgate_logger;
GRANT EXECUTE ON FUNCTION public.get_alert_settings(uuid) TO signgate_logger;
GRANT EXECUTE ON FUNCTION public.set_alert_settings(uuid, boolean, text, text) TO signgate_logger;

-- The quota service: two numbers of one key, and no row of a key.
-- A key's own limits, NULL where it has none; no row: that user has no such key. Caller: the quota service.
CREATE OR REPLACE FUNCTION public.get_api_key_limits(p_user_id uuid, p_key_id uuid)
RETURNS TABLE (daily_limit bigint, per_minute integer)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT k.daily_limit, k.per_minute FROM public.api_keys k WHERE k.id = p_key_id AND k.user_id = p_user_id
$$;
GRANT EXECUTE ON FUNCTION public.get_api_key_limits(uuid, uuid) TO signgate_quota;

-- As in create_user_functions, without the logger: for one user's usage it has to name that user in its claims
-- now. The keys service was never in the list.
CREATE OR REPLACE FUNCTION signgate.require_self(p_user_id uuid) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    caller CONSTANT text := coalesce(nullif(current_setting('role'), 'none'), session_user);
BEGIN
    IF caller IN ('service_role', 'signgate_auth', 'signgate_quota') THEN
        RETURN;
    END IF;
    IF p_user_id IS NULL OR p_user_id IS DISTINCT FROM auth.uid() THEN
        RAISE EXCEPTION 'permission denied for another user' USING ERRCODE = 'insufficient_privilege';
    END IF;
END
$$;
RESET ROLE;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
