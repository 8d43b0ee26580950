"""Flags that lie about where episodes end: no transition that is read leads from one episode into the next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pytest

from robopref.configs.errors import RoboprefError
from robopref.datasets.d4rl import main, read_d4rl, write_d4rl
from robopref.datasets.episode_ends import change_sizes, standing_out
from robopref.datasets.offline import OfflineData

DOOR = Path(__file__).parent / "data" / "door-human-v0.hdf5"
EQUAL, UNEQUAL = (20,) * 10, (20, 13, 31, 8, 25, 17, 22)
Set = dict[str, np.ndarray]


def counted(lengths: tuple[int, ...]) -> Set:
    """Episodes that count their steps from 1,000 times their number on, with where they end and what follows every row."""
    parts = [1000.0 * number + np.arange(length) for number, length in enumerate(lengths)]
    steps = np.concatenate([np.arange(length) for length in lengths])
    observations = np.stack([np.concatenate(parts), steps], 1).astype(np.float32)
    ends = np.isin(np.arange(len(steps)), np.cumsum(lengths) - 1)
    return {"observations": observations, "ends": ends, "following": observations + 1}


def demonstrations() -> Set:
    with h5py.File(DOOR) as file:
        observations, ends = file["observations"][()], file["timeouts"][()]
    following = np.concatenate([observations[1:], observations[-1:]])
    following[ends] = observations[ends] + 0.001
    return {"observations": observations, "ends": ends, "following": following}


def pendulum() -> Set:
    """Of a world whose resets stand out from most steps, and not from all."""
    env, rows, following = gym.make("Pendulum-v1"), [], []
    env.action_space.seed(0)
    for seed in range(8):
        obs, _ = env.reset(seed=seed)
        for _ in range(100):
            rows.append(obs)
            obs = env.step(env.action_space.sample())[0]
            following.append(obs)
    return {"observations": np.array(rows), "ends": np.arange(800) % 100 == 99, "following": np.array(following)}


SETS = {"equal": counted(EQUAL), "unequal": counted(UNEQUAL), "door": demonstrations(), "pendulum": pendulum()}


def write(path: Path, observations: np.ndarray, **keys: Any) -> Path:
    """Rewards are the numbers of the rows."""
    rows = len(observations)
    content = {"observations": observations, "actions": np.zeros((rows, 1), np.float32), "rewards": np.arange(rows)} | keys
    with h5py.File(path, "w") as file:
        for key, value in ({"terminals": np.zeros(rows, bool)} | content).items():
            file[key] = value
    return path


def impossible(data: OfflineData, truth: Set) -> int:
    """Transitions that did not happen; a terminal one may keep its own observation, which nobody uses."""
    numbers, after = data.rewards.astype(int), data.next_obs
    happened = (after == truth["following"][numbers]).all(1)
    happened |= ~truth["ends"][numbers] & (after == truth["observations"][np.minimum(numbers + 1, len(truth["ends"]) - 1)]).all(1)
    return int((~happened & ~(data.terminals & (after == data.obs).all(1))).sum())


def reset_told(truth: Set) -> np.ndarray:
    """Next observations as vector environments hand them out: those of the next episode's start at an end."""
    return np.concatenate([truth["observations"][1:], truth["observations"][:1]])


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("told", ["nothing", "right", "reset"])
@pytest.mark.parametrize("step", [-1, 0, 1])
@pytest.mark.parametrize("wraps", [True, False])
def test_timeouts_one_row_off_are_moved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, told: str, step: int, wraps: bool
) -> None:
    truth = SETS[name]
    timeouts = np.roll(truth["ends"], step)
    if not wraps and step:
        timeouts[0 if step > 0 else -1] = False
    following = {
        "nothing": {},
        "right": {"next_observations": truth["following"]},
        "reset": {"next_observations": reset_told(truth)},
    }
    data = read_d4rl(write(tmp_path / "x.hdf5", truth["observations"], timeouts=timeouts, **following[told]))
    lost = 0 if told == "right" else truth["ends"].sum()
    assert impossible(data, truth) == 0 and len(data) == len(truth["ends"]) - lost and data.episodes == truth["ends"].sum()
    said = capsys.readouterr().err
    assert (f"timeouts are one row {'late' if step > 0 else 'early'}" in said) == bool(step)
    assert ("are the next episode's first: these rows are no transitions" in said) == (told == "reset")
    assert said.count("\n") == bool(said) and data.facts.get("repaired", "") == said.partition("x.hdf5: ")[2].strip()


