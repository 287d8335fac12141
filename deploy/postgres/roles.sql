-- The broker's two roles. Run once by a superuser, connected to the broker's database:
--
--   BROKER_OWNER_PASSWORD=… BROKER_STORAGE_PASSWORD=… psql -d token_broker -f deploy/postgres/roles.sql
--
-- token_broker_owner owns the schema and is what `token-broker migrate` runs as. token_broker is what brokers serve as: it
-- reads and writes rows and changes no table. psql 15 or later.
\set ON_ERROR_STOP on
\getenv owner_password BROKER_OWNER_PASSWORD
\getenv serving_password BROKER_STORAGE_PASSWORD

-- A statement that fails is logged by the server, and these have passwords in them.
SELECT rolsuper AS superuser FROM pg_roles WHERE rolname = current_user \gset
\if :superuser
  SET log_min_error_statement = panic;
\endif

BEGIN;
CREATE ROLE token_broker_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE token_broker LOGIN PASSWORD :'serving_password';

SELECT current_database() AS database \gset
REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"database" TO token_broker_owner, token_broker;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO token_broker_owner;
GRANT USAGE ON SCHEMA public TO token_broker;
ALTER DEFAULT PRIVILEGES FOR ROLE token_broker_owner IN SCHEMA public
  GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO token_broker;
ALTER DEFAULT PRIVILEGES FOR ROLE token_broker_owner IN SCHEMA public
  GRANT USAGE, SELECT ON SEQUENCES TO token_broker;

-- Behind the broker's own limits: a session that its broker has lost ends by itself.
ALTER ROLE token_broker SET statement_timeout = '30s';
ALTER ROLE token_broker SET lock_timeout = '10s';
ALTER ROLE token_broker SET idle_in_transaction_session_timeout = '30s';
ALTER ROLE token_broker SET tcp_keepalives_idle = '30s';
ALTER ROLE token_broker SET tcp_user_timeout = '30s';
COMMIT;
