"""Every command that writes is killed at random moments and called again, and must end as if nothing had been.

    python tests/kills.py

A command runs once whole.  Then, again and again from an empty folder, it is killed once to four times in a row, and let to its
end.  What is there is compared with what the whole run left: names and contents of all files, but for times.  SIGKILL and SIGTERM
go to the command alone, SIGINT to all its processes, as Ctrl-C in a terminal does.  This program imports everything and forks
itself for every call: kills meet the work and not the imports.  kills.csv goes to `--out`.
"""

# ruff: noqa: E402 (threads are counted when numpy and torch are imported)
from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # a fork has no other threads
    os.environ.setdefault(name, "1")

import argparse
import csv
import gc
import hashlib
import importlib
import json
import logging
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import torch._dynamo  # noqa: F401, by the first optimiser; its C++ does not survive an interrupt in its import
from small_commands import AFTER, FEW_TASKS, FURTHER, MAKING, MAKING_FURTHER, PLAIN, REPORT, words, write_toys
from small_run import make_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from robopref.configs import cli
from robopref.configs.run_folder import LOCK
from robopref.preference import unseen

ROOT = Path(__file__).parents[1]
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
STATUS = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
MOST = 4  # kills in a row
FIRST_S = 0.05  # after the fork, when the command surely has begun
GRACE_S = 20.0  # a worker notices once a second that its parent has gone, but not while it imports
LONG_S = 600.0  # after which a command hangs
SLOW_S = 3.0  # from a signal to the end: worth a line
CACHE = "torchinductor_"  # of torch, in the folder for temporary files
TIMES = {  # keys of JSON files
    *("created", "wall_s", "peak_mb", "peak_child_mb", "command", "code", "seconds", "outputs", "digests", "seal"),
}
MARK = "ROBOPREF_KILLS"
COMMANDS = {**PLAIN, **AFTER, **FURTHER, "report": REPORT}
COUNTED = ("SIGKILL", "SIGTERM", "SIGINT", "resumed", "differences", "leftovers", "tracebacks", "statuses", "orphans")
COLUMNS = ("command", "seconds", *COUNTED, "slowest_end_s")


class InChild(Exception):
    """Raised after the fork, so that the child leaves all that its parent was doing."""

    def __init__(self, typed: Sequence[str], done: Path) -> None:
        self.typed, self.done = list(typed), done


@dataclass
class Running:
    """A command at work."""

    process: int
    log: Path
    began: float
    began_at: float
    mark: str

    @property
    def temporary(self) -> Path:
        """Its TMPDIR."""
        return self.log.with_suffix(".tmp")

    def is_done(self) -> bool:
        """Whether the command has succeeded, though its process may not have ended."""
        return self.log.with_suffix(".done").exists()

    def told(self) -> str:
        """What it has printed."""
        return self.log.read_text(errors="replace")

    def seconds(self) -> float:
        """From its begin to its success; Python then takes time to end, in which there is nothing to stop."""
        return self.log.with_suffix(".done").stat().st_mtime - self.began_at

    def wait(self, until: float) -> int | None:
        """The status, negative for a signal, or None when it is still there at `until`."""
        while True:
            found, status = os.waitpid(self.process, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() >= until:
                return None
            time.sleep(0.002)

    def others(self) -> list[psutil.Process]:
        """Processes that it started and that live: those of its session, and those that inherited its environment."""
        found = []
        for process in psutil.process_iter():
            try:
                ours = os.getsid(process.pid) == self.process or process.environ().get(MARK) == self.mark
                if ours and process.pid != self.process and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def orphans(self) -> int:
        """How many of them outlive it by GRACE_S; they are ended."""
        until = time.monotonic() + GRACE_S
        while (left := self.others()) and time.monotonic() < until:
            time.sleep(0.05)
        for process in left:
            tell(f"    orphan {process.pid}: {' '.join(process.cmdline())[:200]}")
            process.kill()
        return len(left)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=15, help="of each command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", nargs="*", default=list(COMMANDS), choices=list(COMMANDS), metavar="NAME")
    parser.add_argument("--work", type=Path, help="where they run; default: a temporary folder")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results/reliability")
    asked = parser.parse_args()
    table = asked.out / "kills.csv"
    table.parent.mkdir(parents=True, exist_ok=True)
    for target in {part for command in (*cli.COMMANDS.values(), *cli.VARIANTS.values()) for part in command[1:3] if part}:
        importlib.import_module(target.partition(":")[0])
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it tells of runs that went on, at length
    gc.freeze()  # else every fork copies what it looks at when it ends
    unseen.SPLITS = {**unseen.SPLITS, "paper": FEW_TASKS}
    work = (asked.work or Path(tempfile.mkdtemp(prefix="kills-"))).resolve()
    made = work / "made"
    prepare(work, made)
    rows = read(table)
    for name in asked.commands:
        rows[name] = campaign(name, work, made, asked.kills, random.Random(f"{asked.seed} {name}"))
        write(table, rows)


