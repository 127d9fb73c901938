-- migrate:up
-- A second factor that goes by a statement by hand takes along what it raised, as one that goes by the auth service
-- does. The service lowers the sessions in the same transaction, so this finds none; the version before does not, and
-- there the remover signs in again. Only where the schema `auth` is ours.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

DO $$
BEGIN
    IF NOT signgate.owns_auth() THEN
        RETURN;
    END IF;
    SET LOCAL ROLE signgate_owner;

    -- Ends the sessions that a removed factor had raised; with the last factor, all that were raised. The auth service
    -- has the tokens of ended sessions refused. At the end of the transaction, once the service has lowered them.
    CREATE OR REPLACE FUNCTION signgate.end_raised_sessions() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS $f$
    BEGIN
        IF OLD.status <> 'verified' OR (TG_OP = 'UPDATE' AND NEW.status = 'verified') THEN
            RETURN NULL;
        END IF;
        UPDATE auth.sessions SET revoked_at = now(), updated_at = now()
        WHERE user_id = OLD.user_id AND aal = 'aal2' AND revoked_at IS NULL
          AND (factor_id = OLD.id OR NOT EXISTS (
              SELECT FROM auth.mfa_factors f WHERE f.user_id = OLD.user_id AND f.status = 'verified'));
        RETURN NULL;
    END
    $f$;
    DROP TRIGGER IF EXISTS end_raised_sessions ON auth.mfa_factors;
    CREATE CONSTRAINT TRIGGER end_raised_sessions
        AFTER DELETE OR UPDATE OF status ON auth.mfa_factors
        DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION signgate.end_raised_sessions();
    RESET ROLE;
END
$$;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
