-- Who may do what in the audit, on PostgreSQL. Say it once in the audit's database, before or after the first
-- `cancelq migrate`, as the role that migrates (it needs CREATEROLE, or a superuser makes the two roles first):
--
--     psql -v ON_ERROR_STOP=1 -f deploy/roles.sql "$OWNER_URL"
--
-- Then make logins of them, each with a password of its own:
--
--     CREATE ROLE desk    LOGIN PASSWORD '…' IN ROLE cancelq_writer;   -- cancelq worker, pause, redrive, resolve, …
--     CREATE ROLE auditor LOGIN PASSWORD '…' IN ROLE cancelq_reader;   -- cancelq report, verify, why, and any SELECT
--
-- Neither may change or remove a row, change the schema, or switch a trigger off. Safe to repeat; later migrations
-- give both roles their rights on what they add.

DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'cancelq_writer') THEN
    CREATE ROLE cancelq_writer NOLOGIN;
  END IF;
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'cancelq_reader') THEN
    CREATE ROLE cancelq_reader NOLOGIN;
  END IF;
END $$;

-- Before PostgreSQL 15 everybody might create tables and functions here.
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO cancelq_writer, cancelq_reader;

-- Both read all: tables for `cancelq verify`, views for people.
GRANT SELECT ON ALL TABLES IN SCHEMA public TO cancelq_writer, cancelq_reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO cancelq_writer, cancelq_reader;

-- Writers add rows to what is defended against changes, and to nothing else.
DO $$
DECLARE
  defended regclass;
BEGIN
  FOR defended IN SELECT tgrelid FROM pg_trigger WHERE tgfoid = to_regproc('cancelq_append_only') LOOP
    EXECUTE format('GRANT INSERT ON %s TO cancelq_writer', defended);
  END LOOP;
END $$;