@pytest.mark.parametrize("flags", [{}, {"timeouts": False}], ids=["missing", "never true"])
@pytest.mark.parametrize("told", [False, True])
def test_equal_episodes_without_flags_are_cut(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: dict[str, bool], told: bool
) -> None:
    for name, length in (("equal", 20), ("pendulum", 100)):
        truth = SETS[name]
        keys: dict[str, Any] = {"timeouts": np.zeros(len(truth["ends"]), bool)} if flags else {}
        keys |= {"next_observations": reset_told(truth)} if told else {}
        data = read_d4rl(write(tmp_path / "x.hdf5", truth["observations"], **keys))
        assert data.lengths.tolist() == [length - 1] * truth["ends"].sum() and impossible(data, truth) == 0
        said = capsys.readouterr().err
        assert f"{'timeouts are never true' if flags else 'no timeouts'}, but observations jump as at a reset" in said
        assert f"cut there, after {length}" in said


def test_next_observations_say_where_episodes_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, truth in SETS.items():
        never = np.zeros(len(truth["ends"]), bool)
        path = write(tmp_path / "x.hdf5", truth["observations"], timeouts=never, next_observations=truth["following"])
        data = read_d4rl(path)
        assert data.first[1:].tolist() == (np.flatnonzero(truth["ends"]) + 1).tolist() and impossible(data, truth) == 0, name
        assert f"timeouts are never true, but {truth['ends'].sum() - 1} episodes end by next_obs" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["unequal", "door"])
@pytest.mark.parametrize("keys", [("timeouts",), (), ("timeouts", "next_observations")])
def test_unequal_episodes_without_flags_are_refused(tmp_path: Path, name: str, keys: tuple[str, ...]) -> None:
    truth = SETS[name]
    content = {"timeouts": np.zeros(len(truth["ends"]), bool), "next_observations": reset_told(truth)}
    path = write(tmp_path / "x.hdf5", truth["observations"], **{key: content[key] for key in keys})
    with pytest.raises(
        RoboprefError, match=r"x.hdf5: .*jump as at a reset after \d+ rows .*, not equally far apart: write timeouts"
    ):
        read_d4rl(path)
    if name == "door":  # D4RL's limit is 200 steps, which people did not keep to
        with pytest.raises(RoboprefError, match=r"jump as at a reset after \d+ rows .*, not after the 200 steps of an episode"):
            read_d4rl(path, "door-human-v0")


