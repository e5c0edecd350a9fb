"""Finds what fell between two processes and has it done again, and ends submissions whose time is over."""
