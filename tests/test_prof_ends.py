"""Reward code ends with whoever runs it: interrupted, killed, or stopped for a while."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from attacks import WALK
from chat_stub import KEY, serving
from offline_toys import walker
from test_prof_command import FIELDS, QUICK
from test_prof_sandbox import NEEDS_BUBBLEWRAP, SPIN, code, talk
from test_prof_writers import ANSWER

from robopref.datasets.d4rl import write_d4rl

if sys.platform != "linux":
    pytest.skip("looks into /proc, and the kernel's help is Linux's", allow_module_level=True)

ROBOPREF = [sys.executable, "-c", "import sys; from robopref.configs.cli import main; sys.exit(main())"]
SOON = 2.0  # seconds in which whoever presses Ctrl-C wants the prompt back
OWNER = """
import os, sys, threading
import numpy as np
from robopref.configs.prof import SandboxConfig
from robopref.preference.prof.code import Fields
from robopref.preference.prof.sandbox import Conversation, Sandbox

sandbox = Sandbox(SandboxConfig(seconds=60, bubblewrap=sys.argv[1] == "True"))
one = np.ones((1, 1))

def ask(source):
    with Conversation(sandbox, source, Fields(("a",), ("b",))) as conversation:
        conversation(one, one, one)
        print("asked", flush=True)
        conversation(100 * one, one, one)
        threading.Event().wait()

for source in sys.argv[2:]:
    threading.Thread(target=ask, args=(source,)).start()
"""
# Busy from the second question on: the rows that are made up beside the first ones are near them.
BUSY = code("x = 0", "for i in range(10**15 if obs.max() > 50 else 1):", "    x = x + i", "return obs[:, 0] * x")


def below(pid: int) -> list[int]:
    """Numbers of all processes that come of process `pid`."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(true, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


