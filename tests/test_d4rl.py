from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import minari
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict
from hypothesis import given, settings
from hypothesis import strategies as st
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage

from robopref.configs.errors import RoboprefError
from robopref.datasets.d4rl import (
    clipped,
    env_of,
    load_offline,
    main,
    read_d4rl,
    read_minari,
    reference_score,
    write_d4rl,
    write_minari,
)
from robopref.datasets.d4rl_names import FILES, PATHS, step_limit, url_of
from robopref.datasets.episodes import write_episodes
from robopref.datasets.offline import OfflineData, ReferenceScore
from robopref.embodied.rollout import Episode

DOOR = Path(__file__).parent / "data" / "door-human-v0.hdf5"
LENGTHS = [300] * 5 + [293, 284, 265, 265, 291, 247, 236, 271, 242, 277, 257, 260, 223, 257, 277, 288, 289, 256, 226, 225]


def flat(path: Path, rows: int = 10, **keys: Any) -> Path:
    """A file of `rows` steps whose observation is the row's number twice; keys replace, add or (None) leave out."""
    number = np.arange(rows, dtype=np.float32)
    content = {
        "observations": np.stack([number, number], 1),
        "actions": number[:, None] / 10,
        "rewards": number,
        "terminals": np.zeros(rows, bool),
        "timeouts": np.zeros(rows, bool),
    } | keys
    with h5py.File(path, "w") as file:
        for key, value in content.items():
            if value is not None:
                file[key] = value
    return path


def at(rows: int, *true: int) -> np.ndarray:
    marks = np.zeros(rows, bool)
    marks[list(true)] = True
    return marks


def same(one: OfflineData, other: OfflineData) -> bool:
    arrays = ("observations", "actions", "rewards", "first", "terminated")
    equal = all(np.array_equal(getattr(one, key), getattr(other, key)) for key in arrays)
    types = all(getattr(one, key).dtype == getattr(other, key).dtype for key in arrays)
    boxes = np.array_equal(np.array(one.box, object), np.array(other.box, object))
    lasts = np.array_equal(np.array(one.last_rewards, object), np.array(other.last_rewards, object))
    told = all(getattr(one, key) == getattr(other, key) for key in ("name", "env_id", "score", "facts"))
    return equal and types and boxes and lasts and told


@st.composite
def sets(draw: st.DrawFn) -> OfflineData:
    lengths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    return OfflineData(
        observations=rng.normal(size=(sum(lengths) + len(lengths), 3)).astype(np.float32),
        actions=rng.normal(size=(sum(lengths), 2)).astype(np.float32),
        rewards=rng.normal(size=sum(lengths)).astype(np.float32),
        first=np.cumsum([0, *lengths], dtype=np.int64),
        terminated=rng.random(len(lengths)) < 0.5,
        name=draw(st.sampled_from(["hopper-medium-v2", "D4RL/door/human-v2", "a set of mine", "halfcheetah-random"])),
        env_id=draw(st.sampled_from([None, "mujoco/hopper"])),
        score=draw(st.sampled_from([None, ReferenceScore(-20.272305, 3234.3)])),
        facts=draw(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2)),
        box=draw(st.sampled_from([None, (-np.ones(2), np.ones(2)), (np.array([-2.0, 0.0]), np.array([0.1, np.inf]))])),
        last_rewards=draw(st.sampled_from([None, rng.normal(size=len(lengths)).astype(np.float32)])),
    )


# --- the real file


def test_the_door_demonstrations_are_read_as_they_were_recorded() -> None:
    data = read_d4rl(DOOR)
    assert (data.name, data.env_id, data.dims) == ("door-human-v0", "adroit/door", (39, 28))
    assert (data.lengths + 1).tolist() == LENGTHS and not data.terminated.any()
    with h5py.File(DOOR) as file:
        assert np.array_equal(data.observations, file["observations"][()])
        kept = ~file["timeouts"][()]
        assert np.array_equal(data.actions, file["actions"][()][kept])
        assert np.array_equal(data.rewards, file["rewards"][()][kept])
        lost = file["rewards"][()][~kept].astype(np.float64).sum()
    assert data.facts == {"dropped_steps": "25", "dropped_reward": repr(float(lost))}
    assert 1.366 < data.actions.max() < 1.367


def test_the_doors_score_is_exact() -> None:
    data = read_d4rl(DOOR)
    assert data.score is not None
    with h5py.File(DOOR) as file:
        first = float(np.sum(file["rewards"][:300], dtype=np.float64))  # all of the episode, whose last step is no transition
    assert data.score(data.returns)[0] == pytest.approx((first + 56.512833) / (2880.5693087298737 + 56.512833), rel=1e-12)


def test_clipping_changes_actions_alone() -> None:
    data = read_d4rl(DOOR)
    inside = clipped(data)
    assert np.abs(inside.actions).max() == 1 and data.actions.max() > 1
    assert np.array_equal(inside.actions, np.clip(data.actions, -1, 1))
    assert same(replace(inside, actions=data.actions, box=None), data)
    assert inside.box is not None and np.array(inside.box).tolist() == [[-1] * 28, [1] * 28]


# --- where episodes end


def test_with_next_observations_every_row_is_a_transition(tmp_path: Path) -> None:
    following = np.stack([np.arange(1, 11.0)] * 2, 1)
    following[[2, 6, 9]] = [[-2, -2], [-6, -6], [-9, -9]]
    data = read_d4rl(flat(tmp_path / "a.hdf5", terminals=at(10, 2), timeouts=at(10, 6), next_observations=following))
    assert data.first.tolist() == [0, 3, 7, 10] and data.terminated.tolist() == [True, False, False]
    assert data.observations[:, 0].tolist() == [0, 1, 2, -2, 3, 4, 5, 6, -6, 7, 8, 9, -9]
    assert data.next_obs[:, 1].tolist() == following[:, 0].tolist() and data.facts == {}


