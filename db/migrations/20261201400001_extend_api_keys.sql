-- migrate:up
-- Metadata and an external id of a key; an operator's reason in its history. Expands only: what instances of the last
-- version call keeps its name and its parameters.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';
SET LOCAL ROLE signgate_owner;

-- The owner's own pairs of strings, and the key's id in the owner's system, which is not unique. The service has
-- tighter bounds.
ALTER TABLE public.api_keys
    ADD COLUMN IF NOT EXISTS metadata jsonb NOT NULL DEFAULT '{}'
        CHECK (jsonb_typeof(metadata) = 'object' AND octet_length(metadata::text) <= 16384
               AND NOT jsonb_path_exists(metadata, 'strict $.* ? (@.type() <> "string")')),
    ADD COLUMN IF NOT EXISTS external_id text CHECK (length(external_id) BETWEEN 1 AND 128);
GRANT SELECT (metadata, external_id) ON public.api_keys TO authenticated, signgate_keys;
GRANT UPDATE (metadata, external_id) ON public.api_keys TO signgate_keys;

-- An operator's reason, for the owner to read.
ALTER TABLE public.key_audit ADD COLUMN IF NOT EXISTS reason text CHECK (length(reason) <= 200);

-- Who acts is the operator that the setting `signgate.operator` names (a UUID; all zero: an operator without an id),
-- with `signgate.reason`: the keys service then works with the claims of the user whose keys they are. Otherwise it
-- is what the claims say: a key (claim `api_key_id`) or a user (`sub`) when the role is `authenticated`, else the
-- service role; `system` outside a request. The setting `signgate.request_id` names the request.
CREATE OR REPLACE FUNCTION signgate.record_api_key_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    hidden CONSTANT text[] := ARRAY['key_hash', 'pepper_version', 'last_used', 'updated_at', 'user_id', 'id'];
    no_id CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
    operator CONSTANT uuid := nullif(current_setting('signgate.operator', true), '')::uuid;
    before jsonb := CASE WHEN TG_OP = 'INSERT' THEN '{}' ELSE to_jsonb(OLD) END - hidden;
    after jsonb := to_jsonb(NEW) - hidden;
    changed jsonb;
    kind text;
    actor uuid;
BEGIN
    SELECT coalesce(jsonb_object_agg(key, jsonb_build_array(before -> key, value)), '{}') INTO changed
    FROM jsonb_each(after)
    WHERE before -> key IS DISTINCT FROM value AND (TG_OP = 'UPDATE' OR value NOT IN ('null', '{}'));
    IF changed = '{}' THEN
        RETURN NULL;
    END IF;
    IF operator IS NOT NULL THEN
        kind := 'service_role';
        actor := nullif(operator, no_id);
    ELSIF auth.role() = 'authenticated' THEN
        kind := CASE WHEN auth.jwt() ->> 'api_key_id' IS NULL THEN 'user' ELSE 'key' END;
        actor := coalesce((auth.jwt() ->> 'api_key_id')::uuid, auth.uid());
    ELSIF auth.role() = 'service_role' THEN
        kind := 'service_role';
        actor := auth.uid();
    ELSE
        kind := 'system';
    END IF;
    INSERT INTO public.key_audit (api_key_id, user_id, action, actor_kind, actor_id, changes, request_id, reason)
    VALUES (
        NEW.id, NEW.user_id,
        CASE
            WHEN TG_OP = 'INSERT' THEN 'key.created'
            WHEN OLD.revoked_at IS NULL AND NEW.revoked_at IS NOT NULL THEN 'key.revoked'
            WHEN OLD.grace_until IS NULL AND NEW.grace_until IS NOT NULL THEN 'key.rotated'
            ELSE 'key.updated'
        END,
        kind, actor, changed, nullif(left(current_setting('signgate.request_id', true), 128), ''),
        CASE WHEN operator IS NOT NULL THEN nullif(left(current_setting('signgate.reason', true), 200), '') END
    );
    RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER guard
    BEFORE INSERT OR UPDATE OF name, scopes, mode, expires_at, revoked_at, is_active, cidrs, daily_limit, per_minute,
        engine, grace_until, metadata, external_id
    ON public.api_keys FOR EACH ROW EXECUTE FUNCTION signgate.guard_api_key();
CREATE OR REPLACE TRIGGER record_change
    AFTER INSERT OR UPDATE OF name, scopes, mode, expires_at, revoked_at, is_active, cidrs, daily_limit, per_minute,
        engine, grace_until, metadata, external_id
    ON public.api_keys FOR EACH ROW EXECUTE FUNCTION signgate.record_api_key_change();

