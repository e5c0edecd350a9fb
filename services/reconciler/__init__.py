"""Finds submissions and results that were lost between two processes, repeats the lost step, and expires
submissions.
"""
