-- migrate:up
-- An account that may not act has no sessions, whatever changed it: the auth service, a statement by hand, a trigger.
-- Only where the schema `auth` is ours; sessions of an outside issuer are its own.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

DO $$
BEGIN
    IF NOT signgate.owns_auth() THEN
        RETURN;
    END IF;
    SET LOCAL ROLE signgate_owner;

    -- When the auth service wrote a session that had ended to the deny-set; NULL: it has to.
    ALTER TABLE auth.sessions ADD COLUMN IF NOT EXISTS denied_at timestamptz;
    CREATE INDEX IF NOT EXISTS sessions_to_deny ON auth.sessions (revoked_at)
        WHERE revoked_at IS NOT NULL AND denied_at IS NULL;

    CREATE OR REPLACE FUNCTION signgate.end_sessions() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS $f$
    BEGIN
        IF public.account_state(NEW) <> 'active' THEN
            UPDATE auth.sessions SET revoked_at = now(), updated_at = now()
            WHERE user_id = NEW.id AND revoked_at IS NULL;
        END IF;
        RETURN NULL;
    END
    $f$;
    CREATE OR REPLACE TRIGGER end_sessions
        AFTER UPDATE OF is_active, banned_until, confirmed, deleted_at ON public.users
        FOR EACH ROW EXECUTE FUNCTION signgate.end_sessions();
    RESET ROLE;
END
$$;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
