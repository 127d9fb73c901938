-- migrate:up
-- The roles. None gets a password here: the deployment sets them (ALTER ROLE … PASSWORD).
-- Runs as a superuser, or as any role with CREATEROLE that may grant on the schema public.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

DO $$
DECLARE
    name text;
BEGIN
    -- Owns every object and runs every SECURITY DEFINER function. It is no superuser and does not
    -- bypass row level security: each table has a policy that names it.
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'signgate_owner') THEN
        CREATE ROLE signgate_owner NOLOGIN;
    END IF;
    -- Supabase's own; left as they are where they exist.
    FOREACH name IN ARRAY ARRAY['anon', 'authenticated', 'service_role'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN NOINHERIT', name);
        END IF;
    END LOOP;
    -- One a service. NOINHERIT: what a member role may do needs a SET ROLE, which shows in the code.
    FOREACH name IN ARRAY ARRAY['signgate_auth', 'signgate_keys', 'signgate_quota', 'signgate_logger'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
            EXECUTE format('CREATE ROLE %I LOGIN NOINHERIT', name);
        END IF;
        -- So that a service can act as its caller (SET LOCAL ROLE authenticated, with the claims).
        IF NOT pg_has_role(name, 'authenticated', 'MEMBER') THEN
            EXECUTE format('GRANT authenticated TO %I', name);
        END IF;
    END LOOP;
    -- Migrations say SET LOCAL ROLE signgate_owner. A superuser needs no membership for it; whoever may
    -- not grant it must have been granted it already, or the next migration says so.
    IF current_user <> 'signgate_owner'
        AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        BEGIN
            EXECUTE format('GRANT signgate_owner TO %I', current_user);
        EXCEPTION WHEN insufficient_privilege THEN
            NULL;
        END;
    END IF;
END
$$;

GRANT CREATE, USAGE ON SCHEMA public TO signgate_owner;
GRANT USAGE ON SCHEMA public
    TO anon, authenticated, service_role, signgate_auth, signgate_keys, signgate_quota, signgate_logger;

-- A function that nobody was granted is one that nobody may call.
ALTER DEFAULT PRIVILEGES FOR ROLE signgate_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
