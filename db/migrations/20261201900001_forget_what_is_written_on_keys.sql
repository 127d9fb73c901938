-- migrate:up
-- Soft deletion: what the person wrote on their keys (names, metadata, external ids, networks) goes too, from the keys'
-- history as well. What was done to which key, when and by whom stays.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';
SET LOCAL ROLE signgate_owner;

-- As before, with one exception: forget_profile() may take away what is written on a revoked key.
-- Errors: SG002 (the key is revoked and can't be changed).
CREATE OR REPLACE FUNCTION signgate.guard_api_key() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    written CONSTANT text[] := ARRAY['name', 'metadata', 'external_id', 'cidrs'];
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.revoked_at IS NOT NULL AND NOT (
        current_user = 'signgate_owner' AND to_jsonb(NEW) - written = to_jsonb(OLD) - written
        AND NEW.metadata = '{}' AND NEW.external_id IS NULL AND NEW.cidrs = '{}'
    ) THEN
        RAISE EXCEPTION 'the key is revoked' USING ERRCODE = 'SG002';
    END IF;
    IF NEW.revoked_at IS NULL AND NOT NEW.is_active THEN
        NEW.revoked_at := now();
    END IF;
    NEW.is_active := NEW.revoked_at IS NULL;
    IF TG_OP = 'UPDATE' THEN
        NEW.updated_at := now();
    END IF;
    RETURN NEW;
END
$$;

CREATE OR REPLACE FUNCTION signgate.forget_profile() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    written CONSTANT text[] := ARRAY['name', 'metadata', 'external_id', 'cidrs'];
BEGIN
    IF OLD.deleted_at IS NULL AND NEW.deleted_at IS NOT NULL THEN
        UPDATE public.api_keys
        SET revoked_at = coalesce(revoked_at, now()), is_active = false, name = 'deleted', metadata = '{}',
            external_id = NULL, cidrs = '{}'
        WHERE user_id = NEW.id;
        UPDATE public.key_audit SET changes = changes - written WHERE user_id = NEW.id AND changes ?| written;
        DELETE FROM public.alert_settings WHERE user_id = NEW.id;
        DELETE FROM public.quota_alerts WHERE user_id = NEW.id;
        DELETE FROM public.key_answers WHERE user_id = NEW.id;
        UPDATE public.users SET display_name = NULL, last_login = NULL WHERE id = NEW.id;
    END IF;
    RETURN NULL;
END
$$;
RESET ROLE;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
