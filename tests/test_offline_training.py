"""`robopref train` on data of D4RL's form: every reward and every learner, and what it refuses."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import minari
import numpy as np
import pandas as pd
import pytest
import torch
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage

from robopref.configs.checkpoint import load_model
from robopref.configs.cli import main as robopref
from robopref.configs.errors import RoboprefError, UsageError
from robopref.configs.files import digest, read_json, write_json
from robopref.configs.hydra import compose, to_dataclass
from robopref.configs.imitation import OTRConfig, SEABOConfig, UDSConfig
from robopref.configs.policy import BCConfig, IQLConfig, PIQLConfig, PolicyConfig, TD3BCConfig, TrainConfig
from robopref.datasets.d4rl import load_offline, write_d4rl, write_minari
from robopref.datasets.episodes import write_episodes
from robopref.datasets.offline import OfflineData, ReferenceScore
from robopref.embodied.control import make_control
from robopref.embodied.rollout import Episode
from robopref.policies import offline, train
from robopref.policies.bc import BC
from robopref.policies.iql import IQL
from robopref.policies.networks import load_policy
from robopref.policies.td3bc import TD3BC
from robopref.preference.imitation.seabo import seabo_rewards
from robopref.preference.members import member_rngs
from robopref.preference.reward import BradleyTerryReward, save_reward

SMALL = {"hidden": (8, 8), "batch": 8, "steps": 12}
POLICIES: dict[str, PolicyConfig] = {
    "bc": BCConfig(**SMALL),
    "iql": IQLConfig(**SMALL, actor="gaussian", normalise=False, reward_std=0.0),
    "iql-mixed": IQLConfig(**SMALL, actor="gaussian", normalise=False, reward_std=0.0, precision="mixed"),
    "iql-undropped": IQLConfig(**SMALL, actor="gaussian", normalise=False, reward_std=0.0, dropout=0.0),
    "iql-mixed-undropped": IQLConfig(**SMALL, actor="gaussian", normalise=False, reward_std=0.0, precision="mixed", dropout=0.0),
    "bc-undropped": BCConfig(**SMALL, dropout=0.0),
    "td3bc": TD3BCConfig(**SMALL),
}
LEARNERS: dict[str, Any] = {"bc": BC, "iql": IQL, "td3bc": TD3BC}
LENGTHS = (7, 12, 5, 12, 9)
CODE = "import numpy as np\n\n\ndef reward(obs, act, next_obs):\n    return next_obs[:, 0] - 2.0 * np.square(act).sum(axis=1)\n"


def made_up(seed: int = 0, lengths: tuple[int, ...] = LENGTHS) -> OfflineData:
    """Five episodes, of which those shorter than 12 end for good; some actions lie beyond 1."""
    rng, steps = np.random.default_rng(seed), sum(lengths)
    return OfflineData(
        observations=rng.normal(size=(steps + len(lengths), 4)).astype(np.float32),
        actions=rng.uniform(-1.3, 1.3, (steps, 2)).astype(np.float32),
        rewards=rng.normal(size=steps).astype(np.float32),
        first=np.concatenate([[0], np.cumsum(lengths)]),
        terminated=np.array(lengths) < 12,
        name="hopper-made-up",
        env_id="mujoco/hopper",
        score=ReferenceScore(-20.0, 3000.0),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data.hdf5, the same as minari/, other.hdf5 of other episodes, and reward/reward.py."""
    folder = tmp_path_factory.mktemp("inputs")
    write_d4rl(folder / "data.hdf5", made_up())
    write_minari(folder / "minari", made_up())
    write_d4rl(folder / "other.hdf5", made_up(seed=1, lengths=(6, 4)))
    (folder / "reward").mkdir()
    (folder / "reward" / "reward.py").write_text(CODE)
    write_json(folder / "reward" / "columns.json", {"obs": ["a", "b", "c", "d"], "act": ["e", "f"]})
    return folder


def settings(folder: Path, out: Path, name: str = "iql", **changes: object) -> TrainConfig:
    config = TrainConfig(
        out,
        folder / "data.hdf5",
        POLICIES[name],
        seeds=(0, 1),
        log_every=3,
        checkpoint_every=5,
        device="cpu",
        otr=OTRConfig(iterations=5),
    )
    return dataclasses.replace(config, **changes)  # type: ignore[arg-type]


