"""Episodes and clips on disk: round trip, damage, frame choice, upright pictures of the right states."""

from __future__ import annotations

import dataclasses
import json

import h5py
import minari
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robopref.configs.errors import RoboprefError
from robopref.datasets.clips import FrameBank, Segment, frame_steps, render_bank, render_clips
from robopref.datasets.d4rl import load_offline
from robopref.datasets.episodes import EpisodeStore, write_episodes
from robopref.embodied.envs import make_env
from robopref.embodied.experts import ScriptedExpert
from robopref.embodied.render import Renderer
from robopref.embodied.rollout import rollout


@pytest.fixture(scope="module")
def env():
    env = make_env("metaworld/drawer-close")
    yield env
    env.close()


@pytest.fixture(scope="module")
def episodes(env):
    expert = ScriptedExpert("drawer-close")
    return [rollout(env, expert, seed=seed, level="expert", policy="scripted", linger=5) for seed in (1, 2)]


@pytest.fixture
def store(tmp_path, episodes):
    write_episodes(tmp_path / "drawer-close", "metaworld/drawer-close", episodes, {"by": "a test"})
    return EpisodeStore(tmp_path / "drawer-close")


def test_an_episode_comes_back_as_it_was(store, episodes):
    for number, episode in enumerate(episodes):
        back = store.episode(number)
        for field in dataclasses.fields(episode):
            np.testing.assert_array_equal(getattr(back, field.name), getattr(episode, field.name), err_msg=field.name)
    assert store.index["success_step"].tolist() == [int(episode.success.argmax()) for episode in episodes]


def test_any_minari_reader_reads_it(store, episodes):
    dataset = minari.MinariDataset(store.path)
    assert dataset.total_episodes == 2 and dataset.total_steps == sum(map(len, episodes))
    np.testing.assert_array_equal(dataset[1].actions, episodes[1].actions)


def test_states_are_read_in_the_order_asked_for(store, episodes):
    static, dynamic = store.states(1, [5, 0, 5])
    np.testing.assert_array_equal(dynamic, episodes[1].sim_dynamic[[5, 0, 5]])
    np.testing.assert_array_equal(static, episodes[1].sim_static)


def test_a_clip_shows_what_the_environment_showed(env, store, episodes):
    with Renderer(env, size=64) as renderer:
        (clip,) = render_clips(store, [Segment(0, 0, len(episodes[0]))], renderer, frames=3)
        env.reset(seed=1)
        np.testing.assert_array_equal(clip[:2], [renderer.frame()] * 2)
    assert clip.shape == (1 + 3, 64, 64, 3) and clip.dtype == np.uint8
    assert np.abs(clip[0].astype(int) - clip[-1]).mean() > 1  # something moved


def test_a_clip_opens_where_its_episode_began(env, store):
    segments = [Segment(0, 3, 9), Segment(0, 5, 11), Segment(1, 2, 8), Segment(0, 3, 9)]
    with Renderer(env, size=64) as renderer:
        clips = list(render_clips(store, segments, renderer, frames=2))
        for segment, clip in zip(segments, clips, strict=True):
            static, dynamic = store.states(segment.episode, [0, segment.start, segment.stop - 1])
            np.testing.assert_array_equal(clip, renderer.frames(static, dynamic))


