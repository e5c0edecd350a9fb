"""Incoming requests: the protocol over HTTP. One noun a file, all routes in `router`. It authenticates, reads, calls
the store or the engine, and answers. It holds no calls and contains no SQL.
"""
