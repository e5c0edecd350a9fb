"""The peers' virtual environments under .tidings, created once by `python -m venv` with the pinned packages in this
folder.
"""

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
    """The pinned packages could not be installed. The text is the end of pip's output."""


def interpreter(pins: str, keep: Path = ROOT / ".tidings" / "bench-peers") -> Path:
    """The python of the virtual environment for the file `pins`. Creates it unless one for the same content exists."""
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
