"""Bounds for what huggingface_hub asks a hub, whose own are a timeout for each read: heads, pace, sizes and names are looked at.

It writes where answers say: a commit and a tag are parts of paths in its cache.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from huggingface_hub import close_session, get_token
from huggingface_hub.utils import get_session

from robopref.configs.web import Bounds, Excess

HEAD_S = 60.0  # from a request to the end of its answer's head; six of the library's timeouts
SLOWEST = 1024.0  # bytes a second of a body, on average over two minutes: less than the modems of 1990
LARGEST = 16 * 2**30  # bytes of a file: a CLIP of the largest kind has ten GiB, a model of robopref's some hundred MiB
LISTED = 2**26  # bytes of lists and descriptions in one call: two hundred thousand files
COMPRESSED = 2**20  # bytes of an answer that is compressed, as cards and settings may be: at most a thousand times more
ONE = threading.RLock()  # the library has one HTTP client
TAGS = ("ETag", "X-Linked-ETag", "X-Repo-Commit")


@contextmanager
def guarded_hub(wanted: Collection[str] = ()) -> Iterator[None]:
    """While it lasts, answers beyond their bounds end huggingface_hub's calls with Excess.

    wanted: paths of files in a repository; of these a list tells the sizes before any is fetched.
    """
    with ONE:
        yield from _guarded(_Guard(frozenset(wanted)))


def _guarded(guard: _Guard) -> Iterator[None]:
    client = get_session()
    if not hasattr(client, "event_hooks"):  # of a version before 1.0, which uses another HTTP client
        yield
        return
    before, done = client.event_hooks, threading.Event()
    client.event_hooks = {"request": [*before["request"], guard.asks], "response": [*before["response"], guard.answers]}
    watch = threading.Thread(target=guard.watch, args=(done,), daemon=True)
    handlers = logging.getLogger("huggingface_hub").handlers
    for handler in handlers:
        handler.addFilter(_without_token)
    watch.start()
    try:
        yield
    except Exception as error:
        if guard.late:  # whatever the library makes of a connection that is closed
            raise Excess(f"no head of an answer after {HEAD_S:.3g} s") from error
        raise
    finally:
        done.set()
        watch.join()
        client.event_hooks = before
        for handler in handlers:
            handler.removeFilter(_without_token)


def _without_token(record: logging.LogRecord) -> bool:
    """Hide the token in what the library warns of, which may quote a server that quotes the request."""
    said, token = record.getMessage(), get_token()
    if token:
        record.msg, record.args = said.replace(token, "[token]"), ()
    return True


class _Guard:
    def __init__(self, wanted: Collection[str]) -> None:
        self.wanted = wanted
        self.waiting: dict[int, float] = {}  # thread -> since when it waits for the head of an answer
        self.left, self.late = LISTED, False

    def asks(self, request: Any) -> None:
        """Note that a head is waited for; lists are asked for uncompressed, which may be a thousand times more.

        The library sets no timeout for some requests.
        """
        waits = request.extensions.get("timeout", {})
        names = ("connect", "read", "write", "pool")
        request.extensions["timeout"] = {name: HEAD_S if waits.get(name) is None else waits[name] for name in names}
        if request.method in ("GET", "HEAD"):  # others have bodies, which may take their time
            self.waiting[threading.get_ident()] = time.monotonic()
        if _is_list(request):
            request.headers["Accept-Encoding"] = "identity"

    def watch(self, done: threading.Event) -> None:
        """Close the connections when a head is late: the library's timeout begins anew with each byte."""
        while not done.wait(min(0.5, HEAD_S / 4)):
            self.late |= any(time.monotonic() - since > HEAD_S for since in list(self.waiting.values()))
            if self.late:  # again and again, since the library may open others
                close_session()

    def answers(self, response: Any) -> None:
        """Look at a head, and have the body counted."""
        self.waiting.pop(threading.get_ident(), None)
        is_file = response.status_code < 400 and not _is_list(response.request)
        for name in TAGS if response.request.method == "HEAD" else ():
            if not re.fullmatch(r'(W/)?"?\w[\w.:-]{0,199}"?', response.headers.get(name, "none"), re.ASCII):
                raise Excess(f"its {name} could not be the name of a file")
        for name in ("Content-Length", "X-Linked-Size"):
            size = response.headers.get(name, "0")
            if not re.fullmatch(r"\d{1,18}", size) or int(size) > LARGEST:
                raise Excess(f"its {name} is no size, or one of more than {LARGEST} bytes")
        library = sys.modules[type(response).__module__.partition(".")[0]]
        bounds = Bounds(LARGEST if is_file else self.left, pace=SLOWEST)
        if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
            bounds = Bounds(COMPRESSED, pace=SLOWEST)
        response.stream = _counted(library.SyncByteStream, response.stream, bounds)
        if response.status_code == 200 and response.request.method == "GET" and _is_list(response.request):
            said = response.read()
            self.left -= len(said)
            self.look(json.loads(said))

    def look(self, told: Any) -> None:
        """Excess for a repository whose commit is none, and for a list with a file that is wanted and too large."""
        if isinstance(told, dict) and not re.fullmatch(r"[0-9a-f]{40}", str(told.get("sha", "0" * 40))):
            raise Excess("what it calls a commit is none")
        for entry in told if isinstance(told, list) else []:
            size = entry.get("size") if isinstance(entry, dict) and entry.get("path") in self.wanted else 0
            if isinstance(size, int) and size > LARGEST:
                raise Excess(f"it lists a file of {size} bytes, and none of more than {LARGEST} is fetched")


def _is_list(request: Any) -> bool:
    """Whether a request is for a description of a repository, and not for a file."""
    return "/api/" in request.url.path and "/resolve/" not in request.url.path


def _counted(kind: Any, stream: Any, bounds: Bounds) -> Any:
    """A body that is counted as it comes; kind: the HTTP client's type of bodies."""

    class Counted(kind):
        def __iter__(self) -> Iterator[bytes]:
            for piece in stream:
                bounds.took(len(piece))
                bounds.came(len(piece))
                bounds.wait(1.0)
                yield piece

        def close(self) -> None:
            stream.close()

    return Counted()
