"""How many bytes and places each use may take, shared so that no name takes all of them. Never does I/O."""
