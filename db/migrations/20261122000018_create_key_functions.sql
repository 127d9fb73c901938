-- migrate:up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';
SET LOCAL ROLE signgate_owner;

-- Makes a key for a user and raises their tier to `api_key`. The caller made the key, and gives only its
-- hash and what may be shown of it. With p_max_active, refuses when the user has that many keys that
-- work: exactly, also when many are made at once. Returns the key's id.
-- Callers: that user, the service role. Errors: 42501; P0002 (no such user); SG001 (too many active
-- keys); 23505 (the hash or the id exists).
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
    p_max_active integer DEFAULT NULL
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
                                 daily_limit, per_minute, engine, pepper_version)
    VALUES (p_id, p_user_id, p_key_hash, p_name, p_prefix, p_last4, p_scopes, p_mode, p_expires_at, p_cidrs,
            p_daily_limit, p_per_minute, p_engine, p_pepper_version);
    RETURN p_id;
END
$$;

-- Makes a key's successor with the same name, scopes, mode, networks, limits, engine and end, and lets
-- the old one work on until p_grace_until. Returns the successor's id.
-- Callers: the key's owner, the service role. Errors: 42501; P0002 (no such key of theirs); SG002
-- (revoked); SG003 (it has a successor already).
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
                                 daily_limit, per_minute, engine, pepper_version, rotated_from)
    VALUES (p_new_id, p_user_id, p_new_key_hash, old.name, p_prefix, p_last4, old.scopes, old.mode, old.expires_at,
            old.cidrs, old.daily_limit, old.per_minute, old.engine, p_pepper_version, old.id);
    UPDATE public.api_keys SET grace_until = p_grace_until WHERE id = old.id;
    RETURN p_new_id;
END
$$;

-- What the keys service keeps in memory of a key, whether it works or not.
CREATE OR REPLACE VIEW signgate.key_records AS
SELECT k.id AS api_key_id, k.key_hash, k.user_id, u.tier, u.is_active AS user_is_active, k.scopes, k.mode,
       k.is_active, k.revoked_at, k.expires_at, k.grace_until, k.cidrs, k.daily_limit, k.per_minute, k.engine,
       k.pepper_version, k.updated_at
FROM public.api_keys k JOIN public.users u ON u.id = k.user_id;

-- The records for a list of hashes, in no order; a hash that is not there has no row. Reads only: the
-- logger records last_used with the usage itself. Caller: the keys service.
CREATE OR REPLACE FUNCTION public.validate_api_keys(key_hashes text[]) RETURNS SETOF signgate.key_records
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT * FROM signgate.key_records WHERE key_hash = ANY (key_hashes)
$$;

-- The same by key id: for tokens that a key minted, and for reading records again.
CREATE OR REPLACE FUNCTION public.lookup_api_keys(key_ids uuid[]) RETURNS SETOF signgate.key_records
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT * FROM signgate.key_records WHERE api_key_id = ANY (key_ids)
$$;

-- One key, as the first description has it: a row with its owner if the key and the account work now,
-- and then last_used is set; no row otherwise. It can't know the caller's address: who calls it checks
-- `cidrs`. Callers: the keys service, the service role.
CREATE OR REPLACE FUNCTION public.validate_api_key(p_key_hash text)
RETURNS TABLE (api_key_id uuid, user_id uuid, tier text, scopes text[], mode text, cidrs cidr[],
               daily_limit bigint, per_minute integer, expires_at timestamptz)
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE public.api_keys k SET last_used = now()
    FROM public.users u
    WHERE k.key_hash = p_key_hash AND u.id = k.user_id AND u.is_active AND k.is_active
      AND coalesce(least(k.expires_at, k.grace_until) > now(), true)
    RETURNING k.id, k.user_id, u.tier, k.scopes, k.mode, k.cidrs, k.daily_limit, k.per_minute, k.expires_at
$$;

-- Moves a key to a newer pepper, when its owner presented it and so the new hash could be made. True if
-- it did; false if the stored hash is no longer the old one. Caller: the keys service.
CREATE OR REPLACE FUNCTION public.repepper_api_key(
    p_key_id uuid, p_old_hash text, p_new_hash text, p_pepper_version integer
) RETURNS boolean
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    WITH moved AS (
        UPDATE public.api_keys SET key_hash = p_new_hash, pepper_version = p_pepper_version
        WHERE id = p_key_id AND key_hash = p_old_hash AND pepper_version < p_pepper_version
        RETURNING id
    )
    SELECT EXISTS (SELECT FROM moved)
$$;

GRANT EXECUTE ON FUNCTION public.create_api_key(
    uuid, text, text, uuid, text, text, text[], text, timestamptz, cidr[], bigint, integer, text, integer, integer
) TO authenticated, service_role;
GRANT EXECUTE ON FUNCTION public.rotate_api_key(uuid, uuid, uuid, text, text, text, integer, timestamptz)
    TO authenticated, service_role;
GRANT EXECUTE ON FUNCTION public.validate_api_key(text) TO signgate_keys, service_role;
GRANT EXECUTE ON FUNCTION public.validate_api_keys(text[]) TO signgate_keys;
GRANT EXECUTE ON FUNCTION public.lookup_api_keys(uuid[]) TO signgate_keys;
GRANT EXECUTE ON FUNCTION public.repepper_api_key(uuid, text, text, integer) TO signgate_keys;
RESET ROLE;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
