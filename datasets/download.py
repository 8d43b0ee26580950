"""One file from the web: resumed where it was cut, looked at, checked against a checksum, and whole or absent under its own name.

Comes from an address that datasets.d4rl knows; goes to the file that it reads.  Only the standard library, and nothing but
http and https.  A server may cut, lie, wait or send other things: what takes the name has passed the caller's look.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse, InvalidURL, responses
from pathlib import Path
from typing import BinaryIO

from robopref.configs.errors import RoboprefError
from robopref.configs.files import atomic_file, check_space, digest, read_json, write_json
from robopref.configs.web import BLOCK, Bounds, Excess, described, open_bounded, pieces, reason_of, shown

TRIES = 3  # connections in a row that bring next to nothing
ANEW = 10  # times that all is begun anew: a file may be replaced while it is fetched, but not again and again
LEAST = 4096  # bytes that a connection must bring to count as one that helps: else a server could go on for years
OVERLAP = 4096  # bytes that are asked for once more where a file goes on: others mean another file
REDIRECTS = (301, 302, 303, 307, 308)
SLOWEST = 1024.0  # bytes a second, on average over two minutes: less than the modems of 1990
LARGEST = 16 * 2**30  # bytes of a file: D4RL's have less than one GiB
ROOM = 2**20  # bytes of a file of unknown size for which room is looked for at a time


class DownloadError(RoboprefError):
    """The file could not be had; the message says why, the caller adds what to do."""


def download(
    url: str, path: Path, sha256: str | None = None, timeout: float = 30.0, is_right: Callable[[Path], bool] | None = None
) -> Path:
    """Fetch `url` into `path`, unless it is there; `verify` it; return `path`.

    What has arrived is kept in FILE.partial (and what is known of it in FILE.partial.json), from where the next call goes on,
    if the server still has the same file.  A second process waits for the first.  sha256: hex; without it the one recorded
    beside the file counts, and a first download records its own.  timeout: seconds without a byte.  is_right: whether a file is
    of the form that is wanted; one that is not, or is empty, is thrown away.  Raises DownloadError when the server cannot be
    reached, refuses, keeps cutting the connection, is slower than SLOWEST, or sends other bytes than the checksum or `is_right`
    ask for, or more than LARGEST.
    """
    if not re.match(r"https?://[^/?#@]+([/?#]|$)", url):
        raise RoboprefError(
            f"{shown(url)}: only http and https are fetched, without user and password; a folder is given as a folder"
        )
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
                _Fetching(url, partial, file, timeout).run()
                os.fsync(file.fileno())
                _look(url, partial, is_right)
                found = _check(partial, sha256 or recorded(path), url, None if sha256 else _sums(path))
            finally:
                if partial.exists() and partial.stat().st_size == 0:
                    _discard(partial)
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
    found = _check(path, sha256 or known)
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


@dataclass
class _Known:
    """What FILE.partial.json says of the file that FILE.partial is a part of."""

    url: str  # its digest: the address may hold a secret
    validator: str | None  # for If-Range
    size: int | None

    @classmethod
    def of(cls, partial: Path) -> _Known | None:
        """None where nothing readable is said."""
        try:
            there = read_json(_facts(partial))
            url, validator, size = (there[name] for name in ("url", "validator", "size"))
        except (RoboprefError, LookupError, TypeError, ValueError):
            return None
        sized = size is None or (isinstance(size, int) and not isinstance(size, bool) and size >= 0)
        tagged = validator is None or (isinstance(validator, str) and bool(re.fullmatch(VALIDATOR, validator)))
        return cls(url, validator, size) if isinstance(url, str) and sized and tagged else None


VALIDATOR = r'"[\x21\x23-\x7e]{0,200}"|\w{3}, [\w: ]{15,40}'
"""A strong ETag, or a date: what may be sent back, and is kept."""


@dataclass
class _Fetching:
    """A file on its way."""

    url: str
    partial: Path
    file: BinaryIO
    timeout: float
    anew: int = 0  # how often what had come was of no use

    def __post_init__(self) -> None:
        self.bounds = Bounds(LARGEST, pace=SLOWEST)
        self.address = hashlib.sha256(self.url.encode(errors="surrogateescape")).hexdigest()

    def run(self) -> None:
        """Append to `partial` what it lacks; goes on after a cut connection as long as each brings something."""
        idle = 0
        while True:
            before = self.have()
            try:
                if self.once():
                    return
                reason = "the connection is cut again and again"
            except urllib.error.HTTPError as error:
                error.close()
                said = f"{error.code} {responses.get(error.code, '')}".rstrip()
                where = ", to a place that is not fetched (a loop, no http or https, or http from https)"
                where = where if error.code in REDIRECTS else ""
                raise DownloadError(f"{shown(self.url)} answers {said}{where}") from None
            except Excess as error:
                if self.have() >= LARGEST - BLOCK:  # of no use, and in the way
                    self.empty()
                raise DownloadError(f"{shown(self.url)} is given up: {error}") from None
            except (OSError, HTTPException, ValueError) as error:
                if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    message = f"{self.partial} could not be written ({error}): free some space or choose another folder"
                    raise RoboprefError(message) from error
                reason = reason_of(error)
                if isinstance(error, urllib.error.URLError):  # no connection at all
                    raise DownloadError(f"{shown(self.url)} cannot be reached ({reason})") from error
                if isinstance(error, ValueError | InvalidURL):
                    raise DownloadError(f"{shown(self.url)} is no address, or leads to none") from error
            idle = 0 if self.have() >= before + LEAST else idle + 1
            if self.anew > ANEW:
                raise DownloadError(
                    f"{shown(self.url)}: each time that it goes on, it is with another file or from its beginning"
                )
            if idle >= TRIES:
                raise DownloadError(
                    f"{shown(self.url)}: {self.have()} bytes arrived in {self.partial}, then next to none ({reason})"
                )

    def once(self) -> bool:
        """One connection; whether the file is whole now."""
        known = _Known.of(self.partial) if self.have() else None
        if known is None:  # of what file it is a part is not known
            self.empty()
        begin = max(self.have() - OVERLAP, 0)
        request = urllib.request.Request(self.url, headers={"User-Agent": "robopref", "Accept-Encoding": "identity"})
        if known is not None:
            request.add_header("Range", f"bytes={begin}-")
            if known.url == self.address and known.validator:  # elsewhere the same file has another tag: size and OVERLAP must do
                request.add_header("If-Range", known.validator)
        try:
            answer = open_bounded(request, self.timeout, self.bounds, redirects=True)
        except urllib.error.HTTPError as error:
            if error.code != 416:
                raise
            error.close()
            self.empty()
            return False
        with answer:
            if answer.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
                raise Excess("it sends the file compressed, which was not asked for")
            if answer.status == 206:
                size = _size_of_all(answer, begin, known)
                if size is None:
                    self.empty()
                    return False
            else:  # the whole file: the server knows no ranges, or has a new one
                self.empty()
                begin, size = 0, answer.length
            if size is not None and size > LARGEST:
                raise Excess(f"it announces {size} bytes, and no file of more than {LARGEST} is fetched")
            tag, date = answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", "")
            validator = next((one for one in (tag, date) if re.fullmatch(VALIDATOR, one)), None)
            write_json(_facts(self.partial), _Known(self.address, validator, size))
            if size is not None:
                check_space(self.partial, size - self.have())
            if not self.append(answer, begin, size):
                self.empty()
                return False
        # without a length the end of the connection is the end of the file
        return size is None or self.have() == size

    def append(self, answer: HTTPResponse, begin: int, size: int | None) -> bool:
        """Write the body, which begins at byte `begin`, behind what is there; False where it does not repeat what it should."""
        with self.partial.open("rb") as there:
            there.seek(begin)
            again = there.read()
        room = 0
        try:
            for piece in pieces(answer, self.bounds):
                common = min(len(again), len(piece))
                if piece[:common] != again[:common]:
                    return False
                again, piece = again[common:], piece[common:]
                if size is None and room < len(piece):
                    check_space(self.partial, room := ROOM)
                room -= len(piece)
                self.file.write(piece)
        finally:
            self.file.flush()
        return True

    def have(self) -> int:
        """Bytes that are there."""
        return self.partial.stat().st_size

    def empty(self) -> None:
        """Throw away what is there."""
        self.anew += self.have() > 0
        self.file.truncate(0)


def _size_of_all(answer: HTTPResponse, begin: int, known: _Known | None) -> int | None:
    """Bytes of the file that an answer 206 is a part of; None for another part than was asked for, or of another file."""
    span = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", answer.headers.get("Content-Range", ""))
    if span is None:
        return None
    first, last, size = map(int, span.groups())
    other = known is not None and known.size not in (None, size)
    short = answer.length not in (None, last - first + 1)
    return None if first != begin or not first <= last < size or other or short else size


def _look(url: str, partial: Path, is_right: Callable[[Path], bool] | None) -> None:
    """Throw away what is empty or not of the form that is wanted, and raise DownloadError saying what came."""
    size = partial.stat().st_size
    if size and (is_right is None or is_right(partial)):
        return
    with partial.open("rb") as file:
        came = described(file.read(1024), size)
    _discard(partial)
    raise DownloadError(f"{shown(url)} sends {came}, instead of the file")


def _record(path: Path, found: str) -> None:
    with atomic_file(_sums(path)) as aside:
        aside.write_text(f"{found}  {path.name}\n", encoding="utf-8")


def _check(path: Path, expected: str | None, url: str | None = None, recorded_in: Path | None = None) -> str:
    """The file's checksum; RoboprefError when it is not the expected one, and a fresh download (of `url`) is then thrown away."""
    found = digest(path)
    if expected is None or found == expected.lower():
        return found
    said = f"sha256 is {found}, expected {expected.lower()}"
    if url is None:
        raise RoboprefError(f"{path}: {said}; delete it and get it again, or delete {_sums(path).name} if the file is right")
    _discard(path)
    way_out = f" (of an earlier download; delete {recorded_in} if this is the right one)" if recorded_in else ""
    raise DownloadError(f"{shown(url)} sends another file: its {said}{way_out}")


def _discard(partial: Path) -> None:
    partial.unlink()
    _facts(partial).unlink(missing_ok=True)


def _sums(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _facts(partial: Path) -> Path:
    return partial.with_name(partial.name + ".json")
