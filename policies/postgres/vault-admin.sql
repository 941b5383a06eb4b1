-- What the database side of the example needs, run by the cluster's owner with psql:
--   psql -v admin=vault_admin -v admin_password=... -f vault-admin.sql
--
-- The dynamic users own nothing and are granted nothing by name: all they can do comes
-- from one group role. So ending one is DROP ROLE, which cannot fail on objects it owns,
-- and even a session that slipped through loses every privilege with the membership.

-- The group role: what the workload may do. Grant it exactly the tables it needs.
SELECT 'CREATE ROLE orders_app NOLOGIN'
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'orders_app') \gexec

-- Vault's own user: not a superuser. It may make roles, put them into the group, and end
-- their sessions (pg_signal_backend does not reach superusers).
CREATE ROLE :"admin" LOGIN CREATEROLE PASSWORD :'admin_password';
GRANT orders_app TO :"admin" WITH ADMIN OPTION;
GRANT pg_signal_backend TO :"admin";
