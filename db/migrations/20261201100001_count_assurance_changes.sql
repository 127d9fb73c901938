-- migrate:up
-- How often a session's assurance was raised or lowered: its access tokens carry the number, so that older ones
-- can be told apart. Expands only: instances of the last version leave it as it is.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

DO $$
BEGIN
    IF NOT signgate.owns_auth() THEN
        RETURN;
    END IF;
    SET LOCAL ROLE signgate_owner;
    ALTER TABLE auth.sessions ADD COLUMN IF NOT EXISTS assurance_version integer NOT NULL DEFAULT 0;
    RESET ROLE;
END
$$;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
