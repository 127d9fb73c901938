-- migrate:up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';
SET LOCAL ROLE signgate_owner;

-- How many keys are hashed under each pepper, and how many of those still work: a pepper under which
-- none works may leave the configuration. Caller: the keys service.
CREATE OR REPLACE FUNCTION public.count_keys_by_pepper()
RETURNS TABLE (pepper_version integer, keys bigint, working bigint)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT k.pepper_version, count(*),
           count(*) FILTER (WHERE k.revoked_at IS NULL AND coalesce(least(k.expires_at, k.grace_until) > now(), true))
    FROM public.api_keys k GROUP BY k.pepper_version ORDER BY k.pepper_version
$$;
GRANT EXECUTE ON FUNCTION public.count_keys_by_pepper() TO signgate_keys;
RESET ROLE;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
