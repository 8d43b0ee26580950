"""Runs reward code that a language model wrote, in a process that can do nothing else, and never in ours.

    with Rows(obs, act, next_obs) as rows:
        said = Sandbox(SandboxConfig()).run(source, fields, rows)

or, about a few rows again and again, `with Conversation(Sandbox(SandboxConfig()), source, fields) as ask: said = ask(obs, ...)`.

Layers, each for itself enough against most of what code may try: what it may say (code.py); a process of its own without
environment, files or privileges, in an empty folder, with limits on memory, time and output (child.py); a kernel filter that
leaves it no system call but those for memory, time and what is open (child.py, Linux on x86-64 and arm64); and bubblewrap
with namespaces of its own, where it is installed.  `layers` says which held.  The code's output is taken as numbers and text,
whatever it claims.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import queue
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from robopref.configs.errors import RoboprefError
from robopref.configs.prof import SandboxConfig
from robopref.preference.prof.code import Fields, check_code

CHILD = Path(__file__).resolve().with_name("child.py")
STARTING = 20.0  # seconds that a busy machine may take to start Python and numpy
GLANCE = 1.0  # seconds after which we look at the clock, to notice that we were stopped ourselves
HEADER = 2**16  # bytes that the first line of an answer may have
Start = Callable[[], subprocess.Popen[bytes]]
ALL_LAYERS = ("syntax", "process", "limits", "system calls", "bubblewrap")


class FailedCode(RoboprefError):
    """Code that was run and gave no numbers, and why."""


@dataclass(frozen=True)
class Said:
    """What code says of rows."""

    values: np.ndarray  # (N,) float64, not always finite
    row: int | None  # a row whose value depends on other rows, if one was found
    layers: tuple[str, ...]


class Rows:
    """Transitions that code may be asked about, in memory that other processes can read and nobody can write."""

    def __init__(self, obs: np.ndarray, act: np.ndarray, next_obs: np.ndarray) -> None:
        """obs (N, do), act (N, da), next_obs (N, do)."""
        parts = [np.ascontiguousarray(part, np.float32) for part in (obs, act, next_obs)]
        if len({len(part) for part in parts}) != 1 or parts[0].shape != parts[2].shape or len(obs) == 0:
            raise ValueError(f"transitions of shapes {[part.shape for part in parts]}")
        self.shapes = [part.shape for part in parts]
        self.fd = memory_file(parts)

    def __len__(self) -> int:
        return self.shapes[0][0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self.fd)


class Sandbox:
    """Runs code.  RoboprefError when `strict` layers are asked for that this machine has not."""

    def __init__(self, config: SandboxConfig) -> None:
        self.config = config
        self.running: set[subprocess.Popen[bytes]] = set()
        self.stopped = False
        self.bubblewrap = shutil.which("bwrap") if config.bubblewrap else None
        if self.bubblewrap is not None and not starts(self.bubblewrap):
            self.bubblewrap = None
        if config.strict and self.bubblewrap is None:
            raise RoboprefError(
                "sandbox.strict: bubblewrap is not installed or may not make namespaces here; install it (Debian: apt-get "
                "install bubblewrap), or leave sandbox.strict out"
            )

    def run(self, source: str, fields: Fields, rows: Rows) -> Said:
        """What `source` says of all rows.  RefusedCode before it is run, FailedCode after."""
        if (widths := (rows.shapes[0][1], rows.shapes[1][1])) != (len(fields.obs), len(fields.act)):
            raise ValueError(f"rows have {widths} columns, the fields name {len(fields.obs)} and {len(fields.act)}")
        check_code(source, fields)
        config, columns = self.config, fields.columns
        request = {
            "source": source,
            "columns": columns,
            "shapes": rows.shapes,
            "fd": rows.fd,
            "memory": config.memory_mb * 2**20,
            "seconds": max(1, round(config.seconds)),
        }
        with self.started((rows.fd,)) as process:
            out = self.talk(process, json.dumps(request).encode() + b"\n", HEADER + 8 * len(rows))
        line, end, numbers = out.partition(b"\n")
        answer = self.understood(line if end else b"", process)
        layers = self.layers(answer)
        if len(numbers) != 8 * len(rows):
            raise FailedCode(f"it gave {len(numbers)} bytes for {len(rows)} rows")
        row = answer.get("row")
        return Said(np.frombuffer(numbers, np.float64), int(row) if isinstance(row, int) else None, layers)

    @contextlib.contextmanager
    def started(self, fds: Sequence[int] = ()) -> Iterator[subprocess.Popen[bytes]]:
        """The child, in an empty folder; in the end it is killed with all that it started."""
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            lifeline, held = os.pipe()
            stack.callback(os.close, held)  # nobody else has it: when we are killed the kernel closes it, and ends the child
            try:
                # -W: to show a warning about the code, to nobody, Python would import and open files
                command = [sys.executable, "-I", "-B", "-W", "ignore", str(CHILD), str(lifeline)]
                if self.bubblewrap is not None:
                    command = [self.bubblewrap, *namespaces(), *command]
                process = from_lasting_thread(
                    lambda: subprocess.Popen(
                        command,
                        bufsize=0,
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=subprocess.DEVNULL,
                        cwd=folder,
                        env={},
                        pass_fds=(*fds, lifeline),
                        start_new_session=True,
                    )
                )
            finally:
                os.close(lifeline)
            self.running.add(process)
            try:
                if self.stopped:  # by another thread, which did not know of this process yet
                    raise FailedCode("it was stopped")
                yield process
            finally:
                self.running.discard(process)
                kill(process)
                process.wait()
                assert process.stdin is not None and process.stdout is not None
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()
                with process.stdout:
                    wait_for_end(process.stdout.fileno())

    def stop(self) -> None:
        """End all code that other threads run here, and all that they begin later."""
        self.stopped = True
        for process in tuple(self.running):
            if process.returncode is None:
                kill(process)

    def understood(self, line: bytes, process: subprocess.Popen[bytes]) -> dict[str, Any]:
        """The first line of an answer; FailedCode when it is none, or says what went wrong."""
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            code = process.poll()
            why = "it runs on" if code is None else f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}"
            raise FailedCode(
                f"its process ended without an answer ({why}): too much memory, time or nesting, or a forbidden call"
            )
        if (error := answer.get("error")) is not None:
            raise FailedCode(str(error)[:400])
        return answer

    def layers(self, answer: dict[str, Any]) -> tuple[str, ...]:
        """Which layers held; RoboprefError where all were asked for."""
        layers = ("syntax", "process", *answer.get("layers", ()), *(["bubblewrap"] if self.bubblewrap else []))
        if self.config.strict and set(layers) != set(ALL_LAYERS):
            raise RoboprefError(f"sandbox.strict: only these layers hold here: {', '.join(layers)}")
        return layers

    def talk(self, process: subprocess.Popen[bytes], question: bytes, most: int) -> bytes:
        """All that the child writes, at most `most` bytes; FailedCode when it writes more or takes too long."""
        assert process.stdin is not None and process.stdout is not None
        patience = Patience(self.config.seconds + STARTING)
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(question)
            process.stdin.close()
        out = bytearray()
        with selectors.DefaultSelector() as ready:
            ready.register(process.stdout, selectors.EVENT_READ)
            while True:
                if not patience.wait(ready):
                    raise FailedCode(f"it ran out of time, {self.config.seconds:g} s")
                part = os.read(process.stdout.fileno(), 2**20)
                if not part:
                    return bytes(out)
                out += part
                if len(out) > most:
                    raise FailedCode("it wrote more than it was asked for")


class Conversation:
    """Code in a process that stays and is asked about some rows again and again, for acting.  To be closed."""

    def __init__(self, sandbox: Sandbox, source: str, fields: Fields) -> None:
        """RefusedCode and FailedCode as `Sandbox.run`."""
        check_code(source, fields)
        self.sandbox, self.widths = sandbox, (len(fields.obs), len(fields.act), len(fields.obs))
        each = sandbox.config.seconds + STARTING
        request = {"source": source, "columns": fields.columns, "widths": self.widths, "seconds": 0, "each": each}
        request["memory"] = sandbox.config.memory_mb * 2**20
        with contextlib.ExitStack() as stack:
            self.process = stack.enter_context(sandbox.started())
            assert self.process.stdin is not None and self.process.stdout is not None
            self.inlet, self.outlet = self.process.stdin.fileno(), self.process.stdout.fileno()
            for pipe in (self.inlet, self.outlet):
                os.set_blocking(pipe, False)
            answer, _ = self.answered(json.dumps(request).encode() + b"\n", 0, STARTING)
            self.layers = sandbox.layers(answer)
            self.stack = stack.pop_all()

    def __call__(self, obs: np.ndarray, act: np.ndarray, next_obs: np.ndarray) -> Said:
        """What it says of obs (N, do), act (N, da) and next_obs (N, do)."""
        parts = [np.ascontiguousarray(part, np.float32) for part in (obs, act, next_obs)]
        if [part.shape for part in parts] != [(len(obs), width) for width in self.widths] or len(obs) == 0:
            raise ValueError(f"transitions of shapes {[part.shape for part in parts]}, the fields name {self.widths} columns")
        question = len(obs).to_bytes(8, "little") + b"".join(part.tobytes() for part in parts)
        answer, numbers = self.answered(question, 8 * len(obs), 0.0)
        row = answer.get("row")
        return Said(np.frombuffer(numbers, np.float64), int(row) if isinstance(row, int) else None, self.layers)

    def answered(self, question: bytes, size: int, grace: float) -> tuple[dict[str, Any], bytes]:
        """A line of JSON, and `size` bytes; FailedCode when they do not come, or more than these."""
        seconds = self.sandbox.config.seconds
        patience, left, out = Patience(seconds + grace), memoryview(question), bytearray()
        with selectors.DefaultSelector() as ready:
            ready.register(self.outlet, selectors.EVENT_READ)
            ready.register(self.inlet, selectors.EVENT_WRITE)
            while True:
                events = patience.wait(ready)
                if not events:
                    raise FailedCode(f"it ran out of time, {seconds:g} s")
                for key, _ in events:
                    if key.fd == self.inlet:
                        with contextlib.suppress(BrokenPipeError):
                            left = left[os.write(self.inlet, left) :]
                        if not left:
                            ready.unregister(self.inlet)
                        continue
                    part = os.read(self.outlet, 2**20)
                    out += part
                    line, end, numbers = bytes(out).partition(b"\n")
                    if not part:
                        with contextlib.suppress(subprocess.TimeoutExpired):
                            self.process.wait(1.0)
                    if not part or end:
                        answer = self.sandbox.understood(line if end else b"", self.process)
                        if len(numbers) == size:
                            return answer, numbers
                    if not part or len(out) > HEADER + size or len(numbers) > size:
                        raise FailedCode(f"it wrote something else than {size} bytes of numbers")

    def close(self) -> None:
        """End the process."""
        self.stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Patience:
    """Seconds to wait for a process, all in all, not counting those in which we were stopped (Ctrl-Z) and could not listen."""

    def __init__(self, seconds: float) -> None:
        self.left = seconds

    def wait(self, ready: selectors.BaseSelector) -> list[tuple[selectors.SelectorKey, int]]:
        """The next events, none when time is up."""
        while self.left > 0:
            began = time.monotonic()
            events = ready.select(min(self.left, GLANCE))
            self.left -= min(time.monotonic() - began, GLANCE)
            if events:
                return events
        return []


@functools.cache
def _starter() -> queue.SimpleQueue[tuple[Start, Future[subprocess.Popen[bytes]]]]:
    """What to start, for a thread that lasts as long as this process, longer than the main thread may."""
    waiting: queue.SimpleQueue[tuple[Start, Future[subprocess.Popen[bytes]]]] = queue.SimpleQueue()

    def serve() -> None:
        while True:
            start, result = waiting.get()
            try:
                result.set_result(start())
            except Exception as error:
                result.set_exception(error)

    threading.Thread(target=serve, daemon=True, name="starter").start()
    return waiting


os.register_at_fork(after_in_child=_starter.cache_clear)  # threads do not come along


def from_lasting_thread(start: Start) -> subprocess.Popen[bytes]:
    """What `start` gives: bubblewrap dies with the thread that started it, which may end long before this process does."""
    if threading.current_thread() is threading.main_thread():
        return start()
    result: Future[subprocess.Popen[bytes]] = Future()
    _starter().put((start, result))
    return result.result()


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def wait_for_end(pipe: int) -> None:
    """Until no process has the other end of `pipe` open: what bubblewrap started dies of its death, a moment later."""
    deadline = time.monotonic() + STARTING
    with selectors.DefaultSelector() as ready:
        ready.register(pipe, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0 and ready.select(left) and os.read(pipe, 2**20):
            pass


def memory_file(parts: Sequence[np.ndarray]) -> int:
    """An open file with the bytes of all parts that can only be read."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("rows", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with os.fdopen(os.dup(fd), "wb") as file:
            for part in parts:
                file.write(part.data)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
        return fd
    with tempfile.NamedTemporaryFile() as file:
        for part in parts:
            file.write(part.data)
        file.flush()
        return os.open(file.name, os.O_RDONLY | os.O_CLOEXEC)


def namespaces() -> list[str]:
    """Bubblewrap's arguments: nothing of this machine but what Python needs, read only; no network, no other processes."""
    python = {Path(sys.prefix), Path(sys.base_prefix), Path(np.__file__).parents[1], Path(sys.executable).resolve().parents[1]}
    folders = [*(str(path) for path in sorted(python)), str(CHILD)]
    seen = [word for folder in ("/usr", "/lib", "/lib64", "/bin") for word in ("--ro-bind-try", folder, folder)]
    seen += [word for folder in folders for word in ("--ro-bind", folder, folder)]
    return ["--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--tmpfs", "/tmp", *seen,
            "--proc", "/proc", "--dev", "/dev", "--chdir", "/tmp", "--"]  # fmt: skip


def starts(bubblewrap: str) -> bool:
    """Whether it may make namespaces here, which a container may forbid."""
    try:
        return (
            subprocess.run([bubblewrap, *namespaces(), "/bin/true"], capture_output=True, timeout=STARTING, env={}).returncode
            == 0
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
