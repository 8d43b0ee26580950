"""Runs reward code that a language model wrote, in a process that can do nothing else, and never in ours.

    with Rows(obs, act, next_obs) as rows:
        said = Sandbox(SandboxConfig()).run(source, fields, rows)

or, about a few rows again and again, `with Conversation(Sandbox(SandboxConfig()), source, fields) as ask: said = ask(obs, ...)`.

Layers, each for itself enough against most of what code may try: what it may say (code.py); a process of its own without
environment, files or privileges, in an empty folder, with limits on memory, time and output (child.py); Landlock, by which the
kernel refuses files, TCP and signals (child.py, Linux 5.13); a kernel filter that leaves it no system call but those for memory,
time and what is open (child.py, Linux on x86-64 and arm64); and bubblewrap with namespaces of its own, where it is installed.
`layers` says which held: the process says so before it is given any code.  The code's output is taken as numbers and text,
whatever it claims.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import queue
import secrets
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

from robopref.configs.errors import RoboprefError, warn
from robopref.configs.prof import SandboxConfig
from robopref.preference.prof.code import Fields, check_code, short_reason
from robopref.preference.prof.contract import CONSTANTS, MATH, NUMPY, PLAIN

CHILD = Path(__file__).resolve().with_name("child.py")
STARTING = 20.0  # seconds that a busy machine may take to start Python and numpy
GLANCE = 1.0  # seconds after which we look at the clock, to notice that we were stopped ourselves
LASTING = 600.0  # seconds of processor time, at least, after which a process that stays gives way to a new one
HEADER = 2**16  # bytes that a line of an answer may have
Start = Callable[[], subprocess.Popen[bytes]]
CHILDS = ("limits", "landlock", "system calls")
"""Layers that the child's own process sees to, as far as its kernel has them."""
ALL_LAYERS = ("syntax", "process", "limits", "system calls", "bubblewrap")
"""Layers that `strict` asks for."""
NAMES = {
    "numpy": sorted([*NUMPY, *CONSTANTS["np"]]),
    "math": sorted([*MATH, *CONSTANTS["math"]]),
    "plain": sorted(PLAIN),
}


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

    def __init__(self, obs: np.ndarray, act: np.ndarray, next_obs: np.ndarray, always: tuple[int, int] = (0, 0)) -> None:
        """obs (N, do), act (N, da), next_obs (N, do).

        always: first and number of rows that are all looked at whether code's values of them depend on other rows.
        """
        parts = [np.ascontiguousarray(part, np.float32) for part in (obs, act, next_obs)]
        if len({len(part) for part in parts}) != 1 or parts[0].shape != parts[2].shape or len(obs) == 0:
            raise ValueError(f"transitions of shapes {[part.shape for part in parts]}")
        self.shapes, self.always = [part.shape for part in parts], always
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
        self.bubblewrap, why = find_bubblewrap() if config.bubblewrap else (None, "sandbox.bubblewrap is false")
        self.strict = config.strict if config.strict is not None else self.bubblewrap is not None
        if self.strict and self.bubblewrap is None:
            raise RoboprefError(
                f"sandbox.strict: {why}; install it where it may make namespaces (Debian: apt-get install bubblewrap), or leave "
                "sandbox.strict out"
            )
        if config.bubblewrap and self.bubblewrap is None:
            warn_once(f"reward code runs without one layer of its sandbox: {why} (Debian: apt-get install bubblewrap)")

    def run(self, source: str, fields: Fields, rows: Rows) -> Said:
        """What `source` says of all rows.  RefusedCode before it is run, FailedCode after."""
        if (widths := (rows.shapes[0][1], rows.shapes[1][1])) != (len(fields.obs), len(fields.act)):
            raise ValueError(f"rows have {widths} columns, the fields name {len(fields.obs)} and {len(fields.act)}")
        check_code(source, fields)
        seconds = self.config.seconds
        limits = {"shapes": rows.shapes, "fd": rows.fd, "cpu": max(1, round(seconds))}
        with self.started((rows.fd,)) as process:
            child = Child(self, process, limits)
            code = {"source": source, "columns": fields.columns, "always": rows.always}
            # Beyond its own processor time, it may have to wait for others on a busy machine.
            row, values = child.values(line_of(code), len(rows), seconds + STARTING)
        return Said(values, row, child.layers)

    @contextlib.contextmanager
    def started(self, fds: Sequence[int] = ()) -> Iterator[subprocess.Popen[bytes]]:
        """The child, in an empty folder; in the end it is killed with all that it started."""
        with contextlib.ExitStack() as stack:
            lifeline, held = os.pipe()
            stack.callback(os.close, held)  # nobody else has it: when we are killed the kernel closes it, and ends the child
            try:
                # -W: to show a warning about the code, to nobody, Python would import and open files
                command = [sys.executable, "-I", "-B", "-W", "ignore", str(CHILD), str(lifeline)]
                if self.bubblewrap is not None:
                    command = [self.bubblewrap, *namespaces(), *command]
                with (
                    tempfile.TemporaryDirectory() as folder
                ):  # gone when it has begun: nothing can be put there, or be left there
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


