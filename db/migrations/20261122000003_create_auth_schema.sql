-- migrate:up
-- `auth.uid()` and its kin as Supabase defines them, so that one set of policies holds on both. Where
-- a schema `auth` exists already and is not ours, it is Supabase's: nothing in it is created or changed.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

CREATE SCHEMA IF NOT EXISTS auth AUTHORIZATION signgate_owner;

SET LOCAL ROLE signgate_owner;

-- True where the schema `auth` is ours to fill. Every migration of an auth.* table asks it.
CREATE OR REPLACE FUNCTION signgate.owns_auth() RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_get_userbyid(nspowner) = 'signgate_owner' FROM pg_namespace WHERE nspname = 'auth'
$$;

-- Makes a table of ours in `auth` the auth service's and nobody else's: row level security on, no
-- policy for any other role.
CREATE OR REPLACE FUNCTION signgate.give_to_auth_service(tab regclass) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', tab);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', tab);
    EXECUTE format('DROP POLICY IF EXISTS owner_all ON %s', tab);
    EXECUTE format('CREATE POLICY owner_all ON %s TO signgate_owner USING (true) WITH CHECK (true)', tab);
    EXECUTE format('DROP POLICY IF EXISTS auth_service_all ON %s', tab);
    EXECUTE format('CREATE POLICY auth_service_all ON %s TO signgate_auth USING (true) WITH CHECK (true)', tab);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO signgate_auth', tab);
END
$$;
RESET ROLE;

DO $$
BEGIN
    IF NOT signgate.owns_auth() THEN
        -- Policies name auth.uid(), so their owner must see the schema. It comes by what Supabase
        -- grants to `authenticated`; a grant on the schema itself would change what is Supabase's.
        IF NOT has_schema_privilege('signgate_owner', 'auth', 'USAGE') THEN
            GRANT authenticated TO signgate_owner;
        END IF;
        RETURN;
    END IF;
    SET LOCAL ROLE signgate_owner;
    GRANT USAGE ON SCHEMA auth TO anon, authenticated, service_role, signgate_auth;

    -- The verified claims of the request's token; NULL outside a request.
    CREATE OR REPLACE FUNCTION auth.jwt() RETURNS jsonb LANGUAGE sql STABLE AS $f$
        SELECT coalesce(nullif(current_setting('request.jwt.claim', true), ''),
                        nullif(current_setting('request.jwt.claims', true), ''))::jsonb
    $f$;
    -- The caller's user id. The claims one by one (`request.jwt.claim.*`) are the older form; both count.
    CREATE OR REPLACE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS $f$
        SELECT coalesce(nullif(current_setting('request.jwt.claim.sub', true), ''),
                        nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid
    $f$;
    CREATE OR REPLACE FUNCTION auth.role() RETURNS text LANGUAGE sql STABLE AS $f$
        SELECT coalesce(nullif(current_setting('request.jwt.claim.role', true), ''),
                        nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role')
    $f$;
    CREATE OR REPLACE FUNCTION auth.email() RETURNS text LANGUAGE sql STABLE AS $f$
        SELECT coalesce(nullif(current_setting('request.jwt.claim.email', true), ''),
                        nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'email')
    $f$;
    -- Policies call them as whoever asks; they tell only what the asker's own request said.
    GRANT EXECUTE ON FUNCTION auth.jwt(), auth.uid(), auth.role(), auth.email() TO PUBLIC;
    RESET ROLE;
END
$$;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
