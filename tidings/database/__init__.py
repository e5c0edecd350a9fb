"""How Postgres is reached, made and kept: migrations, partitions, retention. Has no statement of a process."""
