"""The relay's tables: one noun a file, with its statements in the `.sql` file beside it. The store calls no destination
and makes no decisions.
"""
