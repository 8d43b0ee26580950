"""The 50 tasks of Meta-World v3: their instructions, splits and opposites, and the rule that cuts a medium episode.

Before the first step of the flow: says which tasks there are and what they are called.  Needs no simulator.
Sentences are composed here from the per-task table instructions.yaml; docs/tasks.md explains both, and how the rules of
medium.yaml were measured (embodied/medium.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from robopref.configs.errors import RoboprefError, nearest

KINDS = ("seen", "phrase", "description", "correct colour", "wrong colour")
"""Kinds of wording in VLP's table of language generalisation; our reading of them is in docs/tasks.md."""

VARIED = ("synonym", "shared synonym")
"""Kinds with synonyms, for training only [ours].  A sentence is a `shared synonym` when a word of it is heard in some task's
phrases or descriptions and in no seen wording."""

PARTS: Mapping[str, tuple[str, ...]] = {
    "train": ("seen",),
    "varied": ("seen", "synonym"),
    "shared": ("seen", "synonym", "shared synonym"),
    "heldout": ("phrase", "description", "correct colour"),
}
"""Parts of what instructions() returns; wrong colours are asked for by kind only, since they do not describe the scene."""
TRAIN_PARTS = ("train", "varied", "shared")

# Sentences taken from each grid of frames and fillers; with the bare commands this makes 32 to train on, 17 held out.
SEEN_FRAMED, SEEN_GOALS, PHRASES_FRAMED, DESCRIPTIONS, COLOURED = 16, 8, 4, 6, 3
# And up to 64 with synonyms.
MORE_COMMANDS, MORE_FRAMED, MORE_GOALS = 32, 16, 16

TRAIN_FRAMES = (
    "please {}",
    "can you {}?",
    "your task is to {}",
    "the robot should {}",
    "I need you to {}",
    "make the robot {}",
    "go ahead and {}",
)
TRAIN_GOALS = (
    "{} should be {}",
    "make sure that {} is {}",
    "the task is done when {} is {}",
    "I want {} to be {}",
    "{} must end up {}",
)
HELDOUT_FRAMES = ("would you kindly {}?", "the arm's job is to {}", "try to {}, please")
HELDOUT_GOALS = ("by the end, {} has to be {}", "leave {} {}", "success means that {} is {}")

MARGIN = 8
"""Steps that a crossing of near_object must be away from the start and from success to count: a clip has 8 frames; with
fewer steps before the crossing a medium clip shows the start pose, with fewer behind it the finished task [ours]."""

TRUE_REVERSALS = (
    ("door-open", "door-close"),
    ("door-lock", "door-unlock"),
    ("drawer-open", "drawer-close"),
    ("handle-press", "handle-pull"),
    ("handle-press-side", "handle-pull-side"),
    ("window-open", "window-close"),
)
"""Same scene, and each starts where the other ends: an expert episode played backwards shows the other being done."""

NEAR_OPPOSITES = (
    ("assembly", "disassemble"),
    ("coffee-push", "coffee-pull"),
    ("faucet-open", "faucet-close"),
    ("peg-insert-side", "peg-unplug-side"),
    ("plate-slide", "plate-slide-back"),
    ("plate-slide-side", "plate-slide-back-side"),
    ("push", "push-back"),
    ("stick-push", "stick-pull"),
)
"""Opposite in words, but not when played backwards: both faucet tasks start with the handle in the middle, the plate of
plate-slide-back at the mouth of the net and not inside, and so on (docs/tasks.md)."""


