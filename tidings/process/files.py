"""How many files, and so sockets, a process may have open. Shells and systemd give 1,024, as select() knows no more; none
of ours uses that.
"""

from __future__ import annotations

import resource
from contextlib import suppress

# As many as the kernel allows by default (fs.nr_open). "Unlimited" is an error on some systems.
FILES_MAX = 1_048_576


def raise_file_limit() -> int:
    """Raise the soft limit to the hard one; how many files this process may have open now."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, FILES_MAX)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return FILES_MAX if soft == resource.RLIM_INFINITY else soft
