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
from robopref.configs.files import BEGUN, atomic_file, differences, read_json
from robopref.configs.run import MetricsLogger, write_manifest
from robopref.configs.run_folder import FLAGS, HYDRA, LOCK, run_folder

NOBODY = 2**22 + 1  # more than a process can be called


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


def test_a_run_that_was_killed_when_it_had_just_finished_is_rid_of_its_record(settings: Settings) -> None:
    with run_folder(settings.out, "train", settings, {}):
        begun = (settings.out / BEGUN).read_bytes()
    finish(settings)
    before = contents(settings.out)
    (settings.out / BEGUN).write_bytes(begun)
    assert finish(settings) and contents(settings.out) == before


def test_what_does_not_matter_to_a_result_may_differ(settings: Settings, tmp_path: Path) -> None:
    finish(settings)
    os.rename(settings.out, tmp_path / "moved")
    assert finish(replace(settings, out=tmp_path / "moved", processes=8, data=os.path.abspath("data")))


def test_a_path_may_be_spelled_otherwise_also_in_a_list() -> None:
    there = {"videos": ["take*.mp4", "b/c.mp4"], "seeds": [0, 1]}
    same = {"videos": ["./take*.mp4", os.path.abspath("b/c.mp4")], "seeds": [0, 1]}
    assert list(differences(there, same)) == []
    for other in ({"videos": same["videos"][::-1]}, {"videos": same["videos"][:1]}, {"seeds": [0, 2]}):
        assert len(list(differences(there, same | other))) == 1


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
    assert left == ({"mine"} if there else False)
    assert not finish(replace(settings, steps=1))


def test_what_killed_processes_were_writing_is_removed(settings: Settings) -> None:
    settings.out.mkdir()
    names = (f".model.{NOBODY}-abcd.partial.safetensors", ".tmp1NGZTo", f"../.run.{NOBODY}-abcd.partial")
    left = [settings.out / name for name in names]
    for path in left[:2]:
        path.write_text("half")
    left[2].mkdir()
    stay = [settings.out.parent / f".runner.{NOBODY}-abcd.partial", settings.out / "below" / ".model.1-abcd.partial"]
    for path in stay:  # of a folder of another name, and of a process that lives
        path.mkdir(parents=True)
    finish(settings)
    assert not any(path.exists() for path in left) and all(path.exists() for path in stay)


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


