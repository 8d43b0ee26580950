"""Commands on a full disk, and on one that nobody may write: one line that names the file, and the same command goes on after.

docs/reliability.md has the table.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_commands import AFTER, MAKING, PLAIN, REPORT, SAC, words, write_toys
from small_disk import lock, make_room, small_disk
from small_run import make_run
from test_readme import commands

from robopref.configs import cli, files
from robopref.configs.errors import RoboprefError
from robopref.configs.files import RESERVE, append
from robopref.configs.run import MetricsLogger
from robopref.policies.experience import ExperienceMemory

KB = 1024


@pytest.fixture(autouse=True)
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_toys(tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    for command in MAKING:
        assert cli.main(words(command, "", folder)) == 0
    return folder


def contents(folder: Path) -> dict[str, str]:
    """Digests of what a run leaves, but for what holds times."""
    timed = ("events.", "manifest", "transcript", "metrics.csv", "films.json", "report.html", "README.md")
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith((".", *timed))]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def fails(command: str, out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The error line of a command that fails as it should."""
    capsys.readouterr()
    assert cli.main(words(command, out)) == 1
    told = capsys.readouterr().err
    line = told.splitlines()[-1]
    assert line.startswith("error: ") and str(out.parent) in line and "Traceback" not in told
    return line


def survives(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], shares: tuple[float, ...]) -> None:
    """The command, on disks that hold these shares of what it needs, and then with room; and on one that nobody may write."""
    disk = tmp_path / "disk"
    with small_disk(disk, 300 * KB**2):
        assert cli.main(words(command, disk / "out")) == 0
        needed, expected = shutil.disk_usage(disk).used, contents(disk / "out")
    kept_free = RESERVE if "protocol=d4rl" in command else 0  # below it, HDF5 files are not begun
    for share in shares:
        with small_disk(disk, max(8 * KB, int(kept_free + share * needed))):
            line = fails(command, disk / "out", capsys)
            assert "free some space" in line or "Is the disk full?" in line
            make_room(disk)
            assert cli.main(words(command, disk / "out")) == 0
            assert contents(disk / "out") == expected
    with small_disk(disk, KB**2):
        (disk / "out").mkdir()
        lock(disk)
        assert "ead-only" in fails(command, disk / "out", capsys)


@pytest.mark.parametrize("command", ["prof"])
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(command, tmp_path, capsys):
    survives(PLAIN[command], tmp_path, capsys, (0.0, 0.3, 0.6, 0.9))


@pytest.mark.slow
@pytest.mark.parametrize("command", [name for name in PLAIN if name != "prof"])
def test_a_full_disk_is_one_line_for_every_command(command, tmp_path, capsys):
    survives(PLAIN[command], tmp_path, capsys, (0.0, 0.5, 0.85))


@pytest.mark.slow
@pytest.mark.parametrize("command", AFTER)
def test_a_full_disk_is_one_line_for_every_command_that_reads_what_others_made(command, made, tmp_path, capsys):
    survives(AFTER[command].replace("MADE", str(made)), tmp_path, capsys, (0.0, 0.7))


def test_a_report_on_a_full_disk_is_one_line(tmp_path, capsys):
    make_run(tmp_path / "run")
    survives(REPORT.replace("MADE", str(tmp_path / "run")), tmp_path, capsys, (0.0, 0.7))


def test_every_command_of_the_readme_is_tried_on_a_full_disk(root):
    tried = {command.split()[0] for command in (*PLAIN.values(), *AFTER.values(), REPORT)}
    elsewhere = {"bench", "pipeline", "unseen"}  # they are made of these
    assert tried | elsewhere == {line.split()[0] for line in commands(root / "README.md")} == set(cli.COMMANDS)


def test_experience_on_a_full_disk_is_no_signal(tmp_path):
    """In a process of its own: what it must not do is die of SIGBUS."""
    program = [sys.executable, "-c", "import sys; from robopref.configs.cli import main; sys.exit(main())"]
    with small_disk(tmp_path / "disk", 48 * KB) as disk:
        ended = subprocess.run([*program, *words(SAC, disk / "out")], capture_output=True, text=True)
        assert ended.returncode == 1 and not list(disk.iterdir())
    line = ended.stderr.splitlines()[-1]
    path = disk / "out" / "experience.npy"
    assert line.startswith(f"error: {path} needs 50.4 KiB on the disk for 300 transitions of 43 numbers, and ")
    assert line.endswith(" KiB are free: free some space, choose another out=, or lower frames= or capacity=")


def test_experience_keeps_room_for_what_will_be_added(tmp_path, monkeypatch):
    folder = tmp_path / "memory"
    memory = ExperienceMemory(folder, "mujoco/x", 2, 1, capacity=1_000_000, most=20_000)
    path = folder / "experience.npy"
    assert memory.rows.shape == (1_000_000, 8) and 20_000 * 32 <= path.stat().st_blocks * 512 < 2 * 20_000 * 32
    memory.add(np.ones(2), np.ones(1), 3.0, False, np.ones(2))
    memory.flush()
    holes = tmp_path / "holes"
    subprocess.run(["cp", "-r", "--sparse=always", str(folder), str(holes)], check=True)  # as earlier versions left it
    for allocate in (None, refuse):  # also where the file system can only be written to
        if allocate:
            monkeypatch.setattr(files.os, "posix_fallocate", allocate)
        again = ExperienceMemory(shutil.copytree(holes, tmp_path / f"again-{allocate}"), "mujoco/x", 2, 1, 1_000_000, most=20_000)
        assert Path(again.path).stat().st_blocks * 512 >= 20_000 * 32
        assert again.rows[0].tolist() == [1, 1, 1, 3, 0, 0, 1, 1] and not again.rows[1:].any()


def refuse(*args: object) -> None:
    raise OSError(files.errno.EOPNOTSUPP, "not supported")


def test_what_is_appended_is_there_as_a_whole_or_not_at_all(tmp_path):
    with small_disk(tmp_path / "disk", 12 * KB) as disk:
        append(disk / "log", b"a" * 5000)
        with pytest.raises(RoboprefError, match=rf"{disk}/log could not be written .*No space left.*free some space"):
            append(disk / "log", b"b" * 9000)
        assert (disk / "log").read_bytes() == b"a" * 5000
        append(disk / "log", b"c" * 2000, sync=True)
        assert (disk / "log").read_bytes() == b"a" * 5000 + b"c" * 2000
        lock(disk)
        with pytest.raises(RoboprefError, match=r"log could not be written .Read-only file system.: choose another folder"):
            append(disk / "log", b"d")


def test_metrics_stop_with_one_error_and_go_on(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def steps(folder: Path) -> list[int]:
        board = EventAccumulator(str(folder))
        board.Reload()
        return [event.step for event in board.Scalars("losses/a")]

    with small_disk(tmp_path / "disk", 16 * KB) as disk:
        with pytest.raises(RoboprefError, match=r"could not be written .*No space left"), MetricsLogger(disk) as logger:
            for step in range(10_000):
                logger.log(step, {"losses/a": step / 7, "losses/b": 1.0})
        lines = (disk / "metrics.csv").read_text().splitlines()
        assert 10 < step < 1000 and len(lines) in (step + 1, step + 2) and all(line.count(",") == 2 for line in lines)
        assert steps(disk) == list(range(step))
        make_room(disk)
        with MetricsLogger(disk, resume_step=5) as logger:
            logger.log(6, {"losses/a": 0.5})
        assert steps(disk) == list(range(7))
