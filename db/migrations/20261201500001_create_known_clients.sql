-- migrate:up
-- Where an account's owner has signed in from: strangers' attempts are counted apart from theirs. Keyed hashes
-- only; the service forgets them (90 days, the latest of each kind).
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

DO $$
BEGIN
    IF NOT signgate.owns_auth() THEN
        RETURN;
    END IF;
    SET LOCAL ROLE signgate_owner;

    CREATE TABLE IF NOT EXISTS auth.known_clients (
        user_id uuid NOT NULL REFERENCES auth.users (id) ON DELETE CASCADE,
        kind text NOT NULL CHECK (kind IN ('address', 'device', 'program')),
        hash text NOT NULL CHECK (length(hash) = 64),
        first_seen timestamptz NOT NULL DEFAULT now(),
        last_seen timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (user_id, kind, hash)
    );
    CREATE INDEX IF NOT EXISTS known_clients_seen ON auth.known_clients (last_seen);
    PERFORM signgate.give_to_auth_service('auth.known_clients');

    -- Wrong tries of a code by the owner's own clients; `attempts` counts those of strangers. The service of the
    -- version before knows nothing of it and goes on.
    ALTER TABLE auth.one_time_tokens ADD COLUMN IF NOT EXISTS known_attempts integer NOT NULL DEFAULT 0;
    RESET ROLE;
END
$$;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