def test_a_frame_bank_holds_every_seventh_state(env, store, tmp_path):
    with Renderer(env, size=32) as renderer:
        render_bank(store, tmp_path / "bank", renderer, stride=7)
    bank = FrameBank([tmp_path / "bank", tmp_path / "bank"], any_name=True)
    assert len(bank) == 2 * sum(length // 7 + 1 for length in store.index["length"])
    half = len(bank) // 2
    np.testing.assert_array_equal(bank.frames(np.array([[1, half + 1]]))[0, 0], bank.frames(np.array([half + 1]))[0])
    row = bank.index.iloc[2]
    np.testing.assert_allclose(bank.states[2], store.episode(int(row["episode"])).observations[int(row["step"])], rtol=1e-6)


def test_a_bank_says_what_first_and_last_frames_show(env, store, tmp_path):
    with Renderer(env, size=32) as renderer:
        render_bank(store, tmp_path / "bank", renderer, with_parts=True)
        bank = FrameBank([tmp_path / "bank", tmp_path / "bank"], any_name=True)
        parts, half = bank.parts(), len(bank) // 2
        first = bank.index.iloc[parts.rows]
        assert len(parts.rows) == 2 * 2 * len(store) and (first["step"].iloc[::2] == 0).all()
        assert (parts.rows[len(parts.rows) // 2 :] == parts.rows[: len(parts.rows) // 2] + half).all()
        assert set(parts.names) == set(renderer.part_names)
        for k in (1, 2):
            row = bank.index.iloc[parts.rows[k]]
            static, dynamic = store.states(int(row["episode"]), [int(row["step"])])
            drawn = renderer.parts(static, dynamic)[0]
            assert (np.array(parts.names)[parts.masks[k]] == np.array(renderer.part_names)[drawn]).all()


def test_a_damaged_bank_says_so(env, store, tmp_path):
    with Renderer(env, size=32) as renderer:
        render_bank(store, tmp_path / "bank", renderer)
    frames = tmp_path / "bank" / "frames.npy"
    frames.write_bytes(frames.read_bytes()[:1000])
    with pytest.raises(RoboprefError, match="bank"):
        FrameBank([tmp_path / "bank"])


@given(start=st.integers(0, 400), length=st.integers(1, 500), frames=st.integers(2, 16))
def test_frame_steps_are_ordered_and_reach_both_ends(start, length, frames):
    steps = frame_steps(start, start + length, frames)
    assert len(steps) == frames and steps[0] == start and steps[-1] == start + length - 1
    assert (np.diff(steps) >= 0).all()


def test_length_50_segments_are_sampled_every_seven_steps():
    assert frame_steps(100, 150).tolist() == [100, 107, 114, 121, 128, 135, 142, 149]


def test_nan_is_refused_before_anything_is_written(tmp_path, episodes):
    rewards = episodes[0].rewards.copy()
    rewards[3] = np.nan
    with pytest.raises(RoboprefError, match="rewards"):
        write_episodes(tmp_path / "x", "metaworld/drawer-close", [dataclasses.replace(episodes[0], rewards=rewards)], {})
    assert list(tmp_path.iterdir()) == []


def test_an_empty_dataset_is_refused(tmp_path):
    with pytest.raises(RoboprefError, match="no episode"):
        write_episodes(tmp_path / "x", "metaworld/drawer-close", [], {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keep", [0, 100, 5000])
def test_a_truncated_file_names_itself(store, keep):
    file = store.path / "main_data.hdf5"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(RoboprefError, match=r"main_data\.hdf5"):
        EpisodeStore(store.path).episode(1)


def test_nan_and_short_arrays_in_the_file_are_found_on_reading(store):
    with h5py.File(store.path / "main_data.hdf5", "a") as file:
        file["episode_0/observations"][2, 3] = np.nan
        file["episode_1/rewards"].resize((3,))
    with pytest.raises(RoboprefError, match="NaN"):
        store.episode(0)
    with pytest.raises(RoboprefError, match="damaged"):
        store.episode(1)


@pytest.mark.parametrize("said", [{"env_id": None}, {"env_id": "door"}, {"total_episodes": None}, "gone", []])
def test_metadata_that_does_not_say_what_is_there_is_named(said, store):
    path = store.path / "metadata.json"
    metadata = json.loads(path.read_text())
    changed = metadata | said if isinstance(said, dict) else said
    if said == "gone":
        changed = {key: value for key, value in metadata.items() if key != "env_id"}
    path.write_text(json.dumps(changed))
    with pytest.raises(RoboprefError, match=rf"{store.path}: .*metadata.json .*Collect it again"):
        EpisodeStore(store.path)


def test_parts_of_an_episode_that_are_missing_are_named(store):
    with h5py.File(store.path / "main_data.hdf5", "a") as file:
        del file["episode_0/infos/success"]
    with pytest.raises(RoboprefError, match=r"main_data.hdf5: episode_0 has no numbers called infos/success"):
        store.episode(0)
    with h5py.File(store.path / "main_data.hdf5", "a") as file:
        del file["episode_0"].attrs["level"]
    with pytest.raises(RoboprefError, match=r"main_data.hdf5: truncated, damaged or not HDF5 .*level"):
        EpisodeStore(store.path)


def test_a_folder_that_is_no_dataset_and_an_episode_that_is_not_there(tmp_path, store):
    (tmp_path / "empty").mkdir()
    with pytest.raises(RoboprefError, match="not a readable episode dataset"):
        EpisodeStore(tmp_path / "empty")
    with pytest.raises(RoboprefError) as caught:
        EpisodeStore(store.path.with_name(f"{store.path.name}x"))
    assert str(caught.value) == (
        f"{store.path}x does not exist. Did you mean '{store.path}'? `robopref collect` makes episode datasets"
    )
    parent = tmp_path / "offline"
    for name in ("door-close", "door-open", ".half.partial"):
        (parent / name).mkdir(parents=True)
        (parent / name / "main_data.hdf5").touch()
    for read in (EpisodeStore, load_offline):
        with pytest.raises(RoboprefError) as caught:
            read(parent)
        assert str(caught.value) == f"{parent} holds datasets: {parent / 'door-close'}, {parent / 'door-open'}; name one"
    with pytest.raises(RoboprefError, match="no episode 7"):
        store.episode(7)
