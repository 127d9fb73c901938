-- migrate:up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';
SET LOCAL ROLE signgate_owner;

-- Answers to creations and rotations that may be repeated, for 24 hours. An answer has the secret of a key: it is
-- encrypted under a key that comes from the pepper and from the caller's idempotency key, and `lookup` is a keyed hash
-- of the latter. So the table by itself tells neither. It is reached by functions only.
CREATE TABLE IF NOT EXISTS public.key_answers (
    user_id uuid NOT NULL REFERENCES public.users (id) ON DELETE CASCADE,
    lookup bytea NOT NULL CHECK (octet_length(lookup) = 32),
    sealed bytea NOT NULL CHECK (octet_length(sealed) <= 1024),
    expires_at timestamptz NOT NULL DEFAULT now() + interval '24 hours',
    PRIMARY KEY (user_id, lookup)
);
CREATE INDEX IF NOT EXISTS key_answers_expires ON public.key_answers (expires_at);
ALTER TABLE public.key_answers ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.key_answers FORCE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS owner_all ON public.key_answers;
CREATE POLICY owner_all ON public.key_answers TO signgate_owner USING (true) WITH CHECK (true);

-- The answer that was kept under one of the look-ups; no row: none. Requests of one user that ask wait for each other
-- until their transactions end, so that the second sees what the first kept.
-- Caller: the keys service, for the user in the claims. Errors: 42501; P0002 (no such user).
CREATE OR REPLACE FUNCTION public.find_key_answer(p_user_id uuid, p_lookups bytea[])
RETURNS TABLE (lookup bytea, sealed bytea)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM signgate.require_self(p_user_id);
    PERFORM FROM public.users WHERE id = p_user_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no such user' USING ERRCODE = 'no_data_found';
    END IF;
    RETURN QUERY
        SELECT a.lookup, a.sealed FROM public.key_answers a
        WHERE a.user_id = p_user_id AND a.lookup = ANY (p_lookups) AND a.expires_at > now();
END
$$;
GRANT EXECUTE ON FUNCTION public.find_key_answer(uuid, bytea[]) TO signgate_keys;

-- Keeps an answer for 24 hours, in the transaction of the change that it tells of.
-- Caller: the keys service, for the user in the claims. Errors: 42501; 23505 (there is one).
CREATE OR REPLACE FUNCTION public.keep_key_answer(p_user_id uuid, p_lookup bytea, p_sealed bytea) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM signgate.require_self(p_user_id);
    DELETE FROM public.key_answers WHERE user_id = p_user_id AND expires_at <= now();
    INSERT INTO public.key_answers (user_id, lookup, sealed) VALUES (p_user_id, p_lookup, p_sealed);
END
$$;
GRANT EXECUTE ON FUNCTION public.keep_key_answer(uuid, bytea, bytea) TO signgate_keys;

-- Deletes answers whose 24 hours are over, at most so many; returns how many. Caller: the keys service.
CREATE OR REPLACE FUNCTION public.drop_old_key_answers(p_at_most integer) RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    WITH old AS (
        SELECT user_id, lookup FROM public.key_answers
        WHERE expires_at <= now() ORDER BY expires_at LIMIT p_at_most FOR UPDATE SKIP LOCKED
    ), dropped AS (
        DELETE FROM public.key_answers a USING old
        WHERE a.user_id = old.user_id AND a.lookup = old.lookup RETURNING 1
    )
    SELECT count(*) FROM dropped
$$;
GRANT EXECUTE ON FUNCTION public.drop_old_key_answers(integer) TO signgate_keys;
RESET ROLE;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
