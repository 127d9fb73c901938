-- migrate:up
-- The audit trail is written by triggers: no change of a key can go without, and no role can write
-- an entry by hand.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';
SET LOCAL ROLE signgate_owner;

CREATE TABLE IF NOT EXISTS public.key_audit (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    api_key_id uuid NOT NULL,  -- no foreign key: the trail outlives the key, though not the account
    user_id uuid NOT NULL REFERENCES public.users (id) ON DELETE CASCADE,
    action text NOT NULL CHECK (action IN ('key.created', 'key.updated', 'key.rotated', 'key.revoked')),
    actor_kind text NOT NULL CHECK (actor_kind IN ('user', 'key', 'service_role', 'system')),
    actor_id uuid,
    changes jsonb NOT NULL DEFAULT '{}',  -- {"name": [old, new], …}; never a hash
    request_id text CHECK (length(request_id) <= 128),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX IF NOT EXISTS key_audit_key ON public.key_audit (api_key_id, created_at DESC, id DESC);
CREATE INDEX IF NOT EXISTS key_audit_user ON public.key_audit (user_id);

ALTER TABLE public.key_audit ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.key_audit FORCE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS owner_all ON public.key_audit;
CREATE POLICY owner_all ON public.key_audit TO signgate_owner USING (true) WITH CHECK (true);
DROP POLICY IF EXISTS users_view_own ON public.key_audit;
CREATE POLICY users_view_own ON public.key_audit FOR SELECT TO authenticated
    USING (user_id = (SELECT auth.uid()));
DROP POLICY IF EXISTS service_role_reads ON public.key_audit;
CREATE POLICY service_role_reads ON public.key_audit FOR SELECT TO service_role USING (true);
GRANT SELECT ON public.key_audit TO authenticated, service_role;

-- Keeps is_active and revoked_at one fact, and a revoked key revoked.
-- Errors: SG002 (the key is revoked and can't be changed).
CREATE OR REPLACE FUNCTION signgate.guard_api_key() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.revoked_at IS NOT NULL THEN
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

-- Who acts is what the request's claims say: a key (claim `api_key_id`) or a user (`sub`) when the role
-- is `authenticated`, else the service role; `system` outside a request. The setting
-- `signgate.request_id` names the request.
CREATE OR REPLACE FUNCTION signgate.record_api_key_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    hidden CONSTANT text[] := ARRAY['key_hash', 'pepper_version', 'last_used', 'updated_at', 'user_id', 'id'];
    before jsonb := CASE WHEN TG_OP = 'INSERT' THEN '{}' ELSE to_jsonb(OLD) END - hidden;
    after jsonb := to_jsonb(NEW) - hidden;
    changed jsonb;
    kind text;
    actor uuid;
BEGIN
    SELECT coalesce(jsonb_object_agg(key, jsonb_build_array(before -> key, value)), '{}') INTO changed
    FROM jsonb_each(after) WHERE before -> key IS DISTINCT FROM value AND (TG_OP = 'UPDATE' OR value <> 'null');
    IF changed = '{}' THEN
        RETURN NULL;
    END IF;
    IF auth.role() = 'authenticated' THEN
        kind := CASE WHEN auth.jwt() ->> 'api_key_id' IS NULL THEN 'user' ELSE 'key' END;
        actor := coalesce((auth.jwt() ->> 'api_key_id')::uuid, auth.uid());
    ELSIF auth.role() = 'service_role' THEN
        kind := 'service_role';
        actor := auth.uid();
    ELSE
        kind := 'system';
    END IF;
    INSERT INTO public.key_audit (api_key_id, user_id, action, actor_kind, actor_id, changes, request_id)
    VALUES (
        NEW.id, NEW.user_id,
        CASE
            WHEN TG_OP = 'INSERT' THEN 'key.created'
            WHEN OLD.revoked_at IS NULL AND NEW.revoked_at IS NOT NULL THEN 'key.revoked'
            WHEN OLD.grace_until IS NULL AND NEW.grace_until IS NOT NULL THEN 'key.rotated'
            ELSE 'key.updated'
        END,
        kind, actor, changed, nullif(left(current_setting('signgate.request_id', true), 128), '')
    );
    RETURN NULL;
END
$$;

-- The column lists leave out last_used and the hash: recording a use or a new pepper is no change.
CREATE OR REPLACE TRIGGER guard
    BEFORE INSERT OR UPDATE OF name, scopes, mode, expires_at, revoked_at, is_active, cidrs, daily_limit, per_minute,
        engine, grace_until
    ON public.api_keys FOR EACH ROW EXECUTE FUNCTION signgate.guard_api_key();
CREATE OR REPLACE TRIGGER record_change
    AFTER INSERT OR UPDATE OF name, scopes, mode, expires_at, revoked_at, is_active, cidrs, daily_limit, per_minute,
        engine, grace_until
    ON public.api_keys FOR EACH ROW EXECUTE FUNCTION signgate.record_api_key_change();
RESET ROLE;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
