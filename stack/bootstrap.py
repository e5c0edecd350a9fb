"""Creates .venv from the lock file. Runs on the system's Python: imports the standard library and nothing else."""

import hashlib
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "dev.lock"
TARGET = ROOT / ".venv"
STAMP = TARGET / "lock.sha256"


def main():
    """Install the packages, unless they were installed from the present lock file."""
    if sys.version_info < (3, 11):  # noqa: UP036  an older Python gets this message
        sys.exit(f"error: Python 3.11 or newer is needed, this is {sys.version.split()[0]}")
    wanted = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if STAMP.exists() and STAMP.read_text() == wanted:
        return
    started = time.monotonic()
    print("  … .venv: installing what requirements/dev.lock names", flush=True)
    if shutil.disk_usage(ROOT).free < 1024**3:
        sys.exit("error: the disk is full: 1 GiB is needed")
    try:
        venv.create(TARGET, with_pip=True, clear=TARGET.exists())
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"error: a virtual environment could not be made ({error}); Debian needs the package python3-venv")
    command = [str(TARGET / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-compile"]
    command += ["--disable-pip-version-check", "--require-hashes", "-r", str(LOCK)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        sys.exit(f"error: the Python packages could not be installed; is the package index reachable? {last}")
    STAMP.write_text(wanted)
    print(f"  ✓ .venv {time.monotonic() - started:>44.1f} s")


if __name__ == "__main__":
    main()
