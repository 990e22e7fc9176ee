-- Three roles for one database, each with what it needs and no more. Run as a superuser, connected to
-- the database, before the first migration; running it again changes nothing. Passwords are not
-- its business: the operator of the database sets them (docs/deploying.md).
--
--   torghut_migrate  owns the schema: `torghut migrate`, before a new version starts
--   torghut_app      the daemon and the commands: rows, no DDL
--   torghut_ro       people and dashboards: reads only, and never for long
--
-- What may not be changed or deleted is refused by triggers, whoever asks; so torghut_app's DELETE
-- reaches only the tables of folds and marks that are rebuilt.

DO $$
DECLARE
  wanted text;
BEGIN
  FOREACH wanted IN ARRAY ARRAY['torghut_migrate', 'torghut_app', 'torghut_ro'] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
      EXECUTE format('CREATE ROLE %I LOGIN', wanted);
    END IF;
    EXECUTE format('ALTER ROLE %I NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS', wanted);
  END LOOP;
  EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
  EXECUTE format('GRANT CONNECT ON DATABASE %I TO torghut_migrate, torghut_app, torghut_ro', current_database());
END
$$;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO torghut_migrate;
GRANT USAGE ON SCHEMA public TO torghut_app, torghut_ro;

-- what torghut_migrate makes from now on
ALTER DEFAULT PRIVILEGES FOR ROLE torghut_migrate IN SCHEMA public
  GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO torghut_app;
ALTER DEFAULT PRIVILEGES FOR ROLE torghut_migrate IN SCHEMA public
  GRANT USAGE, SELECT ON SEQUENCES TO torghut_app;
ALTER DEFAULT PRIVILEGES FOR ROLE torghut_migrate IN SCHEMA public
  GRANT SELECT ON TABLES TO torghut_ro;

-- which schema it is says the migration alone
CREATE TABLE IF NOT EXISTS public.alembic_version (
  version_num varchar(32) NOT NULL CONSTRAINT alembic_version_pkc PRIMARY KEY
);
ALTER TABLE public.alembic_version OWNER TO torghut_migrate;
REVOKE ALL ON public.alembic_version FROM torghut_app, torghut_ro;
GRANT SELECT ON public.alembic_version TO torghut_app, torghut_ro;

-- a reader neither writes nor holds back vacuum
ALTER ROLE torghut_ro SET default_transaction_read_only = on;
ALTER ROLE torghut_ro SET statement_timeout = '30s';
ALTER ROLE torghut_ro SET idle_in_transaction_session_timeout = '10s';
