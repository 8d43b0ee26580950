"""What every stage does around its work: seed, write a manifest, ask whether the work is already done, log metrics.

A manifest (`manifest.json`, beside a stage's output) says from which settings, code, packages, seed and inputs the
output was made; `is_complete` compares it with what is asked for, so that a finished stage may be skipped.
"""

from __future__ import annotations

import csv
import importlib.metadata
import io
import itertools
import os
import platform
import random
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from .digests import DIGESTS, SEAL, file_digest, name_in, seal
from .errors import RoboprefError, one_line
from .files import BEGUN, MANIFEST, append, atomic_file, differences, digest, plain, read_record, without, write_json
from .progress import Progress

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_NUMBERS = itertools.count()  # of event files that one process writes in one second
ASKED_FIRST = ("return", "success", "accuracy")  # of all metrics, by whoever watches
_PACKAGES = (
    "torch",
    "numpy",
    "mujoco",
    "metaworld",
    "gymnasium",
    "minari",
    "h5py",
    "pyarrow",
    "pandas",
    "scikit-learn",
)


def seed_everything(seed: int) -> np.random.Generator:
    """Seed Python, numpy and torch globally (libraries draw from them); returns the generator for our own code."""
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    return np.random.default_rng(seed)


def choose_device(name: str) -> torch.device:
    """`auto` becomes a GPU where there is one; RoboprefError, naming what there is, for a device that is not there."""
    import torch

    there = devices()
    if name == "auto":
        return torch.device("cuda" if "cuda" in there else "cpu")
    if name not in there:
        raise RoboprefError(f"device={name} is not there: use auto or one of this machine's, {', '.join(there)}")
    return torch.device(name)


def devices() -> list[str]:
    """What there is to compute on: cpu, and where torch sees GPUs cuda, cuda:0, ..."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return ["cpu", *(["cuda"] if count else []), *(f"cuda:{number}" for number in range(count))]


def write_manifest(
    folder: str | Path,
    stage: str,
    config: Any,
    inputs: Mapping[str, str | Path],
    seed: int | Iterable[int],
    started: float,
    outputs: Iterable[str | Path] = (),
    may_go: Iterable[str | Path] = (),
) -> Path:
    """Write `folder/manifest.json`; the last thing that a stage does.

    config: dataclass or mapping.  inputs: name -> file or folder that was read.  seed: one, or one a member.
    started: `time.time()` when the stage began.  outputs: files or folders inside `folder` that must stay there for the
    stage to count as complete; may_go: others, which are large and may be deleted.  Of files the manifest holds the sha256,
    which their readers compare (digests.py).  Raises RoboprefError when an input or output is missing.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    large = [folder / _inside(folder, item) for item in may_go]
    written = {_inside(folder, item): folder / _inside(folder, item) for item in outputs}
    kilobytes = 1024 if sys.platform == "darwin" else 1  # ru_maxrss is in bytes there, in kilobytes on Linux
    manifest = {
        "stage": stage,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "wall_s": round(time.time() - started, 3),
        "peak_mb": round(usage[0] / kilobytes / 1024, 1),  # of the process so far: earlier stages of a pipeline count
        "peak_child_mb": round(usage[1] / kilobytes / 1024, 1),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "config": config,
        "seeds": [seed] if isinstance(seed, int) else list(seed),
        "inputs": {name: {"path": str(item), "sha256": digest(item)} for name, item in inputs.items()},
        "outputs": {name: _size(path) for name, path in written.items()},
        DIGESTS: {name_in(folder, path): file_digest(path) for path in (*written.values(), *large) if path.is_file()},
        "robopref": _version("robopref"),
        "code": code_version(),
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "machine": {"system": platform.platform(), "cpu": processor(), "cores": os.cpu_count(), "gpu": _gpu()},
    }
    before = read_record(folder / BEGUN).get("before") if (folder / BEGUN).exists() else None
    if before:  # which whoever overwrites the run must know
        manifest["before"] = before
    told = plain(manifest)
    write_json(path, told | {SEAL: seal(told)})
    return path


