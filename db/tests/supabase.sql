-- A stand-in for a Supabase project, with the facts that the migrations could run into: its roles, a schema
-- `auth` of its own with tables named like ours, its four functions, and privileges by default. The columns
-- are few; none of them is ours to touch. `project_admin` has the rights of Supabase's role `postgres`.
CREATE ROLE anon NOLOGIN NOINHERIT;
CREATE ROLE authenticated NOLOGIN NOINHERIT;
CREATE ROLE service_role NOLOGIN NOINHERIT BYPASSRLS;
CREATE ROLE authenticator LOGIN NOINHERIT;
GRANT anon, authenticated, service_role TO authenticator;
CREATE ROLE supabase_auth_admin LOGIN NOINHERIT CREATEROLE;
CREATE ROLE project_admin LOGIN NOSUPERUSER CREATEDB CREATEROLE BYPASSRLS;
GRANT anon, authenticated, service_role TO project_admin WITH ADMIN OPTION;
GRANT CREATE ON DATABASE :"database" TO project_admin;
GRANT ALL ON SCHEMA public TO project_admin WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES FOR ROLE project_admin IN SCHEMA public
    GRANT ALL ON TABLES TO anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES FOR ROLE project_admin IN SCHEMA public
    GRANT ALL ON FUNCTIONS TO anon, authenticated, service_role;

CREATE SCHEMA auth;
GRANT USAGE ON SCHEMA auth TO anon, authenticated, service_role;
GRANT ALL ON SCHEMA auth TO supabase_auth_admin, project_admin;
CREATE TABLE auth.users (
    id uuid PRIMARY KEY, aud varchar(255), role varchar(255), email varchar(255), encrypted_password varchar(255),
    is_sso_user boolean NOT NULL DEFAULT false, created_at timestamptz, updated_at timestamptz,
    email_confirmed_at timestamptz, phone text, phone_confirmed_at timestamptz, banned_until timestamptz,
    deleted_at timestamptz
);
CREATE TABLE auth.identities (id uuid PRIMARY KEY, user_id uuid REFERENCES auth.users ON DELETE CASCADE);
CREATE TABLE auth.sessions (id uuid PRIMARY KEY, user_id uuid REFERENCES auth.users ON DELETE CASCADE);
CREATE TABLE auth.refresh_tokens (id bigserial PRIMARY KEY, token varchar(255), parent varchar(255));
CREATE TABLE auth.one_time_tokens (id uuid PRIMARY KEY, token_hash text NOT NULL);
CREATE TABLE auth.flow_state (id uuid PRIMARY KEY, auth_code text);
CREATE TABLE auth.mfa_factors (id uuid PRIMARY KEY, secret text);
CREATE TABLE auth.mfa_challenges (id uuid PRIMARY KEY, factor_id uuid);
CREATE TABLE auth.audit_log_entries (id uuid PRIMARY KEY, payload json);
CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS $$
    SELECT (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid
$$;
CREATE FUNCTION auth.role() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role'
$$;
CREATE FUNCTION auth.email() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'email'
$$;
CREATE FUNCTION auth.jwt() RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT nullif(current_setting('request.jwt.claims', true), '')::jsonb
$$;
DO $$
DECLARE
    thing text;
BEGIN
    FOR thing IN SELECT oid::regclass FROM pg_class WHERE relnamespace = 'auth'::regnamespace AND relkind = 'r' LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO supabase_auth_admin', thing);
    END LOOP;
    FOR thing IN SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'auth'::regnamespace LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO supabase_auth_admin', thing);
    END LOOP;
END
$$;
GRANT ALL ON ALL TABLES IN SCHEMA auth TO project_admin;
ALTER TABLE auth.users ENABLE ROW LEVEL SECURITY;
INSERT INTO auth.users (id, email, created_at, email_confirmed_at) VALUES
    ('00000000-0000-4000-8000-000000000001', 'before@example.com', '2025-01-01', '2025-01-01'),
    ('00000000-0000-4000-8000-000000000002', NULL, '2025-01-02', NULL),
    ('00000000-0000-4000-8000-000000000003', 'before@example.com', '2025-01-03', NULL);
