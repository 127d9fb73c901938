-- migrate:up
-- A key that has expired stays expired, and a grace period can only become shorter: for every role.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';
SET LOCAL ROLE signgate_owner;

-- Errors: SG003 (the key has a successor; its grace period can't become longer), SG004 (the key has expired).
CREATE OR REPLACE FUNCTION signgate.keep_api_key_ended() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- The time now, not that of the transaction's beginning: the key may have ended in between.
    IF least(OLD.expires_at, OLD.grace_until) <= clock_timestamp()
        AND coalesce(least(NEW.expires_at, NEW.grace_until) > clock_timestamp(), true)
    THEN
        RAISE EXCEPTION 'the key has expired' USING ERRCODE = 'SG004';
    END IF;
    IF OLD.grace_until IS NOT NULL AND coalesce(NEW.grace_until > OLD.grace_until, true) THEN
        RAISE EXCEPTION 'the key has a successor' USING ERRCODE = 'SG003';
    END IF;
    RETURN NEW;
END
$$;

-- After `guard`, which refuses every change of a revoked key: triggers run in the order of their names.
CREATE OR REPLACE TRIGGER keep_ended
    BEFORE UPDATE OF expires_at, grace_until
    ON public.api_keys FOR EACH ROW EXECUTE FUNCTION signgate.keep_api_key_ended();

-- Locks a user's row as create_api_key does, for a transaction that locks a key before it makes another one: all
-- lock the user first and then keys, so that none waits for another in a circle. False: there is no such user.
-- Caller: the keys service, for the user in the claims. Errors: 42501.
CREATE OR REPLACE FUNCTION public.lock_key_owner(p_user_id uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM signgate.require_self(p_user_id);
    PERFORM FROM public.users WHERE id = p_user_id FOR NO KEY UPDATE;
    RETURN FOUND;
END
$$;
GRANT EXECUTE ON FUNCTION public.lock_key_owner(uuid) TO signgate_keys;
RESET ROLE;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
