"""Questions to a model behind an OpenAI-compatible chat endpoint; every answer is kept, so nothing is asked twice.

No message and no file here holds the key, nor what a refusing server says: that may quote the request, and with it the key.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse, IncompleteRead, responses
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
from PIL import Image

from robopref.configs.chat import ChatConfig
from robopref.configs.errors import RoboprefError, UsageError
from robopref.configs.files import read_json, write_json
from robopref.configs.web import Bounds, Excess, described, open_bounded, pieces, reason_of

LONGEST_WAIT = 60.0  # seconds between two requests, whatever the server asks for
TOTAL = 30  # times `timeout`, an hour by default: 128k tokens, more than models write at a time, at 40 a second
WHOLE = 8 * 2**20  # bytes of an answer in one piece, or of one piece: 128k tokens are half a megabyte, escaped (\\uXXXX) three
STREAMED = 64 * 2**20  # bytes of an answer in pieces, one a token, of some 300 bytes each
MOST_TOKENS = 10**9  # of one question or answer: a thousand times of what models read
SECRET = 8  # letters: a shorter key is a word such as `none` or `x`, for servers that ask for any, and may be in an answer
NONE = "what it answers is no chat completion"
Part = str | np.ndarray
"""Of a question: text, or a picture (H, W, 3) uint8."""


@dataclass(frozen=True)
class Completion:
    """What a model said."""

    text: str
    whole: bool = True  # else the endpoint cut it off
    tokens_in: int = 0  # of question and answer, as the endpoint counts them; 0 where it does not say
    tokens_out: int = 0


class NoCompletion(ValueError):
    """An answer that is no chat completion."""


class Chat:
    """Asks one model one question at a time, patiently."""

    def __init__(self, config: ChatConfig, answers: Path, sleep: Callable[[float], None] = time.sleep) -> None:
        """answers: folder that keeps them, one file a question.  Raises UsageError for an address that is none, RoboprefError
        without a key.
        """
        if not _is_address(config.base_url):
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
        self.total = config.total or TOTAL * config.timeout

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
            said = replace(said, text=self._hide(said.text))
            texts = [part for part in parts if isinstance(part, str)]
            facts = asdict(said)
            write_json(path, {"model": self.config.model, "question": texts, "answer": facts.pop("text")} | facts)
        kept = read_json(path, any_text=True)  # models write anything
        if not isinstance(kept, dict) or not isinstance(kept.get("answer"), str):
            raise RoboprefError(f"{path} holds no answer: delete it, and the question is asked again")
        counts = (_tokens(kept.get(name)) for name in ("tokens_in", "tokens_out"))
        return Completion(kept["answer"], kept.get("whole") is not False, *counts)

    def _request(self, body: bytes) -> Completion:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"}
        request = urllib.request.Request(self._url, body, headers)
        config, why, late = self.config, "", False
        until = time.monotonic() + self.total
        for attempt in range(config.attempts):
            wait = 2.0**attempt
            bounds = Bounds(STREAMED if config.stream else WHOLE, until - time.monotonic())
            try:
                with open_bounded(request, config.timeout, bounds, redirects=False) as answer:
                    return read_answer(answer, config.stream, bounds)
            except urllib.error.HTTPError as refusal:
                refusal.close()
                why = f"it answers {refusal.code} {responses.get(refusal.code, '')}".rstrip()
                if refusal.code not in (408, 429) and refusal.code < 500:
                    break
                wait = retry_after(refusal.headers, wait)
            except Excess as error:  # to ask again would only take as much again
                why = f"what it answers is too much or too slow ({error})"
                late = time.monotonic() >= until
                break
            except NoCompletion as error:
                why = str(error)
            except (OSError, HTTPException, ValueError) as error:  # refused, cut, silent, no HTTP
                why = f"no whole answer came ({reason_of(error)})"
            wait = min(wait, LONGEST_WAIT)
            late = time.monotonic() + wait >= until
            if late or attempt + 1 == config.attempts:
                break
            self._sleep(wait)
        raise RoboprefError(
            f"{self._url}: {why}; check chat.base_url, chat.model and the key in {config.key_variable}"
            f"{f', or raise chat.total ({self.total:g} s)' if late else ''}. "
            f"Answers are kept in {self.answers}, and the same command goes on."
        )

    def _hide(self, text: str) -> str:
        """The text without the key, as it is or as an address or base64 holds it."""
        if len(self._key) < SECRET:
            return text
        coded = base64.b64encode(self._key.encode()).decode()
        for form in (self._key, quote(self._key, safe=""), coded, coded.rstrip("=")):
            text = text.replace(form, "[key]")
        return text


def read_answer(answer: HTTPResponse, stream: bool, bounds: Bounds) -> Completion:
    """The completion that a server sends, whole or in pieces; NoCompletion, saying what came, for anything else."""
    encoding = answer.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding != "identity":
        raise NoCompletion(f"{NONE} as it is (compressed, which was not asked for)")
    arriving = pieces(answer, bounds)
    first = next(arriving, b"")
    if stream and not first.lstrip().startswith(b"{"):  # else the server knows no streams
        return read_stream(lines(chain([first], arriving)))
    bounds.most = WHOLE
    body = b"".join([first, *arriving])
    try:
        return read_completion(body)
    except NoCompletion as error:
        raise NoCompletion(f"{error} but {described(body, len(body))}") from error


def read_completion(body: bytes) -> Completion:
    """What the model says in a chat completion, "" if it says nothing; NoCompletion for a body that is none."""
    try:
        tree = json.loads(body)
        choice = tree["choices"][0]
        said = choice["message"]["content"]
        whole = choice.get("finish_reason") != "length"
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise NoCompletion(NONE) from error
    if not isinstance(said, str | None):
        raise NoCompletion(NONE)
    return Completion(sound(said or ""), whole, *used(tree))


def read_stream(lines: Iterable[bytes]) -> Completion:
    """Likewise of an answer that comes in pieces, as server-sent events; IncompleteRead where it ends before its end."""
    texts: list[str] = []
    whole, tokens, first = True, (0, 0), b""
    for line in lines:
        first = first or line.strip()
        name, _, data = line.strip().partition(b":")
        if name != b"data":  # an empty line, a comment that keeps the connection open
            continue
        if data.strip() == b"[DONE]":
            return Completion(sound("".join(texts)), whole, *tokens)
        try:
            tree = json.loads(data)
            for choice in tree["choices"]:
                said = choice["delta"].get("content") or ""
                if choice.get("index") in (None, 0):  # no other was asked for
                    texts.append(said + "")
                    whole &= choice.get("finish_reason") != "length"
        except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise NoCompletion(f"{NONE} in pieces") from error
        if tree.get("usage"):
            tokens = used(tree)
    if first and not texts and not first.startswith((b"data:", b":", b"event:", b"id:", b"retry:")):
        raise NoCompletion(f"{NONE} in pieces but {described(first, len(first))} in its first line")
    raise IncompleteRead(b"")


def lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """What arrives, line by line; Excess for a line longer than WHOLE."""
    line = bytearray()
    for piece in pieces:
        *ended, rest = piece.split(b"\n")
        for end in ended:
            yield bytes(line + end)
            line.clear()
        line += rest
        if len(line) > WHOLE:
            raise Excess(f"more than {WHOLE} bytes in a line of it")
    yield bytes(line)


def used(tree: dict[str, Any]) -> tuple[int, int]:
    """Tokens of question and answer, 0 where the endpoint does not say, or says what cannot be."""
    usage = tree.get("usage")
    asked, answered = (usage.get(name) if isinstance(usage, dict) else 0 for name in ("prompt_tokens", "completion_tokens"))
    return _tokens(asked), _tokens(answered)


def _tokens(said: Any) -> int:
    """A count, so that nothing lowers what has been spent, or makes it more than numbers hold."""
    is_count = not isinstance(said, bool) and isinstance(said, int | float) and 0 <= said <= MOST_TOKENS
    return int(said) if is_count else 0


def sound(text: str) -> str:
    """The text with halves of characters joined, as pieces may end between them, and what files do not take replaced."""
    text = text.replace("\0", "\ufffd")
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def retry_after(headers: Message, otherwise: float) -> float:
    """Seconds that the header Retry-After asks to wait, which is a number or a date; `otherwise` without a readable one."""
    said = str(headers.get("Retry-After", ""))
    try:
        seconds = float(said)
    except ValueError:
        try:
            date = parsedate_to_datetime(said)
            seconds = (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError, LookupError, ArithmeticError):  # no date
            return otherwise
    return otherwise if math.isnan(seconds) else max(seconds, 0.0)


def _is_address(url: str) -> bool:
    if not re.fullmatch(r"https?://[\w.\-\[\]:]+(/[\w./~-]*)?", url, re.ASCII):
        return False
    try:
        found = urlsplit(url)
        (found.hostname or "").encode("idna")  # as the resolver will: no empty or endless part
        return found.port != 0 and bool(found.hostname)
    except ValueError:
        return False


def _picture(pixels: np.ndarray) -> dict[str, Any]:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"}}