def test_transitions_are_those_of_the_file_in_range_and_with_their_ends(folder: Path, tmp_path: Path) -> None:
    data, transitions = made_up(), offline.load(settings(folder, tmp_path, reward_scale="none")).transitions
    numbers = torch.arange(len(data))[None]
    batch = transitions.batch(numbers)
    np.testing.assert_array_equal(batch.obs[0], data.obs)
    np.testing.assert_array_equal(batch.next_obs[0], data.next_obs)
    np.testing.assert_array_equal(batch.actions[0], data.actions.clip(-1, 1))
    np.testing.assert_array_equal(transitions.rewards, data.rewards)
    assert transitions.terminals is not None
    assert torch.nonzero(transitions.terminals).flatten().tolist() == [6, 23, 44]  # episodes of 7, 5 and 9 steps
    assert transitions.first.tolist() == [0, 7, 19, 24, 36, 45]


def test_a_minari_folder_is_the_same_data(folder: Path, tmp_path: Path) -> None:
    runs = [train.run(settings(folder, tmp_path / name, data=folder / name)) for name in ("data.hdf5", "minari")]
    models = [load_model(run, "policy")[0] for run in runs]
    assert all(torch.equal(tensor, models[1][name]) for name, tensor in models[0].items())


def pushed(action: np.ndarray, path: Path, box: bool) -> Path:
    """A Minari set of Pusher, whose actions are in [-2, 2]: three episodes with this one alone.  box: whether it is told."""
    env = gym.make("Pusher-v5")
    path.mkdir()
    store = MinariStorage.new(path, env.observation_space, env.action_space, env_spec=env.spec)
    episodes, last = [], np.arange(20) == 19
    for seed in range(3):
        observations = [env.reset(seed=seed)[0]] + [env.step(action)[0] for _ in range(20)]
        episodes.append(
            EpisodeBuffer(
                observations=np.array(observations),
                actions=np.tile(action, (20, 1)),
                rewards=np.ones(20) * (seed + 1),
                terminations=last & False,
                truncations=last,
                infos={},
            )
        )
    store.update_episodes(episodes)
    store.update_metadata({"dataset_id": "t/pusher-v0", "minari_version": minari.__version__})
    if not box:
        metadata = read_json(path / "metadata.json")
        del metadata["action_space"]
        write_json(path / "metadata.json", metadata)
    return path


@pytest.mark.parametrize("form", ["minari", "minari without a box", "hdf5", "hdf5 without a box"])
def test_what_was_recorded_in_another_box_arrives_in_the_world(folder: Path, tmp_path: Path, form: str) -> None:
    action = np.array([0.8, -0.6, 0.4, -1.2, 0, 1.6, -2], np.float32)
    data = pushed(action, tmp_path / "set", form != "minari without a box")
    if form.startswith("hdf5"):
        read = load_offline(data)
        data = write_d4rl(tmp_path / "set.hdf5", read if form == "hdf5" else dataclasses.replace(read, box=None))
    policy = BCConfig(hidden=(32,), batch=32, steps=500, learning_rate=3e-3, dropout=0.0)
    config = settings(folder, tmp_path / "out", data=data, policy=policy, seeds=(0,))
    np.testing.assert_allclose(offline.load(config).transitions.actions, np.tile(action / 2, (60, 1)), rtol=1e-6)
    world = make_control("mujoco/Pusher-v5")
    start, _ = world.reset(seed=0)
    world.step(load_policy(train.run(config)).act(start[None])[0])
    np.testing.assert_allclose(world.unwrapped.data.ctrl, action, atol=0.08)  # type: ignore[attr-defined]


def test_rewards_and_experts_see_actions_as_the_learner_does(folder: Path, tmp_path: Path) -> None:
    """Reward code, SEABO and experts from a set that tells its units in another way: all in [-1, 1]."""
    action = np.array([0.8, -0.6, 0.4, -1.2, 0, 1.6, -2], np.float32)
    told = pushed(action, tmp_path / "told", box=True)
    read = load_offline(told)
    scaled = dataclasses.replace(read, actions=read.actions / 2, box=(-np.ones(7), np.ones(7)), name="scaled")
    write_d4rl(tmp_path / "scaled.hdf5", scaled.take([2]))
    (tmp_path / "reward").mkdir()
    (tmp_path / "reward" / "reward.py").write_text("def reward(obs, act, next_obs):\n    return act[:, 0] + 0.0 * obs[:, 0]\n")
    names = {"obs": [f"o{i}" for i in range(23)], "act": [f"a{i}" for i in range(7)]}
    write_json(tmp_path / "reward" / "columns.json", names)
    config = settings(folder, tmp_path / "out", data=told, expert_data=tmp_path / "scaled.hdf5", reward_scale="none")
    code = offline.load(dataclasses.replace(config, reward=str(tmp_path / "reward" / "reward.py"))).transitions
    np.testing.assert_allclose(code.rewards, np.full(60, 0.4), rtol=1e-6)  # the expert is in the data: nothing was added
    seabo = offline.load(dataclasses.replace(config, reward="seabo")).transitions
    assert len(seabo) == 60
    np.testing.assert_allclose(seabo.rewards[40:], 1.0, atol=1e-6)


