"""Requests in: the protocol over HTTP. One noun a file, all routes in `router`; authenticates, reads, calls the store or the
engine, answers. Never holds a call, and has no SQL.
"""