-- With two more parameters in the place of the old one: beside it, calls that leave them out would fit both. Calls of
-- the last version fit the new one.
-- squawk-ignore ban-drop-function
DROP FUNCTION IF EXISTS public.create_api_key(
    uuid, text, text, uuid, text, text, text[], text, timestamptz, cidr[], bigint, integer, text, integer, integer
);
-- As in create_key_functions.
CREATE OR REPLACE FUNCTION public.create_api_key(
    p_user_id uuid,
    p_key_hash text,
    p_name text,
    p_id uuid DEFAULT gen_random_uuid(),
    p_prefix text DEFAULT '',
    p_last4 text DEFAULT '',
    p_scopes text[] DEFAULT ARRAY['sign', 'usage:read', 'quota:read'],
    p_mode text DEFAULT 'live',
    p_expires_at timestamptz DEFAULT NULL,
    p_cidrs cidr[] DEFAULT ARRAY[]::cidr[],
    p_daily_limit bigint DEFAULT NULL,
    p_per_minute integer DEFAULT NULL,
    p_engine text DEFAULT NULL,
    p_pepper_version integer DEFAULT 1,
    p_max_active integer DEFAULT NULL,
    p_metadata jsonb DEFAULT '{}',
    p_external_id text DEFAULT NULL
) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM signgate.require_self(p_user_id);
    -- The lock makes creations for one user wait for each other, so that the count is exact.
    PERFORM FROM public.users WHERE id = p_user_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no such user' USING ERRCODE = 'no_data_found';
    END IF;
    IF p_max_active <= (
        SELECT count(*) FROM public.api_keys
        WHERE user_id = p_user_id AND is_active AND coalesce(least(expires_at, grace_until) > now(), true)
    ) THEN
        RAISE EXCEPTION 'too many active keys' USING ERRCODE = 'SG001';
    END IF;
    UPDATE public.users SET tier = 'api_key' WHERE id = p_user_id AND tier <> 'api_key';
    INSERT INTO public.api_keys (id, user_id, key_hash, name, prefix, last4, scopes, mode, expires_at, cidrs,
                                 daily_limit, per_minute, engine, pepper_version, metadata, external_id)
    VALUES (p_id, p_user_id, p_key_hash, p_name, p_prefix, p_last4, p_scopes, p_mode, p_expires_at, p_cidrs,
            p_daily_limit, p_per_minute, p_engine, p_pepper_version, p_metadata, p_external_id);
    RETURN p_id;
END
$$;
GRANT EXECUTE ON FUNCTION public.create_api_key(
    uuid, text, text, uuid, text, text, text[], text, timestamptz, cidr[], bigint, integer, text, integer, integer,
    jsonb, text
) TO authenticated, service_role, signgate_keys;

-- As in create_key_functions; the successor has the metadata and the external id too.
CREATE OR REPLACE FUNCTION public.rotate_api_key(
    p_user_id uuid,
    p_key_id uuid,
    p_new_id uuid,
    p_new_key_hash text,
    p_prefix text,
    p_last4 text,
    p_pepper_version integer,
    p_grace_until timestamptz
) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    old public.api_keys;
BEGIN
    PERFORM signgate.require_self(p_user_id);
    SELECT * INTO old FROM public.api_keys WHERE id = p_key_id AND user_id = p_user_id FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no such key' USING ERRCODE = 'no_data_found';
    ELSIF old.revoked_at IS NOT NULL THEN
        RAISE EXCEPTION 'the key is revoked' USING ERRCODE = 'SG002';
    ELSIF old.grace_until IS NOT NULL THEN
        RAISE EXCEPTION 'the key has a successor' USING ERRCODE = 'SG003';
    END IF;
    INSERT INTO public.api_keys (id, user_id, key_hash, name, prefix, last4, scopes, mode, expires_at, cidrs,
                                 daily_limit, per_minute, engine, pepper_version, rotated_from, metadata, external_id)
    VALUES (p_new_id, p_user_id, p_new_key_hash, old.name, p_prefix, p_last4, old.scopes, old.mode, old.expires_at,
            old.cidrs, old.daily_limit, old.per_minute, old.engine, p_pepper_version, old.id, old.metadata,
            old.external_id);
    UPDATE public.api_keys SET grace_until = p_grace_until WHERE id = old.id;
    RETURN p_new_id;
END
$$;
RESET ROLE;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