class Child:
    """A process that has given up what it does not need, and waits for code."""

    def __init__(self, sandbox: Sandbox, process: subprocess.Popen[bytes], limits: dict[str, Any]) -> None:
        """limits: of the process beside memory, and where rows are.

        FailedCode where it does not start, RoboprefError where `strict` layers do not hold.
        """
        assert process.stdin is not None and process.stdout is not None
        self.process, self.inlet, self.outlet = process, process.stdin.fileno(), process.stdout.fileno()
        for pipe in (self.inlet, self.outlet):
            os.set_blocking(pipe, False)
        nonce = secrets.token_hex(16)
        request = {"nonce": nonce, "names": NAMES, "memory": sandbox.config.memory_mb * 2**20, **limits}
        answer, _ = self.ask(line_of(request), 0, STARTING)
        told = answer.get("layers")
        known = isinstance(told, list) and all(layer in CHILDS for layer in told) and len(told) <= len(CHILDS)
        if answer.get("nonce") != nonce or not isinstance(told, list) or not known:
            raise FailedCode("its process did not say which layers of the sandbox hold")
        self.layers = ("syntax", "process", *told, *(["bubblewrap"] if sandbox.bubblewrap else []))
        if sandbox.strict and not set(ALL_LAYERS) <= set(self.layers):
            raise RoboprefError(
                f"sandbox.strict: only these layers hold here: {', '.join(self.layers)}; sandbox.strict=false runs code in them"
            )

    def values(self, question: bytes, count: int, seconds: float) -> tuple[int | None, np.ndarray]:
        """A row that depends on others, or None, and what code says of `count` rows, (count,) float64."""
        answer, numbers = self.ask(question, 8 * count, seconds)
        row = answer.get("row")
        if set(answer) != {"row"} or (row is not None and (type(row) is not int or not 0 <= row < count)):
            raise FailedCode("its answer is none")
        return row, np.frombuffer(numbers, np.float64)

    def ask(self, question: bytes, size: int, seconds: float) -> tuple[dict[str, Any], bytes]:
        """A line of JSON, and `size` bytes; FailedCode when they do not come in time, or others come."""
        patience, left, out = Patience(seconds), memoryview(question), bytearray()
        answer: dict[str, Any] | None = None
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
                    if answer is None and ((end := out.find(b"\n", 0, HEADER)) >= 0 or not part):
                        answer = self.understood(bytes(out[: max(end, 0)]))
                        del out[: end + 1]
                    if answer is not None and len(out) == size:
                        return answer, bytes(out)
                    if not part or len(out) > (HEADER if answer is None else size):
                        raise FailedCode(f"it wrote something else than a line and {size} bytes of numbers")

    def understood(self, line: bytes) -> dict[str, Any]:
        """A line of an answer; FailedCode when it is none, or says what went wrong."""
        try:
            answer = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(1.0)
            code = self.process.poll()
            why = "it runs on" if code is None else f"signal {-code}" if code < 0 else f"status {code}"
            raise FailedCode(
                f"its process ended without an answer ({why}): too much memory, time or nesting, or a forbidden call"
            )
        if (error := answer.get("error")) is not None:
            raise FailedCode(short_reason(error if isinstance(error, str) and error.strip() else "it failed"))
        return answer


class Conversation:
    """Code in a process that stays and is asked about some rows again and again, for acting.  To be closed."""

    def __init__(self, sandbox: Sandbox, source: str, fields: Fields) -> None:
        """RefusedCode and FailedCode as `Sandbox.run`."""
        check_code(source, fields)
        self.sandbox, self.widths = sandbox, (len(fields.obs), len(fields.act), len(fields.obs))
        self.code = line_of({"source": source, "columns": fields.columns})
        self.each = sandbox.config.seconds + STARTING
        self.cpu = round(max(LASTING, 2 * self.each))
        self.stack = contextlib.ExitStack()
        self.start()

    def start(self) -> None:
        """Begin a process in place of the one that there is, if any."""
        self.stack.close()
        limits = {"widths": self.widths, "cpu": self.cpu, "each": self.each}
        with contextlib.ExitStack() as stack:
            self.process = stack.enter_context(self.sandbox.started())
            self.child = Child(self.sandbox, self.process, limits)
            self.child.ask(self.code, 0, self.each)
            self.stack = stack.pop_all()
        self.layers, self.waited = self.child.layers, 0.0

    def __call__(self, obs: np.ndarray, act: np.ndarray, next_obs: np.ndarray) -> Said:
        """What it says of obs (N, do), act (N, da) and next_obs (N, do)."""
        parts = [np.ascontiguousarray(part, np.float32) for part in (obs, act, next_obs)]
        if [part.shape for part in parts] != [(len(obs), width) for width in self.widths] or len(obs) == 0:
            raise ValueError(f"transitions of shapes {[part.shape for part in parts]}, the fields name {self.widths} columns")
        if self.waited + 2 * self.each > self.cpu:  # it keeps nothing from one question to the next, so a new one does as well
            self.start()
        question = len(obs).to_bytes(8, "little") + b"".join(part.tobytes() for part in parts)
        began = time.monotonic()
        try:
            row, values = self.child.values(question, len(obs), self.sandbox.config.seconds)
        except FailedCode:
            self.close()  # or what it still says of these rows would be taken for what it says of the next
            self.waited = self.cpu
            raise
        self.waited += time.monotonic() - began  # its processor time is no more than that
        return Said(values, row, self.layers)

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


def find_bubblewrap() -> tuple[str | None, str]:
    """Where bubblewrap is, if it may make namespaces here, which a container may forbid; else None, and why."""
    bubblewrap = shutil.which("bwrap")
    if bubblewrap is None:
        return None, "bubblewrap is not installed"
    try:
        tried = subprocess.run([bubblewrap, *namespaces(), "/bin/true"], capture_output=True, timeout=STARTING, env={})
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"bubblewrap does not start ({type(error).__name__})"
    if tried.returncode:
        return None, f"bubblewrap may not make namespaces here ({short_reason(tried.stderr.decode(errors='replace'))})"
    return bubblewrap, ""


@functools.cache
def warn_once(message: str) -> None:
    """`warn`, the first time in this process."""
    warn(message)


def line_of(tree: dict[str, Any]) -> bytes:
    """Return a tree as one line of JSON, with its newline."""
    return json.dumps(tree).encode() + b"\n"
