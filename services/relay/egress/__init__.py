"""Outgoing requests: which addresses may be called, and the HTTP client. It never reads or changes
a message's state.
"""