@dataclass(frozen=True)
class MediumRule:
    """Where to cut a successful expert episode so that it becomes a medium one: on the way, and not successful.

    VLP cuts once the first half of the sub-tasks is done, judged by near_object.  In many tasks that signal is dead or
    means something else (docs/tasks.md), so `kind` is "near_object" where it works and "fraction" elsewhere [ours].
    """

    kind: str  # near_object | fraction
    threshold: float = 0.5  # near_object counts as reached from this value on
    fraction: float = 0.5  # of the steps before success

    def cut(self, near_object: np.ndarray, success: np.ndarray) -> int:
        """Number of steps to keep, at least 2, of which none is successful.

        near_object: (T,) float, success: (T,) bool, as recorded after each step.  An episode whose near_object first
        reaches the threshold within MARGIN steps of the start or of success, or never, is cut at the fraction instead.
        Raises RoboprefError when the episode never succeeds, or too early to be cut.
        """
        if not np.any(success):
            raise RoboprefError("A medium episode is cut from a successful one; this one never succeeds: take another.")
        before_success = int(np.argmax(success))
        if before_success < 2:
            raise RoboprefError(f"The episode succeeds in step {before_success + 1}, too early for a medium one: take another.")
        reached = np.flatnonzero(np.asarray(near_object) >= self.threshold)
        if self.kind == "near_object" and len(reached) and MARGIN <= reached[0] < before_success - MARGIN:
            return int(reached[0]) + 1
        return min(max(round(self.fraction * before_success), 2), before_success)


@dataclass(frozen=True)
class Task:
    """One task of Meta-World v3, by its name without "-v3"."""

    name: str
    wordings: Mapping[str, tuple[str, ...]]  # kind (KINDS, VARIED) -> sentences
    medium: MediumRule
    reverse: str | None = None
    """The opposite task.  Its instructions are its own: use them for reversed clips only where both are train tasks."""
    truly_reversible: bool = False
    """An expert episode of this task played backwards shows `reverse` being done."""


@dataclass(frozen=True)
class Split:
    """Which tasks are learned from and which are kept for the test."""

    train: tuple[str, ...]
    test: tuple[str, ...]


def task(name: str) -> Task:
    """The task called `name`: drawer-close, drawer-close-v3 and metaworld/drawer-close are the same."""
    plain = name.removeprefix("metaworld/").removesuffix("-v3")
    if plain not in TASKS:
        raise RoboprefError(f"Unknown task {name!r}.{nearest(plain, TASKS)} docs/tasks.md lists all {len(TASKS)}.")
    return TASKS[plain]


def instructions(name: str, part: str = "train") -> tuple[str, ...]:
    """Sentences that ask for task `name`, always the same ones in the same order; `part`: of PARTS, or one of KINDS."""
    options = dict.fromkeys((*PARTS, *KINDS, *VARIED))
    if part not in options:
        raise RoboprefError(f"Unknown part {part!r} of the instructions: {', '.join(options)}.{nearest(part, options)}")
    wordings = task(name).wordings
    return tuple(sentence for kind in PARTS.get(part, (part,)) for sentence in wordings[kind])


def canonical(name: str) -> str:
    """The plainest sentence that asks for task `name`; it is one of its train wordings."""
    return task(name).wordings["seen"][0]


def expand_tasks(names: Sequence[str]) -> tuple[str, ...]:
    """Task names, each once, with every SPLIT:PART ("paper:train") replaced by its tasks."""
    found: list[str] = []
    for name in names:
        split, _, part = name.partition(":")
        if not part:
            found.append(task(name).name)
        elif split in SPLITS and part in ("train", "test"):
            found.extend(getattr(SPLITS[split], part))
        else:
            options = [f"{known}:{half}" for known in SPLITS for half in ("train", "test")]
            raise RoboprefError(f"Unknown part of a split {name!r}: {', '.join(options)}.{nearest(name, options)}")
    return tuple(dict.fromkeys(found))