def prepare(work: Path, made: Path) -> None:
    """What the commands read."""
    work.mkdir(exist_ok=True)
    os.chdir(work)
    if (made / "done").exists():
        return
    write_toys(work)
    for number, command in enumerate((*MAKING, *MAKING_FURTHER)):
        running = start(words(command, made, made), work / f"making-{number}.log", "making")
        status = running.wait(running.began + LONG_S)
        if status != 0:
            sys.exit(f"{command}\nended with {status}: see {running.log}")
    make_run(work / "run")
    (made / "done").touch()


def start(typed: Sequence[str], log: Path, mark: str) -> Running:
    """Run a command in a fork of this process, in a session of its own."""
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process:
        running = Running(process, log, time.monotonic(), time.time(), mark)
        while not running.temporary.exists():  # then it has its session and takes signals
            time.sleep(0.002)
        return replace(running, began=time.monotonic(), began_at=time.time())
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell turns off for what it starts in the background
    for number, path, flags in ((0, os.devnull, os.O_RDONLY), (1, log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)):
        os.dup2(os.open(path, flags, 0o644), number)
    os.dup2(1, 2)
    os.environ[MARK] = mark
    running = Running(os.getpid(), log, time.monotonic(), time.time(), mark)
    running.temporary.mkdir()
    os.environ["TMPDIR"] = tempfile.tempdir = str(running.temporary)
    sys.argv = ["robopref", *typed]
    del sys.modules["__main__"].__file__  # its workers would run this program
    raise InChild(typed, log.with_suffix(".done"))


def campaign(name: str, work: Path, made: Path, kills: int, rng: random.Random) -> dict[str, Any]:
    """The row of one command."""
    base = work / re.sub(r"\W+", "-", name)
    shutil.rmtree(base, ignore_errors=True)
    base.mkdir()
    out = base / "out"
    typed = words(COMMANDS[name], out, work / "run" if name == "report" else made)
    if name == "clips":
        typed[typed.index("episodes")] = str(base / "episodes")
    for log in (base / "first.log", base / "whole.log"):  # the first may wait for the disk
        clear(base)
        running = start(typed, log, f"{base}-{log.stem}")
        if (status := running.wait(running.began + LONG_S)) != 0:
            sys.exit(f"{name} ended with {status}: see {log}")
    whole_s = running.seconds()
    expected = contents(base, out)
    tell(f"{name}: {whole_s:.1f} s, {len(expected)} files")
    waiting = [SIGNALS[number % len(SIGNALS)] for number in range(kills)]
    rng.shuffle(waiting)
    row, slowest = Counter(orphans=running.orphans()), 0.0
    while waiting:
        clear(base)
        row["resumed"] += 1
        chain, share = row["resumed"], 1.0
        for attempt in range(min(rng.randint(1, MOST), len(waiting))):
            running = start(typed, base / f"{chain}-{attempt}.log", f"{base}-{chain}-{attempt}")
            moment = rng.uniform(min(FIRST_S, whole_s / 4), share * whole_s)
            share *= 0.7  # there is less and less to be done
            slowest = max(slowest, kill(running, moment, waiting[-1], 2 * whole_s, row))
            if running.is_done():
                whole_s = min(whole_s, running.seconds()) if attempt == 0 else whole_s
                break
            row[waiting.pop().name] += 1
        running = start(typed, base / f"{chain}-end.log", f"{base}-{chain}-end")
        check(running, running.wait(running.began + LONG_S), 0, row)
        found = contents(base, out)
        new = sorted(found.keys() - expected.keys())
        wrong = sorted(path for path in expected if found.get(path) != expected[path])
        row["leftovers"] += bool(new)
        row["differences"] += bool(wrong)
        if new or wrong:
            shutil.copytree(base, kept := work / f"kept-{base.name}-{chain}", dirs_exist_ok=True)
            tell(f"  {kept}: left over {new[:5]}, different {wrong[:5]}")
    clear(base)
    numbers = {column: row[column] for column in COUNTED}
    tell(f"  {numbers}, {slowest:.1f} s at most to end")
    return {"command": name, "seconds": f"{whole_s:.1f}"} | numbers | {"slowest_end_s": f"{slowest:.1f}"}


