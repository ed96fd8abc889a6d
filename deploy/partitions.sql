-- The audit in monthly partitions on PostgreSQL (tried on 18): an old month can be put aside, whole and unchanged.
-- Say it once in the audit's database, after the first `cancelq migrate` and before any worker writes, as its owner:
--
--     psql -v ON_ERROR_STOP=1 --single-transaction -f deploy/partitions.sql "$OWNER_URL"
--
-- A job's id begins with its time, so a month is a range of ids, and all rows of a job are in its month, however late
-- they come. The fences (job, attempt) and (job) hold over all months, because the id is part of them.
-- Where deploy/roles.sql was said before, say it again afterwards.
--
-- Then, once a year (safe to repeat):
--                      SELECT cancelq_make_month(month) FROM generate_series(…, …, interval '1 month') AS month;
-- to put one aside:    SELECT cancelq_put_aside('2026-01-01');   (its tables stay, append-only, beside the others)
-- and to verify all:   SELECT cancelq_take_back('2026-01-01');
-- Put no month aside that holds an open job: a ledger that loses its data would not get it back. While a month is aside
-- `cancelq verify` misses the rows that seals name: it holds again once the month is back (docs/scale.md).
-- A row of a month that was not made goes into the last partition, audit_…_rest: nothing is ever refused for it.

DO $$
BEGIN
  IF EXISTS (SELECT FROM jobs) THEN
    RAISE EXCEPTION 'jobs holds rows already: partition a new database, and keep this one as it is';
  END IF;
  IF EXISTS (SELECT FROM pg_partitioned_table) THEN
    RAISE EXCEPTION 'the audit is partitioned already';
  END IF;
END $$;

-- The smallest job id of a moment: its first twelve digits are milliseconds since 1970.
CREATE FUNCTION cancelq_first_id(at timestamptz) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT left(digits, 8) || '-' || right(digits, 4)
  FROM lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') AS digits
$$;

CREATE FUNCTION cancelq_defend(target text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('CREATE TRIGGER %I BEFORE UPDATE OR DELETE OR TRUNCATE ON %I FOR EACH STATEMENT '
    'EXECUTE FUNCTION cancelq_append_only()', target || '_append_only', target);
END $$;

-- The tables whose rows belong to a job, as partitioned ones under their old names; views are made again as they were.
DO $$
DECLARE
  fact text;
  rule record;
  shown record;
BEGIN
  CREATE TEMP TABLE was_shown ON COMMIT DROP AS
    SELECT viewname, definition FROM pg_views WHERE schemaname = 'public' AND viewname LIKE 'audit\_%';
  FOR shown IN SELECT * FROM was_shown LOOP
    EXECUTE format('DROP VIEW IF EXISTS %I CASCADE', shown.viewname);
  END LOOP;
  FOR fact IN
    SELECT table_name FROM information_schema.columns
    WHERE table_schema = 'public' AND column_name = 'job_id' ORDER BY table_name
  LOOP
    CREATE TEMP TABLE was_ruled ON COMMIT DROP AS
      SELECT format('ALTER TABLE %I ADD CONSTRAINT %I %s', fact, conname,
        CASE contype WHEN 'p' THEN 'PRIMARY KEY (writer, seq, job_id)' ELSE pg_get_constraintdef(oid) END) AS said
      FROM pg_constraint WHERE conrelid = fact::regclass AND contype IN ('p', 'u')
      UNION ALL
      SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = fact::regclass AND NOT indisunique;
    EXECUTE format('ALTER TABLE %I RENAME TO was_whole', fact);
    EXECUTE format('CREATE TABLE %I (LIKE was_whole INCLUDING DEFAULTS INCLUDING CONSTRAINTS) '
      'PARTITION BY RANGE (job_id)', fact);
    DROP TABLE was_whole;
    FOR rule IN SELECT said FROM was_ruled LOOP
      EXECUTE rule.said;
    END LOOP;
    DROP TABLE was_ruled;
    PERFORM cancelq_defend(fact);
    EXECUTE format('CREATE TABLE %I PARTITION OF %I DEFAULT', 'audit_' || fact || '_rest', fact);
    PERFORM cancelq_defend('audit_' || fact || '_rest');
  END LOOP;
  -- audit_jobs and audit_overlaps read audit_attempts, which comes before them.
  FOR shown IN SELECT * FROM was_shown ORDER BY viewname LOOP
    EXECUTE format('CREATE VIEW %I AS %s', shown.viewname, shown.definition);
  END LOOP;
END $$;

-- A partitioned table and the name of its partition for a month, such as audit_jobs_2026_01.
CREATE FUNCTION cancelq_month(month timestamptz) RETURNS TABLE (whole text, part text) LANGUAGE sql STABLE AS $$
  SELECT partrelid::regclass::text, format('audit_%s_%s', partrelid::regclass, to_char(month AT TIME ZONE 'UTC', 'YYYY_MM'))
  FROM pg_partitioned_table
$$;

CREATE FUNCTION cancelq_bounds(month timestamptz) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT format('FOR VALUES FROM (%L) TO (%L)', cancelq_first_id(begin AT TIME ZONE 'UTC'),
    cancelq_first_id((begin + interval '1 month') AT TIME ZONE 'UTC'))
  FROM date_trunc('month', month AT TIME ZONE 'UTC') AS begin
$$;

CREATE FUNCTION cancelq_make_month(month timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  each record;
BEGIN
  FOR each IN SELECT * FROM cancelq_month(month) WHERE to_regclass(part) IS NULL LOOP
    EXECUTE format('CREATE TABLE %I PARTITION OF %I %s', each.part, each.whole, cancelq_bounds(month));
    PERFORM cancelq_defend(each.part);
  END LOOP;
END $$;

-- Waits a second for the locks at most, then fails and has done nothing: say it again.
CREATE FUNCTION cancelq_put_aside(month timestamptz) RETURNS void LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
DECLARE
  each record;
BEGIN
  FOR each IN SELECT * FROM cancelq_month(month) LOOP
    EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', each.whole, each.part);
  END LOOP;
END $$;

CREATE FUNCTION cancelq_take_back(month timestamptz) RETURNS void LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
DECLARE
  each record;
BEGIN
  FOR each IN SELECT * FROM cancelq_month(month) LOOP
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I %s', each.whole, each.part, cancelq_bounds(month));
  END LOOP;
END $$;

-- Nobody but the owner: a worker has no business with months.
REVOKE EXECUTE ON FUNCTION cancelq_make_month, cancelq_put_aside, cancelq_take_back FROM PUBLIC;

-- This month and the next twelve.
SELECT cancelq_make_month(now() + ahead * interval '1 month') FROM generate_series(0, 12) AS ahead;
