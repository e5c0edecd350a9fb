"""The contracts between processes: events, topics, tokens, targets. Pure, except for reading the file of targets."""