def kill(running: Running, moment: float, kind: signal.Signals, longest: float, row: Counter[str]) -> float:
    """Send a signal at `moment` (s), unless the command has ended before; the seconds that it then took to end.

    longest: seconds in which it may finish after all, as a training does in its last step.
    """
    if (status := running.wait(running.began + moment)) is not None:
        check(running, status, 0, row)
        return 0.0
    if running.is_done():  # only Python has to end
        check(running, running.wait(running.began + LONG_S), 0, row)
        return 0.0
    sent = time.monotonic()
    (os.killpg if kind == signal.SIGINT else os.kill)(running.process, kind)
    status, took = running.wait(sent + LONG_S), time.monotonic() - sent
    if running.is_done() and status in (0, -kind) and took < max(SLOW_S, longest):  # too late to stop it: it finished
        check(running, 0, 0, row, f"{kind.name} at {moment:.2f} s")
        return 0.0
    check(running, status, STATUS[kind], row, f"{kind.name} at {moment:.2f} s")
    if kind != signal.SIGKILL:
        told = running.told().splitlines()
        left = sorted(path.name for path in running.temporary.iterdir() if not path.name.startswith(CACHE))
        if not any(line.startswith("interrupted; ") for line in told):  # nanobind has more to say in a fork that ends
            row["statuses"] += 1
            tell(f"  {running.log}: {kind.name}, last line {told[-1:]}")
        if left:
            row["leftovers"] += 1
            tell(f"  {running.log}: {kind.name} leaves temporary files {left[:3]}")
        if took > SLOW_S:
            tell(f"  {running.log}: {kind.name} at {moment:.2f} s took {took:.1f} s")
    return took


def check(running: Running, status: int | None, expected: int, row: Counter[str], after: str = "no signal") -> None:
    """Count what is wrong with how a command has ended."""
    if status is None:
        os.kill(running.process, signal.SIGKILL)
        running.wait(time.monotonic() + LONG_S)
    if status != expected:
        row["statuses"] += 1
        tell(f"  {running.log}: {'hangs' if status is None else status} after {after}")
    row["orphans"] += running.orphans()
    if "Traceback" in running.told() or "Exception ignored" in running.told():
        row["tracebacks"] += 1
        shutil.copy(running.log, running.log.with_suffix(".traceback"))
        tell(f"  {running.log.with_suffix('.traceback')} after {after}")


def clear(base: Path) -> None:
    """Remove all but the logs."""
    for path in base.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.suffix not in (".log", ".traceback"):
            path.unlink()


def contents(base: Path, out: Path) -> dict[str, str]:
    """Digests of what a command has left, without the times and rates that are in it; event files count together."""
    found: dict[str, str] = {}
    for path in sorted(path for path in base.rglob("*") if path.is_file()):
        name = path.relative_to(base).as_posix()
        if path.suffix in (".log", ".traceback", ".done") or ".tmp" in path.parts[len(base.parts)] or path.name == LOCK:
            continue
        if path.name.startswith("events."):
            found[f"{path.parent.relative_to(base)}/events"] = digest(json.dumps(scalars(path.parent)).encode())
        else:
            found[name] = digest(untimed(path, out))
    return found


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """TensorBoard's, but for rates."""
    board = EventAccumulator(str(folder))
    board.Reload()
    names = sorted(name for name in board.Tags()["scalars"] if not name.endswith("per_second"))
    return {name: [(event.step, event.value) for event in board.Scalars(name)] for name in names}


def untimed(path: Path, out: Path) -> bytes:
    """The content of a file without times, rates and digests of what holds them."""
    if path.name == "metrics.csv":
        table = pd.read_csv(path)
        return table.drop(columns=[name for name in table if name.endswith("per_second")]).to_csv(index=False).encode()
    if path.suffix == ".json":
        return json.dumps(without(json.loads(path.read_text()))).encode()
    if path.name == "transcript.jsonl":
        return json.dumps([without(json.loads(line)) for line in path.read_text().splitlines()]).encode()
    if path.name == "report.html":
        return re.sub(r"\d", "", path.read_text()).encode()  # of times, and of pictures' names
    return path.read_bytes()


def without(tree: Any) -> Any:
    """JSON without TIMES, at any depth."""
    if isinstance(tree, dict):
        return {key: without(value) for key, value in tree.items() if key not in TIMES}
    return [without(value) for value in tree] if isinstance(tree, list) else tree


def read(table: Path) -> dict[str, dict[str, Any]]:
    """Rows of earlier calls, which this one replaces by name."""
    if not table.exists():
        return {}
    with table.open(newline="") as file:
        return {row["command"]: row for row in csv.DictReader(file)}


def write(table: Path, rows: dict[str, dict[str, Any]]) -> None:
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[name] for name in COMMANDS if name in rows)


def tell(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    child: InChild | None = None
    try:
        main()
    except InChild as found:
        child = found
    if child is not None:
        status = cli.main(child.typed)
        if status == 0:
            child.done.touch()
        sys.exit(status)
