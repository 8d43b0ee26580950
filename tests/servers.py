"""Everything that talks to a server is tried against ones that misbehave, and must end soon, with the right result or one line.

    python tests/servers.py

Each server is a function here that has a socket and does with it what its name says.  A client asks it in a fork of this process,
with its times shortened: `chat` and `stream` (preference/chat.py, a question in one piece or in pieces), `rl-vlm-f` (a pair of
pictures), `mirror` (a data set by D4RL's name) and `hub` (a model by `hf-hub:`).  servers.csv goes to `--out`.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import csv
import functools
import gc
import gzip
import hashlib
import json
import os
import re
import resource
import select
import shutil
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import huggingface_hub
import numpy as np

from robopref.configs import web
from robopref.configs.chat import ChatConfig
from robopref.configs.errors import RoboprefError
from robopref.datasets import d4rl, download
from robopref.preference import hub, hub_guard
from robopref.preference.baselines.rl_vlm_f import compare
from robopref.preference.chat import LONGEST_WAIT, Chat

ROOT = Path(__file__).parents[1]
KEY = "sk-not+to/be-seen=="
TOKEN = "hf_not-to-be-seen"
TEXT = "fine \N{GRINNING FACE}"
USAGE = {"prompt_tokens": 11, "completion_tokens": 7}
SILENCE_S = 0.5  # the clients' timeout
TOTAL_S = 1.2  # the most that one answer, or a head, may take; also the window of a pace
HUNG_S = 20.0  # after which a client hangs
AT_ONCE = 6
LARGEST, LISTED = 2**25, 2**23  # bytes of a file, and of a hub's lists
ENDS = ("answer", "refused", "wrong", "unclear", "traceback", "hung", "leftover", "key told")
COLUMNS = ("client", "server", "end", "seconds", "memory_mb", "told")
nap = time.sleep  # the hub's client waits between its attempts, and shall not here


class Talk:
    """A connection, and what was asked on it."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.sock, self.number, self.head, self.body = sock, number, b"", b""

    def read(self) -> None:
        """Take the request."""
        while b"\r\n\r\n" not in self.head:
            piece = self.sock.recv(65536)
            if not piece:
                return
            self.head += piece
        self.head, _, self.body = self.head.partition(b"\r\n\r\n")
        size = int((re.search(rb"content-length: (\d+)", self.head, re.IGNORECASE) or [b"", b"0"])[1])
        while len(self.body) < size:
            self.body += self.sock.recv(65536)

    def asks(self, name: str) -> str:
        """A header of the request."""
        found = re.search(rf"^{name}: (.*?)\r?$".encode(), self.head, re.IGNORECASE | re.MULTILINE)
        return found[1].decode() if found else ""

    @property
    def path(self) -> str:
        return self.head.split()[1].decode()

    @property
    def method(self) -> str:
        return self.head.split()[0].decode()

    def send(self, *parts: bytes) -> None:
        for part in parts:
            self.sock.sendall(part)

    def drip(self, data: bytes, every: float = 0.05) -> None:
        """Send byte by byte, each long before the client's timeout; the last again and again."""
        for start in range(10**6):
            self.sock.sendall(data[start : start + 1] or b" ")
            nap(every)

    def forever(self, data: bytes) -> None:
        """Send the same again and again."""
        block = data * (65536 // len(data) + 1)
        while True:
            self.sock.sendall(block)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def wait(self) -> None:
        """Until the client leaves."""
        select.select([self.sock], [], [], 3 * HUNG_S)


Do = Callable[[Talk], None]


@dataclass(frozen=True)
class Case:
    """A server, and how a client must end with it."""

    client: str
    name: str
    do: Do
    end: str
    unread: bool = False  # the request is not taken
    scheme: str = "http"
    before: Callable[[Path], object] = lambda folder: None  # what the client finds in its folder

    @property
    def id(self) -> str:
        return f"{self.client}: {self.name}"


CASES: list[Case] = []


def case(client: str, name: str, end: str, do: Do | bytes, **options: Any) -> None:
    """Note a server: what it does, or all it says."""
    if isinstance(do, bytes):
        said = do

        def do(talk: Talk) -> None:
            talk.send(said)

    CASES.append(Case(client, name, do, end, **options))


def head(status: str = "200 OK", *lines: str, length: int | str | None = None, kind: str = "application/json") -> bytes:
    """The first lines of an answer."""
    sized = [] if length is None else [f"Content-Length: {length}"]
    told = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", *sized, *lines]
    return "\r\n".join(told).encode("latin-1") + b"\r\n\r\n"


def answer(body: bytes, *lines: str, status: str = "200 OK", kind: str = "application/json") -> bytes:
    """A whole answer."""
    return head(status, *lines, length=len(body), kind=kind) + body


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def said(content: Any = TEXT, **more: Any) -> bytes:
    """A chat completion."""
    tree = {"choices": [{"message": {"role": "assistant", "content": content}, "finish_reason": "stop"}], "usage": USAGE}
    return json.dumps(tree | more).encode()


def event(tree: Any) -> bytes:
    return b"data: %s\n\n" % json.dumps(tree).encode()


def piece(content: Any, **more: Any) -> bytes:
    """A piece of one."""
    return event({"choices": [{"index": 0, "delta": {"content": content}} | more]})


def after(first: bytes, then: str, *arguments: Any) -> Do:
    """Send `first`, then call a method of Talk."""

    def do(talk: Talk) -> None:
        talk.send(first)
        getattr(talk, then)(*arguments)

    return do


GOOD = said()
END = b"data: [DONE]\n\n"
STREAM = head(kind="text/event-stream")
CHUNKED = head("200 OK", "Transfer-Encoding: chunked")
STREAMED = piece("fi") + piece("ne ") + piece("\N{GRINNING FACE}") + event({"choices": [], "usage": USAGE}) + END


def in_turn(*parts: bytes) -> Do:
    """Another answer at each request, the last for all further ones."""
    return lambda talk: talk.send(parts[min(talk.number, len(parts) - 1)])


def silent(talk: Talk) -> None:
    talk.wait()


def echo(make: Callable[[str], str]) -> Do:
    """Say what the request's key is, in some form."""

    def do(talk: Talk) -> None:
        talk.send(answer(said(make(talk.asks("authorization").removeprefix("Bearer ")))))

    return do


def echo_pieces(talk: Talk) -> None:
    key = talk.asks("authorization").removeprefix("Bearer ")
    talk.send(STREAM, *(piece(letter) for letter in key), END)


# How a connection, a head or a body goes wrong, whatever is in it.
for name, end, do in (
    ("accepts and never answers", "refused", silent),
    ("closes at once", "refused", lambda talk: None),
    ("resets at once", "refused", lambda talk: talk.reset()),
    ("resets in the middle", "refused", after(head(length=len(GOOD)) + GOOD[:20], "reset")),
    ("half-closes and waits", "refused", lambda talk: (talk.sock.shutdown(socket.SHUT_WR), talk.wait())),
    ("a byte now and then, in the head", "refused", lambda talk: talk.drip(b"HTTP/1.1 200 OK\r\nX: ")),
    ("a byte now and then, in the body", "refused", after(head(length=10**6), "drip", GOOD)),
    ("a byte now and then, in the size of a chunk", "refused", after(CHUNKED, "drip", b"0000")),
    ("a byte now and then, in trailers", "refused", after(CHUNKED + chunk(GOOD) + b"0\r\n", "drip", b"X: ")),
    ("endless 100 Continue", "refused", lambda talk: talk.forever(b"HTTP/1.1 100 Continue\r\n\r\n")),
    ("100 Continue once", "answer", b"HTTP/1.1 100 Continue\r\n\r\n" + answer(GOOD)),
    ("endless headers", "refused", after(b"HTTP/1.1 200 OK\r\n", "forever", b"X-Y: z\r\n")),
    ("an endless header", "refused", after(b"HTTP/1.1 200 OK\r\nX: ", "forever", b"y")),
    ("an endless status line", "refused", lambda talk: talk.forever(b"HTTP/1.1 200 O")),
    ("endless trailers", "refused", after(CHUNKED + chunk(GOOD) + b"0\r\n", "forever", b"X: y\r\n")),
    ("an endless size of a chunk", "refused", after(CHUNKED, "forever", b"0")),
    ("chunks of a byte without end", "refused", after(CHUNKED, "forever", b"1\r\n \r\n")),
    ("chunks of bad size", "refused", CHUNKED + b"zz\r\n" + GOOD + b"\r\n0\r\n\r\n"),
    ("chunks of negative size", "refused", CHUNKED + b"-5\r\n" + GOOD + b"\r\n0\r\n\r\n"),
    ("a chunk of 10^30 bytes", "refused", CHUNKED + b"%x\r\n" % 10**30 + GOOD),
    ("chunks without an end", "refused", CHUNKED + chunk(GOOD)),
    (
        "chunks as they should be",
        "answer",
        CHUNKED + b"".join(chunk(GOOD[i : i + 7]) for i in range(0, len(GOOD), 7)) + chunk(b""),
    ),
    ("an endless body", "refused", after(head(), "forever", b" ")),
    ("a Content-Length of 10^18", "refused", head(length=10**18) + GOOD),
    ("a Content-Length of 5,000 digits", "answer", head(length="9" * 5000) + GOOD),
    ("a Content-Length that is negative", "answer", head(length=-1) + GOOD),
    ("a Content-Length that is no number", "answer", head(length="many") + GOOD),
    ("a Content-Length that is too short", "refused", head(length=len(GOOD) - 9) + GOOD),
    ("a Content-Length that is too long", "refused", head(length=len(GOOD) + 9) + GOOD),
    ("two Content-Lengths", "refused", head("200 OK", f"Content-Length: {len(GOOD)}", length=7) + GOOD),
    ("gzip that was not asked for", "refused", answer(gzip.compress(GOOD), "Content-Encoding: gzip")),
    ("gzip that is not told", "refused", answer(gzip.compress(GOOD))),
    ("an HTML page", "refused", answer(b"<!DOCTYPE html><html>please log in</html>", kind="text/html")),
    ("an empty body", "refused", answer(b"")),
    ("HTTP/0.9", "refused", GOOD),
    ("HTTP/3.0", "refused", answer(GOOD).replace(b"HTTP/1.1", b"HTTP/3.0")),
    ("TLS on a plain port", "refused", b"\x15\x03\x03\x00\x02\x02\x46"),
    ("noise", "refused", bytes(range(256)) * 8),
    ("204 No Content", "refused", head("204 No Content")),
    ("101 Switching Protocols", "refused", head("101 Switching Protocols")),
    ("304 Not Modified", "refused", head("304 Not Modified")),
    ("a redirect elsewhere", "refused", head("307 Temporary Redirect", "Location: http://127.0.0.1:9/elsewhere", length=0)),
    ("a redirect to no address", "refused", head("302 Found", "Location: http://[::1", length=0)),
    ("407 Proxy Authentication Required", "refused", head("407 Proxy Authentication Required", length=0)),
    ("418", "refused", head("418 I'm a teapot", length=0)),
    ("500 with an endless body", "refused", after(head("500 Internal Server Error"), "forever", b"sorry ")),
    ("status 999", "refused", head("999 What", length=0)),
    ("status 20", "refused", head("20 OK", length=0)),
    ("503 once", "answer", in_turn(head("503 Service Unavailable", length=0), answer(GOOD))),
    ("a reason with escapes", "refused", head("404 \x1b[2J\x07 gone", length=0)),
):
    case("chat", name, end, do)  # type: ignore[arg-type]
case("chat", "TLS is asked of a plain port", "refused", answer(GOOD), unread=True, scheme="https")
case("chat", "TLS is asked of a port that waits", "refused", silent, unread=True, scheme="https")
case("chat", "answers before the request is read", "answer", lambda talk: (talk.send(answer(GOOD)), nap(0.1)), unread=True)
case("chat", "refuses before the request is read", "refused", lambda talk: talk.send(head("401 No", length=0)), unread=True)
case("rl-vlm-f", "refuses before pictures are read", "refused", lambda talk: talk.send(head("413 No", length=0)), unread=True)
case("rl-vlm-f", "takes a byte now and then", "refused", lambda talk: [talk.sock.recv(1) and nap(0.05) for _ in range(10**4)],
     unread=True)  # fmt: skip
case("rl-vlm-f", "an answer of a million empty lines", "answer", answer(said("\n" * 10**6 + "1")))
for wait in ("nan", "inf", "-5", "1e300", "9" * 5000, "Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 31 Dec 99999 23:59:59 GMT",
             "Wed, 21 Oct 2015 07:28:00", "Mon, 99 Xyz 2015 99:99:99 +99999999999", "soon", "", "\xff\xfe"):  # fmt: skip
    refusal = head("429 Too Many Requests", f"Retry-After: {wait}", length=0)
    case("chat", f"Retry-After {wait[:40]!r}", "answer", in_turn(refusal, answer(GOOD)))

# What is no chat completion, or an odd one.
for name, end, body in (
    ("JSON too deep", "refused", b"[" * 200_000),
    ("numbers of 5,000 digits", "refused", GOOD.replace(b"11", b"1" * 5000)),
    ("a lone surrogate", "answer", GOOD.replace(b"fine ", b"fine \\ud800")),
    ("a NUL byte", "answer", said(TEXT + "\0")),
    ("bytes that are no UTF-8", "refused", GOOD.replace(b"fine", b"fi\xff\xfe")),
    ("UTF-16", "answer", GOOD.decode().encode("utf-16")),
    ("choices as an object", "refused", said(choices={"0": 1})),
    ("choices null", "refused", said(choices=None)),
    ("no choice", "refused", said(choices=[])),
    ("a choice that is a text", "refused", said(choices=["x"])),
    ("a list", "refused", b"[[{}]]"),
    ("a number", "refused", b"17"),
    ("content as a list", "refused", said([TEXT])),
    ("content as a number", "refused", said(17)),
    ("duplicate keys", "answer", GOOD[:-1] + b', "usage": {}, "usage": %s}' % json.dumps(USAGE).encode()),
    ("negative usage", "answer", said(usage={"prompt_tokens": -(10**9), "completion_tokens": -1})),
    ("usage of 10^4000", "answer", said(usage={"prompt_tokens": int("9" * 4000), "completion_tokens": 1e308})),
    ("usage true", "answer", said(usage={"prompt_tokens": True, "completion_tokens": "7"})),
    ("usage NaN", "answer", said(usage={"prompt_tokens": float("nan"), "completion_tokens": float("inf")})),
    ("usage as a list", "answer", said(usage=[1, 2])),
):
    case("chat", name, end, answer(body))
case("chat", "an answer of nine million letters", "refused", answer(said("x" * 9 * 10**6)))
case("chat", "seven million empty lists", "refused", answer(b"[" + b"[]," * (7 * 2**20 // 3) + b"0]"))
for form, make in (
    ("as it is", str), ("reversed", lambda key: key[::-1]), ("as an address", lambda key: quote(key, safe="")),
    ("as base64", lambda key: base64.b64encode(key.encode()).decode()),
):  # fmt: skip
    case("chat", f"echoes the key {form}", "answer", echo(make))
case("chat", "quotes the key in a refusal", "refused", lambda talk: talk.send(answer(talk.head, status="401 " + KEY)))
case("stream", "echoes the key in pieces", "answer", echo_pieces)

for name, end, body in (
    ("a stream as it should be", "answer", STREAMED),
    ("no [DONE]", "refused", STREAMED[: -len(END)]),
    ("an answer that ends in a piece", "refused", STREAMED[:60]),
    ("half characters in two pieces", "answer", piece("fine ") + piece("\ud83d") + piece("\ude00") + END),
    ("an error in the middle", "refused", piece("fi") + event({"error": {"message": "overloaded"}}) + END),
    ("delta null", "refused", event({"choices": [{"delta": None}]}) + END),
    ("choices as an object", "refused", event({"choices": {"delta": {}}}) + END),
    ("content as a list", "refused", piece([TEXT]) + END),
    ("content as a number", "refused", piece(3) + END),
    ("a piece that is too deep", "refused", b"data: " + b"[" * 200_000 + b"\n\n"),
    ("a piece that is no UTF-8", "refused", b"data: \xff\xfe\n\n"),
    ("a second answer beside", "answer", piece("fine ") + piece("no", index=1) + piece("\N{GRINNING FACE}") + END),
    ("negative usage", "answer", piece(TEXT) + event({"choices": [], "usage": {"prompt_tokens": -5}}) + END),
    ("an HTML page", "refused", b"<!DOCTYPE html><html>please log in</html>"),
):
    case("stream", name, end, STREAM + body)
case("stream", "one piece of JSON, as if not asked for a stream", "answer", answer(GOOD))
case("stream", "a stream that says it is JSON", "answer", head() + STREAMED)
case("stream", "an endless piece of JSON", "refused", after(head() + b'{"a": "', "forever", b"x"))
case("stream", "a byte now and then", "refused", after(STREAM, "drip", piece("x")))
case("stream", "a comment now and then", "refused", lambda talk: (talk.send(STREAM), [(talk.send(b": \n\n"), nap(0.05))
                                                                                    for _ in range(10**4)]))  # fmt: skip
case("stream", "an endless line", "refused", after(STREAM, "forever", b"data: x"))
case("stream", "comments without end", "refused", after(STREAM, "forever", b": keep-alive" + b" " * 1000 + b"\n"))
case("stream", "pieces without end", "refused", after(STREAM, "forever", piece("x" * 1000)))
case(
    "stream", "chunks of bad size", "refused", head("200 OK", "Transfer-Encoding: chunked", kind="text/event-stream") + b"-1\r\n"
)
case("stream", "a chunk of 10^30 bytes", "answer",
     head("200 OK", "Transfer-Encoding: chunked", kind="text/event-stream") + b"%x\r\n" % 10**30 + STREAMED)  # fmt: skip

# Mirrors of data sets.
HDF5 = "application/x-hdf5"
SET = "door-human-v1"


@functools.cache
def content() -> bytes:
    """A data set's file."""
    with tempfile.TemporaryDirectory() as folder:
        some = d4rl.read_d4rl(Path(__file__).parent / "data" / "door-human-v0.hdf5").take([0, 2])
        return d4rl.write_d4rl(Path(folder) / "x.hdf5", some).read_bytes()


def asked(talk: Talk) -> int | None:
    """The first byte of the range that is asked for."""
    found = re.fullmatch(r"bytes=(\d+)-", talk.asks("range"))
    return int(found[1]) if found else None


def whole(*lines: str) -> Do:
    """The file, whatever is asked for."""
    return lambda talk: talk.send(answer(content(), *lines, kind=HDF5))


def then(span: Callable[[bytes, int], bytes], cut: int = 100_000, *lines: str) -> Do:
    """The file, cut; what a request for the rest gets is up to `span`."""

    def do(talk: Talk) -> None:
        data, start = content(), asked(talk)
        if start is None:
            talk.send(head("200 OK", *lines, length=len(data), kind=HDF5), data[:cut] if talk.number == 0 else data)
        else:
            talk.send(span(data, start))

    return do


def partial(data: bytes, start: int, size: int | str | None = None, first: int | None = None) -> bytes:
    """An answer 206."""
    told = f"Content-Range: bytes {start if first is None else first}-{len(data) - 1}/{len(data) if size is None else size}"
    return answer(data[start:], told, status="206 Partial Content", kind=HDF5)


def each_time(talk: Talk) -> None:
    """Begin again with some more each time, and be cut."""
    talk.send(head(length=len(content()), kind=HDF5), content()[: 50_000 + 10_000 * talk.number])


def a_byte_each(talk: Talk) -> None:
    """The next byte, and be cut."""
    start, data = asked(talk) or 0, content()
    have = min(start + (4096 if start else 0), len(data))
    talk.send(head("206 Partial Content", f"Content-Range: bytes {start}-{len(data) - 1}/{len(data)}", length=len(data) - start)
              if start else head(length=len(data)), data[start : have + 1])  # fmt: skip


def sizes_in_turn(talk: Talk) -> None:
    """Announce another size each time, and be cut."""
    talk.send(head(length=len(content()) + 10_000 * talk.number, kind=HDF5), content()[:50_000])


def redirect(place: Callable[[Talk], str]) -> Do:
    return lambda talk: talk.send(head("302 Found", f"Location: {place(talk)}", length=10**17) + b"moved")


def moved(talk: Talk) -> None:
    """Redirect once, to the file."""
    talk.send(answer(content()) if talk.path == "/there" else head("302 Found", "Location: /there", length=0))


for name, end, do in (
    ("the file", "answer", whole()),
    ("an HTML page", "refused", answer(b"<!DOCTYPE html>\n<html><body>Please log in</body></html>", kind="text/html")),
    ("a page that says it is HDF5", "refused", answer(b"<html>soon</html>", kind=HDF5)),
    ("a pointer of git-lfs", "refused", answer(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")),
    ("an error in XML", "refused", answer(b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>')),
    ("an error in JSON", "refused", answer(b'{"error": "quota"}')),
    ("an empty body", "refused", answer(b"")),
    ("204 No Content", "refused", head("204 No Content")),
    ("gzip that is not told", "refused", lambda talk: talk.send(answer(gzip.compress(content())))),
    ("gzip that is told", "refused", lambda talk: talk.send(answer(gzip.compress(content()), "Content-Encoding: gzip"))),
    ("half a file as all of it", "refused", lambda talk: talk.send(answer(content()[:100_000]))),
    ("more than it announces", "answer", lambda talk: talk.send(answer(content()), b"and more" * 10**4)),
    ("no size", "answer", lambda talk: talk.send(head(kind=HDF5), content())),
    ("an endless body of no size", "refused", after(head(kind=HDF5), "forever", b"\x89HDF\r\n\x1a\n")),
    ("an endless body in chunks of a byte", "refused", after(CHUNKED, "forever", b"1\r\nx\r\n")),
    ("a size of 10^18", "refused", head(length=10**18)),
    ("a size that is negative", "answer", lambda talk: talk.send(head(length=-1), content())),
    ("a size that is no number", "answer", lambda talk: talk.send(head(length="big"), content())),
    ("two sizes", "refused", lambda talk: talk.send(head("200 OK", f"Content-Length: {len(content())}", length=9), content())),
    ("accepts and never answers", "refused", silent),
    ("a byte now and then", "refused", after(head(length=10**6), "drip", b"\x89HDF")),
    ("a byte now and then, in the head", "refused", lambda talk: talk.drip(b"HTTP/1.1 200 OK\r\nX: ")),
    ("endless headers", "refused", after(b"HTTP/1.1 200 OK\r\n", "forever", b"X: y\r\n")),
    ("endless 100 Continue", "refused", lambda talk: talk.forever(b"HTTP/1.1 100 Continue\r\n\r\n")),
    ("resets at once", "refused", lambda talk: talk.reset()),
    ("no HTTP", "refused", b"SSH-2.0-OpenSSH_9.6\r\n" * 100),
    ("404 with words of its own", "refused", head("404 \x1b[31mno\nsuch", length=0)),
    ("500", "refused", head("500 Internal Server Error", length=0)),
    ("status 999", "refused", head("999 What", length=0)),
    ("a cut, then the rest", "answer", then(partial)),
    ("a cut, then all again", "answer", then(lambda data, start: answer(data))),
    ("a cut, then another range than asked for", "answer", then(lambda data, start: partial(data, start + 999))),
    ("a cut, then a range that lies", "answer", then(lambda data, start: partial(data, start - 999, first=start))),
    ("a cut, then a range of another size", "answer", then(lambda data, start: partial(data, start, len(data) + 5))),
    ("a cut, then a range of unknown size", "answer", then(lambda data, start: partial(data, start, "*"))),
    ("a cut, then a range that is none", "answer",
     then(lambda data, start: answer(data[start:], "Content-Range: bytes x-y/z", status="206 Partial Content"))),
    ("a cut, then 206 without a range", "answer", then(lambda data, start: answer(data[start:], status="206 Partial Content"))),
    ("a cut, then a range that begins below zero", "answer", then(lambda data, start: partial(data, start, first=-5))),
    ("a cut, then 416", "answer", then(lambda data, start: head("416 No", "Content-Range: bytes */7", length=0))),
    ("a cut, then another file", "answer", then(lambda data, start: partial(data[::-1], start))),
    ("a tag of odd letters", "answer", then(partial, 100_000, 'ETag: "\xe9\x85 \x01,;/.."')),
    ("a tag over two lines", "answer", then(partial, 100_000, 'ETag: "a\r\n b"')),
    ("a tag of 60,000 letters", "answer", then(partial, 100_000, f'ETag: "{"x" * 60_000}"')),
    ("a tag of a million letters", "refused", then(partial, 100_000, f'ETag: "{"x" * 10**6}"')),
    ("from its beginning each time", "refused", each_time),
    ("a byte each time", "refused", a_byte_each),
    ("another size each time", "refused", sizes_in_turn),
    ("a redirect to the file", "answer", moved),
    ("a redirect without end", "refused", redirect(lambda talk: f"/{talk.number}")),
    ("a redirect to itself", "refused", redirect(lambda talk: talk.path)),
    ("a redirect to file:", "refused", redirect(lambda talk: "file:///etc/passwd")),
    ("a redirect to ftp:", "refused", redirect(lambda talk: "ftp://127.0.0.1/x")),
    ("a redirect to data:", "refused", redirect(lambda talk: "data:,x")),
    ("a redirect to no address", "refused", redirect(lambda talk: "http://[::1")),
    ("a redirect to a port that is none", "refused", redirect(lambda talk: "http://127.0.0.1:x/")),
    ("a redirect to nobody", "refused", redirect(lambda talk: "http://127.0.0.1:9/")),
):  # fmt: skip
    case("mirror", name, end, do)  # type: ignore[arg-type]
case("mirror", "TLS is asked of a plain port", "refused", whole(), unread=True, scheme="https")


def begun(facts: str | None, size: int = 100_000) -> Callable[[Path], None]:
    """What an earlier call has left: the first bytes, and the facts about them."""

    def do(folder: Path) -> None:
        (folder / f"{SET}.hdf5.partial").write_bytes(content()[:size])
        if facts is not None:
            (folder / f"{SET}.hdf5.partial.json").write_text(facts)

    return do


for facts in (
    "", "[]", "{}", "null", "[" * 10**5, '{"url": 1, "validator": null, "size": null}', '{"url": "", "validator": [], "size": 9}',
    '{"url": "", "validator": "a\\r\\nb: c", "size": 9}', '{"url": "", "validator": null, "size": -1}',
    '{"url": "", "validator": null, "size": true}', '{"url": "", "validator": null, "size": "9"}',
    '{"url": "", "validator": null, "size": %s}' % ("9" * 5000), '{"url": "", "validator": null, "size": null}',
):  # fmt: skip
    case("mirror", f"goes on from facts {facts[:50]}", "answer", then(partial), before=begun(facts))
case("mirror", "goes on from no facts", "answer", then(partial, 10**9), before=begun(None))
case("mirror", "goes on from more than there is", "answer", then(lambda data, start: head("416 No", length=0), 10**9),
     before=begun('{"url": "", "validator": null, "size": null}', 10**6))  # fmt: skip

# A hub of models.
COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = bytes(5000)
SUM = hashlib.sha256(WEIGHTS).hexdigest()
FILES = {
    "README.md": b"---\nlicense: mit\n---\n",
    "config.json": b'{"kind": "vlp", "config": {}}',
    "model.safetensors": WEIGHTS,
}


def listed(path: str) -> dict[str, Any]:
    """A file in the list of a repository."""
    return {"type": "file", "path": path, "size": len(FILES[path]), "oid": "0" * 40}


def info(**more: Any) -> bytes:
    """What a hub says of a repository."""
    told = {"id": "me/model", "sha": COMMIT, "private": False, "siblings": [{"rfilename": path} for path in FILES], "tags": []}
    return json.dumps(told | more).encode()


def hub_with(**parts: Do | bytes) -> Do:
    """A hub that is as it should be but for some answers: info, tree, head and body of the weights, settings."""

    def do(talk: Talk) -> None:
        while talk.head:
            path = talk.path.partition("?")[0]
            name = path.partition(f"/resolve/{COMMIT}/")[2]
            tag = f'"{hashlib.sha256(FILES[name]).hexdigest()}"' if name in FILES else ""
            kept = ("200 OK", f"X-Repo-Commit: {COMMIT}", f"ETag: {tag}")
            if "/tree/" in path:
                part, usual = "tree", answer(json.dumps([listed(path) for path in FILES]).encode())
            elif path.startswith("/api/"):
                part, usual = "info", answer(info())
            elif name in FILES:
                part = f"{'weights' if name.endswith('.safetensors') else 'settings'}_{talk.method.lower()}"
                usual = head(*kept, length=len(FILES[name]), kind="binary") + (b"" if talk.method == "HEAD" else FILES[name])
            else:
                part, usual = "none", head("404 Not Found", "X-Error-Code: EntryNotFound", length=0)
            here = parts.get(part, parts.get("all", usual))
            if not isinstance(here, bytes):
                return here(talk)
            talk.send(here)
            talk.head = b""
            talk.read()
        return None

    return do


def weights(*lines: str, length: int | str | None = len(WEIGHTS), commit: str = COMMIT, tag: str = f'"{SUM}"') -> bytes:
    """The head of the weights' answer."""
    return head("200 OK", f"X-Repo-Commit: {commit}", f"ETag: {tag}", *lines, length=length, kind="binary")


TREE = [listed(path) for path in FILES]
for name, end, parts in (
    ("a model", "answer", {}),
    ("HTML everywhere", "refused", {"all": answer(b"<html>log in</html>", kind="text/html")}),
    ("500 everywhere", "refused", {"all": head("500 Internal Server Error", length=0)}),
    ("a refusal that quotes the token", "refused", {"all": lambda talk: talk.send(answer(talk.head, status="403 Forbidden"))}),
    ("a status line that quotes the token", "refused", {"all": lambda talk: talk.send(
        b"HTTP/1.1 " + talk.asks("authorization").encode() + b" x\r\n\r\n")}),
    ("a redirect that quotes the token", "refused", {"all": lambda talk: talk.send(
        head("302 Found", f"Location: http://127.0.0.1:9/{talk.asks('authorization')[7:]}", length=0))}),
    ("weights cut by words that quote the token", "refused", {"weights_get": lambda talk: talk.send(
        head("200 OK", "Transfer-Encoding: chunked"), talk.asks("authorization").encode() + b"\r\n")}),
    ("accepts and never answers", "refused", {"all": silent}),
    ("a byte now and then, in a head", "refused", {"all": lambda talk: talk.drip(b"HTTP/1.1 200 OK\r\nX: ")}),
    ("a byte now and then, in the list", "refused", {"tree": after(head(length=10**6), "drip", b"[")}),
    ("a byte now and then, in the weights", "refused", {"weights_get": after(weights(), "drip", b"\0")}),
    ("an endless description", "refused", {"info": after(head(), "forever", b" ")}),
    ("a description that is too deep", "refused", {"info": answer(b"[" * 200_000)}),
    ("a description of wrong types", "refused", {"info": answer(info(siblings=7, tags={}, sha=[]))}),
    ("a commit ../../x", "refused", {"info": answer(info(sha="../../../../x"))}),
    ("no commit", "refused", {"info": answer(info(sha=None))}),
    ("wrong JSON as a list", "refused", {"tree": answer(b'{"a": [')}),
    ("a list of wrong types", "refused", {"tree": answer(b'[1, {"type": 3}]')}),
    ("a list with ../x and /x", "answer", {"tree": answer(json.dumps([*TREE, TREE[0] | {"path": "../x"},
                                                                      TREE[0] | {"path": "/x"}]).encode())}),
    ("a list of 20,000 files", "answer", {"tree": answer(json.dumps([*TREE, *(TREE[0] | {"path": f"{number}.bin"}
                                                                              for number in range(20_000))]).encode())}),
    ("an endless list", "refused", {"tree": after(head() + b"[0", "forever", b",0")}),
    ("a list that goes on for ever", "refused", {"tree": lambda talk: talk.send(answer(
        json.dumps([TREE[0] | {"path": f"{talk.number}-{number}" + "x" * 200} for number in range(4000)]).encode(),
        f'Link: <http://{talk.asks("host")}{talk.path.partition("?")[0]}?cursor={time.monotonic()}>; rel="next"',
        "Connection: close"))}),
    ("weights of 10^15 bytes in the list", "refused", {"tree": answer(json.dumps([TREE[-1] | {"size": 10**15}]).encode())}),
    ("weights of 10^15 bytes", "refused", {"weights_head": weights(length=10**15), "weights_get": weights(length=10**15)}),
    ("weights without end", "refused", {"weights_head": weights(length=None),
                                        "weights_get": after(weights(length=None), "forever", b"x")}),
    ("weights of another size", "refused", {"weights_get": weights(length=100) + bytes(100)}),
    ("other bytes of the same size", "refused", {"weights_get": weights() + b"x" * len(WEIGHTS)}),
    ("cut weights", "refused", {"weights_get": after(weights() + bytes(100), "reset")}),
    ("a tag ../../x", "refused", {"weights_head": weights(tag='"../../../../x"')}),
    ("a tag ..", "refused", {"weights_head": weights(tag='".."')}),
    ("a commit of the weights ../../x", "refused", {"weights_head": weights(commit="../../x")}),
    ("settings that are no JSON", "refused", {"settings_get": answer(b"x" * 29),
                                              "settings_head": weights(length=29, tag='"a1"')}),
    ("settings of a kind that is a list", "refused", {"settings_get": answer(b'{"kind": []}'),
                                                      "settings_head": weights(length=12, tag='"a2"')}),
):  # fmt: skip
    case("hub", name, end, hub_with(**parts))  # type: ignore[arg-type]


@contextlib.contextmanager
def serving(here: Case) -> Iterator[str]:
    """The server of a case, at the address that is yielded, until the block ends."""
    listening = socket.create_server(("127.0.0.1", 0))

    def talk(sock: socket.socket, number: int) -> None:
        one = Talk(sock, number)
        with contextlib.suppress(OSError), sock:
            if not here.unread:
                one.read()
            here.do(one)

    def accept() -> None:
        for number in range(10**6):
            try:
                sock, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=(sock, number), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"{here.scheme}://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        listening.close()


def chat_of(url: str, folder: Path, name: str, stream: bool = False) -> Chat:
    slow = re.search("now and then|without end|endless", name)
    config = ChatConfig(
        "any", f"{url}/v1", stream=stream, timeout=SILENCE_S, total=TOTAL_S if slow else 2 * LONGEST_WAIT, attempts=2
    )

    def wait(seconds: float) -> None:
        assert 0 <= seconds <= LONGEST_WAIT

    return Chat(config, folder / "answers", wait)


def ask(url: str, folder: Path, name: str, stream: bool) -> str:
    """A question; what is wrong with the answer."""
    said = chat_of(url, folder, name, stream).complete(["well?"])
    shown = said.text.replace("[key]", "").replace("\N{REPLACEMENT CHARACTER}", "")
    right = shown in ("", TEXT, TEXT.replace(" ", ""), KEY[::-1])
    counted = (said.tokens_in, said.tokens_out) in ((11, 7), (0, 0), (0, 7))
    return "" if right and counted and said.whole and said.text.encode() else f"it says {said!r}"[:200]


def pair(url: str, folder: Path, name: str) -> str:
    """Two pictures, of which the second is to be preferred."""
    noise = np.random.default_rng(0).integers(0, 256, (2, 700, 700, 3), dtype=np.uint8)
    return "" if compare(chat_of(url, folder, name), noise[0], noise[1], "shut it") == 1.0 else "another label"


def fetch(url: str, folder: Path, name: str) -> str:
    """A data set by its name."""
    download.LARGEST = LARGEST
    d4rl.download = functools.partial(download.download, timeout=SILENCE_S)
    d4rl.load_offline(SET, folder, mirror=f"{url}/{{name}}.hdf5?token={KEY}")
    path = folder / f"{SET}.hdf5"
    recorded = (folder / f"{SET}.hdf5.sha256").read_text().split()[0] == hashlib.sha256(path.read_bytes()).hexdigest()
    return "" if path.read_bytes() == content() and recorded else "another file"


def find(url: str, folder: Path, name: str) -> str:
    """A model by its name."""
    constants = huggingface_hub.constants
    constants.HUGGINGFACE_CO_URL_TEMPLATE = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, url)
    constants.ENDPOINT, constants.HF_HUB_CACHE, constants.HF_HUB_DISABLE_XET = url, str(folder / "a/b/c/hub"), True
    constants.HF_HUB_ETAG_TIMEOUT = constants.HF_HUB_DOWNLOAD_TIMEOUT = 1
    constants.HF_HUB_DISABLE_SYMLINKS = False
    os.environ["HF_TOKEN"] = TOKEN
    hub_guard.HEAD_S, hub_guard.LARGEST, hub_guard.LISTED = TOTAL_S, LARGEST, LISTED
    time.sleep = lambda seconds: None
    model = hub.find_model("hf-hub:me/model")
    found = {path.relative_to(model).as_posix(): path.read_bytes() for path in model.rglob("*") if path.is_file()}
    return "" if found == FILES else f"it has {sorted(found)}"


def left_over(here: Case, folder: Path, end: str) -> list[str]:
    """Files that a client should not leave."""
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    if here.client in ("chat", "stream", "rl-vlm-f"):
        return found if end != "answer" else [name for name in found if not re.fullmatch(r"answers/[0-9a-f]{64}\.json", name)]
    if here.client == "mirror":
        files = {f"{SET}.hdf5", f"{SET}.hdf5.sha256"} if end == "answer" else {f"{SET}.hdf5.partial", f"{SET}.hdf5.partial.json"}
        return [name for name in found if name not in files]
    models = [name for name in found if not name.startswith("a/b/c/hub/") or name.endswith(".incomplete")]
    return models + [name for name in found if "/snapshots/" in name and name.endswith(".safetensors") and end != "answer"]


def tried(here: Case, folder: Path) -> dict[str, Any]:
    """How a client ends with a server, in this process."""
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    web.WINDOW_S = TOTAL_S
    os.environ |= {"OPENAI_API_KEY": KEY, "no_proxy": "*", "NO_PROXY": "*"}
    clients: dict[str, Callable[[str, Path, str], str]] = {
        "chat": functools.partial(ask, stream=False), "stream": functools.partial(ask, stream=True),
        "rl-vlm-f": pair, "mirror": fetch, "hub": find,
    }  # fmt: skip
    folder.mkdir()
    here.before(folder)
    with serving(here) as url:
        try:
            told = clients[here.client](url, folder, here.name)
            end = "wrong" if told else "answer"
        except RoboprefError as error:
            told = str(error)
            address = "hf-hub:me/model" if here.client == "hub" else url
            clear = told.isprintable() and len(told) < 1000 and address in told
            end = "refused" if clear else "unclear"
        except BaseException as error:
            traceback.print_exc()
            sys.stderr.flush()
            told, end = f"{type(error).__name__}: {error}"[:300], "traceback"
        seconds = time.monotonic() - began
        told = told.replace(url, "URL").replace(str(folder), "FOLDER")
    secrets = (KEY, quote(KEY, safe=""), TOKEN)
    if end in ("answer", "refused") and (left := left_over(here, folder, end)):
        told, end = f"left over: {left[:3]}; {told}", "leftover"
    contents = [told.encode(), *(path.read_bytes() for path in folder.rglob("*") if path.is_file())]
    if any(secret.encode() in text for secret in secrets for text in contents):
        told, end = f"key told; {told}", "key told"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"client": here.client, "server": here.name, "end": end, "seconds": seconds, "memory_mb": grown / 1024, "told": told}


@dataclass
class Running:
    """A client at work, in a fork of this process."""

    case: Case
    folder: Path
    process: int
    pipe: int
    until: float

    @classmethod
    def start(cls, here: Case) -> Running:
        folder = Path(tempfile.mkdtemp(prefix="servers-"))
        reader, writer = os.pipe()
        sys.stdout.flush()
        process = os.fork()
        if process == 0:
            with contextlib.suppress(BaseException):
                os.close(reader)
                os.dup2(os.open(folder / "stderr", os.O_WRONLY | os.O_CREAT, 0o644), 2)  # for bars of progress and tracebacks
                os.write(writer, json.dumps(tried(here, folder / "work")).encode())
            os._exit(0)
        os.close(writer)
        return cls(here, folder, process, reader, time.monotonic() + HUNG_S)

    def row(self) -> dict[str, Any]:
        """How it has ended; one that has not is killed."""
        if not select.select([self.pipe], [], [], max(self.until - time.monotonic(), 0))[0]:
            os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)
        told = b"".join(iter(lambda: os.read(self.pipe, 65536), b""))
        os.close(self.pipe)
        row: dict[str, Any] = {"client": self.case.client, "server": self.case.name, "end": "hung", "seconds": HUNG_S}
        row |= {"memory_mb": 0.0, "told": ""} | (json.loads(told) if told else {})
        printed = (self.folder / "stderr").read_text(errors="replace")
        row["end"] = "key told" if TOKEN in printed or KEY in printed else row["end"]
        if row["end"] in ("traceback", "key told"):
            row["told"] += printed[-3000:]
        shutil.rmtree(self.folder, ignore_errors=True)
        return row


def try_all(cases: Sequence[Case], at_once: int = AT_ONCE) -> Iterator[dict[str, Any]]:
    """The rows of servers, tried some at a time: most of the time is spent waiting."""
    content()
    waiting, running = list(cases), list[Running]()
    while waiting or running:
        while waiting and len(running) < at_once:
            running.append(Running.start(waiting.pop(0)))
        yield running.pop(0).row()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", nargs="*", default=sorted({here.client for here in CASES}), metavar="NAME")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results/reliability")
    given = parser.parse_args()
    gc.freeze()  # else every fork copies what it looks at
    rows, cases = [], [here for here in CASES if here.client in given.clients]
    for here, row in zip(cases, try_all(cases), strict=True):
        rows.append(row)
        mark = "" if row["end"] == here.end else f"   expected: {here.end}"
        told = f"{row['end']:<10} {row['seconds']:5.1f} s {row['memory_mb']:6.1f} MB  {row['told']}"
        print(f"{here.id:<60} {told}{mark}", flush=True)
    given.out.mkdir(parents=True, exist_ok=True)
    with (given.out / "servers.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS[:-1], lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(row | {"seconds": f"{row['seconds']:.1f}", "memory_mb": f"{row['memory_mb']:.0f}"} for row in rows)
    ends = {end: sum(row["end"] == end for row in rows) for end in ENDS}
    print(f"{len(rows)} servers: {ends}")


if __name__ == "__main__":
    main()
