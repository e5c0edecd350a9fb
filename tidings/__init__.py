"""The code that processes share: events, ids, settings, logging, shutdown; and the command line."""
