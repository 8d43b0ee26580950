"""Two processes that are told to make the same: one does, the other is told by whom, or that it is done, and nothing is mixed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from small_commands import AFTER, FURTHER, MAKING, MAKING_FURTHER, PLAIN, words, write_toys
from test_full_disk import contents

from robopref.configs import cli

ROBOPREF = [sys.executable, "-c", "import sys; from robopref.configs.cli import main; sys.argv[0] = 'robopref'; sys.exit(main())"]
COMMANDS = {**PLAIN, **AFTER, **FURTHER}
FAST = ("evaluate", "prof")
SLOW = [name for name in COMMANDS if name not in (*FAST, "unseen")]  # that one's fifty tasks take minutes
NEVER_DONE = ("push",)  # is written anew, whole, whoever is last


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    before = Path.cwd()
    os.chdir(folder)
    write_toys(folder)
    try:
        for command in (*MAKING, *MAKING_FURTHER):
            assert cli.main(words(command, folder, folder)) == 0
    finally:
        os.chdir(before)
    return folder


def start(typed: list[str], folder: Path) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([*ROBOPREF, *typed], stdout=pipe, stderr=pipe, text=True, cwd=folder)


def together(name: str, folder: Path, made: Path | None = None) -> None:
    write_toys(folder)
    command = COMMANDS[name].replace("--out episodes", "--out OUT/episodes")
    both = [start(words(command, "out", made or folder), folder) for _ in range(2)]
    told = [process.communicate() for process in both]
    statuses = [process.returncode for process in both]
    assert sorted(statuses) in ([0, 0], [0, 1]), told
    if 1 in statuses:
        second = statuses.index(1)
        line, first = told[second][1].splitlines()[-1], both[1 - second].pid
        assert re.fullmatch(
            rf"error: out\S* is in use by process {first} on .* since .* \(robopref .*\): wait for it, or choose another .*", line
        )
    elif name not in NEVER_DONE:
        assert sum("already done" in out for out, _ in told) == 1, told
    assert not any("Traceback" in err for _, err in told), told
    (folder / "out").rename(folder / "both")
    alone = start(words(command, "out", made or folder), folder)  # by the same name: settings of models hold paths
    assert alone.communicate() and alone.returncode == 0
    assert contents(folder / "both") == contents(folder / "out")
    left = {path.name for path in (folder / "out").rglob("*") if path.name.startswith(".") or path.name == "run.json"}
    assert left <= {".lock"}


@pytest.mark.parametrize("name", FAST)
def test_of_two_one_makes_it(name, tmp_path):
    together(name, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SLOW)
def test_of_two_one_makes_it_whatever_the_command(name, made, tmp_path):
    together(name, tmp_path, made)


def test_a_lock_file_of_a_killed_process_does_not_matter(tmp_path, capsys):
    """The kernel ends a lock with its process; the file that stays says nothing, and so does run.json of that process."""
    out = tmp_path / "out"
    typed = words(PLAIN["evaluate"], out)
    with start(typed, tmp_path) as process:
        while not (out / "run.json").exists():
            assert process.poll() is None
        process.kill()
    assert process.returncode == -9 and (out / ".lock").exists() and (out / "run.json").exists()
    assert cli.main(typed) == 0 and (out / "success.csv").exists() and not (out / "run.json").exists()
    assert "already done" not in capsys.readouterr().out