def test_without_them_a_cut_episodes_last_row_is_dropped_and_a_terminals_kept(tmp_path: Path) -> None:
    data = read_d4rl(flat(tmp_path / "a.hdf5", terminals=at(10, 2), timeouts=at(10, 6)))
    assert data.first.tolist() == [0, 3, 6, 8] and data.terminated.tolist() == [True, False, False]
    assert data.observations[:, 0].tolist() == [0, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9]
    assert data.rewards.tolist() == [0, 1, 2, 3, 4, 5, 7, 8]
    assert data.facts == {"dropped_steps": "2", "dropped_reward": "15.0"}


def test_a_dropped_rows_reward_counts_in_its_episodes_return(tmp_path: Path) -> None:
    data = read_d4rl(flat(tmp_path / "a.hdf5", terminals=at(10, 2), timeouts=at(10, 6)))
    assert data.returns.tolist() == [0 + 1 + 2, 3 + 4 + 5 + 6, 7 + 8 + 9] and data.rewards.tolist() == [0, 1, 2, 3, 4, 5, 7, 8]
    assert data.last_rewards is not None and data.last_rewards.tolist() == [0, 6, 9]
    assert data.take([2, 0]).returns.tolist() == [24, 3]
    told = np.stack([np.arange(1, 11.0)] * 2, 1)
    told[[2, 6]] = -1
    whole = read_d4rl(flat(tmp_path / "a.hdf5", terminals=at(10, 2), timeouts=at(10, 6), next_observations=told))
    assert whole.last_rewards is None and whole.returns.tolist() == [3, 18, 24]


def test_an_episode_of_one_row_without_a_next_one_is_gone(tmp_path: Path) -> None:
    data = read_d4rl(flat(tmp_path / "a.hdf5", terminals=at(10, 9), timeouts=at(10, 3, 4)))
    assert data.first.tolist() == [0, 3, 8] and data.terminated.tolist() == [False, True]
    assert data.observations[:, 0].tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9, 9]
    with pytest.raises(RoboprefError, match="no step in it has a next observation"):
        read_d4rl(flat(tmp_path / "b.hdf5", rows=2, timeouts=at(2, 0, 1)))


def test_a_jump_between_rows_is_an_end(tmp_path: Path) -> None:
    following = np.stack([np.arange(1, 11.0)] * 2, 1)
    following[4] = 70
    following[5] += 1e-5  # less than the difference of two roundings
    data = read_d4rl(flat(tmp_path / "a.hdf5", timeouts=None, next_observations=following))
    assert data.lengths.tolist() == [5, 5] and not data.terminated.any() and data.next_obs[4].tolist() == [70, 70]


@given(ends=st.lists(st.sampled_from(["", "", "", "terminal", "timeout"]), min_size=2, max_size=30))
@settings(max_examples=40, deadline=None)
def test_transitions_are_those_of_d4rls_qlearning_dataset(tmp_path_factory: pytest.TempPathFactory, ends: list[str]) -> None:
    rows = len(ends)
    terminals, timeouts = np.array(ends) == "terminal", np.array(ends) == "timeout"
    # d4rl's rule: all rows but the last and those with a timeout
    kept = [i for i in range(rows - 1) if not timeouts[i]] + ([rows - 1] if terminals[-1] else [])
    path = flat(tmp_path_factory.mktemp("d4rl") / "a.hdf5", rows, terminals=terminals, timeouts=timeouts)
    if not kept:
        with pytest.raises(RoboprefError, match="no step"):
            read_d4rl(path)
        return
    data = read_d4rl(path)
    assert data.obs[:, 0].tolist() == kept and data.rewards.tolist() == kept
    assert data.terminals.tolist() == terminals[kept].tolist()
    assert data.next_obs[:, 0].tolist() == [i if terminals[i] else i + 1 for i in kept]


def test_old_gym_files_are_cut_every_thousand_steps_after_a_terminal(tmp_path: Path) -> None:
    rows = 2500
    path = flat(tmp_path / "walker_mixed.hdf5", rows, terminals=at(rows, 299)[:, None].astype(np.float64), timeouts=None)
    data = read_d4rl(path)
    assert (data.name, data.env_id) == ("walker2d-medium-replay-v0", "mujoco/walker2d")
    assert data.lengths.tolist() == [300, 999, 999, 199] and data.terminated.tolist() == [True, False, False, False]


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("hopper-medium-v0", 1000),
        ("pen-cloned-v0", 100),
        ("door-expert-v0", 200),
        ("hammer-human-longhorizon-v0", 600),
        ("kitchen-mixed-v0", 280),
        ("antmaze-umaze-diverse-v2", 700),
        ("antmaze-large-play-v2", 1000),
        ("metaworld-door-open-v0", None),
    ],
)
def test_limits_are_d4rls(name: str, steps: int | None) -> None:
    assert step_limit(name) == steps


def test_a_limit_may_be_given(tmp_path: Path) -> None:
    path = flat(tmp_path / "mine.hdf5", timeouts=None)
    with pytest.raises(RoboprefError, match=r"mine.hdf5: nothing in it says where episodes end.*give the name"):
        read_d4rl(path)
    assert read_d4rl(path, limit=5).lengths.tolist() == [4, 4]
    assert read_d4rl(path, name="pen-human-v0").lengths.tolist() == [9]


