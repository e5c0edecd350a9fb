"""Finds what was lost between two processes, repeats the lost step, and expires submissions."""