def test_ten_percent_cloning_counts_a_last_reward_that_is_no_transition(folder: Path, tmp_path: Path) -> None:
    rows = 30
    observations = np.random.default_rng(0).normal(size=(rows, 4)).astype(np.float32)
    rewards = np.zeros(rows)
    rewards[19], rewards[3] = 1.0, 0.1  # the second episode succeeds in its last step
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file["observations"], file["actions"], file["rewards"] = observations, np.zeros((rows, 2)), rewards
        file["terminals"], file["timeouts"] = np.zeros(rows, bool), np.arange(rows) % 10 == 9
    kept = offline.load(settings(folder, tmp_path / "out", "bc-undropped", data=tmp_path / "x.hdf5", top=0.1)).transitions
    assert len(kept) == 9
    np.testing.assert_allclose(kept.obs * kept.normaliser.std + kept.normaliser.mean, observations[10:20], atol=1e-5)


def test_observations_are_normalised_as_td3bc_does(folder: Path, tmp_path: Path) -> None:
    transitions, data = offline.load(settings(folder, tmp_path, "td3bc")).transitions, made_up()
    np.testing.assert_allclose(transitions.normaliser.mean, data.obs.mean(0), atol=1e-6)
    np.testing.assert_allclose(transitions.normaliser.std, data.obs.std(0) + 1e-3, atol=1e-6)


def test_auto_scales_rewards_as_their_authors_do() -> None:
    hopper = made_up()
    maze, door = (dataclasses.replace(hopper, name=name, env_id=None) for name in ("antmaze-umaze-v2", "door-human-v0"))
    scales = {
        (policy, reward, data.name): offline.scale_of(TrainConfig(Path(), Path(), POLICIES[policy], reward=reward), data)
        for policy in ("bc", "iql", "td3bc")
        for reward in ("true", "seabo", "otr", "uds", "x.py")
        for data in (hopper, maze, door)
    }
    for (policy, reward, name), scale in scales.items():
        if policy == "bc" or name.startswith("door"):
            assert scale == "none"
        elif name.startswith("antmaze"):
            assert scale == ("otr_antmaze" if reward == "otr" else "antmaze")
        else:
            assert scale == ("return_range" if policy == "iql" and reward != "seabo" else "none")
    standardised = TrainConfig(Path(), Path(), IQLConfig(reward_std=1.0))
    assert offline.scale_of(standardised, hopper) == "none"
    assert offline.scale_of(dataclasses.replace(standardised, policy=POLICIES["td3bc"], reward_scale="return_range"), hopper) == (
        "return_range"
    )


def test_the_true_rewards_of_hopper_have_returns_that_span_1000(folder: Path, tmp_path: Path) -> None:
    transitions, data = offline.load(settings(folder, tmp_path)).transitions, made_up()
    expected = data.rewards * (1000 / (data.returns.max() - data.returns.min()))
    np.testing.assert_allclose(transitions.rewards, expected, rtol=1e-5)


def test_rewards_of_experts_and_of_code_reach_the_learner(folder: Path, tmp_path: Path) -> None:
    data = made_up()
    clipped = dataclasses.replace(data, actions=data.actions.clip(-1, 1))
    best = clipped.take([int(data.returns.argmax())])

    def rewards(**changes: object) -> np.ndarray:
        return offline.load(settings(folder, tmp_path, **({"reward_scale": "none"} | changes))).transitions.rewards.numpy()

    np.testing.assert_allclose(rewards(reward="seabo"), seabo_rewards(clipped, best, SEABOConfig()), rtol=1e-6)
    sharp = rewards(reward="seabo", seabo=SEABOConfig(beta=5.0))
    np.testing.assert_allclose(sharp, seabo_rewards(clipped, best, SEABOConfig(beta=5.0)), rtol=1e-6)
    inside = rewards(reward="uds", uds=UDSConfig(minimum=-9.0))
    expert = slice(*data.first[int(data.returns.argmax()) :][:2])
    np.testing.assert_allclose(inside[expert], data.rewards[expert] + 9, rtol=1e-6)
    assert not np.delete(inside, np.arange(len(data))[expert]).any()
    assert 0 < rewards(reward="otr").max() <= 5
    written = rewards(reward=str(folder / "reward" / "reward.py"))
    np.testing.assert_allclose(written, data.next_obs[:, 0] - 2 * np.square(clipped.actions).sum(1), rtol=1e-5, atol=1e-5)


