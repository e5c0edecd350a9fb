"""What works by itself: claims messages, holds their calls, ends them, renews leases, fires schedules, removes what is old.
Never reads a request of a client, and has no SQL.
"""
