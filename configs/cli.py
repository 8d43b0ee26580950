"""The `robopref` command: finds the stage by name, and turns errors that a user can mend into one line and a status."""

from __future__ import annotations

import errno
import importlib
import io
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from .errors import RoboprefError, UsageError, nearest, visible
from .stopping import Terminated

SKIP = "--skip-digests"
AGAIN_S = 0.02  # by when whatever Python does between two steps of a program has ended


class Command(NamedTuple):
    """A command: what help says of it, the function behind it, and what its words are read to."""

    text: str
    target: str
    """module:function, imported only when the words have been read, so that neither help nor an error waits for torch."""
    settings: str = ""
    """module:dataclass that the function takes; without it the function takes the words."""
    yaml: str = ""
    """The file whose settings `key=value` changes (hydra.py); without it the words are flags (flags.py)."""


COMMANDS: dict[str, Command] = {
    "pipeline": Command(
        "the main job: every stage below in order, from rollouts to a report",
        "robopref.policies.pipeline:main",
        "robopref.configs.pipeline:PipelineConfig",
        "pipeline",
    ),
    "collect": Command(
        "roll out policies; store episodes with simulator states, or as D4RL does",
        "robopref.datasets.collect:main",
        "robopref.configs.collect:CollectConfig",
    ),
    "pretrain": Command(
        "teach the small vision backbone what the simulator knows",
        "robopref.preference.pretrain:main",
        "robopref.configs.vlp:PretrainConfig",
        "pretrain",
    ),
    "train-vlp": Command(
        "train the vision-language preference model on ordered clips",
        "robopref.preference.train:main",
        "robopref.configs.vlp:TrainVLPConfig",
        "train_vlp",
    ),
    "annotate": Command(
        "label pairs of segments or videos from pixels and an instruction",
        "robopref.preference.annotate:main",
        "robopref.configs.annotate:AnnotateConfig",
    ),
    "unseen": Command(
        "train VLP on one part of a split and measure it on the other, to a table",
        "robopref.preference.unseen:main",
        "robopref.configs.unseen:UnseenConfig",
        "unseen",
    ),
    "push": Command(
        "share a VLP, policy or reward: one folder or hub repository, with a card",
        "robopref.policies.push:main",
        "robopref.configs.push:PushConfig",
    ),
    "prof": Command(
        "reward code written by a language model, ranked without a simulator",
        "robopref.preference.prof.command:main",
        "robopref.configs.prof:PROFConfig",
        "prof",
    ),
    "train": Command(
        "train policies from episodes and labels, from rewards, or while they act",
        "robopref.policies.train:main",
        "robopref.configs.policy:TrainConfig",
        "train",
    ),
    "evaluate": Command(
        "success of policies over fixed goals and seeds, with intervals",
        "robopref.policies.evaluate:main",
        "robopref.configs.policy:EvaluateConfig",
    ),
    "video": Command(
        "film policies: mp4 with instruction, step, score and success",
        "robopref.policies.video:main",
        "robopref.configs.show:VideoConfig",
    ),
    "attention": Command(
        "where a VLP looks: pictures with heat, for a few clips",
        "robopref.preference.look:main",
        "robopref.configs.show:AttentionConfig",
    ),
    "report": Command(
        "one HTML page with tables, curves and videos of a run",
        "robopref.policies.report:main",
        "robopref.configs.show:ReportConfig",
    ),
    "bench": Command(
        "measure speed and memory against a named peer",
        "robopref.policies.bench:main",
        "robopref.configs.bench:BenchConfig",
    ),
}
VARIANTS: dict[str, Command] = {
    "collect": Command(
        "", "robopref.policies.d4rl_protocol:main", "robopref.configs.d4rl_protocol:D4RLProtocolConfig", "d4rl_protocol"
    ),
    "train_online": Command("", "robopref.policies.online:main", "robopref.configs.policy:OnlineConfig", "train_online"),
    "train_onpolicy": Command("", "robopref.policies.onpolicy:main", "robopref.configs.policy:OnPolicyConfig", "train_onpolicy"),
}
"""Commands that stand for `collect` with a word `protocol=...`, and for `train` with some policies."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status, as `guarded` does."""
    try:
        words = list(sys.argv[1:] if argv is None else argv)
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # letters that a terminal has not are no error
        if words[:1] == [SKIP]:
            with _skipped_digests():
                return main(words[1:])
        if words and words[0] not in ("-h", "--help", "--version"):
            return guarded(lambda: run(words[0], words[1:]))
        status = guarded(lambda: print(version() if words[:1] == ["--version"] else usage()))
        return status if words else 2
    except KeyboardInterrupt:  # before `guarded` listens, and after
        print("interrupted", file=sys.stderr)
        return 130


