"""Who writes reward code: a model behind an endpoint, a person, or an earlier run's transcript; and the record of what was said.

    writer = Recorded(make_writer(...), out / "transcript.jsonl", config)
    answers = writer.answers([Request("write", 0, number, prompt) for number in range(16)])

Every question and its answer is a line of the transcript; what is in it is not asked again, so a killed run goes on, and `replay`
gives the same run without a model.  The grammar (grammar.py) is a writer, too, and no language model.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from robopref.configs.errors import RoboprefError
from robopref.configs.files import append, atomic_file, parse_json
from robopref.configs.prof import WriterConfig
from robopref.preference.chat import Chat, Completion
from robopref.preference.prof.prompts import without_rules

WORDS = {str: "text", bool: "true or false", int: "whole number from 0 on"}


@dataclass(frozen=True)
class Request:
    """A question."""

    kind: str  # write, repair, criticise, rewrite
    round: int
    number: int  # which of several
    prompt: str
    code: str = ""  # what it is about, for writers that read no prompt

    @property
    def key(self) -> str:
        """What makes it another question."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()

    @property
    def name(self) -> str:
        """For files."""
        return f"{self.round}-{self.kind}-{self.number}"


class Writer(Protocol):
    """Answers questions."""

    name: str

    def answer(self, request: Request) -> Completion:
        """RoboprefError where there is none."""


