"""Turns a change into a relay message. Never reaches Postgres and never holds a slow call."""