def learned(folder: Path, dims: tuple[int, int] = (4, 2), **about: object) -> BradleyTerryReward:
    """Write a reward of two members that nothing taught."""
    reward = BradleyTerryReward(member_rngs([3, 8], "weights"), *dims, [8])
    mean, std = torch.linspace(-1, 1, dims[0]), torch.linspace(0.5, 2, dims[0])
    save_reward(folder, reward, mean, std, {"seeds": [3, 8], "hidden": [8], "action_dim": dims[1], **about})
    return reward


def test_a_learned_reward_labels_every_transition_with_the_mean_of_its_members(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, reward = made_up(), learned(tmp_path / "reward", env="mujoco/Hopper-v5")
    monkeypatch.setattr(offline, "CHUNK", 10)
    config = settings(folder, tmp_path / "out", reward=str(tmp_path / "reward"), reward_scale="none")
    obs = (torch.tensor(data.obs) - torch.linspace(-1, 1, 4)) / torch.linspace(0.5, 2, 4)
    with torch.no_grad():
        expected = reward(obs.expand(2, -1, -1), torch.tensor(data.actions.clip(-1, 1)).expand(2, -1, -1))
    assert not torch.allclose(expected[0], expected[1], atol=0.1)
    torch.testing.assert_close(offline.load(config).transitions.rewards, (expected[0] + expected[1]) / 2)
    out = train.run(config)
    manifest = read_json(out / "manifest.json")
    assert manifest["inputs"]["reward"]["sha256"] == digest(tmp_path / "reward" / "model.safetensors")
    before = (out / "model.safetensors").stat().st_mtime_ns
    assert train.run(config) == out and (out / "model.safetensors").stat().st_mtime_ns == before
    assert load_model(out, "policy")[1]["reward"] == str(tmp_path / "reward")
    true = train.run(settings(folder, tmp_path / "true", reward_scale="none"))
    weights = [load_model(run, "policy")[0]["actor.mlp.layers.0.weight"] for run in (out, true)]
    assert not torch.equal(*weights)


def test_a_policy_whose_reward_was_learnt_names_that_reward(folder: Path, tmp_path: Path) -> None:
    learned(tmp_path / "piql" / "reward")
    inner, outer = (settings(folder, tmp_path, reward=str(tmp_path / name)) for name in ("piql/reward", "piql"))
    assert offline.inputs(inner)["reward"] == offline.inputs(outer)["reward"]
    rewards = [offline.load(config).transitions.rewards for config in (inner, outer)]
    assert torch.equal(*rewards) and offline.identity(inner) == offline.identity(outer)


def test_a_checkpoint_of_another_learned_reward_is_not_continued(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned(tmp_path / "reward")
    config = settings(folder, tmp_path / "out", reward=str(tmp_path / "reward"))
    save = train.save

    def full(*_: object, **__: object) -> None:
        raise RoboprefError("disk full")

    monkeypatch.setattr(train, "save", full)
    with pytest.raises(RoboprefError, match="disk full"):
        train.run(config)
    monkeypatch.setattr(train, "save", save)
    kept = (tmp_path / "reward" / "model.safetensors").read_bytes(), (tmp_path / "reward" / "config.json").read_bytes()
    learned(tmp_path / "reward", hint="another")
    with pytest.raises(RoboprefError, match=r"checkpoint\.safetensors is from a run with another reward"):
        train.run(config)
    for name, content in zip(("model.safetensors", "config.json"), kept, strict=True):
        (tmp_path / "reward" / name).write_bytes(content)
    train.run(config)


@pytest.mark.parametrize(
    ("dims", "about", "changes", "message"),
    [
        (
            (4, 2),
            {"env": "metaworld/door-open"},
            {},
            r"was learnt in metaworld/door-open, and .*data\.hdf5 is of mujoco/hopper, ",
        ),
        ((5, 2), {}, {}, r"is of 5 numbers an observation and 2 an action, .*data\.hdf5 has 4 and 2"),
        ((4, 3), {"env": "mujoco/hopper"}, {}, r"is of 4 numbers an observation and 3 an action"),
        ((4, 2), {}, {"policy": BCConfig()}, "policy=bc copies actions"),
        ((4, 2), {}, {"policy": PIQLConfig()}, "policy=piql learns its reward from labels"),
    ],
)
def test_a_learned_reward_of_something_else_is_refused(
    folder: Path, tmp_path: Path, dims: tuple[int, int], about: dict[str, str], changes: dict[str, object], message: str
) -> None:
    learned(tmp_path / "reward", dims, **about)
    with pytest.raises(RoboprefError, match=message):
        train.run(settings(folder, tmp_path / "out", reward=str(tmp_path / "reward"), **changes))
    assert not (tmp_path / "out").exists()


def test_a_run_is_not_overwritten_for_a_learned_reward_that_is_refused(folder: Path, tmp_path: Path) -> None:
    out = train.run(settings(folder, tmp_path / "out"))
    before = (out / "model.safetensors").stat().st_mtime_ns
    learned(tmp_path / "reward", env="metaworld/door-open")
    with pytest.raises(RoboprefError, match="another environment"):
        train.run(settings(folder, out, reward=str(tmp_path / "reward"), overwrite=True))
    assert (out / "model.safetensors").stat().st_mtime_ns == before and (out / "manifest.json").exists()


def test_a_folder_without_a_learned_reward_is_refused(folder: Path, tmp_path: Path) -> None:
    bc = train.run(settings(folder, tmp_path / "bc", "bc"))
    for reward, message in (
        (bc, "holds a 'policy', but a 'reward' is wanted"),
        (tmp_path, r"model\.safetensors does not exist"),
        (tmp_path / "gone", r"nor a learned reward, the folder RUN/reward of policy=piql or hf-hub:OWNER/NAME"),
    ):
        with pytest.raises(RoboprefError, match=message):
            train.run(settings(folder, tmp_path / "out", reward=str(reward)))
    assert not (tmp_path / "out").exists()


def test_every_step_of_episodes_that_can_end_is_worth_more(folder: Path, tmp_path: Path) -> None:
    config = settings(folder, tmp_path, reward=str(folder / "reward" / "reward.py"), reward_scale="none")
    bare = offline.load(config).transitions.rewards.numpy()
    more = offline.load(dataclasses.replace(config, survival=2.0)).transitions.rewards.numpy()
    np.testing.assert_allclose(more - bare, 2 * bare.std(), rtol=1e-4)
    assert offline.load(dataclasses.replace(config, survival=2.0)).about["survival"] == 2.0
    for peer in ("seabo", "otr", "uds"):  # the same for the rewards that it is compared with
        theirs = [dataclasses.replace(config, reward=peer, survival=w) for w in (0.0, 2.0)]
        bare, more = (offline.load(one).transitions.rewards.numpy() for one in theirs)
        np.testing.assert_allclose(more - bare, 2 * bare.std(), rtol=1e-4)
        assert offline.identity(theirs[0]) != offline.identity(theirs[1])
    endless = dataclasses.replace(made_up(), terminated=np.zeros(5, bool))
    np.testing.assert_array_equal(offline.survived(np.arange(45.0), endless, 2.0), np.arange(45.0))


def test_survival_decides_what_a_run_is(folder: Path, tmp_path: Path) -> None:
    reward = str(folder / "reward" / "reward.py")
    bare, more = (settings(folder, tmp_path / name, reward=reward, survival=w) for name, w in (("bare", 0.0), ("more", 1.0)))
    assert offline.identity(bare) != offline.identity(more)
    train.run_together([bare, more], tmp_path / "all")
    weights = [load_model(config.out, "policy")[0]["actor.mlp.layers.0.weight"] for config in (bare, more)]
    assert not torch.equal(*weights)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"survival": 1.0}, "leave it out with reward=true"), ({"reward": "x.py", "survival": -1.0}, "0 or above")],
)
def test_survival_where_it_makes_no_sense(folder: Path, tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        offline.check(settings(folder, tmp_path, **changes))


def test_experts_of_another_file_are_added_once(folder: Path, tmp_path: Path) -> None:
    data, other = made_up(), made_up(seed=1, lengths=(6, 4))
    config = settings(folder, tmp_path, expert_data=folder / "other.hdf5", reward_scale="none")
    for reward in ("true", "uds", "seabo"):  # the same data for all of them
        transitions = offline.load(dataclasses.replace(config, reward=reward)).transitions
        assert len(transitions) == len(data) + other.lengths[int(other.returns.argmax())]
    assert len(offline.load(dataclasses.replace(config, experts=2)).transitions) == len(data) + 10
    assert len(offline.load(dataclasses.replace(config, expert_data=folder / "minari")).transitions) == len(data)


def test_ten_percent_cloning_keeps_the_best_episodes(folder: Path, tmp_path: Path) -> None:
    best = int(made_up().returns.argmax())
    for top, lengths in ((0.1, {LENGTHS[best]}), (0.4, None), (1.0, set(LENGTHS))):
        transitions = offline.load(settings(folder, tmp_path, "bc", top=top)).transitions
        kept = np.diff(transitions.first)
        assert len(kept) == max(1, int(5 * top))
        assert lengths is None or set(kept) == lengths


@pytest.mark.parametrize(
    ("name", "reward"),
    [("bc", "true"), ("iql", "seabo"), ("iql-mixed", "true"), ("td3bc", "true"), ("td3bc", "otr"), ("iql", "code")],
)
def test_killed_and_continued_is_the_same_as_uninterrupted(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, reward: str
) -> None:
    reward = str(folder / "reward" / "reward.py") if reward == "code" else reward
    whole = train.run(settings(folder, tmp_path / "whole", name, reward=reward))

    def killed(*args: object) -> None:
        save_checkpoint(*args)
        raise KeyboardInterrupt

    config, save_checkpoint = settings(folder, tmp_path / "parts", name, reward=reward), train.save_checkpoint
    for _ in range(2):  # at step 5 and, continued from there, at step 10
        monkeypatch.setattr(train, "save_checkpoint", killed)
        with pytest.raises(KeyboardInterrupt):
            train.run(config)
        torch.manual_seed(99)  # nothing may hang on global state
    monkeypatch.setattr(train, "save_checkpoint", save_checkpoint)
    parts = train.run(config)
    models = [load_model(run, "policy") for run in (whole, parts)]
    for key, tensor in models[0][0].items():
        assert torch.equal(tensor, models[1][0][key]), key
    assert models[0][1] == models[1][1]
    logs = [pd.read_csv(run / "metrics.csv").drop(columns="charts/updates_per_second") for run in (whole, parts)]
    pd.testing.assert_frame_equal(*logs)


def four_rewards(folder: Path, out: Path, name: str) -> list[TrainConfig]:
    rewards = ("true", "seabo", "otr", str(folder / "reward" / "reward.py"))
    return [settings(folder, out / str(number), name, reward=reward) for number, reward in enumerate(rewards)]


@pytest.mark.parametrize("name", ["iql", "iql-mixed", "iql-undropped", "td3bc"])
def test_rewards_that_learn_together_are_what_they_are_alone(folder: Path, tmp_path: Path, name: str) -> None:
    together, alone = (four_rewards(folder, tmp_path / place, name) for place in ("together", "alone"))
    train.run_together(together, tmp_path / "all")
    weights = []
    for ours, theirs in zip(together, alone, strict=True):
        (tensors, about), (wanted, told) = (load_model(train.run(config), "policy") for config in (ours, theirs))
        assert about == told and about["reward"] == ours.reward
        for key, tensor in wanted.items():
            torch.testing.assert_close(tensors[key], tensor, msg=f"{ours.reward}: {key}")
        weights.append(tensors["actor.mlp.layers.0.weight"])
    assert not torch.equal(weights[0], weights[1])  # rewards matter
    written = (together[0].out / "model.safetensors").stat().st_mtime_ns
    train.run_together(together, tmp_path / "all")
    assert (together[0].out / "model.safetensors").stat().st_mtime_ns == written


def test_rewards_that_learn_together_go_on_where_they_were_killed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = (four_rewards(folder, tmp_path / place, "td3bc") for place in ("whole", "parts"))
    train.run_together(whole, tmp_path / "whole")
    save_checkpoint = train.save_checkpoint

    def killed(*args: object) -> None:
        save_checkpoint(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "save_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        train.run_together(parts, tmp_path / "parts")
    monkeypatch.setattr(train, "save_checkpoint", save_checkpoint)
    with pytest.raises(RoboprefError, match=r"another .*together"):
        train.run_together(parts[::-1], tmp_path / "parts")
    train.run_together(parts, tmp_path / "parts")
    for ours, theirs in zip(parts, whole, strict=True):
        tensors = [load_model(config.out, "policy")[0] for config in (ours, theirs)]
        assert all(torch.equal(tensors[0][key], tensor) for key, tensor in tensors[1].items())


def test_only_rewards_may_differ_in_one_program(folder: Path, tmp_path: Path) -> None:
    first, second, *_ = four_rewards(folder, tmp_path, "iql")
    with pytest.raises(RoboprefError, match="differ in their reward, and nothing else"):
        train.run_together([first, dataclasses.replace(second, experts=2)], tmp_path / "all")
    with pytest.raises(RoboprefError, match="policy=bc learns from no reward"):
        train.run_together([settings(folder, tmp_path / name, "bc") for name in ("a", "b")], tmp_path / "all")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", ["iql-undropped", "iql-mixed-undropped", "td3bc", "bc-undropped"])
def test_a_cuda_graph_learns_the_same(folder: Path, tmp_path: Path, name: str) -> None:
    config = settings(folder, tmp_path, name)
    data = offline.load(config, "cuda").transitions
    eager, graphed = (LEARNERS[config.policy.name](config.policy, data, config.seeds) for _ in range(2))
    if isinstance(eager, TD3BC):
        eager.graphs = {}
    else:
        eager.graph = None
    rngs = [member_rngs(config.seeds, "training") for _ in range(2)]
    for step in range(12):
        ours, theirs = (learner.update(step, own) for learner, own in zip((graphed, eager), rngs, strict=True))
        for key, value in theirs.items():
            torch.testing.assert_close(ours[key], value)
    graphs = list(graphed.graphs.values()) if isinstance(graphed, TD3BC) else [graphed.graph]
    assert all(graph is not None and graph.graph is not None for graph in graphs)  # something was replayed
    for key, module in eager.modules.items():
        for ours, theirs in zip(graphed.modules[key].parameters(), module.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_a_checkpoint_of_another_reward_is_not_continued(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise RoboprefError("disk full")

    monkeypatch.setattr(train, "save", full)
    config = settings(folder, tmp_path / "out", reward="seabo")
    with pytest.raises(RoboprefError, match="disk full"):
        train.run(config)
    for changes in ({"reward": "true"}, {"seabo": SEABOConfig(beta=5.0)}, {"reward": str(folder / "reward" / "reward.py")}):
        with pytest.raises(RoboprefError, match="choose another out="):
            train.run(dataclasses.replace(config, **changes))


def test_a_run_says_what_it_is_of_and_its_policy_acts(folder: Path, tmp_path: Path) -> None:
    code = folder / "reward" / "reward.py"
    out = train.run(settings(folder, tmp_path / "out", reward=str(code), expert_data=folder / "other.hdf5"))
    about = load_model(out, "policy")[1]
    assert (about["set"], about["env"], about["reward"], about["reward_scale"]) == (
        "hopper-made-up",
        "mujoco/hopper",
        str(code),
        "return_range",
    )
    assert about["reference"] == {"minimum": -20.0, "maximum": 3000.0} and about["precision"] == "float32"
    known = read_json(out / "manifest.json")["inputs"]
    assert set(known) == {"data", "expert_data", "reward", "columns"}
    before = (out / "model.safetensors").stat().st_mtime_ns
    train.run(settings(folder, tmp_path / "out", reward=str(code), expert_data=folder / "other.hdf5"))
    assert (out / "model.safetensors").stat().st_mtime_ns == before
    actions = load_policy(out, 1).act(made_up().obs)
    assert actions.shape == (sum(LENGTHS), 2) and np.abs(actions).max() <= 1


def test_robopref_s_own_episodes_take_other_rewards_too(tmp_path: Path, folder: Path) -> None:
    rng = np.random.default_rng(0)
    episodes = [
        Episode(
            observations=rng.normal(size=(9, 39)),
            actions=rng.uniform(-1, 1, (8, 4)).astype(np.float32),
            rewards=rng.normal(size=8),
            success=np.zeros(8, bool),
            near_object=np.zeros(8),
            sim_dynamic=np.zeros((9, 2)),
            sim_static=np.zeros(1),
            env_id="metaworld/drawer-close",
            level="random",
            seed=0,
            policy="made up",
        )
        for _ in range(3)
    ]
    write_episodes(tmp_path / "own", "metaworld/drawer-close", episodes, {})
    config = settings(folder, tmp_path / "out", data=tmp_path / "own", policy=IQLConfig(**SMALL))
    plain, seabo = (offline.load(dataclasses.replace(config, reward=reward)).transitions for reward in ("true", "seabo"))
    torch.testing.assert_close(seabo.obs, plain.obs)
    assert torch.equal(seabo.actions, plain.actions) and seabo.terminals is None
    np.testing.assert_allclose(seabo.rewards, seabo_rewards(load_offline(tmp_path / "own"), best_of(tmp_path / "own")), rtol=1e-6)
    train.run(dataclasses.replace(config, reward="seabo"))


def best_of(path: Path) -> OfflineData:
    data = load_offline(path)
    return data.take([int(data.returns.argmax())])


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("iql", {"reward": "seabbo"}, "Did you mean 'seabo'"),
        ("iql", {"reward": "prof"}, "`robopref prof` writes such a file"),
        ("bc", {"reward": "seabo"}, "policy=bc copies actions"),
        ("piql", {"reward": "seabo"}, "learns its reward from labels"),
        (
            "iql",
            {"reward": "otr", "labels": Path("labels.parquet")},
            "policy=iql learns from rewards, so labels=labels.parquet would change nothing",
        ),
        (
            "bc",
            {"top": 0.1, "labels": Path("labels.parquet")},
            "policy=bc copies actions, so labels=labels.parquet would change nothing",
        ),
        ("bc", {"reward_scale": "antmaze"}, "learns from no reward"),
        ("iql", {"policy": IQLConfig(), "reward_scale": "return_range"}, "would undo reward_scale=return_range"),
        ("iql", {"experts": 0}, "experts=0"),
        ("piql", {"expert_data": Path("x.hdf5")}, "leave expert_data=x.hdf5 out"),
        ("bc", {"top": 0.0}, "top=0.0"),
        ("td3bc", {"top": 0.1}, "top=0.1 is for policy=bc"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(
    folder: Path, tmp_path: Path, name: str, changes: dict[str, object], message: str
) -> None:
    config = settings(
        folder, tmp_path / "out", "bc", **({"policy": PIQLConfig()} if name == "piql" else {"policy": POLICIES[name]})
    )
    with pytest.raises(UsageError, match=message):
        train.run(dataclasses.replace(config, **changes))  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_files_that_are_not_there_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RoboprefError, match="nowhere"):
        train.run(settings(folder, tmp_path / "out", data=tmp_path / "nowhere.hdf5"))
    with pytest.raises(RoboprefError, match=r"gone\.py is not there"):
        train.run(settings(folder, tmp_path / "out", reward=str(tmp_path / "gone.py")))
    with pytest.raises(RoboprefError, match="9 experts"):
        train.run(settings(folder, tmp_path / "out", reward="seabo", experts=9))


def test_a_name_of_d4rl_is_a_file_of_its_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_d4rl(tmp_path / "data" / "d4rl" / "hopper-medium-v2.hdf5", made_up())
    out = train.run(settings(folder, tmp_path / "out", "td3bc", data=Path("hopper-medium-v2")))
    assert read_json(out / "manifest.json")["inputs"]["data"]["path"] == "data/d4rl/hopper-medium-v2.hdf5"


def test_the_command_trains(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["policy.hidden=[8]", "policy.steps=3", "policy.batch=8", "seeds=[3]", "device=cpu", f"data={folder / 'data.hdf5'}"]
    commands = (["iql_d4rl", "reward=seabo"], ["td3bc", "reward=true"], ["bc_d4rl", "top=0.1"], ["iql_adroit", "reward=uds"])
    for policy, *rest in commands:
        assert robopref(["train", f"policy={policy}", f"out={tmp_path / policy}", *rest, *words]) == 0, capsys.readouterr().err
        assert load_policy(tmp_path / policy).obs_dim == 4


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("iql_d4rl", {"expectile": 0.7, "temperature": 0.3333, "dropout": 0.0}),
        ("iql_antmaze", {"expectile": 0.9, "temperature": 0.1, "dropout": 0.0}),
        ("iql_adroit", {"expectile": 0.7, "temperature": 2.0, "dropout": 0.1}),
    ],
)
def test_settings_for_d4rl_are_those_of_iql_s_paper(name: str, values: dict[str, float]) -> None:
    policy = to_dataclass(TrainConfig, compose("train", [f"policy={name}"])).policy
    common = IQLConfig(
        steps=1_000_000, hidden=(256, 256), actor="gaussian", normalise=False, reward_std=0.0, precision="auto", discount=0.99
    )
    assert policy == dataclasses.replace(common, **values)  # type: ignore[arg-type]


def test_the_file_and_the_dataclass_have_the_same_defaults() -> None:
    config = to_dataclass(TrainConfig, compose("train", ["policy=bc"]))
    wanted = TrainConfig(Path("runs/policy"), Path(), BCConfig())
    assert dataclasses.replace(config, data=Path()) == wanted
    with pytest.raises(UsageError, match="auto, none, return_range"):
        to_dataclass(TrainConfig, dict(vars(config)) | {"reward_scale": "range"})