class Waiting(RoboprefError):
    """An answer is not there yet; `path` is where it is waited for."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is waited for")
        self.path = path


class Endpoint:
    """A language model (`writer.kind=openai`)."""

    def __init__(self, chat: Chat) -> None:
        self.chat, self.name = chat, str(chat.config.model)

    def answer(self, request: Request) -> Completion:
        """What it says; the same question with another number is asked anew."""
        return self.chat.complete([request.prompt], request.number)


class Manual:
    """A person, or a model that is spoken to elsewhere (`writer.kind=manual`): prompts to files, answers from files."""

    name = "manual"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def answer(self, request: Request) -> Completion:
        """What stands in NAME.answer.md; Waiting, after writing NAME.prompt.md, when it is not there or empty."""
        stem = f"{request.name}-{request.key[:8]}"
        prompt, path = self.folder / f"{stem}.prompt.md", self.folder / f"{stem}.answer.md"
        if not prompt.exists():
            with atomic_file(prompt) as temp:
                temp.write_text(request.prompt + "\n", encoding="utf-8")
        try:
            text = path.read_text(encoding="utf-8-sig") if path.exists() else ""
        except UnicodeDecodeError as error:
            raise RoboprefError(f"{path} is no text in UTF-8 (byte {error.start}): save it as UTF-8") from None
        if not text.strip():
            raise Waiting(path)
        return Completion(text)


class Replay:
    """What was said in an earlier run (`writer.kind=replay`), also if what code may be has changed since."""

    def __init__(self, path: Path) -> None:
        self.path, self.lines = path, {}
        for line in read_transcript(path):
            self.lines[line["key"]] = line
            asked: dict[str, Any] = {name: line.get(name) for name in ("kind", "round", "number", "prompt", "code")}
            if isinstance(asked["prompt"], str):
                self.lines[Request(**asked | {"prompt": without_rules(asked["prompt"])}).key] = line
        if not self.lines:
            raise RoboprefError(f"{path} holds no answer: give transcript.jsonl of a finished run of `robopref prof`")
        self.name = str(next(iter(self.lines.values()))["writer"])

    def answer(self, request: Request) -> Completion:
        """The answer that was given to the same question."""
        same = replace(request, prompt=without_rules(request.prompt))
        line = self.lines.get(request.key, self.lines.get(same.key))
        if line is None:
            raise RoboprefError(
                f"{self.path} has no answer to question {request.name}: replay needs the settings and data of that run"
            )
        return completion(line)


class Recorded:
    """A writer whose every answer is kept, within the limits of calls, tokens and money."""

    def __init__(self, writer: Writer, path: Path, config: WriterConfig) -> None:
        self.writer, self.path, self.config = writer, path, config
        if config.dollars > 0 and not (config.price_in > 0 and config.price_out > 0):
            raise RoboprefError("writer.dollars needs writer.price_in and writer.price_out, dollars for a million tokens")
        self.kept = {line["key"]: line for line in read_transcript(path)} if path.exists() else {}
        rewrite(path, list(self.kept.values()))  # without a last line that was not finished

    def answers(self, requests: Sequence[Request]) -> list[str]:
        """The answers to all of them; RoboprefError naming the files that are waited for when some are not there yet."""
        said, missing = [], []
        for request in requests:
            try:
                said.append(self.answer(request))
            except Waiting as waiting:
                missing.append(waiting.path)
        if missing:
            files = "\n".join(f"  {path}" for path in missing)
            raise RoboprefError(
                f"{len(missing)} answers are waited for. Beside each of these files lies its prompt (NAME.prompt.md); write what "
                f"a model answers there, and run the same command again:\n{files}"
            )
        return said

    def answer(self, request: Request) -> str:
        """One."""
        if request.key not in self.kept:
            self.check_limits()
            started = time.time()
            said = self.writer.answer(request)
            facts = {"key": request.key, "writer": self.writer.name, "seconds": round(time.time() - started, 3)}
            line = facts | asdict(request) | asdict(said)
            append(self.path, json.dumps(line).encode() + b"\n", sync=True)
            self.kept[request.key] = line
        return completion(self.kept[request.key]).text

    def check_limits(self) -> None:
        """RoboprefError when one is reached."""
        spent, config = self.spent(), self.config
        limits = {"calls": config.calls, "tokens": config.tokens, "dollars": config.dollars}
        for name, limit in limits.items():
            if spent[name] >= limit and not (name == "dollars" and limit == 0):
                raise RoboprefError(
                    f"writer.{name}={limit:g} is reached ({spent[name]:g}); what was answered is kept in {self.path}: raise the "
                    "limit to go on"
                )

    def spent(self) -> dict[str, float]:
        """Calls, tokens and dollars so far, earlier calls of this command included."""
        asked, answered = (sum(line[name] for line in self.kept.values()) for name in ("tokens_in", "tokens_out"))
        dollars = (asked * self.config.price_in + answered * self.config.price_out) / 1e6
        return {"calls": len(self.kept), "tokens": asked + answered, "dollars": dollars}


def completion(line: dict[str, Any]) -> Completion:
    """The answer in a line of a transcript."""
    return Completion(line["text"], line["whole"], line["tokens_in"], line["tokens_out"])


def read_transcript(path: Path) -> list[dict[str, Any]]:
    """Its lines; a last one that was not finished is left out.  RoboprefError naming the file for anything else in it."""
    try:
        texts = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise RoboprefError(f"{path} is no transcript ({error}): give transcript.jsonl of a run of `robopref prof`") from None
    needed = {"key": str, "writer": str, "text": str, "whole": bool, "tokens_in": int, "tokens_out": int}
    lines = []
    for number, text in enumerate(texts, 1):
        if not text or number == len(texts):  # every whole line ends in a newline
            continue
        try:
            line = parse_json(text, any_text=True)  # models write anything
        except ValueError as error:
            raise RoboprefError(f"{path}, line {number}: {error}; mend or delete this line") from None
        if not isinstance(line, dict) or not needed.keys() <= line.keys():
            raise RoboprefError(f"{path}, line {number}: it needs {', '.join(sorted(needed))}; mend or delete this line")
        for name, kind in needed.items():
            if type(line[name]) is not kind or (kind is int and line[name] < 0):
                raise RoboprefError(f"{path}, line {number}: {name} is no {WORDS[kind]}; mend or delete this line")
        lines.append(line)
    return lines


def rewrite(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """The transcript of these lines."""
    with atomic_file(path) as temp:
        temp.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
