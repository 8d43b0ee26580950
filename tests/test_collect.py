"""Collection: levels, sameness, and going on after a kill."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from robopref.configs.collect import CollectConfig
from robopref.configs.errors import RoboprefError
from robopref.datasets import collect
from robopref.datasets.clips import FrameBank
from robopref.datasets.episodes import EpisodeStore

TASK = "drawer-close"


def config(out: Path, **changes) -> CollectConfig:
    settings = {"episodes": 2, "max_steps": 150, "processes": 1, "tasks": (TASK,), "clips": out / "clips", "frame_size": 32}
    return CollectConfig(out=out / "episodes", **settings | changes)


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    out = tmp_path_factory.mktemp("collected")
    collect.run(config(out))
    return out


def test_every_level_is_there_and_is_what_it_says(collected):
    store = EpisodeStore(collected / "episodes" / TASK)
    assert store.index["level"].value_counts().to_dict() == {"expert": 2, "medium": 2, "random": 2}
    by_level = {level: rows for level, rows in store.index.groupby("level")}
    assert (by_level["expert"]["success_step"] >= 0).all()
    assert (by_level["medium"]["success_step"] == -1).all()  # cut before success
    assert (by_level["random"]["length"].to_numpy() <= by_level["expert"]["length"].to_numpy()).all()
    assert by_level["expert"]["ret"].min() > by_level["random"]["ret"].max()
    assert store.index["seed"].is_unique
    bank = FrameBank([collected / "clips" / TASK])
    assert len(bank) == (store.index["length"] // 7 + 1).sum() and bank.frames(np.array([0])).shape == (1, 32, 32, 3)


def test_the_same_seed_gives_the_same_episodes_and_another_others(collected, tmp_path):
    collect.run(config(tmp_path, clips=None))
    collect.run(config(tmp_path / "other", clips=None, seed=1, levels=("expert",), episodes=1))
    first, again = EpisodeStore(collected / "episodes" / TASK), EpisodeStore(tmp_path / "episodes" / TASK)
    for number in range(len(first)):
        np.testing.assert_array_equal(first.episode(number).sim_dynamic, again.episode(number).sim_dynamic)
    other = EpisodeStore(tmp_path / "other" / "episodes" / TASK)
    assert other.index["seed"][0] not in set(first.index["seed"])


def test_a_finished_task_is_kept_and_a_lost_frame_bank_drawn_again(collected, monkeypatch):
    file = collected / "episodes" / TASK / "main_data.hdf5"
    written = file.stat().st_mtime_ns
    frames = collected / "clips" / TASK / "frames.npy"
    before = frames.read_bytes()
    frames.unlink()
    monkeypatch.setattr(collect, "play", lambda *_: pytest.fail("the task was collected again"))
    collect.run(config(collected))
    assert file.stat().st_mtime_ns == written and frames.read_bytes() == before


QUICK = {"episodes": 1, "levels": ("random",), "max_steps": 15}


def contents(folder: Path) -> dict[str, bytes]:
    """Of all files but manifests, which hold times."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_frames_of_other_episodes_are_neither_replaced_nor_taken_for_these(tmp_path):
    """An index is equal for random episodes of any seed."""
    collect.run(config(tmp_path / "a", **QUICK))
    clips = tmp_path / "a" / "clips"
    before = contents(clips)
    told = f"{clips / TASK} holds frames of other episodes: choose another --clips, or replace them with --overwrite"
    with pytest.raises(RoboprefError, match=told):
        collect.run(config(tmp_path / "b", clips=clips, seed=1, **QUICK))
    assert contents(clips) == before and not (tmp_path / "b").exists()
    collect.run(config(tmp_path / "b", clips=clips, seed=1, overwrite=True, **QUICK))
    assert contents(clips) != before and contents(clips).keys() == before.keys()
    with pytest.raises(RoboprefError, match=told):
        collect.run(config(tmp_path / "a", **QUICK))
    collect.run(config(tmp_path / "a", overwrite=True, **QUICK))
    assert contents(clips) == before


