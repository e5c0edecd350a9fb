"""The relay's tables: one noun a file, its statements in the `.sql` file beside it. Never calls a destination, decides nothing."""
