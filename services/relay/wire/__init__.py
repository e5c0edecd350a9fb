"""The relay's protocol without its input and output: reading requests, judging answers, writing JSON. Pure."""
