"""Connections to Postgres, migrations, partitions and retention. Contains no statement of a process."""
