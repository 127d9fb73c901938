-- migrate:up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';
SET LOCAL ROLE signgate_owner;

-- Makes the monthly partitions of usage_logs from months_back before to months_ahead after the present
-- UTC month, where they are missing; returns how many it made. Rows that wait in the default partition
-- move to the new one, in the same transaction. Safe to call at any time, by any number at once.
CREATE OR REPLACE FUNCTION public.ensure_usage_partitions(months_ahead integer DEFAULT 3, months_back integer DEFAULT 1)
RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET lock_timeout = '5s'
AS $$
DECLARE
    this_month CONSTANT timestamptz := date_trunc('month', now());
    month timestamptz;
    next_month timestamptz;
    name text;
    made integer := 0;
BEGIN
    IF months_ahead NOT BETWEEN 0 AND 120 OR months_back NOT BETWEEN 0 AND 120 THEN
        RAISE EXCEPTION 'months must be between 0 and 120' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('signgate.usage_partitions', 0));
    FOR i IN -months_back .. months_ahead LOOP
        month := this_month + make_interval(months => i);
        next_month := month + interval '1 month';
        name := 'usage_logs_' || to_char(month, 'YYYY_MM');
        CONTINUE WHEN to_regclass(format('signgate.%I', name)) IS NOT NULL;
        EXECUTE format('CREATE TABLE signgate.%I (LIKE public.usage_logs INCLUDING ALL)', name);
        EXECUTE format('ALTER TABLE signgate.%I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE signgate.%I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY owner_all ON signgate.%I TO signgate_owner USING (true) WITH CHECK (true)', name);
        EXECUTE format(
            'WITH waiting AS (
                 DELETE FROM signgate.usage_logs_default WHERE created_at >= %L AND created_at < %L RETURNING *
             ) INSERT INTO signgate.%I SELECT * FROM waiting', month, next_month, name);
        EXECUTE format('ALTER TABLE public.usage_logs ATTACH PARTITION signgate.%I FOR VALUES FROM (%L) TO (%L)',
                       name, month, next_month);
        made := made + 1;
    END LOOP;
    RETURN made;
END
$$;

-- Retention: drops the partitions that lie wholly before a day, and what the default partition holds
-- from before it. Returns the dropped partitions' names.
CREATE OR REPLACE FUNCTION public.drop_usage_partitions_before(before date)
RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET lock_timeout = '5s'
AS $$
DECLARE
    name text;
BEGIN
    IF before IS NULL OR before > current_date THEN
        RAISE EXCEPTION 'the day must not lie ahead' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('signgate.usage_partitions', 0));
    FOR name IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'public.usage_logs'::regclass AND c.relname ~ '^usage_logs_\d{4}_\d{2}$'
          AND to_date(right(c.relname, 7), 'YYYY_MM') + interval '1 month' <= before
        ORDER BY c.relname
    LOOP
        EXECUTE format('DROP TABLE signgate.%I', name);
        RETURN NEXT name;
    END LOOP;
    DELETE FROM signgate.usage_logs_default WHERE created_at < before;
END
$$;

GRANT EXECUTE ON FUNCTION public.ensure_usage_partitions(integer, integer) TO signgate_logger, service_role;
GRANT EXECUTE ON FUNCTION public.drop_usage_partitions_before(date) TO signgate_logger, service_role;

SELECT public.ensure_usage_partitions();
RESET ROLE;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