@pytest.mark.parametrize("change", [{"frame_size": 16}, {"camera": "corner"}])
def test_another_view_of_the_same_episodes_is_no_frame_bank_of_theirs(tmp_path, change):
    collect.run(config(tmp_path / "a", **QUICK))
    collect.run(config(tmp_path / "b", **QUICK | change))
    with pytest.raises(RoboprefError, match="holds frames of other episodes"):
        collect.run(config(tmp_path / "b", clips=tmp_path / "a" / "clips", **QUICK | change))


def test_frames_that_are_damaged_are_named_and_drawn_anew_when_told(tmp_path):
    collect.run(config(tmp_path / "a", **QUICK))
    frames = tmp_path / "a" / "clips" / TASK / "frames.npy"
    whole = frames.read_bytes()
    frames.write_bytes(b"")
    with pytest.raises(RoboprefError, match=f"{frames.parent} holds frames of other episodes"):
        collect.run(config(tmp_path / "a", **QUICK))
    collect.run(config(tmp_path / "a", overwrite=True, **QUICK))
    assert frames.read_bytes() == whole


@pytest.mark.parametrize("overwrite", [False, True])
def test_only_frames_give_way_to_frames(tmp_path, collected, overwrite):
    home = tmp_path / "home"
    (home / TASK).mkdir(parents=True)
    (home / TASK / "thesis.txt").write_text("years")
    shutil.copytree(collected / "episodes", tmp_path / "sets")
    shutil.copytree(collected / "clips", tmp_path / "clips")
    (tmp_path / "clips" / TASK / "notes.txt").write_text("mine")
    for clips in (home, tmp_path / "sets", tmp_path / "clips"):
        before = contents(clips)
        with pytest.raises(RoboprefError, match="is no frame bank, or not only one: choose another --clips"):
            collect.run(config(tmp_path / "new", clips=clips, overwrite=overwrite, **QUICK))
        assert contents(clips) == before and not (tmp_path / "new").exists()


@pytest.mark.parametrize("clips", ["episodes", f"episodes/{TASK}", f"episodes/{TASK}/a/b", "x/../episodes"])
def test_frames_do_not_lie_among_datasets(tmp_path, clips):
    with pytest.raises(RoboprefError, match=r"would lie with a dataset of --out .*: choose another"):
        collect.run(config(tmp_path, clips=tmp_path / clips, **QUICK))
    with pytest.raises(RoboprefError, match="would lie with a dataset"):
        collect.run(replace(config(tmp_path, clips=tmp_path, **QUICK), out=tmp_path / TASK))
    assert not contents(tmp_path)
    collect.run(config(tmp_path, **QUICK))
    with pytest.raises(RoboprefError, match=f"lies in the dataset {tmp_path / 'episodes' / TASK}"):
        collect.run(config(tmp_path / "new", clips=tmp_path / "episodes" / TASK / "clips", **QUICK))


def test_a_kill_between_episodes_and_frames_loses_neither_and_mixes_nothing(tmp_path, monkeypatch):
    small = {"episodes": 1, "levels": ("random",), "max_steps": 15}
    collect.run(config(tmp_path / "whole", seed=1, **small))
    collect.run(config(tmp_path, **small))
    store, lock = tmp_path / "episodes" / TASK, tmp_path / "episodes" / f".{TASK}.lock"

    def killed(*args, **options):
        assert lock.exists()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(collect, "render_bank", killed)
        collect.run(config(tmp_path, seed=1, overwrite=True, **small))
    assert (store / "manifest.json").exists() and not (tmp_path / "clips" / TASK).exists()  # the frames were of other episodes
    half = tmp_path / "clips" / f".{TASK}.{2**30}-00.partial"
    half.mkdir()
    lock.touch()  # as SIGKILL leaves both
    monkeypatch.setattr(collect, "play", lambda *_: pytest.fail("the task was collected again"))
    collect.run(config(tmp_path, seed=1, **small))
    assert not half.exists() and not lock.exists()
    frames = [folder / "clips" / TASK / "frames.npy" for folder in (tmp_path, tmp_path / "whole")]
    assert frames[0].read_bytes() == frames[1].read_bytes()