def test_old_antmaze_ends_where_the_goal_changes(tmp_path: Path) -> None:
    goals = np.repeat([[1.0, 2.0], [1.0, 3.0]], 5, axis=0)
    wrong = at(10, 1, 7)
    path = flat(tmp_path / "a.hdf5", timeouts=wrong, **{"infos/goal": goals})
    assert read_d4rl(path, "antmaze-umaze-v0").lengths.tolist() == [4, 4]
    assert read_d4rl(path, "antmaze-umaze-v2").lengths.tolist() == [1, 5, 1]
    one = flat(tmp_path / "b.hdf5", timeouts=wrong, **{"infos/goal": np.ones((10, 2))})
    assert read_d4rl(one, "antmaze-umaze-v0").lengths.tolist() == [1, 5, 1]


# --- keys and damage


def test_types_and_shapes_of_all_ages_are_taken(tmp_path: Path) -> None:
    number = np.arange(10.0)
    path = flat(
        tmp_path / "a.hdf5",
        observations=np.stack([number, number], 1),
        rewards=number[:, None],
        terminals=at(10, 4).astype(np.uint8),
        timeouts=at(10, 9).astype(np.float64)[:, None],
    )
    data = read_d4rl(path)
    assert data.rewards.shape == (9,) and data.terminated.tolist() == [True, False]
    assert {array.dtype.name for array in (data.observations, data.actions, data.rewards)} == {"float32"}


def test_metadata_becomes_facts_but_weights_do_not(tmp_path: Path) -> None:
    extra = {"metadata/algorithm": "SAC", "metadata/iteration": np.array([500]), "metadata/policy/fc0/weight": np.ones((3, 3))}
    data = read_d4rl(flat(tmp_path / "hopper_medium-v2.hdf5", timeouts=at(10, 9), **extra))
    assert data.name == "hopper-medium-v2" and data.score == ReferenceScore(-20.272305, 3234.3)
    assert {key: data.facts[key] for key in ("algorithm", "iteration")} == {"algorithm": "SAC", "iteration": "500"}
    assert set(data.facts) == {"algorithm", "iteration", "dropped_steps", "dropped_reward"}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"rewards": None, "terminals": None}, "no rewards, terminals in it; it holds actions, observations, timeouts"),
        ({"actions": np.zeros((9, 1))}, "10 observations, 9 actions, 10 rewards, 10 terminals: not one a step"),
        ({"timeouts": np.zeros(9, bool)}, "9 timeouts for 10 steps"),
        ({"observations": np.zeros((10, 4, 4, 3))}, r"numbers in rows \(N, d\) are read here"),
        ({"rewards": np.zeros((10, 2))}, "/rewards are .10, 2., not one number a step"),
        ({"next_observations": np.zeros((10, 3))}, r"next_observations \(10, 3\), observations \(10, 2\)"),
        ({"rewards": np.full(10, np.nan)}, "rewards hold NaN"),
        ({"rewards": np.where(np.arange(10) == 4, np.inf, 1.0)}, "rewards hold NaN or infinity, first in row 4"),
        ({"observations": np.eye(10, 2, -7) * np.nan}, "observations hold NaN or infinity, first in row 0"),
        ({"observations": np.full((10, 2), 1e300)}, "observations hold NaN or infinity, first in row 0"),  # more than float32 has
        ({"actions": np.where(np.arange(10)[:, None] == 9, np.nan, 0.0)}, "actions hold NaN or infinity, first in row 9"),
        ({"next_observations": np.full((10, 2), np.nan)}, "next_observations hold NaN or infinity, first in row 0"),
        (
            {"observations": np.arange(10.0)},
            r"observations are numbers, \(10,\) of float64; .* Write one number a row as \(N, 1\)",
        ),
        ({"observations": np.zeros((10, 0))}, r"observations are numbers, \(10, 0\)"),
        ({"observations": np.array([[b"a"]] * 10)}, "observations are no numbers"),
        ({"observations": np.zeros((10, 4, 4, 3), np.uint8)}, r"observations are pictures, \(10, 4, 4, 3\) of uint8"),
        ({"rewards": np.array([b"1"] * 10)}, "rewards are of type .*, not numbers"),
        ({"timeouts": None, "timeouts/of": np.zeros(10, bool)}, "timeouts are a group, not one number a step"),
        ({"metadata/action_low": np.zeros(2), "metadata/action_high": np.ones(2)}, "hold 2 and 2 numbers, an action 1"),
        ({"metadata/robopref": "{"}, "metadata/robopref is damaged"),
    ],
)
def test_damage_is_named(tmp_path: Path, keys: dict[str, Any], said: str) -> None:
    path = flat(tmp_path / "a.hdf5", **keys)
    with pytest.raises(RoboprefError, match=said) as error:
        read_d4rl(path)
    assert str(error.value).startswith((str(path), "a: "))


def test_a_file_without_rows_or_keys_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.hdf5").write_bytes(b"")
    with pytest.raises(RoboprefError, match=r"empty.hdf5: truncated, damaged or not HDF5"):
        read_d4rl(tmp_path / "empty.hdf5")
    h5py.File(tmp_path / "bare.hdf5", "w").close()
    with pytest.raises(RoboprefError, match=r"bare.hdf5: no observations, actions, rewards, terminals in it; it holds nothing"):
        read_d4rl(tmp_path / "bare.hdf5")
    with pytest.raises(RoboprefError, match=r"none.hdf5: holds no step"):
        read_d4rl(flat(tmp_path / "none.hdf5", 0))


@pytest.mark.parametrize("kind", [">f8", "<f4", ">i4", np.int64, np.uint8, np.float16, bool])
def test_numbers_of_all_types_are_the_same_numbers(tmp_path: Path, kind: Any) -> None:
    number = np.arange(10) % 2
    path = flat(tmp_path / "a.hdf5", observations=np.stack([number, number], 1).astype(kind), rewards=number.astype(kind))
    data = read_d4rl(path)
    assert data.observations[:, 0].tolist() == number.tolist() and data.rewards.tolist() == number[:9].tolist()
    assert {array.dtype for array in (data.observations, data.rewards)} == {np.dtype(np.float32)}


