-- name: exists
SELECT FROM pg_database WHERE datname = 'tidings'

-- name: create
CREATE DATABASE tidings
