-- migrate:up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';
SET LOCAL ROLE signgate_owner;

-- Guards the SECURITY DEFINER functions that are about one user: passes for that user themselves, and
-- for the roles that act for everybody. Which of those may call a function at all, its grants say.
--
-- The setting `role` is what the session took by SET ROLE; unlike current_user, a SECURITY DEFINER
-- function does not change it. Errors: 42501 (insufficient_privilege).
CREATE OR REPLACE FUNCTION signgate.require_self(p_user_id uuid) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    caller CONSTANT text := coalesce(nullif(current_setting('role'), 'none'), session_user);
BEGIN
    IF caller IN ('service_role', 'signgate_auth', 'signgate_quota', 'signgate_logger') THEN
        RETURN;
    END IF;
    IF p_user_id IS NULL OR p_user_id IS DISTINCT FROM auth.uid() THEN
        RAISE EXCEPTION 'permission denied for another user' USING ERRCODE = 'insufficient_privilege';
    END IF;
END
$$;

-- Records that a user signed in. Callers: that user, the auth service, the service role.
CREATE OR REPLACE FUNCTION public.update_user_last_login(p_user_id uuid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM signgate.require_self(p_user_id);
    UPDATE public.users SET last_login = now() WHERE id = p_user_id;
END
$$;
GRANT EXECUTE ON FUNCTION public.update_user_last_login(uuid) TO authenticated, service_role, signgate_auth;
RESET ROLE;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
