-- migrate:up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';
SET LOCAL ROLE signgate_owner;

-- An alert that was claimed and whose webhook was not tried, for its host has too many under way: it can be claimed
-- again after p_wait, and the attempt does not count. p_mail is the mail's new state (NULL leaves it as it is).
-- Caller: the logger.
CREATE OR REPLACE FUNCTION public.postpone_quota_alert(p_id uuid, p_mail text, p_wait interval)
RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE public.quota_alerts a
    SET mail = coalesce(p_mail, a.mail), attempts = greatest(a.attempts - 1, 0), next_attempt_at = now() + p_wait
    WHERE a.id = p_id
$$;

GRANT EXECUTE ON FUNCTION public.postpone_quota_alert(uuid, text, interval) TO signgate_logger;
RESET ROLE;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