def test_what_is_no_hdf5_or_cut_or_not_there_is_named(tmp_path: Path) -> None:
    cut = tmp_path / "cut.hdf5"
    cut.write_bytes(DOOR.read_bytes()[:700_000])
    with pytest.raises(RoboprefError, match=r"cut.hdf5: truncated, damaged or not HDF5"):
        read_d4rl(cut)
    with pytest.raises(RoboprefError, match=r"none.hdf5 is not there"):
        read_d4rl(tmp_path / "none.hdf5")


def test_memory_stays_below_three_times_the_file(tmp_path: Path) -> None:
    rows = 60_000
    following = np.random.default_rng(0).normal(size=(rows, 17)).astype(np.float32)
    before = np.roll(following, 1, 0)
    path = flat(
        tmp_path / "a.hdf5",
        rows,
        observations=before,
        next_observations=following,
        actions=following[:, :6].copy(),
        timeouts=np.arange(rows) % 1000 == 999,
    )
    tracemalloc.start()
    data = read_d4rl(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert data.episodes == 60 and len(data) == rows
    assert peak < 3 * path.stat().st_size


# --- both ways


@given(data=sets())
@settings(max_examples=20, deadline=None)
def test_what_is_written_as_hdf5_is_read_again(tmp_path_factory: pytest.TempPathFactory, data: OfflineData) -> None:
    path = write_d4rl(tmp_path_factory.mktemp("d4rl") / "any.hdf5", data)
    assert same(read_d4rl(path), data)
    with h5py.File(path) as file:
        assert (file["terminals"][()] | file["timeouts"][()]).nonzero()[0].tolist() == (data.first[1:] - 1).tolist()
        assert np.array_equal(file["next_observations"][()], data.next_obs)
        assert ("ref_min_score" in file["metadata"]) == (data.score is not None)


@given(data=sets())
@settings(max_examples=8, deadline=None)
def test_what_is_written_as_minari_is_read_again(tmp_path_factory: pytest.TempPathFactory, data: OfflineData) -> None:
    assert same(read_minari(write_minari(tmp_path_factory.mktemp("minari") / "set", data)), data)


def test_minari_itself_reads_the_door(inside: Path) -> None:
    data = read_d4rl(DOOR)
    path = write_minari(Path("door"), data)  # relative, which Minari alone does not survive
    found = minari.MinariDataset(path)
    assert (found.id, found.total_episodes, found.total_steps) == ("door-human-v0", 25, 6704)
    assert found.action_space.contains(data.actions[data.actions.max(1).argmax()])
    assert found.storage.metadata["ref_max_score"] == 2880.5693087298737
    episode = found[3]
    assert np.array_equal(episode.observations, data.take([3]).observations)
    assert episode.truncations[-1] and not episode.truncations[:-1].any() and not episode.terminations.any()


def test_a_failed_writing_leaves_what_was_there(tmp_path: Path) -> None:
    data = read_d4rl(DOOR).take([0])
    path, folder = write_d4rl(tmp_path / "a.hdf5", data), write_minari(tmp_path / "set", data)
    broken = replace(data, facts={"a": object()})  # type: ignore[dict-item]
    for write, target in ((write_d4rl, path), (write_minari, folder)):
        with pytest.raises(TypeError):
            write(target, broken)
    assert same(read_d4rl(path), data) and same(read_minari(folder), data)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a.hdf5", "set"]


# --- Minari sets of others


def foreign(path: Path, space: Any, episodes: list[EpisodeBuffer], data_format: str = "hdf5", **metadata: Any) -> Path:
    path.mkdir(parents=True)
    storage = MinariStorage.new(path, space, Box(-1, 1, (2,), np.float32), data_format=data_format)
    storage.update_episodes(episodes)
    storage.update_metadata({"dataset_id": "mujoco/hopper/expert-v0", "minari_version": "0.5.2"} | metadata)
    return path


def buffer(observations: Any, steps: int, terminated: bool) -> EpisodeBuffer:
    last = np.arange(steps) == steps - 1
    return EpisodeBuffer(
        observations=observations,
        actions=np.full((steps, 2), 0.5, np.float32),
        rewards=np.arange(steps, dtype=np.float64),
        terminations=last & terminated,
        truncations=last & (not terminated),
        infos={"x": np.zeros((steps + 1, 1))},
    )


@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
def test_a_foreign_minari_set(tmp_path: Path, data_format: str) -> None:
    spec = {"id": "Hopper-v5", "entry_point": "gymnasium.envs.mujoco.hopper_v5:HopperEnv"}
    episodes = [buffer(np.arange(12.0).reshape(4, 3), 3, True), buffer(np.ones((3, 3)), 2, False)]
    space = Box(-np.inf, np.inf, (3,), np.float64)
    foreign(tmp_path / "expert-v0" / "data", space, episodes, data_format, env_spec=json.dumps(spec))
    data = read_minari(tmp_path / "expert-v0")  # as Minari keeps it, in `data`
    assert (data.name, data.env_id, data.score) == ("mujoco/hopper/expert-v0", "mujoco/Hopper-v5", None)
    assert data.lengths.tolist() == [3, 2] and data.terminated.tolist() == [True, False]
    assert data.observations[:4].tolist() == np.arange(12.0).reshape(4, 3).tolist() and data.returns.tolist() == [3, 1]
    assert data.facts["minari_version"] == "0.5.2"


def test_a_minari_set_of_d4rl_carries_its_scores_and_goals_are_appended(tmp_path: Path) -> None:
    box = Box(-np.inf, np.inf, (2,), np.float64)
    space = Dict({"observation": box, "achieved_goal": box, "desired_goal": box})
    parts = {"observation": np.zeros((3, 2)), "achieved_goal": np.ones((3, 2)), "desired_goal": np.full((3, 2), 7.0)}
    path = foreign(tmp_path / "set", space, [buffer(parts, 2, False)], ref_min_score=0.0, ref_max_score=1.0)
    data = load_offline(path)
    assert data.score == ReferenceScore(0, 1) and data.observations.tolist() == [[0, 0, 7, 7]] * 3


def test_robopref_s_own_episodes_are_a_minari_set(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    episode = Episode(
        observations=rng.normal(size=(5, 39)),
        actions=rng.uniform(-1, 1, (4, 4)).astype(np.float32),
        rewards=np.arange(4.0),
        success=np.zeros(4, bool),
        near_object=np.zeros(4),
        sim_dynamic=np.zeros((5, 7)),
        sim_static=np.zeros(2),
        env_id="metaworld/drawer-open",
        level="expert",
        seed=0,
        policy="scripted",
    )
    write_episodes(tmp_path / "set", "metaworld/drawer-open", [episode, episode], {})
    data = load_offline(tmp_path / "set")
    assert (data.env_id, data.lengths.tolist(), data.score) == ("metaworld/drawer-open", [4, 4], None)
    assert np.array_equal(data.observations[:5], episode.observations.astype(np.float32))


def test_damaged_minari_sets_are_named(tmp_path: Path) -> None:
    data = read_d4rl(DOOR).take([0, 1])
    with pytest.raises(RoboprefError, match=r"no Minari set: it has no metadata.json"):
        load_offline(tmp_path)
    path = write_minari(tmp_path / "set", data)
    with h5py.File(path / "main_data.hdf5", "a") as file:
        del file["episode_1/rewards"]
    with pytest.raises(RoboprefError, match="damaged, after 1 whole episodes"):
        read_minari(path)
    (path / "main_data.hdf5").write_bytes(b"")
    with pytest.raises(RoboprefError, match="damaged, after 0 whole episodes"):
        read_minari(path)


@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
def test_an_end_inside_an_episode_is_an_end(tmp_path: Path, capsys: pytest.CaptureFixture[str], data_format: str) -> None:
    observations = np.random.default_rng(0).normal(size=(11, 3)).cumsum(0)
    inside = buffer(observations, 10, True)
    inside.terminations[3], inside.truncations[6] = True, True
    path = tmp_path / "set"
    foreign(path, Box(-np.inf, np.inf, (3,), np.float64), [buffer(observations[:6], 5, False), inside], data_format)
    data = read_minari(path)
    assert data.lengths.tolist() == [5, 4, 3, 3] and data.terminated.tolist() == [False, True, False, True]
    assert data.terminals.tolist() == at(15, 8, 14).tolist() and data.rewards[5:].tolist() == list(range(10))
    expected = np.concatenate([observations[:6], observations[:5], observations[4:8], observations[7:]])
    assert np.array_equal(data.observations, expected.astype(np.float32))
    assert "1 episodes end before their last step (episode 1 at 3): the rest is another episode" in capsys.readouterr().err


@pytest.mark.parametrize("after", [4, 5])  # the step that ends the episode resets the world, or the next one does
def test_an_end_inside_an_episode_with_a_reset_is_refused(tmp_path: Path, after: int) -> None:
    observations = np.random.default_rng(0).normal(size=(11, 3)).cumsum(0)
    observations[after:] += 100
    inside = buffer(observations, 10, False)
    inside.terminations[3] = True
    path = foreign(tmp_path / "set", Box(-np.inf, np.inf, (3,), np.float64), [inside])
    with pytest.raises(
        RoboprefError, match=r"set, episode 0: it ends at step 3, goes on, and jumps as at a reset: .* two episodes"
    ):
        read_minari(path)


def test_an_episode_without_an_end_was_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_end = buffer(np.ones((4, 3)), 3, False)
    open_end.truncations[:] = False
    path = foreign(tmp_path / "set", Box(-np.inf, np.inf, (3,), np.float64), [open_end, buffer(np.ones((4, 3)), 3, True)])
    data = read_minari(path)
    assert data.terminated.tolist() == [False, True] and data.lengths.tolist() == [3, 3]
    assert capsys.readouterr().err == f"warning: {path}: 1 of 2 episodes end without a flag: taken as cut by time\n"


@pytest.mark.parametrize(
    ("key", "values", "said"),
    [
        ("observations", np.zeros((3, 3)), "set, episode 1: 3 observations for 3 steps, where there is one a step and one more"),
        ("actions", np.zeros((2, 2)), "set, episode 1: 2 actions for 3 steps"),
        ("terminations", np.zeros(2, bool), "set, episode 1: 2 terminations for 3 steps"),
        ("truncations", np.zeros(4, bool), "set, episode 1: 4 truncations for 3 steps"),
        ("truncations", np.full(3, np.nan), "set, episode 1: truncations hold nan in row 0"),
        ("terminations", None, r"damaged, after 1 whole episodes \(no terminations in the next one\)"),
        ("observations", np.full((4, 3), np.inf), "set, episode 1: observations hold NaN or infinity, first in row 0"),
        ("rewards", np.array([0, 0, np.nan]), "set, episode 1: rewards hold NaN or infinity, first in row 2"),
        ("observations", np.zeros((4, 8, 8, 3), np.uint8), r"set, episode 1: observations are pictures of shape \(8, 8, 3\)"),
        ("actions", np.zeros(3, np.int64), r"set, episode 1: actions are arrays of shape \(\) and int64"),
    ],
)
def test_a_minari_episode_that_does_not_fit_is_named(tmp_path: Path, key: str, values: Any, said: str) -> None:
    path = foreign(tmp_path / "set", Box(-np.inf, np.inf, (3,), np.float64), [buffer(np.ones((4, 3)), 3, True)] * 2)
    with h5py.File(path / "main_data.hdf5", "a") as file:
        del file[f"episode_1/{key}"]
        if values is not None:
            file[f"episode_1/{key}"] = values
    with pytest.raises(RoboprefError, match=said):
        read_minari(path)


def test_minari_flags_may_be_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = foreign(tmp_path / "set", Box(-np.inf, np.inf, (3,), np.float64), [buffer(np.ones((4, 3)), 3, True)])
    with h5py.File(path / "main_data.hdf5", "a") as file:
        del file["episode_0/terminations"], file["episode_0/truncations"]
        file["episode_0/terminations"], file["episode_0/truncations"] = (
            np.array([b"False"] * 3),
            np.array([b"False"] * 2 + [b"True"]),
        )
    assert read_minari(path).terminated.tolist() == [False]
    assert "terminations are words, read as true and false; truncations are words" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"total_episodes": 1}, "2 episodes where metadata.json tells of 1: a writing was cut"),
        ({"total_episodes": 3}, "damaged, after 2 whole episodes"),
        ({"total_episodes": 0}, "2 episodes where metadata.json tells of 0"),
        ({"action_space": {"type": "Round"}}, "its action_space is of no kind that Minari reads"),
        (
            {"action_space": {"type": "MultiBinary", "n": [2]}},
            r"its actions are MultiBinary\(.*those of a Box are learnt from here",
        ),
    ],
)
def test_metadata_that_contradict_the_episodes_are_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = foreign(tmp_path / "set", Box(-np.inf, np.inf, (3,), np.float64), [buffer(np.ones((4, 3)), 3, True)] * 2)
    metadata = json.loads((path / "metadata.json").read_text())
    (path / "metadata.json").write_text(json.dumps(metadata | change))
    with pytest.raises(RoboprefError, match=said):
        read_minari(path)


