"""Registers the Debezium connector and restarts it when its task has failed."""