@pytest.mark.parametrize(
    ("name", "extra", "limit"),
    [
        ("pen-human-v1.hdf5", {}, 100),  # by D4RL's name
        ("x.hdf5", {"metadata/env_id": "mujoco/Pusher-v5"}, 100),  # by the environment's max_episode_steps
        ("x.hdf5", {"metadata/env_id": "Pusher-v5"}, 100),
        ("x.hdf5", {"metadata/env_id": "adroit/door"}, 200),
        ("x.hdf5", {"metadata/env_id": "dmc/walker-walk"}, 1000),
        ("x.hdf5", {"metadata/env_id": "metaworld/reach"}, 500),
    ],
)
@pytest.mark.parametrize("length", ["whole", "not whole"])
def test_the_limit_cuts_what_no_flag_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, extra: dict[str, str], limit: int, length: str
) -> None:
    rows = 3 * limit - (length == "not whole") * (limit // 2)
    observations = np.random.default_rng(0).normal(size=(rows, 3)).cumsum(0)  # nothing jumps
    flags = {"timeouts": np.zeros(rows, bool)}
    data = read_d4rl(write(tmp_path / name, observations, **flags, **extra))
    assert data.lengths.tolist() == [limit - 1, limit - 1, rows - 2 * limit - 1]
    assert f"timeouts are never true, although episodes have {limit} steps: cut after so many" in capsys.readouterr().err
    short = read_d4rl(write(tmp_path / name, observations[:limit], timeouts=flags["timeouts"][:limit], **extra))
    assert short.lengths.tolist() == [limit - 1] and not capsys.readouterr().err  # no contradiction


def test_late_and_early_flags_show_by_the_limit_too(tmp_path: Path) -> None:
    observations = np.random.default_rng(0).normal(size=(400, 3)).cumsum(0)
    ends = np.arange(400) % 100 == 99
    for step, word in ((1, "late"), (-1, "early")):
        data = read_d4rl(write(tmp_path / "pen-human-v1.hdf5", observations, timeouts=np.roll(ends, step)))
        assert data.lengths.tolist() == [99] * 4 and f"one row {word}" in data.facts["repaired"]
    people = read_d4rl(write(tmp_path / "pen-human-v1.hdf5", observations, timeouts=np.arange(400) % 200 == 199))
    assert people.lengths.tolist() == [199, 199] and not people.facts.keys() & {"repaired"}


def test_a_lost_flag_is_found_where_the_others_show_what_a_reset_is(tmp_path: Path) -> None:
    for name in ("equal", "unequal", "door"):
        truth = SETS[name]
        timeouts = truth["ends"].copy()
        timeouts[np.flatnonzero(timeouts)[2]] = False
        data = read_d4rl(write(tmp_path / "x.hdf5", truth["observations"], timeouts=timeouts))
        assert data.episodes == truth["ends"].sum() and impossible(data, truth) == 0
        assert "after 1 rows" in data.facts["repaired"] and "where no flag ends an episode: cut there" in data.facts["repaired"]


def test_terminals_are_held_against_the_rows_too(tmp_path: Path) -> None:
    truth = SETS["unequal"]
    right = write(tmp_path / "x.hdf5", truth["observations"], terminals=truth["ends"])
    assert read_d4rl(right).terminated.all() and "repaired" not in read_d4rl(right).facts
    late = read_d4rl(write(tmp_path / "x.hdf5", truth["observations"], terminals=np.roll(truth["ends"], 1)))
    assert late.first.tolist() == read_d4rl(right).first.tolist() and late.terminated.all()
    assert impossible(late, truth) == 0 and "terminals are one row late" in late.facts["repaired"]
    told = read_d4rl(
        write(tmp_path / "x.hdf5", truth["observations"], terminals=truth["ends"], next_observations=reset_told(truth))
    )
    assert impossible(told, truth) == 0 and len(told) == len(truth["ends"])
    assert "7 terminal rows are the next episode's first: these rows keep their own observation" in told.facts["repaired"]


def test_cuts_without_a_reset_keep_their_transitions(tmp_path: Path) -> None:
    """A world that goes on when a recorder cuts: next observations are the next row, and nothing jumps."""
    observations = np.random.default_rng(0).normal(size=(400, 3)).cumsum(0).astype(np.float32)
    following = np.concatenate([observations[1:], observations[-1:] + 0.1])
    path = write(tmp_path / "x.hdf5", observations, timeouts=np.arange(400) % 50 == 49, next_observations=following)
    data = read_d4rl(path)
    assert len(data) == 400 and data.lengths.tolist() == [50] * 8 and data.facts == {}


def test_one_episode_without_a_flag_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    observations = np.arange(20.0)[:, None]
    data = read_d4rl(write(tmp_path / "x.hdf5", observations, timeouts=np.zeros(20, bool)))
    assert data.lengths.tolist() == [19] and "no flag ends an episode: read as one of 20 rows" in capsys.readouterr().err
    with pytest.raises(RoboprefError, match="nothing in it says where episodes end"):
        read_d4rl(write(tmp_path / "x.hdf5", observations))
    read_d4rl(write(tmp_path / "x.hdf5", observations, timeouts=np.arange(20) == 19))
    assert not capsys.readouterr().err
    observations[2:] += 50  # a start that is unlike the rest: two large steps, one after the other
    observations[1] += 30
    data = read_d4rl(write(tmp_path / "x.hdf5", observations, timeouts=np.zeros(20, bool)))
    assert data.lengths.tolist() == [19]


def test_next_observations_of_other_rows_are_refused(tmp_path: Path) -> None:
    truth = SETS["equal"]
    for wrong in (truth["observations"], np.roll(truth["following"], 7, 0), np.zeros_like(truth["observations"])):
        with pytest.raises(RoboprefError, match=r"next_observations of \d+ rows are not the row after"):
            read_d4rl(write(tmp_path / "x.hdf5", truth["observations"], timeouts=truth["ends"], next_observations=wrong))


@pytest.mark.parametrize(
    ("values", "word"),
    [
        (lambda true: np.array([b"True" if x else b"False" for x in true]), True),
        (lambda true: np.array([b"1" if x else b"0" for x in true]), True),
        (lambda true: np.array([str(x) for x in true], dtype=h5py.string_dtype()), True),
        (lambda true: true.astype(np.float64), False),
        (lambda true: true.astype(">f4")[:, None], False),
        (lambda true: true.astype(np.uint8), False),
        (lambda true: true.astype(np.int64), False),
    ],
)
def test_flags_of_all_types_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str], values: Any, word: bool) -> None:
    truth = SETS["equal"]
    none = np.zeros(len(truth["ends"]), bool)
    path = write(tmp_path / "x.hdf5", truth["observations"], terminals=values(none), timeouts=values(truth["ends"]))
    data = read_d4rl(path)
    assert data.lengths.tolist() == [19] * 10 and not data.terminated.any()
    assert ("terminals are words, read as true and false; timeouts are words" in capsys.readouterr().err) == word


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.where(np.arange(200) == 7, np.nan, 0.0), "timeouts hold nan in row 7: write them as true and false, or 1 and 0"),
        (np.full(200, 0.5), "timeouts hold 0.5 in row 0"),
        (np.full(200, 255, np.uint8), "timeouts hold 255 in row 0"),
        (np.array([b"perhaps"] * 200), "timeouts hold b'perhaps' in row 0"),
        (np.zeros(200, complex), "timeouts are of type complex128"),
        (np.zeros(199, bool), "199 timeouts for 200 steps"),
        (np.zeros((200, 2), bool), r"timeouts are \(200, 2\), not one number a step"),
    ],
)
def test_what_is_no_flag_is_refused(tmp_path: Path, values: np.ndarray, said: str) -> None:
    with pytest.raises(RoboprefError, match=said) as error:
        read_d4rl(write(tmp_path / "x.hdf5", SETS["equal"]["observations"], timeouts=values))
    assert str(error.value).startswith(str(tmp_path / "x.hdf5"))


