"""What two processes must agree on: events, topics, tokens, targets. Pure but for the file of targets."""
