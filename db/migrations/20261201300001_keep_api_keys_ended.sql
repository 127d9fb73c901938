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
RESET ROLE;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
