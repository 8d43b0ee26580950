"""One file from the web: resumed where it was cut, checked against a checksum, and whole or absent under its own name.

Comes from an address that datasets.d4rl knows; goes to the file that it reads.  Only the standard library, and nothing but
http and https.
"""

from __future__ import annotations

import errno
import fcntl
import http.client
import os
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import BinaryIO

from robopref.configs.errors import RoboprefError
from robopref.configs.files import atomic_file, check_space, digest, read_json, write_json

BLOCK = 2**20  # bytes read at a time
TRIES = 3  # connections in a row that bring not a byte


class DownloadError(RoboprefError):
    """The file could not be had; the message says why, the caller adds what to do."""


def download(url: str, path: Path, sha256: str | None = None, timeout: float = 30.0) -> Path:
    """Fetch `url` into `path`, unless it is there; `verify` it; return `path`.

    What has arrived is kept in FILE.partial (and what is known of it in FILE.partial.json), from where the next call goes on,
    if the server still has the same file.  A second process waits for the first.  sha256: hex; without it the one recorded
    beside the file counts, and a first download records its own.  timeout: seconds without a byte.  Raises DownloadError when
    the server cannot be reached, refuses, keeps cutting the connection, or sends other bytes than the checksum promises.
    """
    if not url.startswith(("http://", "https://")):
        raise RoboprefError(f"{url}: only http and https are fetched; a folder is given as a folder")
    partial = path.with_name(path.name + ".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    while not path.exists():
        with partial.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not partial.exists() or not os.path.samestat(os.fstat(file.fileno()), partial.stat()):
                continue  # the process that held it has renamed or removed it meanwhile
            if path.exists():
                partial.unlink()
                break
            try:
                _fetch(url, partial, file, timeout)
                os.fsync(file.fileno())
                found = _check(partial, sha256 or recorded(path), url)
            finally:
                if partial.exists() and partial.stat().st_size == 0:
                    partial.unlink()
            if recorded(path) is None:
                _record(path, found)
            os.replace(partial, path)
            _facts(partial).unlink(missing_ok=True)
            return path
    verify(path, sha256)
    return path


def verify(path: Path, sha256: str | None = None) -> None:
    """Compare a file with `sha256`, or with what FILE.sha256 beside it says; with neither, write that file.

    It has the form that `sha256sum --check` reads.  Raises RoboprefError for other bytes, naming both sums.
    """
    known = recorded(path)
    found = _check(path, sha256 or known, None)
    if known is None:
        _record(path, found)


def recorded(path: Path) -> str | None:
    """The checksum in FILE.sha256, where there is one."""
    sums = _sums(path)
    if not sums.exists():
        return None
    found = sums.read_text(encoding="utf-8", errors="replace").split()
    if not found or not re.fullmatch(r"[0-9a-f]{64}", found[0].lower()):
        raise RoboprefError(f"{sums}: holds no SHA-256 (64 hexadecimal digits); delete it, and it is written anew")
    return found[0].lower()


def _fetch(url: str, partial: Path, file: BinaryIO, timeout: float) -> None:
    """Append to `partial` what it lacks; goes on after a cut connection as long as each brings something."""
    idle = 0
    while True:
        before = partial.stat().st_size
        try:
            if _once(url, partial, file, timeout):
                return
            reason = "the connection is cut again and again"
        except urllib.error.HTTPError as error:
            raise DownloadError(f"{url} answers {error.code} {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                message = f"{partial} could not be written ({error}): free some space or choose another folder"
                raise RoboprefError(message) from error
            reason = str(getattr(error, "reason", None) or error) or type(error).__name__
            if isinstance(error, urllib.error.URLError):  # no connection at all
                raise DownloadError(f"{url} cannot be reached ({reason})") from error
        idle = 0 if partial.stat().st_size > before else idle + 1
        if idle >= TRIES:
            raise DownloadError(f"{url}: {partial.stat().st_size} bytes arrived in {partial}, then no more ({reason})")


def _once(url: str, partial: Path, file: BinaryIO, timeout: float) -> bool:
    """One connection; whether the file is whole now."""
    have = partial.stat().st_size
    known = read_json(_facts(partial)) if have and _facts(partial).exists() else None
    if have and known is None:  # of what file it is a part is not known
        have = _empty(file)
    request = urllib.request.Request(url, headers={"User-Agent": "robopref", "Accept-Encoding": "identity"})
    if have and known is not None:
        request.add_header("Range", f"bytes={have}-")
        if known["url"] == url and known["validator"]:  # elsewhere the same file has another tag: its size must do
            request.add_header("If-Range", known["validator"])
    try:
        answer = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        size = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        if size and int(size[1]) == have:
            return True  # all of it was there
        _empty(file)
        return False
    with answer:
        size_of_all: int | None
        if answer.status == 206:
            span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
            size_of_all = int(span[2]) if span and span[2] != "*" else None
            other = known is not None and size_of_all is not None and known["size"] not in (None, size_of_all)
            if span is None or int(span[1]) != have or other:
                _empty(file)
                return False
        else:  # the whole file: the server knows no ranges, or has a new one
            have = _empty(file) if have else 0
            length = answer.headers.get("Content-Length")
            size_of_all = int(length) if length else None
        tag = answer.headers.get("ETag", "")
        validator = tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified")
        write_json(_facts(partial), {"url": url, "validator": validator, "size": size_of_all})
        if size_of_all is not None:
            check_space(partial, size_of_all - have)
        try:
            while block := answer.read(BLOCK):
                file.write(block)
        finally:
            file.flush()
    # without a length the end of the connection is the end of the file
    return size_of_all is None or partial.stat().st_size == size_of_all


def _record(path: Path, found: str) -> None:
    with atomic_file(_sums(path)) as aside:
        aside.write_text(f"{found}  {path.name}\n", encoding="utf-8")


def _empty(file: BinaryIO) -> int:
    file.truncate(0)
    return 0


def _check(path: Path, expected: str | None, url: str | None) -> str:
    """The file's checksum; RoboprefError when it is another than expected, and then a fresh download is thrown away."""
    found = digest(path)
    if expected is None or found == expected.lower():
        return found
    said = f"sha256 is {found}, expected {expected.lower()}"
    if url is None:
        raise RoboprefError(f"{path}: {said}; delete it and get it again, or delete {_sums(path).name} if the file is right")
    path.unlink()
    _facts(path).unlink(missing_ok=True)
    raise DownloadError(f"{url} sends another file: its {said}")


def _sums(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _facts(partial: Path) -> Path:
    return partial.with_name(partial.name + ".json")
