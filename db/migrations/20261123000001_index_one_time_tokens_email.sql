-- migrate:up
-- A typed code is looked up by the address that its mail went to.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

DO $$
BEGIN
    IF NOT signgate.owns_auth() THEN
        RETURN;
    END IF;
    SET LOCAL ROLE signgate_owner;
    CREATE INDEX IF NOT EXISTS one_time_tokens_email ON auth.one_time_tokens (email);
    RESET ROLE;
END
$$;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
