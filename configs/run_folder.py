"""A run folder belongs to one run: it is held while that works in it, and another stage or other settings are refused.

    with run_folder(config.out, "train", config, inputs) as complete:
        if complete:
            return config.out
        ...
        write_manifest(...)

A finished run is known by its manifest (run.py), an unfinished one by `run.json`, which says what has begun and who works there.
Overwriting deletes what runs have left there, and never what was there before the first of them, what the new run reads, another
command's run further down, or a folder in which a process works.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shlex
import shutil
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .errors import RoboprefError
from .files import (
    BEGUN,
    CLOSED,
    MANIFEST,
    abandoned,
    differences,
    digest,
    lives,
    plain,
    read_record,
    remove,
    remove_abandoned,
    without,
    write_json,
)
from .run import is_complete

LOCK = ".lock"
HYDRA = ("out=", "overwrite=true")
FLAGS = ("--out", "--overwrite")
"""How a user says where to write, and that what is there may go: in commands of hydra, and in those with flags."""
MODEL = ("config.json", "model.safetensors", "checkpoint.safetensors", "metrics.csv")
"""Names of the files that every training writes, for the argument `writes` of `run_folder`."""
CARD, LIBRARY = "README.md", "library_name: robopref"
"""A folder that `robopref push` made holds this file with this line."""
KNOWN_BY = {"dataset": ("main_data.hdf5",), "frame bank": ("frames.npy", "index.parquet")}
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
    writes: Sequence[str] = (),
) -> Iterator[bool]:
    """Hold `folder` for one run and yield whether its result is already there, finished and of these settings and inputs.

    config: dataclass or mapping, compared with what the folder was made with, but for what does not matter to the result
    (files.NO_MATTER).  inputs: name -> file or folder that is read.  overwrite: delete what another run has left there.
    words: HYDRA or FLAGS, for the errors.  whole: the run replaces the folder by one that was written aside, so that nothing in
    it is ever unfinished.  shared: runs of one stage with different settings each have a part of the folder.
    by_part: overwriting, the run itself replaces those parts that its settings change, and keeps the others.
    writes: names or patterns of files that the run will write, and must not find unless a run has left them.

    Raises RoboprefError, and touches nothing, when the folder holds a run of another stage or of other settings or inputs,
    finished or not, when another process works in it, when it is a file, when it lies in a dataset or a folder that is read, when
    it holds somebody else's files by names of `writes`, and when overwriting would delete what must stay (see above).
    The lock ends with its owner, however that ends.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise RoboprefError(f"{folder} is a file, and {stage} writes a folder: choose another {words[0]}")

    def is_done() -> bool:
        return not overwrite and is_complete(folder, config, inputs) and read_record(folder / MANIFEST)["stage"] == stage

    def goes() -> bool:
        """Whether what is there is to be deleted; RoboprefError when it must stay."""
        refuse_inside(folder, words[0], inputs, whole=whole)
        found = _other_run(folder, stage, None if shared else config, inputs)
        strange = _strange(folder, stage, whole, shared, writes)
        replaceable = not shared and (whole or not strange)
        anew = replaceable and not by_part and (found or strange or (folder / MANIFEST).exists())
        stays = _must_stay(folder, inputs, whole, writes) if anew and (found or strange or overwrite) else ""
        if (found or strange) and not (overwrite and replaceable):
            way_out = f", or replace it with {words[1]}" if replaceable and not stays else ""
            raise RoboprefError(f"{folder} holds {found or strange}: choose another {words[0]}{way_out}")
        if stays:
            raise RoboprefError(f"{folder}: {words[1]} would delete {stays}: choose another {words[0]}")
        for item in inputs.values() if anew else ():  # or the run would fail when what was there is gone
            if not Path(item).exists():
                raise RoboprefError(f"{item} does not exist: run the stage that makes it, or correct the path")
        return bool(anew and overwrite)

    lock = FileLock(folder.with_name(f".{folder.name}{LOCK}") if whole else folder / LOCK)
    beside = Path(lock.lock_file)
    kept = beside if whole else folder / BEGUN
    left = kept.exists() and os.access(kept.parent, os.W_OK)  # perhaps by a killed run, and to be removed
    if is_done() and not left:  # also where nobody may write
        yield True
        return
    goes()  # before a lock is put there
    new = not folder.exists()
    before = set() if new or whole or _about(folder) or (folder / LOCK).exists() else _names(folder)
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
            if not whole:
                (folder / BEGUN).unlink(missing_ok=True)
            yield True
            return
        anew = goes()
        _remove_partial(folder)
        if not whole:
            before |= _before(folder)
            if anew:
                _empty(folder, before)  # but goes on with an unfinished run of these settings, as the same command should
            write_json(folder / BEGUN, _begun(stage, config, before))
            (folder / MANIFEST).unlink(missing_ok=True)  # it would vouch for the old result after a kill beside the new one
        yield False
        (folder / BEGUN).unlink(missing_ok=True)
    finally:
        if not whole and not _has_files(folder):  # an error before anything was made
            _empty(folder, before | _before(folder))  # of empty folders, which would count as somebody's
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
    return None if path is None else str(read_record(path)["stage"])


