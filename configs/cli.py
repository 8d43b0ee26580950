"""The `robopref` command: finds the stage by name, and turns errors that a user can mend into one line and a status."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from .errors import RoboprefError, UsageError, nearest
from .stopping import Terminated

# name -> (one line of help, "module:function"); imported only when called, so that help needs neither torch nor mujoco.
COMMANDS: dict[str, tuple[str, str]] = {
    "pipeline": (
        "the main job: every stage below in order, from rollouts to a report",
        "robopref.policies.pipeline:main",
    ),
    "collect": (
        "roll out policies; store episodes with simulator states, or as D4RL does",
        "robopref.datasets.collect:main",
    ),
    "pretrain": ("teach the small vision backbone what the simulator knows", "robopref.preference.pretrain:main"),
    "train-vlp": ("train the vision-language preference model on ordered clips", "robopref.preference.train:main"),
    "annotate": (
        "label pairs of segments or videos from pixels and an instruction",
        "robopref.preference.annotate:main",
    ),
    "unseen": ("train VLP on one part of a split and measure it on the other, to a table", "robopref.preference.unseen:main"),
    "push": ("share a trained VLP: one folder or hub repository, with a model card", "robopref.preference.push:main"),
    "prof": ("reward code written by a language model, ranked without a simulator", "robopref.preference.prof.command:main"),
    "train": ("train policies from episodes and labels, from rewards, or while they act", "robopref.policies.train:main"),
    "evaluate": ("success of policies over fixed goals and seeds, with intervals", "robopref.policies.evaluate:main"),
    "video": ("film policies: mp4 with instruction, step, score and success", "robopref.policies.video:main"),
    "attention": ("where a VLP looks: pictures with heat, for a few clips", "robopref.preference.look:main"),
    "report": ("one HTML page with tables, curves and videos of a run", "robopref.policies.report:main"),
    "bench": ("measure speed and memory against a named peer", "robopref.policies.bench:main"),
}
# name -> (how a word begins, "module:function" of the command that it asks for instead)
VARIANTS: dict[str, tuple[str, str]] = {"collect": ("protocol=", "robopref.policies.d4rl_protocol:main")}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status, as `guarded` does."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0 if words else 2
    if words[0] == "--version":
        print(f"robopref {importlib.metadata.version('robopref')}")
        return 0
    return guarded(lambda: _function(words[0], words[1:])(words[1:]))


def guarded(command: Callable[[], None]) -> int:
    """Run `command`; returns the exit status: 0, 1 (an error to mend), 2 (mistyped), 130 (Ctrl-C), 143 (terminated).

    ROBOPREF_DEBUG=1 shows the traceback also where one line is the rule; unexpected exceptions always show theirs.
    """
    try:
        with _terminable():
            command()
    except RoboprefError as error:
        if os.environ.get("ROBOPREF_DEBUG") == "1":
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except OSError as error:
        if os.environ.get("ROBOPREF_DEBUG") == "1" or error.filename is None:
            raise
        advice = "look at the path, its permissions and its disk; ROBOPREF_DEBUG=1 shows more"
        print(f"error: {error.filename}: {error.strerror}: {advice}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print(f"interrupted; {str(stop) or 'what was finished is kept, and the same command continues'}", file=sys.stderr)
        return 143 if isinstance(stop, Terminated) else 130
    return 0


@contextmanager
def _terminable() -> Iterator[None]:
    """Raise `Terminated` on SIGTERM inside the block; only the main thread may set handlers."""

    def terminate(number: int, frame: object) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def usage() -> str:
    """The text of `robopref --help`."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:<{width}}{text}" for name, (text, _) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: robopref COMMAND [...]",
            "",
            "Learning robot behaviour from preferences that nobody had to label.",
            "",
            *lines,
            "",
            "robopref COMMAND -h explains the settings of one command; robopref --version prints the version.",
        ]
    )


def _function(name: str, arguments: Sequence[str]) -> Callable[[list[str]], None]:
    if name not in COMMANDS:
        raise UsageError(f"there is no command {name!r}.{nearest(name, COMMANDS)} `robopref --help` lists them")
    target = COMMANDS[name][1]
    if name in VARIANTS and any(word.startswith(VARIANTS[name][0]) for word in arguments):
        target = VARIANTS[name][1]
    module, _, function = target.partition(":")
    found: Callable[[list[str]], None] = getattr(importlib.import_module(module), function)
    return found
