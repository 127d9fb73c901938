-- migrate:up
-- Roles belong to the server: this runs as the migrating role, not as signgate_owner. A session may ask for
-- less by its own settings, and for more where it says so in the code (reconciliation).
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['signgate_auth', 'signgate_keys', 'signgate_quota', 'signgate_logger'] LOOP
        EXECUTE format('ALTER ROLE %I SET statement_timeout = %L', name,
                       CASE name WHEN 'signgate_logger' THEN '60s' ELSE '10s' END);
        EXECUTE format('ALTER ROLE %I SET lock_timeout = %L', name, '5s');
        EXECUTE format('ALTER ROLE %I SET idle_in_transaction_session_timeout = %L', name, '30s');
        -- Pools close a connection that nothing has used for five minutes: this ends what no pool knows.
        EXECUTE format('ALTER ROLE %I SET idle_session_timeout = %L', name, '15min');
        -- One service, however many connections it opens, leaves half to the others. Larger
        -- installations choose their own number, which stays.
        IF (SELECT rolconnlimit FROM pg_roles WHERE rolname = name) = -1 THEN
            EXECUTE format('ALTER ROLE %I CONNECTION LIMIT %s', name, current_setting('max_connections')::integer / 2);
        END IF;
    END LOOP;
END
$$;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
