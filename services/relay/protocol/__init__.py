"""The protocol's syntax: reads requests, writes answers, callbacks and cursors. Pure: no I/O, no
clock, no event loop.
"""
