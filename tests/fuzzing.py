"""Damaged copies of good files, drawn by a seed, and what becomes of them in a reader.

    tally = campaign("episodes", Reader(make, read), count=200, seed=0, folder=tmp_path)
    assert not tally.faults

A reader may refuse a damaged copy with one clear line, or read it as it was before.  Everything else is a fault: a traceback,
an error of several lines or without the file's name, a dead or hanging process, and, where contents are held to a digest, other
contents than before.  A batch of copies is read in a process of its own, which may die of them.
"""

from __future__ import annotations

import gc
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from robopref.configs.errors import RoboprefError

LONG_S = 10.0  # after which a reader hangs
MEMORY = 4 * 2**30  # bytes beyond what the process has: a file of some kilobytes must not ask for more
MESSAGE = 8192  # bytes
FAULTS = ("traceback", "unclear", "died", "hung", "other")
OUTCOMES = ("refused", "same", *FAULTS)
DIGITS = "9" * 5000  # Python itself refuses to read an integer of more than 4,300

Damage = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Reader:
    """A reader of files, and how to damage them."""

    make: Callable[[Path], None]
    """Writes good files into an empty folder."""
    read: Callable[[Path], Any]
    """Reads them from the folder; what it gives is compared."""
    damages: Mapping[str, tuple[Damage, ...]] = field(default_factory=dict)
    """Pattern of names -> what is done to such files, beside the damages to bytes that all get."""
    only: tuple[str, ...] = ("*",)
    """Patterns of the names of files that are damaged."""
    checked: bool = False
    """Contents are held to a digest: to read others in silence is a fault."""


@dataclass
class Tally:
    """What became of all copies."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)  # NUMBER FILE DAMAGE: what happened


def campaign(name: str, reader: Reader, count: int, seed: int, folder: Path) -> Tally:
    """Damage one file of `count` copies each and read them."""
    good = folder / "good"
    good.mkdir(parents=True)
    reader.make(good)
    files = sorted({path for pattern in reader.only for path in good.rglob(pattern) if path.is_file()})
    assert files, f"{name}: no file to damage"
    expected = reader.read(good)
    tally = Tally()
    number = 0
    while number < count:
        number = batch(reader, range(number, count), good, files, expected, seed, folder, tally)
    return tally


def batch(
    reader: Reader, numbers: range, good: Path, files: list[Path], expected: Any, seed: int, folder: Path, tally: Tally
) -> int:
    """Read copies in a child until it dies or hangs, or all are read; the number of the next."""
    inlet, outlet = os.pipe()
    gc.collect()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            os.close(inlet)
            with open(os.devnull, "r+b") as null:
                for stream in (0, 1, 2):
                    os.dup2(null.fileno(), stream)
            with open("/proc/self/statm") as statm:
                now = int(statm.read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            for number in numbers:
                one = folder / "copy"
                shutil.rmtree(one, ignore_errors=True)
                shutil.copytree(good, one)
                what = damage(reader, one, [path.relative_to(good) for path in files], random.Random(f"{seed} {number}"))
                os.write(outlet, message("began", number, what))
                os.write(outlet, message("ended", *attempt(reader, one, expected)))
            os._exit(0)
        finally:
            os._exit(1)  # an error of the harness must not go on in a second process
    os.close(outlet)
    began = None
    try:
        while True:
            ready, _, _ = select.select([inlet], [], [], LONG_S)
            part = b""
            while ready and len(part) < MESSAGE and (piece := os.read(inlet, MESSAGE - len(part))):
                part += piece
            if len(part) < MESSAGE:
                break
            kind, *rest = json.loads(part)
            if kind == "began":
                began = rest
            else:
                outcome, why = rest
                note(tally, began[0], began[1], outcome, why)
                began = None
    finally:
        os.kill(child, signal.SIGKILL) if not ready else None
        os.close(inlet)
        _, status = os.waitpid(child, 0)
    if began is None:
        assert status == 0, f"the child ended with {status} between two copies"
        return numbers.stop
    outcome = "hung" if not ready else "died"
    note(tally, began[0], began[1], outcome, f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"status {status}")
    return int(began[0]) + 1


def message(*words: str | int) -> bytes:
    """What a pipe takes at once: words of a fixed length altogether."""
    short = [word[-1000:] if isinstance(word, str) else word for word in words]  # the end of a traceback says most
    return json.dumps(short).encode().ljust(MESSAGE)


def note(tally: Tally, number: int, what: str, outcome: str, why: str) -> None:
    """Count what became of a copy."""
    tally.counts[outcome] += 1
    if outcome in FAULTS:
        tally.faults.append(f"{number} {what}: {outcome}: {why}")


def attempt(reader: Reader, folder: Path, expected: Any) -> tuple[str, str]:
    """What becomes of one copy."""
    try:
        found = reader.read(folder)
    except RoboprefError as error:
        said = str(error)
        clear = "\n" not in said and len(said) < 2000 and str(folder) in said
        return ("refused", "") if clear else ("unclear", said[:600])
    except Exception:
        return "traceback", traceback.format_exc()
    if same(found, expected):
        return "same", ""
    return ("other" if reader.checked else "same"), "other contents"


def same(a: Any, b: Any) -> bool:
    """Whether two readings are equal, arrays to the bit."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and bool(a == b)


