"""The peers' own interpreters: made once with `python -m venv`, from the pins beside this file, kept under .tidings."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from tests.process import ROOT

HERE = Path(__file__).resolve().parent
INSTALL_SECONDS_MAX = 600


class VenvError(Exception):
    """The pins could not be installed; the text is the end of what pip said."""


def interpreter(pins: str, keep: Path = ROOT / ".tidings" / "bench-peers") -> Path:
    """The python of the venv for `pins` (a file's name), made when there is none of exactly these pins."""
    text = (HERE / pins).read_bytes()
    directory = keep / f"{Path(pins).stem}-{hashlib.sha256(text + sys.version.encode()).hexdigest()[:12]}"
    python = directory / "bin" / "python"
    done = directory / "installed"
    if done.exists():
        return python
    shutil.rmtree(directory, ignore_errors=True)
    venv.create(directory, with_pip=True, symlinks=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(HERE / pins)]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        raise VenvError(f"{pins}: pip took longer than {INSTALL_SECONDS_MAX} s") from None
    if result.returncode != 0:
        raise VenvError(f"{pins}: {result.stderr.strip()[-300:]}")
    done.touch()
    return python
