-- migrate:up
-- Whether an account may act is told by one row: public.users carries what auth.users knows of it, so that a
-- ban holds for API keys too, and on Supabase's auth.users as well as on ours.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';
SET LOCAL ROLE signgate_owner;

-- They follow auth.users, by the trigger below. An account that is kept elsewhere and has no row there counts
-- as confirmed and not banned; who inserts its profile may set them.
ALTER TABLE public.users ADD COLUMN IF NOT EXISTS banned_until timestamptz;
ALTER TABLE public.users ADD COLUMN IF NOT EXISTS confirmed boolean NOT NULL DEFAULT true;
ALTER TABLE public.users ADD COLUMN IF NOT EXISTS deleted_at timestamptz;  -- by soft deletion

-- The one rule: `active`, or why the account may not act. Of several reasons, the one that lasts longest. A ban
-- ends by time: nothing has to happen for it. `services.auth.domain.User.state` is the same rule.
-- The body is parsed now, and may be inlined: key records are read with it.
CREATE OR REPLACE FUNCTION public.account_state(account public.users) RETURNS text
LANGUAGE sql STABLE
RETURN CASE
    WHEN (account).deleted_at IS NOT NULL THEN 'deleted'
    WHEN NOT (account).is_active THEN 'deactivated'
    WHEN (account).banned_until > now() THEN 'banned'
    WHEN NOT (account).confirmed THEN 'unconfirmed'
    ELSE 'active'
END;
GRANT EXECUTE ON FUNCTION public.account_state(public.users) TO signgate_auth, service_role;

-- Whether a row of auth.users has proved an address. Supabase's has more columns than ours, older ones have
-- fewer; an account without any address (anonymous) has nothing to prove.
CREATE OR REPLACE FUNCTION signgate.has_proved_address(account jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT NOT account ? 'email_confirmed_at'
        OR account ->> 'email_confirmed_at' IS NOT NULL
        OR account ->> 'phone_confirmed_at' IS NOT NULL
        OR (coalesce(account ->> 'email', '') = '' AND coalesce(account ->> 'phone', '') = '')
$$;

CREATE OR REPLACE FUNCTION signgate.carry_account_facts() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    account CONSTANT jsonb := to_jsonb(NEW);
BEGIN
    UPDATE public.users
    SET banned_until = (account ->> 'banned_until')::timestamptz,
        confirmed = signgate.has_proved_address(account),
        deleted_at = (account ->> 'deleted_at')::timestamptz
    WHERE id = NEW.id;
    RETURN NULL;
END
$$;

DO $$
BEGIN
    IF signgate.owns_auth() THEN
        ALTER TABLE auth.users ADD COLUMN IF NOT EXISTS deleted_at timestamptz;
    END IF;
END
$$;
RESET ROLE;

-- As the migrating role: where auth.users is Supabase's, only that role may attach triggers to it. By its name it
-- runs after the one that makes the profile.
DO $$
DECLARE
    columns text;
BEGIN
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO columns
    FROM pg_attribute
    WHERE attrelid = 'auth.users'::regclass AND NOT attisdropped
      AND attname IN ('email', 'phone', 'banned_until', 'email_confirmed_at', 'phone_confirmed_at', 'deleted_at');
    EXECUTE format(
        'CREATE OR REPLACE TRIGGER on_auth_user_facts AFTER INSERT OR UPDATE OF %s ON auth.users'
        ' FOR EACH ROW EXECUTE FUNCTION signgate.carry_account_facts()', columns);
END
$$;

-- Accounts that were there before.
UPDATE public.users p
SET banned_until = (a.account ->> 'banned_until')::timestamptz,
    confirmed = signgate.has_proved_address(a.account),
    deleted_at = (a.account ->> 'deleted_at')::timestamptz
FROM (SELECT u.id, to_jsonb(u) AS account FROM auth.users u) a
WHERE a.id = p.id;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
