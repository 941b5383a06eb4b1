-- What the database side of the example needs, run by the cluster's owner with psql
-- (PostgreSQL 14 or later):
--   psql -v admin=vault_admin -v admin_password=... -f vault-admin.sql
--
-- The dynamic users are granted nothing by name: all they can do comes from one group
-- role, so even a session that slipped through a revocation loses every privilege with
-- the membership. What a user made nevertheless (a large object, which anybody may make)
-- goes to its group when it ends; otherwise DROP ROLE would fail on it.

-- The group roles: what a workload may do, as a whole and in each state of the workflow.
-- Grant each exactly the tables it needs.
SELECT format('CREATE ROLE %I NOLOGIN', name)
FROM unnest(ARRAY['orders_app', 'orders_reserve', 'orders_charge']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec

-- Vault's own user: not a superuser. It may make roles, put them into the groups, and end
-- their sessions (pg_signal_backend does not reach superusers).
CREATE ROLE :"admin" LOGIN CREATEROLE PASSWORD :'admin_password';
GRANT orders_app, orders_reserve, orders_charge TO :"admin" WITH ADMIN OPTION;
GRANT pg_signal_backend TO :"admin";
