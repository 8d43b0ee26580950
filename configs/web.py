"""Requests to web servers that may misbehave: the time, the pace and the size of an answer are bounded, heads included.

urllib's timeout is one for each read, so a byte every few seconds keeps a request for ever, and nothing there counts bytes: not
those of headers, trailers, sizes of chunks or answers 100.  Here every read of the socket is counted, whatever it is for.
"""

from __future__ import annotations

import io
import ipaddress
import math
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, IncompleteRead
from typing import Any
from urllib.parse import urlsplit

BLOCK = 2**16  # bytes read or sent at a time
HEADS = 2**20  # bytes of heads, sizes of chunks and trailers, besides an eighth of the body: chunks of 50 bytes are the least
WINDOW_S = 120.0  # over which the pace is taken: servers may think for a while before they go on
SCHEMES = ("http", "https")
KINDS = (
    (rb"\s*<(!doctype\s+html|html|head|body)\b", "an HTML page"),
    (rb"\s*(<\?xml|<Error>)", "XML"),
    (rb"version https://git-lfs\.github\.com/spec/", "a pointer of git-lfs, not the file it points to"),
    (rb"\x1f\x8b", "gzip data"),
    (rb"PK\x03\x04", "a zip archive"),
    (rb"\x89HDF\r\n\x1a\n", "damaged HDF5"),
    (rb"\s*[{\[]", "JSON"),
    (rb"[\t\n\r\x20-\x7e]*$", "text"),
)
"""How the first bytes of what servers send instead look; read in this order."""


class Excess(Exception):
    """An answer beyond its bounds, or a place that it must not lead to; the message says which."""


class Bounds:
    """The limits of one answer, or of all answers that make up one file: bytes, seconds and pace."""

    def __init__(self, most: int, seconds: float = math.inf, pace: float = 0.0) -> None:
        """most: bytes of bodies.  seconds: in all.  pace: bytes a second, on average over any WINDOW_S."""
        self.most, self.seconds, self.pace = most, seconds, pace
        self._came, self._taken, self._until = 0, 0, time.monotonic() + seconds
        self._window_end, self._in_window = time.monotonic() + WINDOW_S, 0
        self._local: bool | None = None

    def wait(self, timeout: float) -> float:
        """Seconds that the next step may take, at most `timeout`; Excess when there are none left, or too little has come."""
        now = time.monotonic()
        if now >= self._until:
            raise Excess(f"no end of it after {self.seconds:.3g} s")
        if self.pace and now >= self._window_end:
            if self._in_window < self.pace * WINDOW_S:
                raise Excess(f"less than {self.pace:.0f} bytes a second came")
            self._window_end, self._in_window = now + WINDOW_S, 0
        least = min(timeout, self._until - now, self._window_end - now if self.pace else math.inf)
        return max(least, 0.001)  # 0 would mean not to wait at all

    def came(self, size: int) -> None:
        """Note that `size` bytes came, of whatever; Excess when too few of all were of a body."""
        self._came += size
        self._in_window += size
        if self._came - self._taken > HEADS + self._taken // 8:
            raise Excess("there is no end of its headers, or of sizes of chunks")

    def took(self, size: int) -> None:
        """Note that `size` of the bytes were of a body; Excess when that makes too many."""
        self._taken += size
        if self._taken > self.most:
            raise Excess(f"more than {self.most} bytes of it")

    def reached(self, address: str) -> None:
        """Note the address that a connection leads to; Excess for this machine's own where the first was another's.

        Else whoever answers for a name could have services asked that are open to this machine alone.
        """
        found = ipaddress.ip_address(address.partition("%")[0])
        found = getattr(found, "ipv4_mapped", None) or found
        local = found.is_loopback or found.is_link_local
        if local and self._local is False:
            raise Excess("it leads to an address of this machine")
        self._local = local if self._local is None else self._local


def open_bounded(request: urllib.request.Request, timeout: float, bounds: Bounds, redirects: bool) -> HTTPResponse:
    """Send a request; the answer's head is read.  timeout: seconds without a byte.

    Raises what urllib does, Excess, and HTTPError for a redirect where `redirects` is false, or it is endless or leads elsewhere
    than to http and https, or from https to http.
    """
    follow = _Redirects() if redirects else _NoRedirects()
    answer: HTTPResponse = urllib.request.build_opener(_Http(bounds), _Https(bounds), follow).open(request, timeout=timeout)
    return answer