def test_a_kill_after_the_episodes_were_named_leaves_what_vouches_for_them(tmp_path, monkeypatch):
    settings = config(tmp_path, episodes=1, levels=("random",), max_steps=15, clips=None)
    write = collect.write_episodes

    def killed(*args):
        write(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(collect, "write_episodes", killed)
        collect.run(settings)
    monkeypatch.setattr(collect, "play", lambda *_: pytest.fail("the task was collected again"))
    collect.run(settings)


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a real disk of 18 MB, of which 16 are kept in reserve."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=18m", "tmpfs", str(folder)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"only root may mount a small disk: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
def test_a_full_disk_is_an_error_and_leaves_nothing_half_written(small_disk):
    """HDF5 would crash the process when it closes a file on a full disk."""
    full = config(small_disk, clips=None, levels=("random",), episodes=60)
    with pytest.raises(RoboprefError, match=rf"{TASK} could not be written .*No space left on device.*free some space"):
        collect.run(full)
    assert not [path for path in small_disk.rglob("*") if path.is_file()]


def test_offline_levels(tmp_path):
    collect.run(config(tmp_path, clips=None, levels=("mismatched", "foreign"), episodes=1, max_steps=40))
    store = EpisodeStore(tmp_path / "episodes" / TASK)
    assert store.index["level"].tolist() == ["mismatched", "foreign"]
    assert "goal of another episode" in store.index["policy"][0] and " of " in store.index["policy"][1]


def test_a_wandering_hand_gets_somewhere_and_a_random_one_does_not(tmp_path):
    collect.run(config(tmp_path, clips=None, levels=("expert", "random", "wandering"), episodes=4))
    store = EpisodeStore(tmp_path / "episodes" / TASK)
    lengths = {level: rows["length"].to_numpy() for level, rows in store.index.groupby("level")}
    assert (lengths["wandering"] == 3 * lengths["expert"]).all()
    assert (store.index["success_step"][store.index["level"] == "wandering"] == -1).all()
    way = {}
    for level in ("random", "wandering"):
        episodes = [store.episode(number) for number in store.index.index[store.index["level"] == level]]
        way[level] = np.mean([np.ptp(episode.observations[:, :3], axis=0).max() for episode in episodes])
        held = np.mean([(np.diff(episode.actions, axis=0) == 0).all(1).mean() for episode in episodes])
        assert held > 0.8 if level == "wandering" else held == 0
    assert way["wandering"] > 2 * way["random"], way


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"levels": ("expret",)}, "expert"),
        ({"tasks": ("drawer-clse",)}, "drawer-close"),
        ({"tasks": ("paper:tran",)}, "train"),
        ({"episodes": 0}, "at least one"),
    ],
)
def test_mistakes_are_explained_before_anything_runs(tmp_path, changes, hint):
    with pytest.raises(RoboprefError, match=hint):
        collect.run(config(tmp_path, **changes))
    assert not (tmp_path / "episodes").exists()


def test_an_expert_that_cannot_succeed_is_an_error_that_says_what_to_change(tmp_path):
    with pytest.raises(RoboprefError, match="--max-steps"):
        collect.run(config(tmp_path, clips=None, max_steps=5, levels=("expert",), episodes=1))
    assert not (tmp_path / "episodes" / TASK).exists()


def test_no_two_episodes_of_a_collection_begin_alike(tmp_path):
    """A seed is a function of run seed, task, level and number, so tasks and levels of a study do not repeat each other."""
    collect.run(config(tmp_path, clips=None, tasks=("reach", "push"), levels=("random", "foreign"), max_steps=2))
    collect.run(config(tmp_path / "next", clips=None, tasks=("reach", "push"), levels=("random", "foreign"), max_steps=2, seed=1))
    stores = [EpisodeStore(path.parent) for path in tmp_path.rglob("main_data.hdf5")]
    seeds = [seed for store in stores for seed in store.index["seed"]]
    assert len(stores) == 4 and len(seeds) == 16 and len(set(seeds)) == 16
