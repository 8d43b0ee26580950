"""Questions to a model behind an OpenAI-compatible chat endpoint; every answer is kept, so nothing is asked twice.

No message and no file here holds the key, nor what a refusing server says: that may quote the request, and with it the key.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPException, IncompleteRead, responses
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from robopref.configs.chat import ChatConfig
from robopref.configs.errors import RoboprefError, UsageError
from robopref.configs.files import read_json, write_json

COUNTED = ("whole", "tokens_in", "tokens_out")
LONGEST_WAIT = 60.0  # seconds between two requests, whatever the server asks for
Part = str | np.ndarray
"""Of a question: text, or a picture (H, W, 3) uint8."""


@dataclass(frozen=True)
class Completion:
    """What a model said."""

    text: str
    whole: bool = True  # else the endpoint cut it off
    tokens_in: int = 0  # of question and answer, as the endpoint counts them; 0 where it does not say
    tokens_out: int = 0


class Chat:
    """Asks one model one question at a time, patiently."""

    def __init__(self, config: ChatConfig, answers: Path, sleep: Callable[[float], None] = time.sleep) -> None:
        """answers: folder that keeps them, one file a question.  Raises UsageError for an address that is none, RoboprefError
        without a key.
        """
        if not re.fullmatch(r"https?://[\w.\-\[\]:]+(/[\w./~-]*)?", config.base_url):
            # Not quoted: a user, a password or a key in it would be saved with the settings, and shall not be printed either.
            raise UsageError("chat.base_url: write http(s)://HOST[:PORT]/PATH, without user, password or query")
        key = os.environ.get(config.key_variable, "").strip()
        if not key or not key.isascii() or not key.isprintable():
            raise RoboprefError(
                f"{config.key_variable} holds no usable key: set it to the endpoint's, or to any word where none is asked for"
            )
        self.config, self.answers = config, Path(answers)
        self._url = f"{config.base_url.rstrip('/')}/chat/completions"
        self._key, self._sleep = key, sleep
        self._opener = urllib.request.build_opener(_NoRedirect)

    def ask(self, parts: Sequence[Part]) -> str:
        """The text of `complete`."""
        return self.complete(parts).text

    def complete(self, parts: Sequence[Part], sample: int = 0) -> Completion:
        """The answer to a question of texts and pictures, from the folder if it is there; RoboprefError if none is to be had.

        sample: which of several answers to the same question.
        """
        content = [{"type": "text", "text": part} if isinstance(part, str) else _picture(part) for part in parts]
        request: dict[str, Any] = {"model": self.config.model, "messages": [{"role": "user", "content": content}]}
        if self.config.temperature is not None:
            request["temperature"] = self.config.temperature
        if self.config.longest is not None:
            request["max_tokens"] = self.config.longest
        shapes = self._url.encode() + json.dumps(request, sort_keys=True).encode() + (b"%d" % sample if sample else b"")
        path = self.answers / f"{hashlib.sha256(shapes).hexdigest()}.json"
        if not path.exists():
            if self.config.stream:
                request |= {"stream": True, "stream_options": {"include_usage": True}}
            said = self._request(json.dumps(request, sort_keys=True).encode())
            said = replace(said, text=said.text.replace(self._key, "[key]"))
            texts = [part for part in parts if isinstance(part, str)]
            facts = asdict(said)
            write_json(path, {"model": self.config.model, "question": texts, "answer": facts.pop("text")} | facts)
        kept = read_json(path)
        return Completion(str(kept["answer"]), *(kept.get(name, getattr(Completion, name)) for name in COUNTED))

    def _request(self, body: bytes) -> Completion:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"}
        request = urllib.request.Request(self._url, body, headers)
        why = ""
        for attempt in range(self.config.attempts):
            wait = 2.0**attempt
            try:
                with self._opener.open(request, timeout=self.config.timeout) as response:
                    return read_stream(response) if self.config.stream else read_completion(response.read())
            except urllib.error.HTTPError as refusal:
                refusal.close()
                why = f"it answers {refusal.code} {responses.get(refusal.code, '')}".rstrip()
                if refusal.code not in (408, 429) and refusal.code < 500:
                    break
                wait = retry_after(refusal.headers, wait)
            except (OSError, HTTPException) as error:  # refused, cut, silent
                why = f"no whole answer came ({type(error).__name__})"
            except ValueError:
                why = "what it answers is no chat completion"
            if attempt + 1 < self.config.attempts:
                self._sleep(min(wait, LONGEST_WAIT))
        raise RoboprefError(
            f"{self._url}: {why}; check chat.base_url, chat.model and the key in {self.config.key_variable}. "
            f"Answers are kept in {self.answers}, and the same command goes on."
        )


def read_completion(body: bytes) -> Completion:
    """What the model says in a chat completion, "" if it says nothing; ValueError for a body that is none."""
    try:
        tree = json.loads(body)
        choice = tree["choices"][0]
        said = choice["message"]["content"]
    except (LookupError, TypeError) as error:
        raise ValueError("no chat completion") from error
    if not isinstance(said, str | None):
        raise ValueError("no text")
    return Completion(said or "", choice.get("finish_reason") != "length", *used(tree))


def read_stream(lines: Iterable[bytes]) -> Completion:
    """Likewise of an answer that comes in pieces, as server-sent events; IncompleteRead where it ends before its end."""
    text, whole, tokens = "", True, (0, 0)
    for line in lines:
        name, _, data = line.decode("utf-8").strip().partition(":")
        if name != "data":  # an empty line, a comment that keeps the connection open
            continue
        if data.strip() == "[DONE]":
            return Completion(text, whole, *tokens)
        try:
            tree = json.loads(data)
            for choice in tree["choices"]:
                text += choice["delta"].get("content") or ""
                whole &= choice.get("finish_reason") != "length"
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError("no piece of a chat completion") from error
        if tree.get("usage"):
            tokens = used(tree)
    raise IncompleteRead(text.encode())


def used(tree: dict[str, Any]) -> tuple[int, int]:
    """Tokens of question and answer, 0 where the endpoint does not say."""
    usage = tree.get("usage")
    counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")] if isinstance(usage, dict) else [0, 0]
    asked, answered = (count if isinstance(count, int) else 0 for count in counts)
    return asked, answered


def retry_after(headers: Message, otherwise: float) -> float:
    """Seconds that the header Retry-After asks to wait, which is a number or a date; `otherwise` without a readable one."""
    said = headers.get("Retry-After", "")
    try:
        return max(float(said), 0.0)
    except ValueError:
        pass
    try:
        return max((parsedate_to_datetime(said) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError):  # no date, or one without a time zone
        return otherwise


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: urllib would carry the key along, wherever it leads."""

    def redirect_request(self, *args: Any) -> None:
        return None


def _picture(pixels: np.ndarray) -> dict[str, Any]:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"}}