def is_complete(folder: str | Path, config: Any, inputs: Mapping[str, str | Path]) -> bool:
    """Whether `folder` holds the finished result of this config on inputs of these contents, outputs still in place.

    What does not matter to the result (files.NO_MATTER), such as where it lies and on how many threads it was made, may differ.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).exists():
        return False
    manifest = read_record(folder / MANIFEST)
    try:
        if any(differences(without(manifest["config"]), without(plain(config)))):
            return False
        if manifest["inputs"].keys() != dict(inputs).keys():
            return False
        if any(_size(folder / name) != size for name, size in manifest["outputs"].items()):
            return False
        return all(manifest["inputs"][name]["sha256"] == digest(item) for name, item in inputs.items())
    except RoboprefError:  # an input or output is gone: the stage must run, and says what is missing if it cannot
        return False


def processor() -> str:
    """The processor's name as the system has it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def code_version() -> dict[str, Any] | None:
    """{"commit": sha, "dirty": bool} of the checkout that this package runs from; None for an installed wheel."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    git = ["git", "-C", str(root)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):  # no git program, no commit yet, or another user's checkout
        return None
    return {"commit": commit, "dirty": bool(changed.strip())}


class MetricsLogger:
    """Scalars of a training run, to `folder/metrics.csv` (one row a step, one column a name) and TensorBoard.

    Whoever watches a terminal sees the latest of them on one line that is written over; a log gets the step once a minute.

    total: the last step.
    resume_step: the step of the checkpoint that training continues from; rows after it are dropped, since they will be
    written again.  The default starts anew.  Usable as a context manager.
    """

    def __init__(self, folder: str | Path, resume_step: int = -1, total: int | None = None) -> None:
        self.path = Path(folder) / "metrics.csv"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._rows = [row for row in _read_rows(self.path) if int(row["step"]) <= resume_step] if resume_step >= 0 else []
        self._columns = ["step"]
        for row in self._rows:
            self._columns += [name for name in row if name not in self._columns]
        if self.path.exists():
            self._rewrite()
        self._first = resume_step + 1
        self._board: EventFile | None = None
        self._progress = Progress(f"{Path(folder).name}: step", total, max(resume_step, 0))
        self._latest: dict[str, float] = {}

    def log(self, step: int, metrics: Mapping[str, float | Tensor]) -> None:
        """Add `metrics` (name such as `losses/vlp` -> number or 0-d tensor) at `step`."""
        values = {name: float(value) for name, value in metrics.items()}
        row = {"step": str(step)} | {name: repr(value) for name, value in values.items()}
        self._rows.append(row)
        new = [name for name in row if name not in self._columns]
        if new:
            self._columns += new
            self._rewrite()
        else:
            line = io.StringIO()
            csv.DictWriter(line, self._columns, restval="", lineterminator="\n").writerow(row)
            append(self.path, line.getvalue().encode())
        if self._board is None:  # not before there is something to tell, so that a run that fails at once leaves nothing
            self._board = EventFile(self.path.parent, self._first)
        self._board.add(step, values)
        self._latest |= values
        names = sorted(self._latest, key=lambda name: not name.endswith(ASKED_FIRST))
        self._progress.show(step, "  ".join(f"{name} {self._latest[name]:.4g}" for name in names))

    def close(self) -> None:
        """End the line on the terminal; the files are already whole after every `log`."""
        self._progress.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _rewrite(self) -> None:
        with atomic_file(self.path) as temp, temp.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(self._rows)


class EventFile:
    """Scalars for TensorBoard, all of a step or none; its own writer has a thread, whose errors come late, with a traceback."""

    def __init__(self, folder: Path, purge_step: int) -> None:
        """purge_step: TensorBoard forgets what an earlier run has written from this step on."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        name = f"events.out.tfevents.{time.time():010.0f}.{platform.node()}.{os.getpid()}.{next(_NUMBERS)}"
        self.path = folder / name
        version = Event(wall_time=time.time(), file_version="brain.Event:2")
        start = Event(wall_time=time.time(), step=purge_step, session_log=SessionLog(status=SessionLog.START))
        self._write([version, start])

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """The values (by name) of a step."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        summaries = [Summary(value=[Summary.Value(tag=name, simple_value=value)]) for name, value in values.items()]
        self._write([Event(wall_time=time.time(), step=step, summary=summary) for summary in summaries])

    def _write(self, events: Sequence[Any]) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        records = io.BytesIO()
        writer = RecordWriter(records)
        for event in events:
            writer.write(event.SerializeToString())
        append(self.path, records.getvalue())


def _read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics.csv without empty cells; a last line cut by a kill is left out.

    RoboprefError naming the file and the line when it is not as `MetricsLogger` wrote it.
    """
    if not path.exists():
        return []
    remedy = "restore it, or delete it: the curves then begin where the run goes on"
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except UnicodeDecodeError as error:
        raise RoboprefError(f"{path} is not UTF-8 text ({error}); {remedy}") from error
    reader = csv.DictReader(line for line in lines if line.endswith("\n"))
    rows: list[dict[str, str]] = []
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:  # a quote that is not closed, or a cell as long as a book
            raise RoboprefError(f"{path}, line {reader.line_num}: no row of metrics ({one_line(error)}); {remedy}") from error
        if row is None:
            return rows
        step = row.get("step") or ""
        if None in row or not step.isdecimal() or len(step) > 18:  # digits of 64 bits
            raise RoboprefError(f"{path}, line {reader.line_num}: no row of metrics with a whole number in column step; {remedy}")
        rows.append({name: value for name, value in row.items() if value})


def _inside(folder: Path, item: str | Path) -> str:
    item = Path(item)
    return (item.relative_to(folder) if item.is_relative_to(folder) else item).as_posix()


def _size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder: enough to notice that something was deleted or cut."""
    if not path.exists():
        raise RoboprefError(f"{path} is missing although its stage should have written it: run the stage again")
    return path.stat().st_size if path.is_file() else sum(f.stat().st_size for f in path.rglob("*") if f.is_file())


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gpu() -> str | None:
    torch = sys.modules.get("torch")  # a stage that never imported torch used no GPU, and need not wait for the import
    return torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else None