def test_steps_of_metadata_that_disagree_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = foreign(tmp_path / "set", Box(-np.inf, np.inf, (3,), np.float64), [buffer(np.ones((4, 3)), 3, True)])
    metadata = json.loads((path / "metadata.json").read_text())
    (path / "metadata.json").write_text(json.dumps(metadata | {"total_steps": 77}))
    assert len(read_minari(path)) == 3
    assert "metadata.json tells of 77 steps, the episodes hold 3: these were read" in capsys.readouterr().err


@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
def test_metadata_alone_are_no_set(tmp_path: Path, data_format: str) -> None:
    path = foreign(tmp_path / "set", Box(-np.inf, np.inf, (3,), np.float64), [buffer(np.ones((4, 3)), 3, True)], data_format)
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "metadata.json").write_text((path / "metadata.json").read_text())
    with pytest.raises(RoboprefError, match="the episodes are not: get them with `minari download mujoco/hopper/expert-v0`"):
        read_minari(tmp_path / "far")


# --- units of actions


def in_box(low: Any, high: Any, actions: Any, path: Path, **metadata: Any) -> Path:
    """A Minari set of one episode whose action space is this box."""
    values = np.atleast_2d(np.asarray(actions, np.float32))
    episode = buffer(np.ones((len(values) + 1, 3)), len(values), False)
    episode = replace(episode, actions=values)
    path.mkdir(parents=True)
    space = Box(np.asarray(low, np.float32), np.asarray(high, np.float32), dtype=np.float32)
    storage = MinariStorage.new(path, Box(-np.inf, np.inf, (3,), np.float64), space)
    storage.update_episodes([episode])
    storage.update_metadata({"dataset_id": "mine/set-v0", "minari_version": "0.5.2"} | metadata)
    return path


