"""The relay's own HTTP/1.1 client: one coroutine and one small object a held call. Knows nothing of messages. See
docs/decisions/0009-own-http-client.md.
"""
