-- The seed's design, as well as it can be written: its tables, and its four functions as plain SQL, which
-- PostgreSQL plans once a connection. Superuser's tables: no row level security slows them.
CREATE TABLE users (
    id uuid PRIMARY KEY,
    email text UNIQUE NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    is_active boolean NOT NULL DEFAULT true,
    tier text NOT NULL DEFAULT 'api_key'
);
CREATE TABLE api_keys (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    key_hash text UNIQUE NOT NULL,
    name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    last_used timestamptz,
    is_active boolean NOT NULL DEFAULT true
) WITH (fillfactor = 50);
CREATE TABLE usage_logs (
    id uuid PRIMARY KEY,
    user_id uuid REFERENCES users (id) ON DELETE SET NULL,
    api_key_id uuid REFERENCES api_keys (id) ON DELETE SET NULL,
    room_url text NOT NULL,
    success boolean NOT NULL,
    response_time_ms integer NOT NULL,
    error_message text,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX usage_logs_user ON usage_logs (user_id, created_at);
CREATE TABLE quota_usage (
    user_id uuid REFERENCES users (id) ON DELETE CASCADE,
    date date NOT NULL,
    request_count integer NOT NULL DEFAULT 0,
    PRIMARY KEY (user_id, date)
) WITH (fillfactor = 10);

-- Who a key belongs to. `last_used` moves once a minute: at every request it would be a write more.
CREATE FUNCTION validate_api_key(p_key_hash text)
RETURNS TABLE (user_id uuid, api_key_id uuid, tier text, stale boolean)
LANGUAGE sql STABLE AS $$
    SELECT u.id, k.id, u.tier, coalesce(k.last_used < now() - interval '1 minute', true)
    FROM api_keys k JOIN users u ON u.id = k.user_id
    WHERE k.key_hash = p_key_hash AND k.is_active AND u.is_active
$$;

CREATE FUNCTION touch_api_key(p_id uuid) RETURNS void
LANGUAGE sql AS $$ UPDATE api_keys SET last_used = now() WHERE id = p_id $$;

CREATE FUNCTION check_user_quota_limit(p_user_id uuid, p_limit bigint) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT p_limit - coalesce((SELECT request_count FROM quota_usage
                               WHERE user_id = p_user_id AND date = current_date), 0)
$$;

CREATE FUNCTION update_quota_usage(p_user_id uuid) RETURNS integer
LANGUAGE sql AS $$
    INSERT INTO quota_usage AS q (user_id, date, request_count) VALUES (p_user_id, current_date, 1)
    ON CONFLICT (user_id, date) DO UPDATE SET request_count = q.request_count + 1
    RETURNING request_count
$$;

CREATE FUNCTION log_api_usage(p_id uuid, p_user_id uuid, p_key_id uuid, p_room_url text, p_ms integer)
RETURNS void
LANGUAGE sql AS $$
    INSERT INTO usage_logs (id, user_id, api_key_id, room_url, success, response_time_ms)
    VALUES (p_id, p_user_id, p_key_id, p_room_url, true, p_ms)
$$;

-- The four in one call: validates, charges if the limit allows, logs. No row: no such key; -1: used up.
CREATE FUNCTION sign_request(p_key_hash text, p_limit bigint, p_id uuid, p_room_url text, p_ms integer)
RETURNS TABLE (user_id uuid, remaining bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    key record;
    used bigint;
BEGIN
    SELECT k.id, k.user_id, coalesce(k.last_used < now() - interval '1 minute', true) AS stale INTO key
    FROM api_keys k JOIN users u ON u.id = k.user_id
    WHERE k.key_hash = p_key_hash AND k.is_active AND u.is_active;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF key.stale THEN
        UPDATE api_keys SET last_used = now() WHERE id = key.id;
    END IF;
    INSERT INTO usage_logs (id, user_id, api_key_id, room_url, success, response_time_ms)
    VALUES (p_id, key.user_id, key.id, p_room_url, true, p_ms);
    -- Last, so that the one row that a user's requests wait for each other on is held the shortest.
    INSERT INTO quota_usage AS q (user_id, date, request_count) VALUES (key.user_id, current_date, 1)
    ON CONFLICT (user_id, date) DO UPDATE SET request_count = q.request_count + 1 WHERE q.request_count < p_limit
    RETURNING request_count INTO used;
    IF used IS NULL THEN
        RAISE EXCEPTION 'used up' USING ERRCODE = 'SG002';
    END IF;
    RETURN QUERY SELECT key.user_id, p_limit - used;
END
$$;
