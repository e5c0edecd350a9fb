"""The limit of open files, and so of sockets, of a process.
Shells and systemd set 1,024, because select() supports no more; no process of Tidings uses select().
"""

from __future__ import annotations

import resource
from contextlib import suppress

# The maximum that the kernel allows by default (fs.nr_open). "Unlimited" is an error on some systems.
FILES_MAX = 1_048_576


def raise_file_limit() -> int:
    """Raise the soft limit to the hard limit; return the number of files that this process may have open now."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, FILES_MAX)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return FILES_MAX if soft == resource.RLIM_INFINITY else soft
