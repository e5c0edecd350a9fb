"""The runtime of a process: settings, log, health, shutdown. Independent of submissions."""
