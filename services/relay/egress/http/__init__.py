"""The relay's own HTTP/1.1 client: one coroutine and one small object per held call. It is independent of messages. See
docs/decisions/0009-own-http-client.md.
"""
