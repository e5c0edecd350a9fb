"""The background work: it claims messages, holds their calls, ends them, renews leases, fires schedules and removes old
rows. It reads no client requests and contains no SQL.
"""
