"""A disk of a few kilobytes to fill, or one that nobody may write."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def mount(folder: Path, options: str) -> None:
    """Mount a tmpfs, or change one; skips the test where that is not allowed."""
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"mounting is not allowed here: {made.stderr.strip()}")


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A tmpfs of `size` bytes at `folder`, until the block ends; memory maps of its files may outlive it."""
    folder.mkdir(exist_ok=True)
    try:
        mount(folder, f"size={size}")
    except FileNotFoundError:
        pytest.skip("there is no `mount` here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def make_room(folder: Path) -> None:
    """Much of it."""
    mount(folder, "remount,size=300m")


def lock(folder: Path) -> None:
    """Let nobody write there, not even root."""
    mount(folder, "remount,ro")