def test_actions_are_recorded_in_their_world_s_units_and_learnt_from_in_the_policy_s(tmp_path: Path) -> None:
    path = in_box([-2, 0], [2, 10], [[-2, 0], [0.8, 5], [2, 10]], tmp_path / "set")
    data = read_minari(path)
    assert data.actions.tolist() == np.float32([[-2, 0], [0.8, 5], [2, 10]]).tolist()
    unit = clipped(data)
    assert unit.actions == pytest.approx(np.array([[-1, -1], [0.4, 0], [1, 1]])) and unit.actions.dtype == np.float32
    assert same(clipped(unit), unit)  # once is enough
    for again in (read_d4rl(write_d4rl(tmp_path / "a.hdf5", data)), read_minari(write_minari(tmp_path / "again", data))):
        assert same(again, data) and same(clipped(again), unit)
    with h5py.File(tmp_path / "a.hdf5") as file:
        assert file["metadata/action_low"][()].tolist() == [-2, 0] and file["metadata/action_high"][()].tolist() == [2, 10]
    assert minari.MinariDataset(tmp_path / "again").action_space == Box(
        np.float32([-2, 0]), np.float32([2, 10]), dtype=np.float32
    )


def test_actions_of_a_world_between_minus_one_and_one_are_as_they_were(tmp_path: Path) -> None:
    actions = np.random.default_rng(0).uniform(-1, 1, (50, 2)).astype(np.float32)
    data = read_minari(in_box([-1, -1], [1, 1], actions, tmp_path / "set"))
    assert clipped(data).actions.tobytes() == actions.tobytes()


