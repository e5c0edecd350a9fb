"""Puts load and faults on the whole native system at random moments, and checks a ledger of promises when the system
has come to rest.
"""
