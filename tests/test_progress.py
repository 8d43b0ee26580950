"""How far a command is and how it ends: on a terminal, in a log, and with several processes."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from robopref.configs import progress
from robopref.configs.cli import main
from robopref.configs.files import MANIFEST
from robopref.configs.hydra import compose, to_dataclass
from robopref.configs.parallel import in_processes
from robopref.configs.policy import OnlineConfig, OnPolicyConfig, trained
from robopref.configs.progress import Progress, counted, tell_end, tracked


class Clock:
    """A time that the test sets."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


def test_a_log_gets_a_line_a_minute(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    shown = Progress("run: step", 1000, done=100)
    for second in range(241):
        clock.now = second
        shown.show(100 + second, "loss 0.5")
    shown.close()
    assert capsys.readouterr() == (
        "",
        "run: step 160 of 1000, 14 min left\nrun: step 220 of 1000, 13 min left\n"
        "run: step 280 of 1000, 12 min left\nrun: step 340 of 1000, 11 min left\n",
    )


def test_a_short_job_says_nothing_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(tracked(iter("abc"), "letters", 3)) == ["a", "b", "c"]
    assert list(in_processes(str.upper, [("a",), ("b",)], 1, "letters")) == ["A", "B"]
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_one_line(clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    shown = Progress("tasks:", 4)
    for done in range(5):
        clock.now = 10.0 * done
        shown.show(done, "x" * 99)
        shown.show(done, "too soon")
    shown.close()
    states = capsys.readouterr().err.split("\r\x1b[K")
    assert states[1].startswith("tasks: 0 of 4  xxx") and states[3].startswith("tasks: 2 of 4, 20 s left  xxx")
    assert states[5] == "tasks: 4 of 4  ".ljust(39, "x") and states[6] == "tasks: 4 of 4  too soon\n" and len(states) == 7
    assert max(len(state.rstrip("\n")) for state in states) == 39, "a line that wraps could not be written over"


def test_the_line_ends_also_where_the_work_fails(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with pytest.raises(ZeroDivisionError):
        for item in tracked([1, 0], "numbers", 2):
            _ = 1 / item
    capsys.readouterr()
    items = tracked([1], "numbers", 1)
    next(items)
    items.close()
    assert capsys.readouterr().err == "\r\x1b[Knumbers 0 of 1\n"


SCRIPT = """
import sys, time
from robopref.configs.parallel import in_processes
from robopref.configs.progress import tracked
def work(number):
    for _ in tracked(range(3), f"worker {number}", 3): time.sleep(0.12)
    return number
if __name__ == "__main__": print(list(in_processes(work, [(number,) for number in range(4)], 2, "jobs:")))
"""


def test_workers_are_silent_and_the_command_counts_them(tmp_path: Path) -> None:
    """On a terminal of its own, as someone sits before."""
    (tmp_path / "script.py").write_text(SCRIPT)
    ours, theirs = pty.openpty()
    done = subprocess.run([sys.executable, "script.py"], stdout=subprocess.PIPE, stderr=theirs, cwd=tmp_path, check=True)
    os.close(theirs)
    shown = os.read(ours, 2**16).decode()
    os.close(ours)
    # At its end joblib's tracker of semaphores may warn that it finds one gone; that is none of ours.
    shown = re.sub(r"\S*resource_tracker\.py:\d+: .*?\n\s*warnings\.warn\(.*?\n", "", shown, flags=re.DOTALL)
    assert done.stdout == b"[0, 1, 2, 3]\n"
    assert "worker" not in shown and "jobs: 0 of 4" in shown and shown.count("\n") == 1


def test_the_last_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    began = time.time() - 1
    (tmp_path / MANIFEST).touch()
    tell_end(tmp_path, began, "a policy", "robopref", "evaluate", "--policy", "été 1")
    assert capsys.readouterr().out == f"{tmp_path}: a policy; next: robopref evaluate --policy 'été 1'\n"
    tell_end(tmp_path, time.time() + 1, "a film")
    assert capsys.readouterr().out == f"{tmp_path}: a film, already done\n"


def test_things_are_counted_in_words() -> None:
    assert [counted(number, "pair") for number in (0, 1, 2)] == ["0 pairs", "1 pair", "2 pairs"]


@pytest.mark.parametrize("name", ["cir", "sac"])
def test_a_preset_is_called_by_its_own_name(name: str) -> None:
    config = to_dataclass(OnlineConfig, compose("train_online", [f"policy={name}", "env=dmc/walker-walk", "out=x"]))
    assert trained(config.policy, [4]) == f"{name}, seed 4"


@pytest.mark.parametrize("name", ["gtr", "ppo", "ppo_kl", "c_chain"])
def test_a_relative_of_gtr_is_called_by_its_own_name(name: str) -> None:
    config = to_dataclass(OnPolicyConfig, compose("train_onpolicy", [f"policy={name}", "env=dmc/walker-walk", "out=x"]))
    assert trained(config.policy, [0, 1]) == f"{name}, seeds 0, 1"


def test_commands_end_with_what_was_made_where_and_what_comes_next(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def last(*words: str) -> str:
        assert main(list(words)) == 0
        return capsys.readouterr().out.splitlines()[-1]

    collect = ["collect", "--tasks", "reach", "--levels", "random", "--episodes", "4", "--max-steps", "60", "--out", "data"]
    labels = ["annotate", "--episodes", "data/reach", "--labeller", "scripted", "--pairs", "4", "--segment-length", "20"]
    train = ["train", "policy=bc", "data=data/reach", "policy.steps=2", "policy.hidden=[8]", "seeds=[0,1]", "out=bc"]
    evaluate = ["evaluate", "--policy", "bc", "--env", "reach", "--goals", "1", "--max-steps", "2", "--out", "bc/evaluation"]
    said = {
        "collect": "data: a dataset a task; next: robopref annotate --episodes data/reach --model VLP",
        "annotate": "labels.parquet: the labels; next: robopref train data=data/reach labels=labels.parquet",
        "train": "bc: bc, seeds 0, 1; next: robopref evaluate --policy bc --out bc/evaluation",
        "evaluate": "bc/evaluation: success.csv and summary.json; next: robopref video --policy bc --env metaworld/reach",
    }
    for command in (collect, labels, train, evaluate):
        assert last(*command) == said[command[0]]
    clips = last(*collect[:-1], "episodes", "--clips", "frames")
    then = "next: robopref pretrain clips=frames 'tasks=[reach]'"
    assert clips == f"episodes: a dataset a task, its frames in frames; {then}"
    small = ["steps=1", "batch=2", "width=8", "features=8", "keypoints=4", "out=backbone"]
    then = "next: robopref train-vlp backbone=small:backbone clips=frames 'tasks=[reach]'"
    assert last("pretrain", "clips=frames", "tasks=[reach]", *small) == f"backbone: backbone of 1 step; {then}"
    time.sleep(0.1)
    for command in (collect, labels, train, evaluate):
        assert last(*command) == re.sub("; next", ", already done; next", said[command[0]])