def test_a_file_s_box_is_that_of_the_environment_it_names(tmp_path: Path) -> None:
    actions = np.full((10, 7), 0.8, np.float32)
    for told in ("Pusher-v5", "mujoco/Pusher-v5", "mujoco/pusher"):
        data = read_d4rl(flat(tmp_path / "a.hdf5", actions=actions, **{"metadata/env_id": told}))
        assert clipped(data).actions == pytest.approx(np.full((9, 7), 0.4)) and data.actions.max() == np.float32(0.8)
    declared = {"metadata/action_low": np.full(7, -1.0), "metadata/action_high": np.ones(7)}  # recorded behind a wrapper
    data = read_d4rl(flat(tmp_path / "a.hdf5", actions=actions, **{"metadata/env_id": "mujoco/pusher"}, **declared))
    assert clipped(data).actions.max() == np.float32(0.8) and not {"action_low", "action_high"} & data.facts.keys()


def test_actions_beyond_the_box_are_clipped_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = clipped(read_minari(in_box([-2], [2], [[3], [1], [-2], [0]], tmp_path / "set")))
    assert data.actions[:, 0].tolist() == [1, 0.5, -1, 0]
    assert capsys.readouterr().err == (
        "warning: mine/set-v0: 25.0 % of the steps have actions beyond [-2, 2], clipped as the environment does\n"
    )


def test_a_box_that_nothing_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inside, beyond = (flat(tmp_path / f"{name}.hdf5", actions=np.full((10, 1), a)) for name, a in (("in", 0.9), ("out", 1.8)))
    assert clipped(read_d4rl(inside)).actions.max() == np.float32(0.9)
    said = "warning: in: neither a box of actions nor an environment of robopref's is told: they are taken as of [-1, 1]\n"
    assert capsys.readouterr().err.endswith(said)
    with pytest.raises(
        RoboprefError, match=r"out: the box of its actions is not told, and they reach 1.8: they cannot be scaled"
    ):
        clipped(read_d4rl(beyond))
    without = in_box([-2], [2], [[1.8]], tmp_path / "set")
    metadata = json.loads((without / "metadata.json").read_text())
    del metadata["action_space"]
    (without / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(RoboprefError, match=r"mine/set-v0: the box of its actions is not told, and they reach 1.8"):
        clipped(read_minari(without))


def test_a_box_without_bounds_is_that_of_the_environment_or_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        RoboprefError, match=r"the box of its actions is \[-inf, inf\], and they reach 0.5: they cannot be scaled"
    ):
        clipped(read_minari(in_box([-np.inf], [np.inf], [[0.5]], tmp_path / "set")))
    with pytest.raises(RoboprefError, match=r"is \[0, inf\], and they reach 0.5"):
        clipped(read_minari(in_box([0], [np.inf], [[0.5]], tmp_path / "half")))
    spec = json.dumps({"id": "Pusher-v5", "entry_point": "gymnasium.envs.mujoco.pusher_v5:PusherEnv"})
    data = read_minari(in_box([-np.inf] * 7, [np.inf] * 7, np.full((2, 7), 0.8), tmp_path / "pusher", env_spec=spec))
    assert clipped(data).actions == pytest.approx(np.full((2, 7), 0.4))
    said = "the box of its actions is [-inf, inf]: taken as that of mujoco/Pusher-v5, [-2, 2]"
    assert said in capsys.readouterr().err
    with pytest.raises(RoboprefError, match=r"the box of its actions is \[3, 3\]: write bounds that rise in every number"):
        read_minari(in_box([3], [3], [[3]], tmp_path / "flat"))


def test_info_says_in_which_units_actions_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["info", str(in_box([-2], [2], [[1.8], [0]], tmp_path / "set")), str(in_box([-2], [2], [[3], [0]], tmp_path / "out"))])
    said = capsys.readouterr().out
    assert "actions             in [-2, 2], which policies act in as [-1, 1]" in said
    assert "actions             50.0 % of the steps beyond [-2, 2], the largest 3.000" in said


# --- names


def test_names_lead_to_the_files_of_d4rls_host() -> None:
    host = "http://rail.eecs.berkeley.edu/datasets/offline_rl/"
    known = {
        "hopper-medium-replay-v2": "gym_mujoco_v2/hopper_medium_replay-v2.hdf5",
        "halfcheetah-medium-expert-v1": "gym_mujoco_v1/halfcheetah_medium_expert-v1.hdf5",
        "walker2d-medium-replay-v0": "gym_mujoco/walker_mixed.hdf5",
        "hopper-medium-replay-v0": "gym_mujoco/hopper_mixed.hdf5",
        "ant-medium-expert-v0": "gym_mujoco/ant_medium_expert.hdf5",
        "door-human-v0": "hand_dapg/door-v0_demos_clipped.hdf5",
        "pen-cloned-v0": "hand_dapg/pen-demos-v0-bc-combined.hdf5",
        "relocate-expert-v0": "hand_dapg/relocate-v0_expert_clipped.hdf5",
        "hammer-cloned-v1": "hand_dapg_v1/hammer-cloned-v1.hdf5",
        "antmaze-umaze-v0": "ant_maze_new/Ant_maze_u-maze_noisy_multistart_False_multigoal_False_sparse.hdf5",
        "antmaze-large-diverse-v2": "ant_maze_v2/Ant_maze_hardest-maze_noisy_multistart_True_multigoal_True_sparse_fixed.hdf5",
        "kitchen-mixed-v0": "kitchen/kitchen_microwave_kettle_bottomburner_light-v0.hdf5",
    }
    assert {name: url_of(name) for name in known} == {name: host + path for name, path in known.items()}
    assert len(FILES) == len(PATHS) == 4 * (6 + 6 + 5) + 4 * 6 + 12 + 3
    assert url_of("door-human-v1", "https://mirror.org/d4rl/") == "https://mirror.org/d4rl/hand_dapg_v1/door-human-v1.hdf5"
    assert url_of("door-human-v1", "https://mirror.org/{name}.h5") == "https://mirror.org/door-human-v1.h5"


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("halfcheetah-medium-v2", -280.178953, 12135.0),
        ("mujoco/hopper", -20.272305, 3234.3),
        ("mujoco/Hopper-v5", -20.272305, 3234.3),
        ("walker2d", 1.629008, 4592.3),
        ("mujoco/ant", -325.6, 3879.7),
        ("antmaze-medium-play-v2", 0, 1),
        ("kitchen-partial-v0", 0, 4),
        ("pen-human-v1", 96.262799, 3076.8331017826877),
        ("adroit/hammer", -274.856578, 12794.134825156867),
        ("AdroitHandDoor-v1", -56.512833, 2880.5693087298737),
        ("relocate-human-longhorizon-v1", -6.425911, 4233.877797728884),
    ],
)
def test_reference_scores_are_the_benchmarks(name: str, low: float, high: float) -> None:
    assert reference_score(name) == ReferenceScore(low, high)


