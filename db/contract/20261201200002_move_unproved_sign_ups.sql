-- migrate:up
-- Sign-ups that the previous version wrote into unconfirmed accounts move to their codes; without a code, to
-- one that has ended. To be run once no instance of the previous version is left (deploy.migrate --finish).
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

DO $$
BEGIN
    IF NOT signgate.owns_auth() THEN
        RETURN;
    END IF;
    SET LOCAL ROLE signgate_owner;

    WITH unproved AS (
        UPDATE auth.users u
        SET encrypted_password = NULL, password_changed_at = NULL, raw_user_meta_data = '{}'
        FROM auth.users before
        WHERE before.id = u.id AND before.email_confirmed_at IS NULL AND before.encrypted_password IS NOT NULL
          AND before.password_changed_at = before.confirmation_sent_at
        RETURNING u.id, u.email, before.encrypted_password, before.raw_user_meta_data, gen_random_uuid() AS code
    )
    INSERT INTO auth.one_time_tokens AS t (id, user_id, purpose, email, code_hash, expires_at,
                                           pending_password, pending_metadata, pending_of)
    SELECT code, id, 'signup', email, '', now(), encrypted_password, raw_user_meta_data, code FROM unproved
    ON CONFLICT (user_id, purpose) DO UPDATE
        SET contested = t.pending_of IS NOT NULL, pending_password = excluded.pending_password,
            pending_metadata = excluded.pending_metadata, pending_of = t.id;

    ALTER TABLE auth.users VALIDATE CONSTRAINT users_email_change_confirm_status_check;
    RESET ROLE;
END
$$;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
