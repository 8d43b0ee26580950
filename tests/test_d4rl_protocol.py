"""D4RL's sets made here: how the policies are chosen, where episodes end, and that a killed command goes on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import minari
import numpy as np
import pandas as pd
import pytest
import torch
from gymnasium.spaces import Box

from robopref.configs.cli import main as robopref
from robopref.configs.d4rl_protocol import SETS, D4RLProtocolConfig
from robopref.configs.errors import RoboprefError
from robopref.configs.files import MANIFEST, read_json
from robopref.configs.hydra import compose
from robopref.configs.policy import CIRConfig
from robopref.datasets.d4rl import read_d4rl, read_minari
from robopref.embodied.control import make_control
from robopref.policies import d4rl_protocol, online
from robopref.policies.d4rl_protocol import SnapshotRun, apart, best, episodes, medium, run, split, training
from robopref.policies.experience import ROWS

SAC = CIRConfig(width=16, batch=32, critic="mlp", low_share=1.0, repeats=1, learning_rate=2e-3, initial_temperature=0.1)
LIMIT = 15


class Slide(gym.Env[np.ndarray, np.ndarray]):
    """A point that is pushed along a line: the reward is the push, and on the left there is a cliff."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float64)
    action_space = Box(-2.0, 2.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.state = self.np_random.normal(size=2) * 0.1
        return self.state.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.state = self.state + np.array([0.1 * float(action[0]), 0.01])
        return self.state.copy(), float(action[0]), bool(self.state[0] < -0.3), False, {}


@pytest.fixture(scope="module", autouse=True)
def slide() -> Iterator[None]:
    gym.register("Slide-v5", Slide, max_episode_steps=LIMIT)
    yield
    del gym.registry["Slide-v5"]


def settings(out: Path, **changes: object) -> D4RLProtocolConfig:
    config = D4RLProtocolConfig(
        out, "mujoco/slide", SAC, frames=400, warmup=50, steps=100, eval_every=25, eval_episodes=3, reference_episodes=5,
        checkpoint_every=150, device="cpu",
    )  # fmt: skip
    return replace(config, **changes)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> D4RLProtocolConfig:
    torch.set_num_threads(1)
    config = settings(tmp_path_factory.mktemp("sets"))
    assert run(config) == config.out
    return config


def content(out: Path) -> dict[str, bytes]:
    """What the sets hold, by set and array."""
    found = {}
    for name in SETS:
        data = read_d4rl(out / f"{name}.hdf5")
        for key in ("observations", "actions", "rewards", "first", "terminated"):
            found[f"{name}/{key}"] = getattr(data, key).tobytes()
        found[f"{name}/facts"] = repr(sorted(data.facts.items())).encode()
    return found


@pytest.mark.parametrize(
    ("returns", "lowest", "highest", "frame"),
    [
        ([0.0, 10.0, 33.0, 34.0, 90.0], 0.0, 100.0, 4000),  # a third is 33.33
        ([0.0, 50.0, 20.0, 40.0, 99.0], 0.0, 99.0, 2000),  # the earliest, whatever comes after
        ([-250.0, -200.0, -180.0, -50.0, 20.0], -280.0, 20.0, 3000),  # a third is -180, itself included
        ([-900.0, -800.0, -700.0, -400.0, -100.0], -1000.0, -100.0, 3000),  # a third of -100 would be above the expert
        ([5.0, 4.0, 3.0, 2.0, 1.0], 0.0, 5.0, 1000),  # it only got worse
        ([1.0, 2.0, 3.0, 3.0, 2.0], 0.0, 12.0, 4000),  # measured again, the expert is far above: the nearest to it
    ],
)
def test_medium_is_the_earliest_at_a_third_of_the_way(returns: list[float], lowest: float, highest: float, frame: int) -> None:
    assert medium([1000, 2000, 3000, 4000, 5000], returns, lowest, highest) == frame


def test_the_expert_is_the_best_and_of_equals_the_last() -> None:
    assert best([10, 20, 30, 40], [1.0, 7.0, 7.0, 3.0]) == 30
    assert best([10, 20], [-5.0, -9.0]) == 10


def test_experience_is_split_where_episodes_ended() -> None:
    def row(obs: float, action: float, reward: float, terminated: bool, next_obs: float) -> list[float]:
        return [obs, -obs, action, reward, 99.0, terminated, next_obs, -next_obs]

    rows = np.array(
        [
            row(0.0, 0.1, 1.0, False, 0.5),
            row(0.5, 0.2, 2.0, True, 0.75),  # ended for good
            row(3.0, 0.3, 3.0, False, 3.5),  # cut by time: the next begins at 4
            row(4.0, 0.4, 4.0, True, 5.0),
            row(5.0, 0.5, 5.0, False, 5.5),  # begins where the last one ended, which terminated all the same
            row(5.5, 0.6, 6.0, False, 6.0),  # the snapshot
        ],
        np.float32,
    )
    found = split(rows, 2, 1, lambda actions: 10 * actions)
    assert [episode.observations[:, 0].tolist() for episode in found] == [[0, 0.5, 0.75], [3, 3.5], [4, 5], [5, 5.5, 6]]
    assert [episode.rewards.tolist() for episode in found] == [[1, 2], [3], [4], [5, 6]]
    assert [episode.terminated for episode in found] == [True, False, True, False]
    np.testing.assert_allclose(np.concatenate([episode.actions for episode in found])[:, 0], [1, 2, 3, 4, 5, 6], rtol=1e-6)
    assert all((episode.observations[:, 1] == -episode.observations[:, 0]).all() for episode in found)


def test_the_replay_is_what_the_environment_did(made: D4RLProtocolConfig) -> None:
    """Its actions, given to the environment anew, lead to the same observations, rewards and ends."""
    frame = read_json(made.out / "levels" / "levels.json")["medium"]["frame"]
    data = read_d4rl(made.out / "medium-replay.hdf5")
    assert len(data) == frame
    env = gym.make("Slide-v5")
    starts = make_control(made.env)
    for number, episode in enumerate(apart(data)):
        start = online.start(starts, made.seed, number)
        env.reset(seed=0)
        env.unwrapped.state = start
        np.testing.assert_array_equal(episode.observations[0], start.astype(np.float32))
        for step, action in enumerate(episode.actions):
            obs, reward, terminated, truncated, _ = env.step(action)
            np.testing.assert_allclose(episode.observations[step + 1], obs, atol=1e-6)
            assert episode.rewards[step] == pytest.approx(reward)
            last = step + 1 == len(episode.actions)
            if number + 1 < data.episodes:
                assert last == (terminated or truncated)
            assert terminated == (last and episode.terminated)
    assert {True, False} <= set(data.terminated[:-1].tolist()), "both kinds of ends were met"


@pytest.mark.parametrize("name", ["random", "medium", "expert"])
def test_sets_that_a_policy_plays_hold_whole_episodes(made: D4RLProtocolConfig, name: str) -> None:
    data = read_d4rl(made.out / f"{name}.hdf5")
    assert made.steps <= len(data) < made.steps + LIMIT
    assert ((data.lengths == LIMIT) | data.terminated).all()
    assert np.abs(data.actions).max() <= 2 and np.abs(data.actions).max() > 1, "as the environment takes them"
    np.testing.assert_allclose(data.rewards, data.actions[:, 0])


def test_medium_expert_is_both(made: D4RLProtocolConfig) -> None:
    both, *parts = (read_d4rl(made.out / f"{name}.hdf5") for name in ("medium-expert", "medium", "expert"))
    for key in ("observations", "actions", "rewards", "terminated"):
        np.testing.assert_array_equal(getattr(both, key), np.concatenate([getattr(part, key) for part in parts]))
    assert both.lengths.tolist() == [*parts[0].lengths, *parts[1].lengths]


def test_files_say_how_they_were_made_and_what_our_own_policies_return(made: D4RLProtocolConfig) -> None:
    levels = read_json(made.out / "levels" / "levels.json")
    assert (levels["random"]["frame"], levels["random"]["episodes"], levels["medium"]["episodes"]) == (0, 5, 3)
    data = read_d4rl(made.out / "medium.hdf5")
    assert data.facts["holds"] == f"drawn actions of the policy after {levels['medium']['frame']} steps"
    assert float(data.facts["own_expert_return"]) == pytest.approx(levels["expert"]["return"], abs=1e-4)
    assert data.facts["environment"] == "Slide-v5" and data.env_id == "mujoco/slide"
    rows = pd.read_csv(made.out / "summary.csv").set_index("set")
    assert rows.index.tolist() == list(SETS)
    assert rows["d4rl_score"].isna().all(), "D4RL has no such environment"
    low, high = levels["random"]["return"], levels["expert"]["return"]
    np.testing.assert_allclose(rows["own_score"], 100 * (rows["return"] - low) / (high - low), rtol=1e-3)
    assert rows.loc["random", "return"] < rows.loc["medium", "return"] < rows.loc["expert", "return"]


def test_both_forms_hold_the_same(made: D4RLProtocolConfig) -> None:
    for name in SETS:
        flat, folder = read_d4rl(made.out / f"{name}.hdf5"), read_minari(made.out / "minari" / name)
        for key in ("observations", "actions", "rewards", "first", "terminated"):
            np.testing.assert_array_equal(getattr(flat, key), getattr(folder, key))
        assert (flat.name, flat.env_id, flat.score) == (folder.name, folder.env_id, folder.score)
        assert flat.facts.items() <= folder.facts.items()
    with h5py.File(made.out / "medium-replay.hdf5") as file:
        data = read_d4rl(made.out / "medium-replay.hdf5")
        np.testing.assert_array_equal(file["next_observations"], data.next_obs)
        np.testing.assert_array_equal(file["terminals"][:].astype(bool), data.terminals)


def test_minari_itself_reads_them(made: D4RLProtocolConfig) -> None:
    (file,) = (made.out / "minari" / "expert").rglob("main_data.hdf5")
    dataset = minari.MinariDataset(file.parent)
    data = read_d4rl(made.out / "expert.hdf5")
    assert (dataset.total_episodes, dataset.total_steps) == (data.episodes, len(data))
    assert [bool(episode.terminations[-1]) for episode in dataset] == data.terminated.tolist()


def test_snapshots_do_not_disturb_learning(made: D4RLProtocolConfig, tmp_path: Path) -> None:
    plain = online.run(replace(training(made), out=tmp_path))
    folder = made.out / "training"
    np.testing.assert_array_equal(np.load(plain / ROWS), np.load(folder / ROWS))
    frames = pd.read_csv(folder / online.EVALUATION)["frame"].tolist()
    assert frames == list(range(25, 401, 25))
    assert sorted(int(path.stem) for path in (folder / "snapshots").iterdir()) == frames
    assert pd.read_csv(plain / online.EVALUATION)["return"].tolist() != pd.read_csv(folder / online.EVALUATION)["return"].tolist()


def test_a_snapshot_acts_as_the_agent_did(tmp_path: Path) -> None:
    config = training(settings(tmp_path, policy=replace(SAC, standardise=True)))
    state = SnapshotRun(config, torch.device("cpu"))
    for number in range(80):
        state.decide(number)
    state.tested(80)
    kept = d4rl_protocol.snapshot(config, state.env.sizes, 80)
    rows = np.random.default_rng(0).normal(size=(5, 2))
    for row in rows:
        np.testing.assert_array_equal(kept.act(row, deterministic=True), state.agent.act(row, deterministic=True))
    first = d4rl_protocol.snapshot(config, state.env.sizes, 0)
    assert not np.array_equal(first.act(rows[0], deterministic=True), kept.act(rows[0], deterministic=True))


def test_an_episode_is_a_function_of_its_number(made: D4RLProtocolConfig) -> None:
    played = episodes(made, 400, 500)
    several = [next(played) for _ in range(3)]
    again = next(episodes(made, 400, 502))
    np.testing.assert_array_equal(several[2].observations, again.observations)
    assert not np.array_equal(several[0].actions[:5], several[1].actions[:5])


def test_a_killed_command_goes_on_and_redoes_nothing(
    made: D4RLProtocolConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(tmp_path / "parts")
    save, write_minari = online.Run.save, d4rl_protocol.write_minari

    def killed(state: online.Run, path: Path, decided: int) -> None:
        save(state, path, decided)
        for _ in range(7):  # what a process does between its last checkpoint and its end
            state.decide(decided)
        raise KeyboardInterrupt

    monkeypatch.setattr(online.Run, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        run(config)
    monkeypatch.setattr(online.Run, "save", save)

    def stopped(path: Path, *rest: Any) -> Path:
        if path.name == "medium":
            raise KeyboardInterrupt
        return write_minari(path, *rest)

    monkeypatch.setattr(d4rl_protocol, "write_minari", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(config)
    assert (config.out / "minari" / "random" / MANIFEST).exists() and not (config.out / MANIFEST).exists()
    monkeypatch.setattr(d4rl_protocol, "write_minari", write_minari)
    before = {path: path.stat().st_mtime_ns for path in [config.out / "random.hdf5", config.out / "training" / ROWS]}
    run(config)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert content(config.out) == content(made.out)
    read = [read_json(folder / "levels" / MANIFEST)["inputs"] for folder in (config.out, made.out)]
    digests = [{name: item["sha256"] for name, item in inputs.items()} for inputs in read]
    assert digests[0] == digests[1], "of what was learnt, and not of when"

    before = {path: path.stat().st_mtime_ns for path in config.out.rglob("*") if path.is_file()}
    run(config)
    assert {path: path.stat().st_mtime_ns for path in before} == before, "finished, and kept as it is"
    other = replace(config, steps=30, threads=2)
    with pytest.raises(RoboprefError, match=r"other settings .steps=.* there, 30 asked for"):
        run(other)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    run(replace(other, overwrite=True))
    assert (config.out / "training" / ROWS).stat().st_mtime_ns == before[config.out / "training" / ROWS]
    assert 30 <= len(read_d4rl(config.out / "expert.hdf5")) < 30 + LIMIT


def test_an_agent_that_has_not_learnt_is_an_error(made: D4RLProtocolConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(config: D4RLProtocolConfig, frame: int) -> dict[str, Any]:
        return {"frame": frame, "return": -float(frame), "sd": 0.0, "episodes": 1}

    monkeypatch.setattr(d4rl_protocol, "measure", measure)
    with pytest.raises(RoboprefError, match="has not learnt yet, give more than frames=400"):
        run(replace(made, reference_episodes=1, overwrite=True))


def test_the_command_on_hopper(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "frames=400 warmup=100 steps=150 eval_every=100 eval_episodes=2 reference_episodes=3 policy.width=16 device=cpu"
    assert robopref(["collect", "protocol=d4rl", "env=mujoco/hopper", f"out={tmp_path}", *words.split()]) == 0
    printed = capsys.readouterr().out
    assert "medium: policy after" in printed and "medium-replay" in printed
    then = f"next: robopref train policy=iql_d4rl data={tmp_path / 'medium-replay.hdf5'}"
    assert printed.splitlines()[-1] == f"{tmp_path}: D4RL's five sets; {then}"
    data = read_d4rl(tmp_path / "medium.hdf5")
    assert (data.dims, data.env_id) == ((11, 3), "mujoco/hopper")
    assert data.score is not None and data.score.maximum == pytest.approx(3234.3)
    assert "(v2, mujoco_py)" in data.facts["dynamics"]
    row = pd.read_csv(tmp_path / "summary.csv").set_index("set").loc["medium"]
    assert row["d4rl_score"] == pytest.approx(100 * (data.returns.mean() + 20.272305) / (3234.3 + 20.272305), abs=1e-3)


def test_which_command_a_line_means(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        robopref(["collect", "--help"])
    assert end.value.code == 0
    assert "--levels" in capsys.readouterr().out, "of scripted policies, as ever"
    assert robopref(["collect", "protocol=d4rl", "-h"]) == 0
    shown = capsys.readouterr().out
    assert "usage: robopref collect protocol=d4rl" in shown and "medium-replay" in shown and "policy/sac.yaml" in shown

    out = f"out={tmp_path / 'x'}"
    for words, text in {
        "protocol=d4lr": "protocol=d4lr is not one of: d4rl",
        "protocol=d4rl env=mujoco/hoper": "mujoco has no environment 'hoper'",
        "protocol=d4rl env=hoper": "Unknown environment 'hoper': expected ",
        "protocol=d4rl policy=iql": "policy.name=iql is not one of: cir.",
        "protocol=d4rl step=3": "Did you mean 'steps'? `robopref collect protocol=d4rl -h` lists them",
        "protocol=d4rl frames=1000": "frames=1000: the agent acts at random for warmup=1000",
        "protocol=d4rl frames=2000 eval_every=3000": "first looked at after eval_every=3000",
        "protocol=d4rl steps=0": "steps=0 is out of range: it must be at least 1",
        "protocol=d4rl seed=-1": "seed=-1",
    }.items():
        assert robopref(["collect", *words.split(), out]) in (1, 2)
        assert text in capsys.readouterr().err, words
    assert not (tmp_path / "x").exists()


def test_every_setting_can_be_given_on_the_command_line() -> None:
    known = compose("d4rl_protocol", ["protocol=d4rl"])
    assert set(known) == {one.name for one in fields(D4RLProtocolConfig)}
    assert known.policy.critic == "mlp" and known.policy.width == 256 and known.out == "data/mujoco/hopper"