def recorded(folder: Path) -> dict[str, Any] | None:
    """Read the manifest, or run.json, of the run in a folder; None when there is none."""
    path = _about(folder)
    return None if path is None else read_record(path)


def refuse_unfinished(folder: Path) -> None:
    """RoboprefError where a run has begun in a folder and its model is not there yet, with the command that continues it."""
    if (folder / "model.safetensors").exists() or not (folder / BEGUN).is_file():
        return
    there = read_record(folder / BEGUN)
    run = f"{folder} holds an unfinished run of `{there['stage']}`"
    if _is_held(folder / LOCK):
        raise RoboprefError(f"{run}, which is still at work{_owner(folder)}: wait for it")
    command = f": {there['command']}" if there.get("command") else ""
    raise RoboprefError(f"{run}; the same command continues it{command}")


def is_shared(folder: Path) -> bool:
    """Whether a model's folder comes from somebody else: it has a card of `robopref push`, or no record of a run."""
    return _is_pushed(folder) or (_about(folder) is None and _about(folder.parent) is None)  # a reward lies in a run


def refuse_outside(folder: Path, names: Iterable[str]) -> None:
    """RoboprefError where one of the files or folders `names` of a shared model is a link that leads out of its folder.

    The hub's cache keeps every file once, in `blobs` beside `snapshots`, and links to it: those are its own.
    """
    if not is_shared(folder):
        return
    whole = folder.resolve()
    own = [whole, *(above.parent / "blobs" for above in whole.parents if above.name == "snapshots")]
    for name in names:
        found = (folder / name).resolve()
        if not any(found.is_relative_to(place) for place in own):
            raise RoboprefError(
                f"{folder / name} leads out of the folder of a shared model, to {found}: put a copy of what is meant there, if "
                "you trust it"
            )


def refuse_inside(path: Path, word: str, inputs: Mapping[str, str | Path] | None = None, *, whole: bool = False) -> None:
    """RoboprefError when what is written to `path` would become part of a dataset, of a frame bank, or of a folder that is read.

    word: what the user gave it by, `out=` or `--out`.  whole: `path` itself may be one, and is replaced.
    """
    where = path.resolve()
    read = {Path(item).resolve() for item in (inputs or {}).values() if Path(item).is_dir()}
    for above in where.parents if whole else (where, *where.parents):
        kind = next((kind for kind, names in KNOWN_BY.items() if all((above / name).is_file() for name in names)), None)
        if kind is not None or above in read:
            lies = f"is a {kind or 'folder'}" if above == where else f"lies in the {kind or 'folder'} {above}"
            why = "which this command reads" if kind is None else "which would then be another"
            raise RoboprefError(f"{path} {lies}, {why}: choose another {word}")


def _is_pushed(folder: Path) -> bool:
    card = folder / CARD
    return card.is_file() and LIBRARY in card.read_text(encoding="utf-8", errors="replace").splitlines()


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
    there = read_record(path)
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


def _strange(folder: Path, stage: str, whole: bool, shared: bool, writes: Sequence[str]) -> str:
    """Describe files of unknown origin that a run must not replace or mix with; empty when there are none."""
    if not folder.exists() or _about(folder) is not None:
        return ""
    if whole:
        return "files of which nothing says that a run made them" if any(folder.iterdir()) else ""
    if (folder / LOCK).exists():  # whoever deleted the manifest of a run wants it made again
        return ""
    if _is_pushed(folder):
        return "a model that `robopref push` wrote"
    found = sorted(path.relative_to(folder).as_posix() for name in writes for path in folder.glob(name))
    if found:
        return f"{found[0]}, which `{stage}` writes and of which nothing says that a run made it"
    if shared:
        return ""
    runs = sorted(path.parent.name for name in (MANIFEST, BEGUN) for path in folder.glob(f"*/{name}"))
    return f"other runs ({', '.join(runs[:TOLD])}{', ...' if len(runs) > TOLD else ''})" if runs else ""


