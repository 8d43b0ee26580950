"""Whether files of ours hold the bytes that they were written with: the digests of a manifest, looked at when a file is read.

run.py writes them.  A file is hashed once a process.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from .errors import RoboprefError
from .files import MANIFEST, read_json, skips_digests

DIGESTS, SEAL = "digests", "seal"
"""Keys of a manifest: the sha256 of each file that its stage wrote, and the sha256 of the manifest without the seal itself."""
ANYWAY = "read it all the same with `robopref --skip-digests COMMAND`"
CHUNK = 2**20  # bytes read at a time


def file_digest(path: str | Path, size: int | None = None) -> str:
    """sha256 (hex) of a file, or of its first `size` bytes; hashed once a process, unless the file changes."""
    about = os.stat(path)
    return _hashed(os.fspath(path), size, about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)


@lru_cache(maxsize=1024)
def _hashed(path: str, size: int | None, *_: int) -> str:
    with open(path, "rb") as file:
        if size is None:
            return hashlib.file_digest(file, "sha256").hexdigest()
        total = hashlib.sha256()
        while size > 0 and (piece := file.read(min(size, CHUNK))):
            total.update(piece)
            size -= len(piece)
        return total.hexdigest()


def seal(manifest: Mapping[str, Any]) -> str:
    """sha256 (hex) of a manifest's own words, as plain values."""
    words = {key: value for key, value in manifest.items() if key != SEAL}
    return hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest()


def check_digests(folder: str | Path, *paths: str | Path, remedy: str) -> None:
    """RoboprefError of one line where files are not as the manifest of `folder` says, or where that is not as it was written.

    A manifest of an earlier version, or of another program, says nothing of them.  Files that are missing are their reader's
    to tell.
    """
    there = Path(folder, MANIFEST)
    if skips_digests() or not there.is_file():
        return
    manifest = read_json(there)
    if isinstance(manifest, dict) and not {"stage", "inputs", DIGESTS, SEAL} & manifest.keys():
        return
    if not isinstance(manifest, dict) or ({DIGESTS, SEAL} & manifest.keys() and not _holds(manifest)):
        names = " and ".join(Path(path).name for path in paths)
        raise RoboprefError(
            f"{there}: its bytes have changed since it was written, so that nothing vouches for {names}: restore it, or {ANYWAY}"
        )
    for path in paths:
        told = manifest.get(DIGESTS, {}).get(name_in(folder, path))
        if told is not None and Path(path).is_file() and told != file_digest(path):
            raise RoboprefError(f"{path}: its bytes have changed since it was written. {remedy} Or {ANYWAY}")


def _holds(manifest: Mapping[str, Any]) -> bool:
    return isinstance(manifest.get(DIGESTS), dict) and manifest.get(SEAL) == seal(manifest)


def name_in(folder: str | Path, path: str | Path) -> str:
    """How a manifest in `folder` calls a file: by its path from there."""
    return Path(os.path.relpath(path, folder)).as_posix()