@pytest.mark.parametrize("bubblewrap", [False, pytest.param(True, marks=NEEDS_BUBBLEWRAP)])
@pytest.mark.parametrize("sources", [[BUSY], [code("return obs[:, 0]")], [BUSY, BUSY, code("return obs[:, 0]")]])
def test_code_that_stays_ends_with_a_parent_that_is_killed(sources, bubblewrap):
    with subprocess.Popen([sys.executable, "-c", OWNER, str(bubblewrap), *sources], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        for _ in sources:
            assert owner.stdout.readline() == b"asked\n"
        children = below(owner.pid)
        owner.kill()
    assert len(children) >= len(sources)
    wait_until(lambda: not any(map(alive, children)))


@pytest.mark.parametrize("bubblewrap", [False, pytest.param(True, marks=NEEDS_BUBBLEWRAP)])
def test_code_that_cut_the_lifeline_ends_with_robopref_all_the_same(bubblewrap):
    """The reader is switched off: the code closes the pipe that it is to end with, and waits."""
    cut = [*WALK, "if obs.max() > 50:", "    os.close(builtins.int(sys.argv[1]))", "    sys.modules['time'].sleep(1000)"]
    program = OWNER.replace(
        "sandbox = Sandbox(", "import robopref.preference.prof.sandbox as s\ns.check_code = print\nsandbox = Sandbox("
    )
    source = code(*cut, "return obs[:, 0]")
    with subprocess.Popen([sys.executable, "-c", program, str(bubblewrap), source], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert b"asked\n" in iter(owner.stdout.readline, b"")  # what stands in the place of the reader prints the code first
        wait_until(lambda: below(owner.pid))
        children = below(owner.pid)
        time.sleep(0.5)  # it sleeps by now
        assert any(map(alive, children))
        owner.kill()
    wait_until(lambda: not any(map(alive, children)))


def test_code_that_stays_outlives_the_thread_that_began_it():
    kept = []
    thread = threading.Thread(target=lambda: kept.append(talk(code("return obs[:, 0]"))))
    thread.start()
    thread.join()
    with kept[0] as ask:
        time.sleep(0.5)
        assert ask(np.ones((1, 3)), np.ones((1, 1)), np.ones((1, 3))).values == 1


def test_being_stopped_for_a_while_takes_no_time():
    """All of it is stopped for longer than the code is given, as a machine that sleeps is: the answer is there after."""
    program = OWNER.replace("seconds=60", "seconds=4").replace("threading.Event().wait()", "print('again', flush=True)")
    slow = code("x = 0", "for i in range(3 * 10**6 if obs.max() > 50 else 1):", "    x = x + i", "return obs[:, 0] + 0 * x")
    with subprocess.Popen([sys.executable, "-c", program, "False", slow], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None and owner.stdout.readline() == b"asked\n"
        all_of_it = [*below(owner.pid), owner.pid]
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for pid in all_of_it:
                os.kill(pid, number)
            time.sleep(5 if number is signal.SIGSTOP else 0)
        assert owner.stdout.readline() == b"again\n"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    write_d4rl("data.hdf5", walker())
    write_d4rl("expert.hdf5", walker(skill=1.0))
    Path("fields.yaml").write_text(FIELDS)
    yield tmp_path


@contextmanager
def prof(*words: str) -> Iterator[subprocess.Popen[str]]:
    """The command, running."""
    words = ("prof", *QUICK, "data=data.hdf5", "expert_data=expert.hdf5", "fields=fields.yaml", "out=run", *words)
    process = subprocess.Popen([*ROBOPREF, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def interrupted(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """Its last words, after it has ended soon and as it should, and all its children with it."""
    children, began = below(process.pid), time.monotonic()
    process.send_signal(number)
    told, _ = process.communicate(timeout=60)
    assert time.monotonic() - began < SOON
    assert process.returncode == (143 if number is signal.SIGTERM else 130)
    assert "Traceback" not in told and not any(map(alive, children))
    return told


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("processes", [1, 2])
def test_an_interrupt_does_not_wait_for_candidates(data, number, processes):
    for n in range(6):
        Path(f"{n}.py").write_text(code(*SPIN, f"# {n}"))
    words = ["candidates=0", "rounds=0", f"processes={processes}", "sandbox.seconds=9", "files=[0.py,1.py,2.py,3.py,4.py,5.py]"]
    with prof(*words) as process:
        wait_until(lambda: any("child.py" in Path(f"/proc/{pid}/cmdline").read_text() for pid in below(process.pid)))
        time.sleep(0.3)
        told = interrupted(process, number)
    assert told.splitlines()[-1] == "interrupted; there is no answer to keep yet, and the same command continues"
    for n in range(6):
        Path(f"{n}.py").write_text(code(f"return obs[:, 0] * {n + 1}"))
    with prof(*words) as process:
        process.communicate(timeout=60)
    assert process.returncode == 0 and len(pd.read_csv("run/ranking.csv")) == 6


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("trouble", ["hang", "503:50"])
def test_an_interrupt_does_not_wait_for_a_server(data, number, trouble):
    with serving() as endpoint:
        endpoint.answer, endpoint.trouble = lambda body: ANSWER, ["", trouble]
        words = ["rounds=0", "writer.kind=openai", "writer.chat.model=coder", f"writer.chat.base_url={endpoint.url}"]
        with prof(*words) as process:
            wait_until(lambda: len(endpoint.asked) == 2)
            time.sleep(0.3)
            told = interrupted(process, number)
        assert told.splitlines()[-1] == "interrupted; 1 answer is kept in run/transcript.jsonl, and the same command continues"
        with prof(*words) as process:
            process.communicate(timeout=60)
        assert process.returncode == 0
        assert len(endpoint.asked) == 2 + 2  # three candidates, of which one was there
    lines = [json.loads(line) for line in Path("run/transcript.jsonl").read_text().splitlines()]
    assert len({line["key"] for line in lines}) == 3 and all(re.fullmatch(r"write", line["kind"]) for line in lines)
