-- migrate:up
-- No service's role can become a user any more: what it needs of users, let_services_read_for_a_caller gave it.
-- To be run once no instance of the previous version is left (deploy.migrate --finish).
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

DO $$
DECLARE
    membership record;
    left_over text;
BEGIN
    FOR membership IN
        SELECT m.member::regrole AS member, m.roleid::regrole AS role, m.grantor::regrole AS grantor
        FROM pg_auth_members m
        WHERE m.member::regrole::text IN ('signgate_auth', 'signgate_keys', 'signgate_quota', 'signgate_logger')
    LOOP
        -- From version 16 on a membership is its grantor's to end.
        EXECUTE format('REVOKE %s FROM %s', membership.role, membership.member)
            || CASE WHEN current_setting('server_version_num')::integer >= 160000
                    THEN format(' GRANTED BY %s', membership.grantor) ELSE '' END;
    END LOOP;
    SELECT string_agg(DISTINCT m.member::regrole::text, ', ') INTO left_over
    FROM pg_auth_members m
    WHERE m.member::regrole::text IN ('signgate_auth', 'signgate_keys', 'signgate_quota', 'signgate_logger');
    IF left_over IS NOT NULL THEN
        RAISE EXCEPTION 'still members of another role: %', left_over
            USING HINT = 'The role that granted it, or a superuser, has to revoke it.';
    END IF;
END
$$;

SET LOCAL ROLE signgate_owner;
-- Of users the quota service needs nothing but their limits, which get_user_limits() tells.
DROP POLICY IF EXISTS quota_service_reads ON public.users;
REVOKE ALL ON public.users FROM signgate_quota;
REVOKE ALL (id, is_active, tier) ON public.users FROM signgate_quota;
RESET ROLE;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