def pieces(answer: HTTPResponse, bounds: Bounds) -> Iterator[bytes]:
    """The body as it arrives; IncompleteRead, or another HTTPException, when it ends before its end.  bounds: the request's."""
    while piece := answer.read1(BLOCK):
        bounds.took(len(piece))
        yield piece
        if answer.chunked and (answer.chunk_left or 0) < 0:
            raise HTTPException("a chunk of negative size")
    if answer.length:  # `read1` takes the end of the connection for the end of the body
        raise IncompleteRead(b"", answer.length)


def described(head: bytes, size: int) -> str:
    """`an HTML page, 512 bytes`: what has come, by its first bytes."""
    kind = next((kind for pattern, kind in KINDS if re.match(pattern, head[:1024], re.IGNORECASE | re.DOTALL)), "unknown data")
    return f"{kind}, {size} byte{'' if size == 1 else 's'}" if size else "nothing, 0 bytes"


def reason_of(error: BaseException) -> str:
    """Why a connection failed, in words of this machine; what the server has sent is not quoted."""
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        error = error.reason
    if tunnel := re.match(r"Tunnel connection failed: (\d{3})", str(error)):
        return f"the proxy answers {tunnel[1]}"
    if type(error) is HTTPException:  # Python's own words, or those of `pieces`
        return str(error)
    if isinstance(error, ssl.SSLError):
        return str(error.reason or type(error).__name__)
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__


def shown(url: str) -> str:
    """An address as messages show it: without user, password and query, which may be secret."""
    return re.sub(r"//[^/?#]*@", "//", re.sub(r"[?#].*", "?...", url, flags=re.DOTALL))


class _Reader(io.RawIOBase):
    """A connection's bytes, counted."""

    def __init__(self, kept: io.RawIOBase, sock: socket.socket, bounds: Bounds) -> None:
        """kept: what urllib holds the connection open by."""
        self._kept, self._sock, self._bounds = kept, sock, bounds
        self._timeout = float(sock.gettimeout() or math.inf)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        silent_until = time.monotonic() + self._timeout
        while True:
            self._sock.settimeout(self._bounds.wait(silent_until - time.monotonic()))
            try:
                size = self._sock.recv_into(buffer)
                break
            except TimeoutError:
                if time.monotonic() >= silent_until:
                    raise
        self._bounds.came(size)
        return size

    def close(self) -> None:
        self._kept.close()
        super().close()


class _Answer(HTTPResponse):
    def __init__(self, bounds: Bounds, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp = io.BufferedReader(_Reader(self.fp.detach(), sock, bounds))


class _Plain(HTTPConnection):
    bounds: Bounds

    def connect(self) -> None:
        timeout = self.timeout
        self.timeout = self.bounds.wait(float(timeout or math.inf))
        super().connect()
        self.timeout = timeout
        self.sock.settimeout(timeout)
        self.bounds.reached(self.sock.getpeername()[0])

    def send(self, data: Any) -> None:
        """In pieces, so that a server that takes a byte now and then is noticed too."""
        if self.sock is None:
            self.connect()
        try:
            for start in range(0, len(data), BLOCK):
                self.sock.settimeout(self.bounds.wait(float(self.timeout or math.inf)))
                super().send(data[start : start + BLOCK])
        except (BrokenPipeError, ConnectionResetError):
            pass  # it may have answered before it has read all, and that says more than the broken pipe
        self.sock.settimeout(self.timeout)


class _Secure(HTTPSConnection, _Plain):
    pass


def _made(kind: type[_Plain], bounds: Bounds, host: str, **options: Any) -> HTTPConnection:
    connection = kind(host, **options)
    connection.bounds = bounds
    connection.response_class = partial(_Answer, bounds)  # type: ignore[assignment]
    return connection


class _Http(urllib.request.HTTPHandler):
    def __init__(self, bounds: Bounds) -> None:
        super().__init__()
        self.bounds = bounds

    def http_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(partial(_made, _Plain, self.bounds), request)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, bounds: Bounds) -> None:
        super().__init__()
        self.bounds = bounds

    def https_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(partial(_made, _Secure, self.bounds), request)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: urllib would carry the headers along, a key in them too, wherever it leads."""

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> None:
        return None

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        fp.close()  # urllib would read all of its body
        scheme = urlsplit(newurl).scheme
        if scheme not in SCHEMES or (req.type == "https" and scheme == "http"):
            raise urllib.error.HTTPError(req.full_url, code, msg, headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)
