"""The error for an operator when the stack cannot run."""

from __future__ import annotations


class StackError(Exception):
    """The stack cannot continue.
    The text is for an operator: one sentence with the remedy, then perhaps the last lines of a log.
    """
