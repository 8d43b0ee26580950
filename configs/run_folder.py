"""A run folder belongs to one run: it is held while that works in it, and another stage or other settings are refused.

    with run_folder(config.out, "train", config, inputs) as complete:
        if complete:
            return config.out
        ...
        write_manifest(...)

A finished run is known by its manifest (run.py), an unfinished one by `run.json`, which says what has begun and who works there.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .errors import RoboprefError
from .files import CLOSED, MANIFEST, PARTIAL, differences, digest, lives, plain, read_json, without, write_json
from .run import is_complete

BEGUN = "run.json"
LOCK = ".lock"
HYDRA = ("out=", "overwrite=true")
FLAGS = ("--out", "--overwrite")
"""How a user says where to write, and that what is there may go: in commands of hydra, and in those with flags."""
SAFETENSORS = ".tmp??????"  # what safetensors itself writes to before it takes the name that it was told
OWNER_S = 1.0  # whoever has got the lock writes at once who it is
TOLD = 3  # differing settings that an error names


@contextmanager
def run_folder(
    folder: str | Path,
    stage: str,
    config: Any,
    inputs: Mapping[str, str | Path],
    *,
    overwrite: bool = False,
    words: tuple[str, str] = HYDRA,
    whole: bool = False,
    shared: bool = False,
    by_part: bool = False,
) -> Iterator[bool]:
    """Hold `folder` for one run and yield whether its result is already there, finished and of these settings and inputs.

    config: dataclass or mapping, compared with what the folder was made with, but for what does not matter to the result
    (files.NO_MATTER).  inputs: name -> file or folder that is read.  overwrite: delete what another run has left there.
    words: HYDRA or FLAGS, for the errors.  whole: the run replaces the folder by one that was written aside, so that nothing in
    it is ever unfinished.  shared: runs of one stage with different settings each have a part of the folder.
    by_part: overwriting, the run itself replaces those parts that its settings change, and keeps the others.

    Raises RoboprefError, and touches nothing, when the folder holds a run of another stage or of other settings or inputs,
    finished or not, when another process works in it, or when it is a file.  The lock ends with its owner, however that ends.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise RoboprefError(f"{folder} is a file, and {stage} writes a folder: choose another {words[0]}")

    def is_done() -> bool:
        return not overwrite and is_complete(folder, config, inputs) and read_json(folder / MANIFEST)["stage"] == stage

    def other_run() -> str:
        found = _other_run(folder, stage, None if shared else config, inputs)
        strange = "" if shared else _strange(folder, whole)
        replaceable = not shared and (whole or not strange)
        if (found or strange) and not (overwrite and replaceable):
            way_out = f", or replace it with {words[1]}" if replaceable else ""
            raise RoboprefError(f"{folder} holds {found or strange}: choose another {words[0]}{way_out}")
        return found

    lock = FileLock(folder.with_name(f".{folder.name}{LOCK}") if whole else folder / LOCK)
    beside = Path(lock.lock_file)
    left = whole and beside.exists() and os.access(beside.parent, os.W_OK)  # perhaps by a killed run, and to be removed
    if is_done() and not left:  # also where nobody may write
        yield True
        return
    other_run()  # before a lock is put there
    new = not folder.exists()
    try:
        beside.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        raise RoboprefError(f"{folder} is in use{_owner(folder)}: wait for it, or choose another {words[0]}") from None
    except OSError as error:
        if error.errno not in CLOSED:
            raise
        raise RoboprefError(
            f"{folder} cannot be written ({error.strerror}): choose another {words[0]}, or make this one writable"
        ) from error
    try:
        if is_done():  # a moment ago, by another process
            yield True
            return
        found = other_run()
        _remove_partial(folder)
        if not whole:
            if not by_part and (found or (overwrite and not shared and (folder / MANIFEST).exists())):
                _empty(folder)  # but goes on with an unfinished run of these settings, as the same command should
            (folder / MANIFEST).unlink(missing_ok=True)  # it would vouch for the old result after a kill beside the new one
            write_json(folder / BEGUN, _begun(stage, config))
        yield False
        (folder / BEGUN).unlink(missing_ok=True)
    finally:
        if not whole and not _has_files(folder):  # an error before anything was made
            for name in (BEGUN, LOCK):
                (folder / name).unlink(missing_ok=True)
            if new:
                shutil.rmtree(folder)
        if whole:
            beside.unlink(missing_ok=True)  # it would lie among datasets; before the release, so that nobody else has it
        lock.release()