@pytest.mark.parametrize(
    "name", ["metaworld/door-open", "mujoco/door", "bullet-hopper-medium-v0", "dmc/hopper-hop", "door-open-v2", ""]
)
def test_other_names_have_no_reference(name: str) -> None:
    assert reference_score(name) is None and env_of(name) is None


def test_environments_are_those_with_the_same_observations() -> None:
    assert env_of("hopper-medium-replay-v2") == "mujoco/hopper" and env_of("door-human-v0") == "adroit/door"
    assert env_of("ant-medium-v2") is env_of("antmaze-umaze-v2") is env_of("kitchen-mixed-v0") is None


def test_a_name_finds_its_file_by_either_name(tmp_path: Path) -> None:
    data = replace(read_d4rl(DOOR).take([0]), name="hopper-medium-v2")
    write_d4rl(tmp_path / "one" / "hopper-medium-v2.hdf5", data)
    write_d4rl(tmp_path / "two" / "hopper_medium-v2.hdf5", data)
    assert same(load_offline("hopper-medium-v2", tmp_path / "one"), data)
    assert same(load_offline("hopper-medium-v2", tmp_path / "two"), data)
    (tmp_path / "one" / "hopper-medium-v2.hdf5").write_bytes(b"")
    with pytest.raises(RoboprefError, match=r"sha256 is e3b0c44298fc.*, expected .*delete it and get it again"):
        load_offline("hopper-medium-v2", tmp_path / "one")


def test_what_is_not_there_is_named_with_its_address(tmp_path: Path) -> None:
    with pytest.raises(RoboprefError, match=r"hopper_medium-v2.hdf5 is not there: get it from http://rail.*name, hopper-m"):
        load_offline(tmp_path / "hopper_medium-v2.hdf5")
    with pytest.raises(RoboprefError, match=r"nor a set of D4RL. Did you mean 'hopper-medium-v2'"):
        load_offline("hoper-medium-v2", tmp_path)
    (tmp_path / "door-close").mkdir()
    for path, said in {
        "nothing": "nothing does not exist.",
        "door-clse": f"door-clse does not exist. Did you mean '{tmp_path / 'door-close'}'?",
        "ofline/door": f"ofline/door does not exist: there is no {tmp_path / 'ofline'}.",
        "mujoco/hopper/medium-replay.hdf5": f"/medium-replay.hdf5 does not exist: there is no {tmp_path / 'mujoco'}. "
        f"`robopref collect protocol=d4rl env=mujoco/hopper out={tmp_path / 'mujoco/hopper'}` makes it",
        "hoper-medium-v2.hdf5": "hoper-medium-v2.hdf5 does not exist.",
    }.items():
        with pytest.raises(RoboprefError) as caught:
            load_offline(tmp_path / path)
        assert str(caught.value).endswith(said) and str(caught.value).startswith(f"{tmp_path / path} does")


# --- the command


def test_the_command_shows_and_converts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["info", str(DOOR)])
    said = capsys.readouterr().out
    assert "25, 0 terminated, of 222 to 299 steps" in said and "environment         adroit/door" in said
    assert "mean 794.10, with the 25 last steps that have no next observation" in said and "28.96, times 100" in said
    main(["convert", str(DOOR), str(tmp_path / "set")])
    main(["convert", str(tmp_path / "set"), str(tmp_path / "again.hdf5")])
    assert same(read_d4rl(tmp_path / "again.hdf5"), read_d4rl(DOOR))
    with pytest.raises(RoboprefError, match="is there already"):
        main(["convert", str(DOOR), str(tmp_path / "set")])


@pytest.mark.parametrize("content", ["[]", "null"])
def test_a_minari_folder_whose_metadata_is_no_settings_is_named(content: str, tmp_path: Path) -> None:
    write_minari(tmp_path / "set", read_d4rl(DOOR).take([0, 1]))
    (tmp_path / "set" / "metadata.json").write_text(content)
    with pytest.raises(RoboprefError, match=r"set: metadata.json holds no names and values"):
        load_offline(tmp_path / "set")


def test_an_episode_of_another_width_in_a_minari_folder_is_named(tmp_path: Path) -> None:
    write_minari(tmp_path / "set", read_d4rl(DOOR).take([0, 1]))
    with h5py.File(tmp_path / "set" / "main_data.hdf5", "a") as file:
        seen = file["episode_1/observations"][:]
        del file["episode_1/observations"]
        file["episode_1/observations"] = np.repeat(seen, 2, axis=1)
    with pytest.raises(RoboprefError, match=r"set, episode 1: observations and actions of .* numbers, the first has"):
        load_offline(tmp_path / "set")
