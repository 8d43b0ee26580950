"""An OpenAI-compatible chat endpoint on this machine, which misbehaves as it is told to.

Refusals, and even answers if asked to, quote the request's Authorization, as a careless proxy may: nobody must print or keep it.
"""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

KEY = "sk-not-to-be-seen"


class Endpoint:
    """What was asked, and what goes wrong next."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[dict[str, Any]] = []  # bodies of all requests that were well formed
        self.paths: list[str] = []
        self.keys: set[str] = set()
        self.trouble: list[str] = []  # of the next requests: "STATUS", "STATUS:RETRY-AFTER", "cut", "half", "hang", "html", ...
        self.answer: Callable[[dict[str, Any]], str | None] = lambda body: "0"


def texts(body: dict[str, Any]) -> list[str]:
    """The texts of a request's only message."""
    return [part["text"] for part in body["messages"][0]["content"] if part["type"] == "text"]


def pictures(body: dict[str, Any]) -> list[np.ndarray]:
    """The pictures of a request's only message, (H, W, 3) uint8 each."""
    urls = [part["image_url"]["url"] for part in body["messages"][0]["content"] if part["type"] == "image_url"]
    assert all(url.startswith("data:image/png;base64,") for url in urls)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))) for url in urls]


@contextmanager
def serving() -> Iterator[Endpoint]:
    """An endpoint at `endpoint.url` (--chat.base-url), until the block ends."""
    endpoint = Endpoint()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"endpoint": endpoint}))
    server.daemon_threads = True
    endpoint.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


def together(answer: str | None, finish: str) -> bytes:
    """A chat completion in one piece."""
    choice = {"message": {"role": "assistant", "content": answer}, "finish_reason": finish}
    return json.dumps({"choices": [choice], "usage": USAGE}).encode()


def streamed(answer: str | None, finish: str) -> bytes:
    """One as server-sent events: a comment, the role, pieces of five characters, the end, the usage."""
    text = answer or ""
    pieces: list[dict[str, Any]] = [{"choices": [{"delta": {"role": "assistant", "content": None}, "finish_reason": None}]}]
    pieces += [{"choices": [{"delta": {"content": text[i : i + 5]}, "finish_reason": None}]} for i in range(0, len(text), 5)]
    pieces += [{"choices": [{"delta": {}, "finish_reason": finish}]}, {"choices": [], "usage": USAGE}]
    return b": keep-alive\n\n" + b"".join(b"data: %s\n\n" % json.dumps(piece).encode() for piece in pieces) + b"data: [DONE]\n\n"


class Handler(BaseHTTPRequestHandler):
    endpoint: Endpoint

    def log_message(self, *args: object) -> None:
        """Silence."""

    def do_GET(self) -> None:
        self.endpoint.paths.append(self.path)
        self.reply(404, b"{}")

    def do_POST(self) -> None:
        endpoint = self.endpoint
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        endpoint.paths.append(self.path)
        endpoint.asked.append(body)
        said = self.headers.get("Authorization", "")
        endpoint.keys.add(said)
        trouble = endpoint.trouble.pop(0) if endpoint.trouble else ""
        said_whole = "length" if trouble == "length" else "stop"
        good = (streamed if body.get("stream") else together)(endpoint.answer(body), said_whole)
        if trouble == "cut":
            self.connection.close()
        elif trouble == "half":
            self.reply(200, good[: len(good) // 2], {"Content-Length": str(len(good))})
        elif trouble == "hang":
            time.sleep(1.0)
        elif trouble == "html":
            self.reply(200, b"<html>please log in</html>")
        elif trouble == "other":
            self.reply(200, b'{"choices": []}')
        elif trouble == "parts":
            self.reply(200, b'{"choices": [{"message": {"content": [1]}}]}')
        elif trouble == "redirect":
            self.reply(302, b"", {"Location": endpoint.url.replace("/v1", "/elsewhere")})
        elif trouble and trouble != "length":
            status, _, wait = trouble.partition(":")
            refusal = json.dumps({"error": {"message": f"refused: {said}"}}).encode()
            self.reply(int(status), refusal, {"Retry-After": wait} if wait else {})
        elif self.path != "/v1/chat/completions":
            self.reply(404, b"{}")
        else:
            self.reply(200, good)

    def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