def test_our_own_files_are_held_against_themselves_only_where_they_were_changed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    walk = rng.normal(size=(60, 2)).cumsum(0).astype(np.float32)
    # two episodes that are one walk, which are joined, and a third one from elsewhere
    observations = np.concatenate([walk[:31], walk[30:], 100 + walk[:21]])
    first, ended = np.array([0, 30, 59, 79]), np.array([True, False, False])
    data = OfflineData(observations, np.zeros((79, 1), np.float32), np.arange(79, dtype=np.float32), first, ended, "walk")
    path = write_d4rl(tmp_path / "x.hdf5", data)
    again = read_d4rl(path)
    assert np.array_equal(again.observations, data.observations) and again.first.tolist() == first.tolist()
    assert again.facts == {} and again.terminated.tolist() == ended.tolist()
    with h5py.File(path, "a") as file:
        file["timeouts"][:] = False
    changed = read_d4rl(path)
    assert changed.first.tolist() == first.tolist() and "timeouts are never true" in changed.facts["repaired"]


def test_info_shows_what_was_repaired(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = SETS["equal"]
    path = write(tmp_path / "x.hdf5", truth["observations"], timeouts=np.roll(truth["ends"], 1))
    main(["info", str(path)])
    shown = capsys.readouterr()
    assert "repaired" in shown.out and "timeouts are one row late" in shown.out
    assert shown.err == f"warning: {path}: timeouts are one row late: moved to where episodes end\n"
    main(["convert", str(path), str(tmp_path / "good.hdf5")])
    capsys.readouterr()
    assert read_d4rl(tmp_path / "good.hdf5").lengths.tolist() == [19] * 10 and not capsys.readouterr().err


def test_changes_are_measured_against_their_mean_without_numbers_that_rest() -> None:
    steps = np.array([[0.0, 0, 5], [1, 0, 5], [2, 0, 5], [3, 1, 5], [4, 1, 5], [14, 1, 5]])
    sizes = change_sizes(steps)  # the first number changes by 14 / 5 on average; the second rests, the third never moves
    assert sizes == pytest.approx(np.array([1, 1, 1, 1, 10]) / (14 / 5))
    jumps = standing_out(sizes)
    assert jumps.rows.tolist() == [4] and jumps.ratio == pytest.approx(10)
    assert change_sizes(steps[:, 1:]) == pytest.approx([0, 0, 5, 0, 0])  # nothing else is there to look at
    assert not standing_out(np.ones(20)).rows.size and not standing_out(np.zeros(20)).rows.size
