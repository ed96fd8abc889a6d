-- The logins of docker-compose.yml, each a member of a role of roles.sql, which runs before. Passwords are read from
-- the secret files, and stand nowhere else; psql quotes them. Run once by the image, when the volume is empty. Later:
--
--     docker compose exec -u postgres postgres psql -U cancelq -c '\password worker'

\set ON_ERROR_STOP on
\set worker `cat /run/secrets/postgres_worker_password`
\set auditor `cat /run/secrets/postgres_auditor_password`

CREATE ROLE worker LOGIN PASSWORD :'worker' IN ROLE cancelq_writer;
CREATE ROLE auditor LOGIN PASSWORD :'auditor' IN ROLE cancelq_reader;
