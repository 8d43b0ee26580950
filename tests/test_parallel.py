"""Jobs on several processes: results in order, and no worker outlives its command, however that ends."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from multiprocessing import active_children
from pathlib import Path

import pytest

from robopref.configs.errors import RoboprefError
from robopref.configs.parallel import in_processes
from robopref.preference import drawing

TRAINING = """
import os, sys, time
from pathlib import Path
from robopref.configs import cli
from robopref.configs.parallel import in_processes

def train(folder, number):
    Path(folder, f"{number}.pid").write_text(str(os.getpid()))
    time.sleep(300)

def command(argv):
    list(in_processes(train, [(argv[0], 0), (argv[0], 1)], 2))

cli.COMMANDS["toy"] = cli.Command("a toy", "__main__:command")
sys.modules["__main__"].command = command
sys.exit(cli.main(["toy", sys.argv[1]]))
"""


def slow_first(number: int) -> tuple[int, int]:
    time.sleep(0.5 if number == 0 else 0.0)
    return number, os.getpid()


def fail(number: int) -> int:
    if number == 1:
        raise RoboprefError("episode 1 is damaged")
    return number


def test_results_come_in_the_order_of_the_jobs_from_other_processes():
    results = list(in_processes(slow_first, [(number,) for number in range(5)], 2))
    assert [number for number, _ in results] == list(range(5))
    pids = {pid for _, pid in results}
    assert os.getpid() not in pids and len(pids) == 2
    assert not any(alive(pid) for pid in pids)  # none is left to hold memory


def test_one_process_is_this_one():
    assert list(in_processes(slow_first, [(3,)], 8)) == [(3, os.getpid())]
    assert list(in_processes(slow_first, [], 2)) == []


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_in_a_job_is_the_command_s(processes):
    with pytest.raises(RoboprefError, match="episode 1 is damaged"):
        list(in_processes(fail, [(0,), (1,), (2,)], processes))


@pytest.mark.parametrize("kill, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_workers_end_with_a_killed_command(tmp_path: Path, kill, status):
    script = tmp_path / "script.py"
    script.write_text(TRAINING)
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)], stderr=subprocess.DEVNULL, preexec_fn=heed_interrupts
    )
    try:
        files = [tmp_path / f"{number}.pid" for number in (0, 1)]
        wait_for(lambda: all(file.exists() and file.read_text() for file in files))
        workers = [int(file.read_text()) for file in files]
        assert all(alive(pid) for pid in workers)
        process.send_signal(kill)
        assert process.wait(30) == status
        wait_for(lambda: not any(alive(pid) for pid in workers))
    finally:
        process.kill()


def heed_interrupts() -> None:
    """What a shell starts with `&` ignores SIGINT, and so would every child of tests that run in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def alive(pid: int) -> bool:
    """Running, that is neither gone nor a zombie that nobody has waited for."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_for(true, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


FAULTS = """
import resource, sys
import numpy as np
from robopref.configs.parallel import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
for number in range(12):
    if number == 2:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays = [np.full(2**19, number, np.float32) for _ in range(16)]
    del arrays
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 160)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_memory_is_kept() -> None:
    def faults(word: str) -> float:
        """Pages asked for again, for every array of 512 pages."""
        return float(subprocess.run([sys.executable, "-c", FAULTS, word], capture_output=True, text=True, check=True).stdout)

    assert faults("leave") > 100
    assert faults("keep") < 1


STARTING = """
import sys, time
from robopref.configs.cli import guarded
from robopref.configs.parallel import in_processes

def job():
    print("begun", flush=True)
    list(in_processes(time.sleep, [(60,)] * 4, 2))

sys.exit(guarded(job))
"""
DRAWING = """
import sys, time
from types import SimpleNamespace
from robopref.configs.cli import guarded
from robopref.preference import drawing

drawing._Worker.__init__ = lambda *_: None
drawing._Worker.__call__ = lambda *_: time.sleep(60)

def job():
    with drawing.Drawers(None, [], 2) as drawers:
        print("begun", flush=True)
        list(drawers.draw(SimpleNamespace(camera="", frame_size=1, frames=1), [[0]] * 4))

sys.exit(guarded(job))
"""


@pytest.mark.parametrize("script", [STARTING, DRAWING], ids=["starting", "drawing"])
@pytest.mark.parametrize("moment", [0.3, 1.0])
def test_a_terminals_interrupt_is_one_line_whatever_workers_do(script: str, moment: float):
    """They start, which is long with all imports, or they draw what takes long."""
    command = [sys.executable, "-c", script]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, start_new_session=True, preexec_fn=heed_interrupts
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        time.sleep(moment)
        began = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        told = process.communicate(timeout=60)[1]
        assert time.monotonic() - began < 10  # a loaded machine; what they do takes a minute
    assert told == "interrupted; what was finished is kept, and the same command continues\n" and process.returncode == 130


@pytest.mark.parametrize("name", ["submit", "shutdown"])
def test_an_interrupt_while_drawers_start_or_end_leaves_no_worker(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While they end, Python 3.11 forgets that it waits for them, tells none to go and waits for them when it ends itself."""
    others = active_children()
    drawers = drawing.Drawers(None, [], 2)
    call, left = getattr(drawing.ProcessPoolExecutor, name), [KeyboardInterrupt]

    def interrupted(*given: object, **named: object) -> object:
        made = call(*given, **named) if name == "submit" or not left else None
        if left:
            raise left.pop()
        return made

    monkeypatch.setattr(drawing.ProcessPoolExecutor, name, interrupted)
    with pytest.raises(KeyboardInterrupt), drawers:
        assert name == "shutdown"
    assert drawers._workers
    wait_for(lambda: not [child for child in active_children() if child not in others], 5)