def by(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/robopref", *command.split()])


@pytest.mark.parametrize("unfinished", [False, True])
@pytest.mark.parametrize("name", ["", "labels", "below/model"])
def test_overwrite_deletes_nothing_that_the_run_reads(settings: Settings, name: str, unfinished: bool) -> None:
    finish(settings)
    if unfinished:
        (settings.out / "manifest.json").rename(settings.out / "manifest")
        (settings.out / BEGUN).write_text(
            '{"stage": "train", "config": {}, "process": 1, "machine": "", "began": "", "command": ""}'
        )
    (settings.out / "below").mkdir()
    for read in ("labels", "below/model"):
        (settings.out / read).write_text("read")
    inputs = {"labels": settings.out / name}
    before = contents(settings.out)
    with pytest.raises(RoboprefError) as told:
        finish(replace(settings, steps=4), inputs=inputs)
    assert str(told.value).endswith(": choose another out="), "and not overwrite=true"
    said = f"overwrite=true would delete {inputs['labels']}" if name else "is a folder"
    with pytest.raises(RoboprefError, match=f"{said}, which this command reads: choose another out=$"):
        finish(replace(settings, steps=4, overwrite=True), inputs=inputs)
    assert contents(settings.out) == before and (settings.out / "below" / "model").exists()


def test_what_was_there_before_the_first_run_is_never_deleted_and_may_be_read(settings: Settings) -> None:
    (settings.out / "mine").mkdir(parents=True)
    (settings.out / "labels").write_text("read")
    inputs = {"labels": settings.out / "labels"}
    finish(settings, inputs=inputs)
    for steps in (4, 5):
        finish(replace(settings, steps=steps, overwrite=True), inputs=inputs)
    assert {path.name for path in settings.out.iterdir()} == {"mine", "labels", "result", "manifest.json", LOCK}


@pytest.mark.parametrize("below", ["evaluation", "x/y"])
@pytest.mark.parametrize("stage", ["train", "evaluate"])
def test_overwrite_deletes_no_run_of_another_command(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, below: str, stage: str
) -> None:
    by("train out=run", monkeypatch)
    finish(settings)
    by(f"{stage} --out run/{below}", monkeypatch)
    finish(replace(settings, out=settings.out / below), stage)
    by("train out=run overwrite=true", monkeypatch)
    for steps in (3, 4):
        with pytest.raises(RoboprefError, match=f"overwrite=true would delete the run in {settings.out / below}, which another"):
            finish(replace(settings, steps=steps, overwrite=True))
    assert (settings.out / below / "result").exists() and (settings.out / "result").read_text() == "3"


def test_overwrite_deletes_the_stages_of_a_run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    by("pipeline out=run", monkeypatch)
    finish(settings, "pipeline")
    finish(replace(settings, out=settings.out / "evaluation"), "evaluate")
    by("pipeline overwrite=true out=run", monkeypatch)
    finish(replace(settings, overwrite=True), "pipeline")
    assert not (settings.out / "evaluation").exists()


@pytest.mark.parametrize("name", ["set/main_data.hdf5", "read/notes"])
@pytest.mark.parametrize("below", ["", "runs/first"])
def test_a_run_does_not_lie_in_what_is_read(settings: Settings, name: str, below: str) -> None:
    """A dataset is known by what it holds, also when it is not read; any other folder when it is."""
    path = settings.out / name
    path.parent.mkdir(parents=True)
    path.touch()
    above = settings.out / name.partition("/")[0]
    inputs = {"data": above} if name.startswith("read") else {}
    lies = f"{above / below} lies in the .* {above}" if below else f"{above} is a"
    for overwrite in (False, True):
        with pytest.raises(
            RoboprefError, match=f"{lies}.*, which (would then be another|this command reads): choose another out=$"
        ):
            finish(replace(settings, out=above / below, overwrite=overwrite), inputs=inputs)
    assert {file for file in settings.out.rglob("*") if file.is_file()} == {path}


@pytest.mark.parametrize("overwrite", [False, True])
def test_somebody_elses_files_are_not_written_over(settings: Settings, overwrite: bool) -> None:
    asked = replace(settings, overwrite=overwrite)
    (settings.out / "films").mkdir(parents=True)
    for name in ("notes.txt", "films/bc.mp4"):
        (settings.out / name).write_text("mine")
    for writes in (["notes.txt"], ["films/*.mp4"]):
        found = "notes.txt" if "notes.txt" in writes else "films/bc.mp4"
        with pytest.raises(RoboprefError, match=f"holds {found}, which `train` writes and of which .*: choose another out=$"):
            finish(asked, writes=writes)
    assert not finish(asked, writes=["result", "*.mp4"])
    (settings.out / "manifest.json").unlink()  # as who wants a run made again does
    assert not finish(asked, writes=["result"])


def test_a_model_that_was_pushed_is_not_written_over(settings: Settings) -> None:
    settings.out.mkdir()
    (settings.out / "README.md").write_text("---\nlibrary_name: robopref\n---\n")
    with pytest.raises(RoboprefError, match=r"holds a model that `robopref push` wrote: choose another out=$"):
        finish(settings)


@pytest.mark.parametrize("name", ["manifest.json", BEGUN])
@pytest.mark.parametrize("said", ["{}", "[]", "null", '"a"', '{"stage": "train"}', '{"stage": "train", "config": null}'])
@pytest.mark.parametrize("more", [{}, {"whole": True}, {"shared": True}, {"by_part": True}])
def test_json_of_another_program_is_one_error(settings: Settings, name: str, said: str, more: dict[str, bool]) -> None:
    settings.out.mkdir()
    (settings.out / name).write_text(said)
    for overwrite in (False, True):
        with pytest.raises(RoboprefError, match=f"{settings.out / name} is JSON, but says of no run of robopref"):
            finish(replace(settings, overwrite=overwrite), **more)
    assert contents(settings.out) == {name: said.encode()}


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


@pytest.mark.parametrize("whole", [False, True])
def test_what_a_process_works_in_is_not_deleted(settings: Settings, whole: bool) -> None:
    """Neither by overwriting a run above it, nor what it is writing there, which looks like what a killed one has left."""
    finish(settings)
    below = settings.out / "x" / "y"
    owner = subprocess.Popen([sys.executable, "-c", HOLD, str(below)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    try:
        assert owner.stdout.readline() == "held\n"
        writing = [below / ".tmp1NGZTo", below / f".model.{NOBODY}-abcd.partial"]  # on another machine
        for path in writing:
            path.touch()
        with pytest.raises(RoboprefError, match=f"would delete {below}, which is in use by process {owner.pid}"):
            finish(replace(settings, steps=4, overwrite=True), whole=whole)
        (settings.out / "result").unlink()
        assert not finish(settings) and all(path.exists() for path in writing)
    finally:
        owner.kill()
        owner.wait()
        owner.stdout.close()
