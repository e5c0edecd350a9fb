"""What two processes must agree on: events, ids, settings, logging, shutdown; and the command line."""