def _compose(entry: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """All sentences of a task by kind of wording, from its entry of instructions.yaml."""
    commands = [do.format(what) for what in entry["what"] for do in entry["do"]]
    goals = [(what, state) for state in entry["state"] for what in entry["what"]]
    new = entry["new"]
    # A held-out verb also meets a known noun, so that one new word can be told from two.
    nouns = [*new["what"], entry["what"][0]]
    new_commands = [do.format(what) for what in nouns for do in new["do"]]
    new_goals = [(what, state) for state in new["state"] for what in nouns]
    coloured, right, wrong = entry["colour"]
    colours = {"correct colour": right, "wrong colour": wrong}
    return {
        "seen": (
            *commands,
            *_walk(TRAIN_FRAMES, [(command,) for command in commands], SEEN_FRAMED),
            *_walk(TRAIN_GOALS, goals, SEEN_GOALS),
        ),
        "phrase": (*new_commands, *_walk(HELDOUT_FRAMES, [(command,) for command in new_commands], PHRASES_FRAMED)),
        "description": _walk(HELDOUT_GOALS, new_goals, DESCRIPTIONS),
        **{kind: _walk(("{}", *HELDOUT_FRAMES), [(coloured.format(colour),)], COLOURED) for kind, colour in colours.items()},
    }


def _vary(entry: Mapping[str, Any], seen: Sequence[str]) -> tuple[str, ...]:
    """Sentences with the synonyms of a task, from its entry of instructions.yaml, and none of `seen`."""
    more = entry["more"]
    dos, nouns = [*more["do"], *entry["do"]], [*more["what"], entry["what"][0]]
    commands = _walk(dos, [(what,) for what in nouns], MORE_COMMANDS)
    goals = [(nouns[(lap + k) % len(nouns)], state) for lap in range(len(nouns)) for k, state in enumerate(more["state"])]
    sentences = (
        *commands,
        *_walk(TRAIN_FRAMES, [(command,) for command in commands[::-1]], MORE_FRAMED),
        *_walk(TRAIN_GOALS, goals, MORE_GOALS),
    )
    return tuple(sentence for sentence in dict.fromkeys(sentences) if sentence not in seen)


def _with_varied(tasks: Mapping[str, Mapping[str, tuple[str, ...]]], varied: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """The wordings of `tasks` with their `varied` sentences as the kinds VARIED."""
    heard = _words(sentence for wordings in tasks.values() for sentence in wordings["seen"])
    said = _words(sentence for wordings in tasks.values() for kind in ("phrase", "description") for sentence in wordings[kind])
    held_out = said - heard
    found = {}
    for name, wordings in tasks.items():
        shares = [bool(_words([sentence]) & held_out) for sentence in varied[name]]
        kinds = {
            kind: tuple(sentence for sentence, shared in zip(varied[name], shares, strict=True) if shared == (kind == VARIED[1]))
            for kind in VARIED
        }
        found[name] = {**wordings, **kinds}
    return found


def _words(sentences: Iterable[str]) -> set[str]:
    return {word for sentence in sentences for word in re.findall(r"[a-z]+", sentence.lower())}


def _walk(frames: Sequence[str], fillers: Sequence[tuple[str, ...]], count: int) -> tuple[str, ...]:
    """`count` different sentences along the diagonals of the grid frames x fillers, so that both sides vary at once."""
    sentences = []
    for k in range(count):
        lap, turn = divmod(k, len(fillers))
        sentences.append(frames[(lap + turn) % len(frames)].format(*fillers[turn]))
    return tuple(sentences)


def _load() -> dict[str, Task]:
    rules = {
        name: MediumRule(kind, **{"threshold" if kind == "near_object" else "fraction": float(value)})
        for kind, values in _read("medium.yaml").items()
        for name, value in values.items()
    }
    true = _both_ways(TRUE_REVERSALS)
    opposites = true | _both_ways(NEAR_OPPOSITES)
    table = _read("instructions.yaml")
    plain = {name: _compose(entry) for name, entry in table.items()}
    wordings = _with_varied(plain, {name: _vary(entry, plain[name]["seen"]) for name, entry in table.items()})
    return {
        name: Task(name, wordings[name], rules[name], reverse=opposites.get(name), truly_reversible=name in true)
        for name in table
    }


def _read(file: str) -> dict[str, Any]:
    with Path(__file__).with_name(file).open(encoding="utf-8") as stream:
        # The C loader, where PyYAML has it, reads the table in 30 ms instead of 200.
        return yaml.load(stream, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _both_ways(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {a: b for pair in pairs for a, b in (pair, pair[::-1])}


def _split(*test: str) -> Split:
    return Split(train=tuple(name for name in TASKS if name not in test), test=test)


TASKS: Mapping[str, Task] = _load()

SPLITS: Mapping[str, Split] = {
    "paper": _split("button-press", "door-close", "drawer-close", "faucet-close", "window-open"),
    "ml45": _split("bin-picking", "box-close", "door-lock", "door-unlock", "hand-insert"),
}
"""paper: VLP's own test tasks.  ml45: Meta-World's official ML45, which VLP's reviewers asked for."""
