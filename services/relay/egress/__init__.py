"""Requests out: which addresses may be called, and the HTTP client. Never reads or writes a message's state."""
