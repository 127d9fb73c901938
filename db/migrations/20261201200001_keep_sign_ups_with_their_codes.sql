-- migrate:up
-- What an unproved party wants of an account stays with the code that is mailed for it, and which half of an
-- e-mail change has been confirmed gets a name. Expands only. The previous version passes these columns over:
-- - it writes a sign-up into auth.users; this version takes one from there when it next touches the account
--   (a sign-up's password has password_changed_at = confirmation_sent_at, an operator's has not);
-- - it replaces a code under a new id; pending_of then no longer names the row, and what is pending is contested;
-- - a code of a sign-up that this version took, redeemed there, confirms the address and sets no password;
-- - it counts each half of an e-mail change as "one of them"; its own, 1, counts as none here.
-- db/contract moves what it has left.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

DO $$
BEGIN
    IF NOT signgate.owns_auth() THEN
        RETURN;
    END IF;
    SET LOCAL ROLE signgate_owner;

    ALTER TABLE auth.one_time_tokens
        ADD COLUMN IF NOT EXISTS pending_password text,                -- argon2id in PHC form
        ADD COLUMN IF NOT EXISTS pending_metadata jsonb,
        ADD COLUMN IF NOT EXISTS contested boolean NOT NULL DEFAULT false,  -- several parties signed up
        ADD COLUMN IF NOT EXISTS pending_of uuid;                      -- the code's id when these were written

    -- Which of the two addresses has confirmed: 0 none, 1 one of them (previous version), 2 the current one,
    -- 3 the new one.
    ALTER TABLE auth.users DROP CONSTRAINT IF EXISTS users_email_change_confirm_status_check;
    ALTER TABLE auth.users ADD CONSTRAINT users_email_change_confirm_status_check
        CHECK (email_change_confirm_status BETWEEN 0 AND 3) NOT VALID;
    RESET ROLE;
END
$$;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
