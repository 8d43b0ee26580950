"""A run folder belongs to one run: others are refused, nothing of theirs is touched, and the lock dies with its owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from small_disk import lock, small_disk

from robopref.configs.errors import RoboprefError
from robopref.configs.files import atomic_file, read_json
from robopref.configs.run import MetricsLogger, write_manifest
from robopref.configs.run_folder import BEGUN, FLAGS, HYDRA, LOCK, run_folder


@dataclass(frozen=True)
class Settings:
    out: Path
    steps: int = 3
    processes: int = 1
    data: str = "data"
    overwrite: bool = False


def finish(settings: Settings, stage: str = "train", inputs: dict[str, Path] | None = None, **more: object) -> bool:
    """Run a stage whose result is the number of its steps; whether the result was there already."""
    files = inputs or {}
    with run_folder(settings.out, stage, settings, files, overwrite=settings.overwrite, **more) as complete:
        if not complete:
            (settings.out / "result").write_text(str(settings.steps))
            write_manifest(settings.out, stage, settings, files, 0, time.time(), outputs=["result"])
    return complete


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "run")


def test_a_finished_run_is_kept(settings: Settings) -> None:
    assert not finish(settings)
    before = contents(settings.out)
    assert BEGUN not in before
    assert finish(settings) and contents(settings.out) == before


def test_what_does_not_matter_to_a_result_may_differ(settings: Settings, tmp_path: Path) -> None:
    finish(settings)
    os.rename(settings.out, tmp_path / "moved")
    assert finish(replace(settings, out=tmp_path / "moved", processes=8, data=os.path.abspath("data")))


@pytest.mark.parametrize("unfinished", [False, True])
@pytest.mark.parametrize(
    ("stage", "steps", "said"),
    [
        ("evaluate", 3, "finished run of `train`: choose another out=, or replace it with overwrite=true"),
        ("train", 4, r"finished run of `train` with other settings \(steps=3 there, 4 asked for\)"),
    ],
)
def test_another_run_is_refused_and_not_touched(settings: Settings, stage: str, steps: int, said: str, unfinished: bool) -> None:
    if unfinished:
        with pytest.raises(KeyboardInterrupt), run_folder(settings.out, "train", settings, {}):
            (settings.out / "checkpoint").write_text("half")
            raise KeyboardInterrupt
    else:
        finish(settings)
    before = contents(settings.out)
    with pytest.raises(RoboprefError, match=f"{settings.out} holds {'an un' if unfinished else 'a '}{said}"):
        finish(replace(settings, steps=steps), stage)
    assert contents(settings.out) == before


def test_other_inputs_are_refused(settings: Settings, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_text("one")
    finish(settings, inputs={"labels": data})
    assert finish(settings, inputs={"labels": data})
    data.write_text("two")
    with pytest.raises(RoboprefError, match=r"on other inputs \(labels\)"):
        finish(settings, inputs={"labels": data})
    with pytest.raises(RoboprefError, match=r"on other inputs \(labels\)"):
        finish(settings)


def test_overwrite_leaves_nothing_of_the_old_run(settings: Settings) -> None:
    finish(settings)
    (settings.out / "reward").mkdir()
    (settings.out / "reward" / "model").write_text("of the old run")
    assert not finish(replace(settings, steps=4, overwrite=True), "distil")
    assert {path.name for path in settings.out.iterdir()} == {"result", "manifest.json", LOCK}
    assert (settings.out / "result").read_text() == "4" and read_json(settings.out / "manifest.json")["stage"] == "distil"


def test_overwrite_deletes_nothing_that_no_run_made(settings: Settings) -> None:
    settings.out.mkdir()
    (settings.out / "thesis.txt").write_text("years")
    finish(replace(settings, overwrite=True))
    assert (settings.out / "thesis.txt").read_text() == "years"


def test_an_unfinished_run_of_the_same_settings_goes_on(settings: Settings) -> None:
    with pytest.raises(KeyboardInterrupt), run_folder(settings.out, "train", settings, {}):
        (settings.out / "checkpoint").write_text("half")
        raise KeyboardInterrupt
    with run_folder(settings.out, "train", settings, {}) as complete:
        assert not complete and (settings.out / "checkpoint").read_text() == "half"


def test_an_error_before_anything_was_made_leaves_nothing(settings: Settings) -> None:
    with pytest.raises(ValueError, match="no data"), run_folder(settings.out, "train", settings, {}):
        raise ValueError("no data")
    assert not settings.out.exists()


@pytest.mark.parametrize("there", [False, True])
def test_an_error_before_the_first_step_leaves_nothing(settings: Settings, there: bool) -> None:
    """Too little memory for the batch: the same folder takes the settings that fit."""
    if there:
        (settings.out / "mine").mkdir(parents=True)
    with pytest.raises(MemoryError), run_folder(settings.out, "train", settings, {}), MetricsLogger(settings.out):
        (settings.out / ".scores-0").mkdir()
        raise MemoryError
    left = {path.name for path in settings.out.iterdir()} if there else settings.out.exists()
    assert left == ({"mine", ".scores-0"} if there else False)
    assert not finish(replace(settings, steps=1))


def test_what_killed_processes_were_writing_is_removed(settings: Settings) -> None:
    settings.out.mkdir()
    left = [settings.out / name for name in (".model.123-abcd.partial.safetensors", ".tmp1NGZTo", "../.run.123-abcd.partial")]
    for path in left[:2]:
        path.write_text("half")
    left[2].mkdir()
    (settings.out.parent / ".runner.123-abcd.partial").mkdir()  # of a folder of another name
    finish(settings)
    assert not any(path.exists() for path in left) and (settings.out.parent / ".runner.123-abcd.partial").exists()


def test_a_folder_of_runs_is_no_place_for_a_run(settings: Settings) -> None:
    finish(replace(settings, out=settings.out / "first"))
    with pytest.raises(RoboprefError, match=r"holds other runs \(first\)"):
        finish(settings)


def test_a_folder_that_is_replaced_whole_is_not_anybodys(settings: Settings) -> None:
    settings.out.mkdir()
    (settings.out / "data.hdf5").write_text("80 episodes")
    with pytest.raises(
        RoboprefError, match="nothing says that a run made them: choose another --out, or replace it with --overwrite"
    ):
        finish(settings, whole=True, words=FLAGS)
    assert (settings.out / "data.hdf5").read_text() == "80 episodes"


def test_a_folder_that_may_not_be_written_is_told_and_a_finished_run_in_it_is_done(settings: Settings) -> None:
    with small_disk(settings.out.parent / "disk", 2**20) as disk:
        inside = replace(settings, out=disk / "run")
        assert not finish(inside)
        lock(disk)
        assert finish(inside)
        for words, said in ((HYDRA, "out="), (FLAGS, "--out")):
            told = rf"{disk}/other cannot be written .Read-only file system.: choose another {said}, or make this one writable"
            with pytest.raises(RoboprefError, match=told):
                finish(replace(inside, out=disk / "other"), words=words)


def test_a_finished_dataset_is_rid_of_the_lock_of_a_killed_run(settings: Settings) -> None:
    beside = settings.out.parent / ".run.lock"
    settings.out.mkdir()
    finish(settings, whole=True)
    assert not beside.exists()
    beside.touch()
    assert finish(settings, whole=True) and not beside.exists()


def test_a_file_is_no_folder(settings: Settings) -> None:
    settings.out.write_text("a file")
    with pytest.raises(RoboprefError, match="is a file, and train writes a folder"):
        finish(settings)
    assert settings.out.read_text() == "a file"


HOLD = """
import sys, time
from pathlib import Path
from robopref.configs.run_folder import run_folder
with run_folder(Path(sys.argv[1]), "train", {"steps": 3}, {}):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_process_is_told_who_has_the_folder_and_the_lock_dies_with_its_owner(settings: Settings) -> None:
    owner = subprocess.Popen([sys.executable, "-c", HOLD, str(settings.out)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    try:
        assert owner.stdout.readline() == "held\n"
        said = f"{settings.out} is in use by process {owner.pid} on .*: wait for it"
        with pytest.raises(RoboprefError, match=said), run_folder(settings.out, "train", {"steps": 3}, {}):
            pass
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    finally:
        owner.kill()
        owner.stdout.close()
    with run_folder(settings.out, "train", {"steps": 3}, {}) as complete:
        assert not complete


def test_files_get_the_permissions_that_new_files_get(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "weights") as temp:
        temp.touch(0o600)
    (tmp_path / "plain").touch()
    assert (tmp_path / "weights").stat().st_mode == (tmp_path / "plain").stat().st_mode
