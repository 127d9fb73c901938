-- migrate:up
-- public.users follows auth.users: a row for each account, the same id, the e-mail in step.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';
SET LOCAL ROLE signgate_owner;

-- After a sign-up: makes the profile. After a change of address: carries it over.
-- An account without an address, or (on Supabase, single sign-on) with an address that another account
-- has, gets `<id>@users.invalid`: the profile's address is unique, and a sign-up must not fail for it.
CREATE OR REPLACE FUNCTION public.handle_new_user() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    placeholder CONSTANT text := NEW.id || '@users.invalid';
BEGIN
    INSERT INTO public.users (id, email, created_at)
    VALUES (NEW.id, coalesce(nullif(NEW.email, ''), placeholder), coalesce(NEW.created_at, now()))
    ON CONFLICT (id) DO UPDATE SET email = excluded.email;
    RETURN NEW;
EXCEPTION WHEN unique_violation THEN
    INSERT INTO public.users (id, email, created_at)
    VALUES (NEW.id, placeholder, coalesce(NEW.created_at, now()))
    ON CONFLICT (id) DO UPDATE SET email = excluded.email;
    RETURN NEW;
END
$$;

-- After an account is deleted: its profile goes, and by the foreign keys its API keys and quota; its
-- usage stays, without the person.
CREATE OR REPLACE FUNCTION signgate.handle_deleted_user() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM public.users WHERE id = OLD.id;
    RETURN OLD;
END
$$;
RESET ROLE;

-- As the migrating role: where auth.users is Supabase's, only that role may attach triggers to it.
CREATE OR REPLACE TRIGGER on_auth_user_created
    AFTER INSERT ON auth.users FOR EACH ROW EXECUTE FUNCTION public.handle_new_user();
CREATE OR REPLACE TRIGGER on_auth_user_email_changed
    AFTER UPDATE OF email ON auth.users FOR EACH ROW WHEN (OLD.email IS DISTINCT FROM NEW.email)
    EXECUTE FUNCTION public.handle_new_user();
CREATE OR REPLACE TRIGGER on_auth_user_deleted
    AFTER DELETE ON auth.users FOR EACH ROW EXECUTE FUNCTION signgate.handle_deleted_user();

-- Accounts that were there before.
INSERT INTO public.users (id, email, created_at)
SELECT id, coalesce(nullif(email, ''), id || '@users.invalid'), coalesce(created_at, now()) FROM auth.users
ON CONFLICT DO NOTHING;
INSERT INTO public.users (id, email, created_at)
SELECT id, id || '@users.invalid', coalesce(created_at, now()) FROM auth.users
ON CONFLICT DO NOTHING;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