def _must_stay(folder: Path, inputs: Mapping[str, str | Path], whole: bool, writes: Sequence[str]) -> str:
    """Describe what emptying, or replacing, a folder would delete that is not the old run's; empty when there is nothing."""
    before = set() if whole else _before(folder)
    where = folder.resolve()

    def deleted(path: Path) -> bool:
        found = path.resolve()
        return found == where or (found.is_relative_to(where) and found.relative_to(where).parts[0] not in before)

    for item in inputs.values():
        if deleted(Path(item)):
            return f"{item}, which this command reads"
    working = next(filter(deleted, _held_below(folder)), None)
    if working is not None:
        return f"{working}, which is in use{_owner(working)}"
    path = _about(folder)
    there = {} if path is None or whole else read_record(path)
    own = {name.partition("/")[0] for name in writes if "/" in name}  # such as the copy of a backbone, with its manifest
    runs = [run for run in _runs_below(folder) if run.relative_to(folder).parts[0] not in own and deleted(run)]
    runs = [run for run in runs if not _is_part(run, there)]
    return f"the run in {runs[0]}, which another command made (move it elsewhere to keep it)" if runs else ""


def _is_part(run: Path, above: Mapping[str, Any]) -> bool:
    """Whether a run below another was a stage of that, as those of a pipeline are: another stage of the same command."""
    path = _about(run)
    assert path is not None
    try:
        there = read_record(path)
    except RoboprefError:
        return False
    said = [shlex.split(str(record.get("command", "")))[:2] for record in (there, above)]
    return there["stage"] != above.get("stage") and said[0] == said[1]


def _runs_below(folder: Path) -> list[Path]:
    """Folders of runs, finished or not, at any depth."""
    found = {path.parent for name in (MANIFEST, BEGUN) for path in folder.rglob(name) if path.parent != folder}
    return sorted(found)


def _held_below(folder: Path) -> Iterator[Path]:
    """Folders at any depth in which a process works."""
    for lock in folder.rglob(f".*{LOCK}"):
        yield from [lock.with_name(lock.name[1 : -len(LOCK)])] if _is_held(lock) else []
    for lock in folder.rglob(LOCK):
        yield from [lock.parent] if lock.parent != folder and _is_held(lock) else []


def _is_held(lock: Path) -> bool:
    """Whether a process has this lock, which stays as it is."""
    try:
        handle = os.open(lock, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:  # another user's
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def _before(folder: Path) -> set[str]:
    """What was in the folder before the first run."""
    path = _about(folder)
    names = [] if path is None else read_record(path).get("before", [])
    return {str(name) for name in names} if isinstance(names, list) else set()


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _begun(stage: str, config: Any, before: Collection[str]) -> dict[str, Any]:
    return {
        "stage": stage,
        "config": config,
        "before": sorted(before),
        "process": os.getpid(),
        "machine": platform.node(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "began": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _owner(folder: Path) -> str:
    """By whom a folder is in use, as far as is known."""
    until = time.monotonic() + OWNER_S
    while time.monotonic() < until:
        with suppress(RoboprefError, KeyError):
            there = read_record(folder / BEGUN)
            if there["machine"] != platform.node() or lives(int(there["process"])):  # and was not left by a killed run
                return f" by process {there['process']} on {there['machine']} since {there['began']} ({there['command']})"
        time.sleep(OWNER_S / 50)
    return ""


def _has_files(folder: Path) -> bool:
    """Whether anything is in the folder or below it but for what is written here, and empty folders."""
    return any(not path.is_dir() and path not in (folder / BEGUN, folder / LOCK) for path in folder.rglob("*"))


def _empty(folder: Path, before: Collection[str]) -> None:
    """Delete all but what was there `before`, the lock, and what says which run this was, which is written over last."""
    for path in folder.iterdir():
        if path.name not in (LOCK, MANIFEST, BEGUN, *before):
            remove(path)


def _remove_partial(folder: Path) -> None:
    """Remove what killed runs were writing in the folder, and aside of it when they replaced it: the lock is ours.

    What lies where another process works, or was begun by one that lives, stays.
    """
    held = list(_held_below(folder))
    for path in [*abandoned(folder.rglob("*")), *folder.rglob(SAFETENSORS)]:
        aside = any(path.parent == other.parent and path.name.startswith(f".{other.stem}.") for other in held)
        if not aside and not any(path.is_relative_to(other) for other in held):
            with suppress(OSError):
                remove(path)
    remove_abandoned(folder)