def damage(reader: Reader, folder: Path, files: list[Path], rng: random.Random) -> str:
    """Damage one of `files` of `folder`; which, and how."""
    name = rng.choice(files)
    special = [how for pattern, many in reader.damages.items() if name.match(pattern) for how in many]
    how = rng.choice(special) if special and rng.random() < 0.6 else rng.choice(BYTES)
    path = folder / name
    before = path.read_bytes()
    after = how(before, rng)
    path.write_bytes(after)
    return f"{name} {how.__name__}"


def cut(data: bytes, rng: random.Random) -> bytes:
    """The beginning alone."""
    return data[: rng.randrange(len(data) + 1)]


def flip(data: bytes, rng: random.Random) -> bytes:
    """One bit to eight, flipped."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 8)) if out else 0):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def flip_early(data: bytes, rng: random.Random) -> bytes:
    """Bytes of the first 512, where headers are, replaced."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 2, 4)) if out else 0):
        out[rng.randrange(min(len(out), 512))] = rng.randrange(256)
    return bytes(out)


def overwrite(data: bytes, rng: random.Random) -> bytes:
    """A run of bytes replaced by zeros, ones or noise."""
    start = rng.randrange(len(data) + 1)
    size = min(len(data) - start, rng.choice((1, 4, 8, 64, 512)))
    run = rng.choice((bytes(size), b"\xff" * size, rng.randbytes(size)))
    return data[:start] + run + data[start + size :]


def remove(data: bytes, rng: random.Random) -> bytes:
    """A run of bytes left out."""
    start = rng.randrange(len(data) + 1)
    return data[:start] + data[start + rng.choice((1, 8, 64, 512)) :]


def insert(data: bytes, rng: random.Random) -> bytes:
    """A run of noise put in, or another part of the file."""
    start, size = rng.randrange(len(data) + 1), rng.choice((1, 8, 64))
    other = rng.randrange(len(data) + 1)
    return data[:start] + rng.choice((rng.randbytes(size), data[other : other + size])) + data[start:]


def replace_all(data: bytes, rng: random.Random) -> bytes:
    """Another file altogether, or none."""
    return rng.choice((b"", b"\0" * len(data), b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n",
                       rng.randbytes(300), b"\n", b"{}", b"[]", b"null", b"\xff\xfe{\0}\0",
                       b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"))  # fmt: skip


def append_noise(data: bytes, rng: random.Random) -> bytes:
    """Bytes behind the end."""
    return data + rng.choice((b"\0", b"x" * 100, rng.randbytes(1000), data[:100]))


BYTES: tuple[Damage, ...] = (cut, flip, flip, flip_early, overwrite, remove, insert, replace_all, append_noise)


def wrong_values(rng: random.Random) -> str:
    """JSON of a kind that nobody expects."""
    return rng.choice(
        ("null", "true", "-1", "0", "1e999", "NaN", "1.5", '""', '"x"', '"\\ud800"', '"\\u0000"', '"../../x"', '"a\\nb"', "[]",
         "[[]]", "{}", '{"x": 1}', "[1, 2, 3]", DIGITS, "-" + DIGITS, str(2**63), str(-(2**63)), str(2**40),
         "[" * 3000 + "]" * 3000, '{"a":' * 3000 + "1" + "}" * 3000)
    )  # fmt: skip


def nodes(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all values of a JSON tree."""
    found = [path]
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        found += nodes(value, (*path, key))
    return found


def damage_json(text: str, rng: random.Random) -> str:
    """JSON with one value of another kind, left out, twice, or under another name."""
    mark = "a value that stands nowhere else"
    tree = json.loads(text)
    path = rng.choice(nodes(tree))
    if not path:
        return wrong_values(rng)
    above = tree
    for key in path[:-1]:
        above = above[key]
    how = rng.choice(("wrong", "wrong", "wrong", "gone", "renamed", "twice"))
    if how == "gone":
        del above[path[-1]]
    elif how == "renamed" and isinstance(above, dict):
        above[path[-1] + "x"] = above.pop(path[-1])
    elif how == "twice" and isinstance(above, list):
        above.append(above[path[-1]])
    else:
        above[path[-1]] = mark
        return json.dumps(tree).replace(json.dumps(mark), wrong_values(rng))
    return json.dumps(tree)


def wrong_json(data: bytes, rng: random.Random) -> bytes:
    """Of a JSON file."""
    return damage_json(data.decode(), rng).encode("utf-8", "surrogatepass")


def wrong_lines(data: bytes, rng: random.Random) -> bytes:
    """Of a file with a JSON value a line: one line damaged, twice, or of another file."""
    lines = data.decode().splitlines()
    place = rng.randrange(len(lines))
    lines[place] = rng.choice((damage_json(lines[place], rng), lines[place] * 2, "", "<html>"))
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")


def wrong_safetensors(data: bytes, rng: random.Random) -> bytes:
    """Of a safetensors file: a value of its header, or of the JSON that a word of its metadata holds."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    about = header.get("__metadata__") or {}
    if about and rng.random() < 0.6:
        word = rng.choice(sorted(about))
        try:
            about[word] = damage_json(about[word], rng)
        except ValueError:  # a word that is no JSON
            about[word] = rng.choice(("", "x", "0" * 64))
        text = json.dumps(header)
    else:
        text = damage_json(json.dumps(header), rng)
    new = text.encode("utf-8", "surrogatepass")
    length = rng.choice((len(new), len(new), len(new), 2**40, 0, len(new) + 8))
    return length.to_bytes(8, "little") + new + data[8 + size :]