def stage_of(folder: Path) -> str | None:
    """The stage whose run, finished or not, is in a folder; None when there is none."""
    path = _about(folder)
    return None if path is None else str(read_json(path)["stage"])


def _about(folder: Path) -> Path | None:
    """The file that says which run is in a folder."""
    return next((folder / name for name in (MANIFEST, BEGUN) if (folder / name).exists()), None)


def _other_run(folder: Path, stage: str, config: Any, inputs: Mapping[str, str | Path]) -> str:
    """Describe the run in the folder that is not an unfinished run of these settings; empty when there is none.

    config: None when any settings of the stage will do.
    """
    path = _about(folder)
    if path is None:
        return ""
    there = read_json(path)
    finished = "a finished" if path.name == MANIFEST else "an unfinished"
    if there["stage"] != stage:
        return f"{finished} run of `{there['stage']}`"
    if config is None:
        return ""
    told = list(islice(differences(without(there["config"]), without(plain(config))), TOLD + 1))
    if told:
        more = ", ..." if len(told) > TOLD else ""
        return f"{finished} run of `{stage}` with other settings ({', '.join(told[:TOLD])}{more})"
    if path.name == BEGUN:
        return ""
    read = {name: item["sha256"] for name, item in there["inputs"].items()}
    changed = [name for name in dict.fromkeys([*read, *inputs]) if name not in inputs or read.get(name) != digest(inputs[name])]
    return f"{finished} run of `{stage}` on other inputs ({', '.join(changed[:TOLD])})" if changed else ""


def _strange(folder: Path, whole: bool) -> str:
    """Describe files of unknown origin that a run must not replace or mix with; empty when there are none."""
    if (folder / MANIFEST).exists() or (folder / BEGUN).exists() or not folder.exists():
        return ""
    if whole:
        return "files of which nothing says that a run made them" if any(folder.iterdir()) else ""
    runs = sorted(path.parent.name for name in (MANIFEST, BEGUN) for path in folder.glob(f"*/{name}"))
    return f"other runs ({', '.join(runs[:TOLD])}{', ...' if len(runs) > TOLD else ''})" if runs else ""


def _begun(stage: str, config: Any) -> dict[str, Any]:
    return {
        "stage": stage,
        "config": config,
        "process": os.getpid(),
        "machine": platform.node(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "began": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _owner(folder: Path) -> str:
    """By whom a folder is in use, as far as is known."""
    until = time.monotonic() + OWNER_S
    while time.monotonic() < until:
        with suppress(RoboprefError):
            there = read_json(folder / BEGUN)
            if there["machine"] != platform.node() or lives(there["process"]):  # and was not left by a killed run
                return f" by process {there['process']} on {there['machine']} since {there['began']} ({there['command']})"
        time.sleep(OWNER_S / 50)
    return ""


def _has_files(folder: Path) -> bool:
    """Whether anything is in the folder or below it but for what is written here, and empty folders."""
    return any(not path.is_dir() and path not in (folder / BEGUN, folder / LOCK) for path in folder.rglob("*"))


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def _remove_partial(folder: Path) -> None:
    """Remove what killed runs were writing in the folder, and aside of it when they replaced it: the lock is ours."""
    left = [
        *folder.rglob(f".*.{PARTIAL}*"),
        *folder.rglob(SAFETENSORS),
        *folder.parent.glob(f".{folder.stem}.*.{PARTIAL}{folder.suffix}"),
    ]
    for path in left:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
