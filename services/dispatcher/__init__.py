"""Turns a change into a message at the relay. It never connects to Postgres and never makes a slow call."""
