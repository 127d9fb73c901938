-- migrate:up
-- Soft deletion: the account's id, its keys' audit trail and its usage stay, the person does not.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';
SET LOCAL ROLE signgate_owner;

-- What else of the person is in `public` goes once an account is deleted softly, by us or by Supabase: keys are revoked,
-- which is final, and alerts are forgotten.
CREATE OR REPLACE FUNCTION signgate.forget_profile() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF OLD.deleted_at IS NULL AND NEW.deleted_at IS NOT NULL THEN
        UPDATE public.api_keys SET revoked_at = now(), is_active = false
        WHERE user_id = NEW.id AND revoked_at IS NULL;
        DELETE FROM public.alert_settings WHERE user_id = NEW.id;
        DELETE FROM public.quota_alerts WHERE user_id = NEW.id;
        IF to_regclass('public.key_answers') IS NOT NULL THEN  -- answers that are kept to be repeated
            EXECUTE 'DELETE FROM public.key_answers WHERE user_id = $1' USING NEW.id;
        END IF;
        UPDATE public.users SET display_name = NULL, last_login = NULL WHERE id = NEW.id;
    END IF;
    RETURN NULL;
END
$$;
CREATE OR REPLACE TRIGGER forget_profile
    AFTER UPDATE OF deleted_at ON public.users FOR EACH ROW EXECUTE FUNCTION signgate.forget_profile();

DO $$
BEGIN
    IF NOT signgate.owns_auth() THEN
        RETURN;
    END IF;

    -- Deletes an account softly. What a hard deletion would take with it in `auth` goes; sessions end, and stay
    -- without addresses until their tokens are dead and they are swept. p_email takes the place of the address. False:
    -- there is no such account, or it was deleted before. Caller: the auth service.
    CREATE OR REPLACE FUNCTION auth.forget_user(p_user_id uuid, p_email text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS $f$
    DECLARE
        belonging record;
    BEGIN
        UPDATE auth.users
        SET email = p_email, encrypted_password = NULL, email_confirmed_at = NULL, invited_at = NULL,
            confirmation_sent_at = NULL, recovery_sent_at = NULL, email_change = NULL, email_change_sent_at = NULL,
            email_change_confirm_status = 0, reauthentication_sent_at = NULL, last_sign_in_at = NULL,
            password_changed_at = NULL, phone = NULL, role = 'authenticated', raw_app_meta_data = '{}',
            raw_user_meta_data = '{}', updated_at = now(), deleted_at = now()
        WHERE id = p_user_id AND deleted_at IS NULL;
        IF NOT FOUND THEN
            RETURN false;
        END IF;
        UPDATE auth.sessions
        SET revoked_at = coalesce(revoked_at, now()), updated_at = now(), user_agent = NULL, ip = NULL
        WHERE user_id = p_user_id;
        -- By the catalog, so that a table that is added later can't be forgotten.
        FOR belonging IN
            SELECT c.conrelid::regclass AS tab, a.attname AS col
            FROM pg_constraint c JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
            WHERE c.connamespace = 'auth'::regnamespace AND c.contype = 'f' AND c.confrelid = 'auth.users'::regclass AND c.confdeltype = 'c'
              AND c.conrelid <> 'auth.sessions'::regclass
        LOOP
            EXECUTE format('DELETE FROM %s WHERE %I = $1', belonging.tab, belonging.col) USING p_user_id;
        END LOOP;
        RETURN true;
    END
    $f$;
    GRANT EXECUTE ON FUNCTION auth.forget_user(uuid, text) TO signgate_auth;
END
$$;
RESET ROLE;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
