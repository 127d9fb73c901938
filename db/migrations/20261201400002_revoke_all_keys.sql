-- migrate:up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';
SET LOCAL ROLE signgate_owner;

-- Revokes all keys of a user that work, but one if one is named, and returns their ids. Creations wait or are included;
-- a rotation under way is waited for and its successor is revoked too: so it repeats until no working key is left.
-- Caller: the keys service, for the user in the claims. Errors: 42501; P0002 (no such user).
CREATE OR REPLACE FUNCTION public.revoke_api_keys(p_user_id uuid, p_except uuid DEFAULT NULL) RETURNS SETOF uuid
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM signgate.require_self(p_user_id);
    PERFORM FROM public.users WHERE id = p_user_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no such user' USING ERRCODE = 'no_data_found';
    END IF;
    LOOP
        RETURN QUERY
            UPDATE public.api_keys SET revoked_at = now(), is_active = false
            WHERE id IN (
                SELECT id FROM public.api_keys
                WHERE user_id = p_user_id AND is_active AND coalesce(least(expires_at, grace_until) > now(), true)
                  AND id IS DISTINCT FROM p_except
                ORDER BY id FOR NO KEY UPDATE
            )
            RETURNING id;
        EXIT WHEN NOT EXISTS (
            SELECT FROM public.api_keys
            WHERE user_id = p_user_id AND is_active AND coalesce(least(expires_at, grace_until) > now(), true)
              AND id IS DISTINCT FROM p_except
        );
    END LOOP;
END
$$;
GRANT EXECUTE ON FUNCTION public.revoke_api_keys(uuid, uuid) TO signgate_keys;

-- Whether there is such a user. Caller: the keys service, for the user in the claims. Errors: 42501.
CREATE OR REPLACE FUNCTION public.user_exists(p_user_id uuid) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM signgate.require_self(p_user_id);
    RETURN EXISTS (SELECT FROM public.users WHERE id = p_user_id);
END
$$;
GRANT EXECUTE ON FUNCTION public.user_exists(uuid) TO signgate_keys;
RESET ROLE;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
