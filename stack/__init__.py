"""The whole system on one machine without Docker: Postgres, Kafka, Connect and the processes of Tidings."""
