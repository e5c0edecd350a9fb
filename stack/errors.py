"""What a person is told when the stack cannot run."""

from __future__ import annotations


class StackError(Exception):
    """The stack cannot go on. The text is for a person: one sentence with what to do, then perhaps a log's last lines."""
