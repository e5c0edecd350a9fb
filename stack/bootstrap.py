"""Creates .venv from a lock file. Runs on the system's Python: imports the standard library and nothing else."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "requirements"
TARGET = ROOT / ".venv"
STAMP = TARGET / "lock.sha256"
# `dev` has every package of `stack`, in the same version.
NAMES = ("stack", "dev")


def main(name: str) -> None:
    """Install the packages of requirements/<name>.lock, unless they are installed."""
    if sys.version_info < (3, 11):  # noqa: UP036  an older Python gets this message
        sys.exit(f"error: Python 3.11 or newer is needed, this is {sys.version.split()[0]}")
    hashes = {each: hashlib.sha256((LOCKS / f"{each}.lock").read_bytes()).hexdigest() for each in NAMES}
    installed = installed_name(STAMP.read_text() if STAMP.exists() else "", hashes)
    if installed in (name, "dev"):
        return
    started = time.monotonic()
    print(f"  … .venv: installing the packages of requirements/{name}.lock", flush=True)
    if shutil.disk_usage(ROOT).free < 1024**3:
        sys.exit("error: the disk is full: 1 GiB is needed")
    if installed is None:
        try:
            venv.create(TARGET, with_pip=True, clear=TARGET.exists())
        except (OSError, subprocess.CalledProcessError) as error:
            sys.exit(
                f"error: a virtual environment could not be created ({error}); Debian needs the package python3-venv"
            )
    command = [str(TARGET / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-compile"]
    command += ["--disable-pip-version-check", "--require-hashes", "-r", str(LOCKS / f"{name}.lock")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["pip printed nothing"])[-1]
        sys.exit(f"error: the Python packages could not be installed; is the package index reachable? {last}")
    STAMP.write_text(hashes[name])
    print(f"  ✓ .venv {time.monotonic() - started:>44.1f} s")


def installed_name(stamp: str, hashes: dict[str, str]) -> str | None:
    """Return the name of the lock file with the hash `stamp`, or None if the packages are those of no present one."""
    return next((name for name in NAMES if hashes[name] == stamp), None)


if __name__ == "__main__":
    main(sys.argv[1])
