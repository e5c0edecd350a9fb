"""What each process of ours needs to run: settings, log, health, shutdown. Knows no submission."""