@contextmanager
def _skipped_digests() -> Iterator[None]:
    """Let files be read whatever their digests say, in this process and in those that it starts."""
    from .files import SKIP_DIGESTS

    before = os.environ.get(SKIP_DIGESTS)
    os.environ[SKIP_DIGESTS] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[SKIP_DIGESTS]
        else:
            os.environ[SKIP_DIGESTS] = before


def guarded(command: Callable[[], object]) -> int:
    """Run `command`; returns the exit status: 0, 1 (an error to mend), 2 (mistyped), 130 (Ctrl-C), 141 (whoever read the
    output has gone, as `head` does), 143 (terminated).

    ROBOPREF_DEBUG=1 shows the traceback also where one line is the rule; unexpected exceptions always show theirs.
    """
    try:
        with _stoppable() as stops, _interrupts_are_not_lost():
            try:
                command()
            except Exception:
                if stops:  # libraries that are stopped halfway trip over what is half done, and C code may hide why
                    raise stops[-1] from None
                raise
            finally:
                _flush()  # here, and not when Python ends, where nobody can handle it
    except RoboprefError as error:
        if os.environ.get("ROBOPREF_DEBUG") == "1":
            raise
        lines = (line.strip() for line in str(error).splitlines())  # of what is quoted in it: a name, or another's error
        print(f"error: {visible(' '.join(line for line in lines if line))}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except _OutputError as error:
        if isinstance(error.__cause__, BrokenPipeError):
            return 141
        print(f"error: the output cannot be written ({error}): look at where it goes", file=sys.stderr)
        return 1
    except OSError as error:
        from .files import is_full  # only then: a command's start need not wait for what it imports

        if isinstance(error, BrokenPipeError) and _reader_has_gone():
            return 141
        if os.environ.get("ROBOPREF_DEBUG") == "1" or (error.filename is None and not is_full(error)):
            raise
        advice = "look at the path, its permissions and its disk; ROBOPREF_DEBUG=1 shows more"
        if error.errno == errno.EEXIST and os.path.islink(error.filename) and not os.path.exists(error.filename):
            leads = f"a symbolic link to {os.readlink(error.filename)}, which is not there"
            print(f"error: {error.filename}: {leads}: remove it, or name another path", file=sys.stderr)
            return 1
        print(f"error: {error.filename or 'standard output or a temporary file'}: {error.strerror}: {advice}", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:
        if str(error).startswith("Symlink loop from "):  # as pathlib says it
            link = str(error).removeprefix("Symlink loop from ").strip("'")
            print(f"error: {link}: a symbolic link that leads back to itself: remove it, or name another path", file=sys.stderr)
            return 1
        if os.environ.get("ROBOPREF_DEBUG") == "1" or not _is_out_of_memory(error):
            raise
        advice = "ask for less at a time, such as a smaller batch or fewer processes; ROBOPREF_DEBUG=1 shows more"
        print(f"error: there is not enough memory ({str(error).partition(chr(10))[0]}): {advice}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print(f"interrupted; {str(stop) or 'what was finished is kept, and the same command continues'}", file=sys.stderr)
        return 143 if isinstance(stop, Terminated) else 130
    return 0


@contextmanager
def _stoppable() -> Iterator[list[KeyboardInterrupt]]:
    """Raise `Terminated` on SIGTERM and KeyboardInterrupt on SIGINT inside the block, and yield a list of what was raised.

    Only the main thread may set handlers; Ctrl-C stays ignored where it is, as of what a shell has put in the background.
    """
    stops: list[KeyboardInterrupt] = []

    def stop(number: int, frame: object) -> None:
        stops.append(Terminated() if number == signal.SIGTERM else KeyboardInterrupt())
        raise stops[-1]

    if threading.current_thread() is not threading.main_thread():
        yield stops
        return
    numbers = [signal.SIGTERM, *([signal.SIGINT] if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN else [])]
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield stops
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stops.clear()  # they hold frames, and these the list: what is in the frames would live until Python ends


@contextmanager
def _interrupts_are_not_lost() -> Iterator[None]:
    """Send a signal again whose exception Python could only print, because it came in a `__del__` or a callback of weakref."""
    before = sys.unraisablehook
    waiting: list[threading.Timer] = []

    def again(lost: sys.UnraisableHookArgs) -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            before(lost)
            return
        number = signal.SIGTERM if issubclass(lost.exc_type, Terminated) else signal.SIGINT
        waiting.append(threading.Timer(AGAIN_S, os.kill, (os.getpid(), number)))
        waiting[-1].start()

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = before
        for timer in waiting:
            timer.cancel()


def version() -> str:
    """The text of `robopref --version`."""
    import importlib.metadata  # as long as everything else here together, and nobody else needs it

    return f"robopref {importlib.metadata.version('robopref')}"


def usage() -> str:
    """The text of `robopref --help`."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:<{width}}{command.text}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            f"usage: robopref [{SKIP}] COMMAND [...]",
            "",
            "Learning robot behaviour from preferences that nobody had to label.",
            "",
            *lines,
            "",
            "robopref COMMAND -h explains the settings of one command; robopref --version prints the version.",
            f"{SKIP} reads models, checkpoints and data also where a digest says that they have",
            "changed since they were written, or is missing.",
        ]
    )


class _OutputError(Exception):
    """Raised when printed text could not be written; the cause says why."""


def _flush() -> None:
    """Write what was printed; _OutputError where that fails, after which nothing more is written."""
    if sys.stdout is None:  # closed by whoever called
        return
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains once more when it ends
        raise _OutputError(error.strerror) from error


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, numpy or torch, on the processor or a GPU, had none left; torch says so by a RuntimeError."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


def _reader_has_gone() -> bool:
    """Whether standard output is a pipe that nobody reads: a write that was not buffered has failed on it already."""
    if sys.stdout is None:
        return False
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def run(name: str, words: list[str]) -> None:
    """Read the words, and only then import and run what is behind the command."""
    command = _command(name, words)
    if not command.settings:
        _load(command.target)(words)
        return
    settings = _load(command.settings)
    if command.yaml:
        from .hydra import run_hydra

        run_hydra(command.yaml, words, settings, lambda config: _load(command.target)(config))
    else:
        from .flags import from_flags

        config = from_flags(settings, words, f"robopref {name}", _docstring(command.target))
        _load(command.target)(config)


def _command(name: str, words: Sequence[str]) -> Command:
    if SKIP in words:
        raise UsageError(f"{SKIP} stands before the command: robopref {SKIP} {name} ...")
    if name not in COMMANDS:
        raise UsageError(f"there is no command {name!r}.{nearest(name, COMMANDS)} `robopref --help` lists them")
    if name == "collect" and any(word.startswith("protocol=") for word in words):
        return VARIANTS[name]
    if name == "train":
        from .policy import kind_of

        return VARIANTS.get(kind_of(words), COMMANDS[name])
    return COMMANDS[name]


def _load(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def _docstring(target: str) -> str | None:
    """The docstring of a module that is not imported for it."""
    import ast
    import importlib.util

    found = importlib.util.find_spec(target.partition(":")[0])
    assert found is not None and found.origin is not None, target
    return ast.get_docstring(ast.parse(Path(found.origin).read_text(encoding="utf-8")), clean=False)
