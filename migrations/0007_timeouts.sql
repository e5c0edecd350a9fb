-- depends: 0006_partitions
-- What the api's statements may take, and how the server finds out that an api is gone. As settings of the role, they
-- hold behind a connection pooler as well, and for every database of the server.

-- The largest answer, 50 MiB, is stored in some seconds on a slow disk.
ALTER ROLE tidings_api SET statement_timeout = '20s';
-- An api that vanished inside a transaction would hold its idempotency keys.
ALTER ROLE tidings_api SET idle_in_transaction_session_timeout = '30s';
-- A statement whose client has closed the connection ends.
ALTER ROLE tidings_api SET client_connection_check_interval = '5s';
ALTER ROLE tidings_api SET tcp_keepalives_idle = '10s';
ALTER ROLE tidings_api SET tcp_keepalives_interval = '5s';
ALTER ROLE tidings_api SET tcp_keepalives_count = 3;
ALTER ROLE tidings_api SET tcp_user_timeout = '20s';
