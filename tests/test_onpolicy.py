"""The loop of agents that learn from what their present policy meets: advantages, moments, files, resume."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robopref.configs.checkpoint import load_tensors
from robopref.configs.errors import RoboprefError, UsageError
from robopref.configs.hydra import compose, to_dataclass
from robopref.configs.policy import FeedbackConfig, GTRConfig, OnPolicyConfig, SwitchConfig, kind_of
from robopref.embodied.control import make_control
from robopref.embodied.render import Renderer
from robopref.policies import experience, feedback, onpolicy
from robopref.policies.networks import load_policy
from robopref.policies.onpolicy import Moments, Run, gae

TINY = GTRConfig(hidden=(8, 8), envs=2, steps=32, epochs=2, minibatch=16, sigma=0.1, anchors=2)


def settings(out: Path, **changes: object) -> OnPolicyConfig:
    switch = SwitchConfig("friction", every=200)
    usual = OnPolicyConfig(out, "mujoco/Hopper-v5", TINY, switch, seeds=(0, 3), frames=500, checkpoint_every=2)
    return replace(usual, **changes)  # type: ignore[arg-type]


def run_killed(monkeypatch: pytest.MonkeyPatch, config: OnPolicyConfig) -> None:
    """Run until the sixth iteration."""
    iterate, calls = Run.iterate, iter(range(6))

    def dying(self: Run) -> dict[str, float]:
        if next(calls) == 5:
            raise KeyboardInterrupt
        return iterate(self)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Run, "iterate", dying)
        onpolicy.run(config)


def test_advantages_by_hand() -> None:
    # gamma .5, lambda .5; deltas: 1 + .5 * 4 - 2, 2 + .5 * 6 - 4 (cut by time), 3 + 0 - 6 (ended for good), 1 + .5 * 2 - 0
    rewards, values = np.array([[1.0], [2.0], [3.0], [1.0]]), np.array([[2.0], [4.0], [6.0], [0.0]])
    next_values = np.array([[4.0], [6.0], [100.0], [2.0]])
    terminated, done = np.array([[0], [0], [1], [0]], bool), np.array([[0], [1], [1], [0]], bool)
    advantages = gae(rewards, values, next_values, terminated, done, 0.5, 0.5)
    assert advantages.ravel().tolist() == [1 + 0.25 * 1, 1, -3, 2]


@given(st.integers(0, 2**31))
def test_with_lambda_1_an_advantage_is_a_discounted_sum_less_the_value(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rewards, values, last = rng.normal(size=(7, 1)), rng.normal(size=(7, 1)), rng.normal(size=(1, 1))
    never = np.zeros((7, 1), bool)
    advantages = gae(rewards, values, np.concatenate([values[1:], last]), never, never, 0.9, 1.0)
    sums = last[0, 0]
    for number in range(6, -1, -1):
        sums = rewards[number, 0] + 0.9 * sums
        assert advantages[number, 0] == pytest.approx(sums - values[number, 0])


def test_moments_of_parts_are_those_of_the_whole() -> None:
    x = np.random.default_rng(0).normal(3, [[[1.0, 5.0]], [[0.0, 2.0]]], (2, 90, 2))
    moments = Moments(2, 2)
    for part in (x[:, :10], x[:, 10:40], x[:, 40:]):
        moments.add(part)
    np.testing.assert_allclose(moments.mean, x.mean(1))
    np.testing.assert_allclose(moments.var, x.var(1), atol=1e-12)
    assert moments.std[1, 0] > 0, "what never moves is not divided by nothing"


@pytest.mark.parametrize("actor", ["gaussian", "categorical"])
def test_a_run_leaves_what_others_read(actor: str, tmp_path: Path) -> None:
    config = settings(tmp_path / "run", policy=replace(TINY, actor=actor, bins=5))
    onpolicy.run(config)
    episodes, metrics = pd.read_csv(config.out / "episodes.csv"), pd.read_csv(config.out / "metrics.csv")
    assert list(episodes) == ["frame", "seed", "phase", "decisions", "success", "return"]
    assert set(episodes["seed"]) == {0, 3} and set(episodes["phase"]) == {0, 1, 2} and episodes["decisions"].min() > 0
    assert metrics["step"].tolist() == list(range(64, 513, 64)) and metrics["losses/kernel"][2:].between(0, 1).all()
    assert not (config.out / "checkpoint.safetensors").exists()
    state = Run(config)
    tensors, _ = load_tensors(config.out / "model.safetensors", "policy")
    obs = np.random.default_rng(0).normal(size=(4, 11))
    mean, std = (tensors[f"obs_{name}"].double().numpy() for name in ("mean", "std"))
    for member in range(2):
        for number in range(3):
            state.agent.net.weights[number][:2] = tensors[f"actor.mlp.layers.{number}.weight"]
            state.agent.net.biases[number][:2] = tensors[f"actor.mlp.layers.{number}.bias"]
        seen = ((obs - mean[member]) / std[member]).clip(-10, 10).astype(np.float32)
        outputs, _ = state.agent.net.act(np.stack([seen, seen]))
        likeliest = outputs if actor == "gaussian" else outputs.reshape(2, 4, 3, 5).argmax(-1)
        expected = state.agent.acted(likeliest)[member]
        np.testing.assert_allclose(load_policy(config.out, member).act(obs), expected, atol=1e-5)
    told = [load_policy(config.out, 0).act(obs[:1].repeat(500, 0), deterministic=False) for _ in range(2)]
    assert np.array_equal(*told) and told[0].std() > 0.1


@pytest.mark.parametrize("penalty", ["gaussian", "none"])
def test_a_killed_run_goes_on_to_the_very_same_end(penalty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, killed = (settings(tmp_path / name, policy=replace(TINY, penalty=penalty)) for name in ("whole", "killed"))
    onpolicy.run(whole)
    run_killed(monkeypatch, killed)
    assert (killed.out / "checkpoint.safetensors").exists() and not (killed.out / "manifest.json").exists()
    with pytest.raises(RoboprefError, match=r"other settings \(policy\.clip=.* there, 0\.3 asked for\)"):
        onpolicy.run(replace(killed, policy=replace(killed.policy, clip=0.3)))
    onpolicy.run(replace(killed, processes=2))
    for name in ("model.safetensors", "episodes.csv"):
        assert (killed.out / name).read_bytes() == (whole.out / name).read_bytes()
    columns = [name for name in pd.read_csv(whole.out / "metrics.csv") if not name.startswith("charts/")]
    a, b = (pd.read_csv(one.out / "metrics.csv")[columns] for one in (whole, killed))
    pd.testing.assert_frame_equal(a, b)


def test_a_scripted_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asking = FeedbackConfig(segment_steps=8, every=250, questions=6, hidden=(8,), steps=3, batch=4, abstain=0.5)
    whole, killed = (
        settings(tmp_path / name, reward="bradley_terry", feedback=asking, warmup=100, frames=600, seeds=(0, 3))
        for name in ("whole", "killed")
    )
    onpolicy.run(whole)
    metrics = pd.read_csv(whole.out / "metrics.csv")
    assert metrics["feedback/answers"].dropna().tolist() == [3, 6, 9]
    assert set(metrics["feedback/label_accuracy"].dropna()) == {1.0}
    run_killed(monkeypatch, killed)
    for name in (experience.ROWS, feedback.STATES):  # of the second member
        kept = (lost := killed.out / "feedback-3" / name).read_bytes()
        lost.unlink()
        with pytest.raises(RoboprefError, match=f"feedback-3/{name} does not hold what the checkpoint .*: restore it"):
            onpolicy.run(killed)
        lost.write_bytes(kept)
    onpolicy.run(killed)
    for name in ("model.safetensors", "episodes.csv"):
        assert (killed.out / name).read_bytes() == (whole.out / name).read_bytes()


def test_rewards_that_vlps_teach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[np.ndarray] = []

    class Teacher:
        members = (SimpleNamespace(camera="corner2-zoom", frame_size=32),)

        def score(self, clips: np.ndarray, instructions: list[str]) -> np.ndarray:
            shown.extend(clips)
            return clips[:, -1, :16, :16].astype(np.float64).mean((1, 2, 3))[:, None]

    monkeypatch.setattr(feedback, "load_members", lambda folders, frames: [])
    monkeypatch.setattr(feedback, "by_view", lambda members: [Teacher()])
    (vlp := tmp_path / "vlp").mkdir()
    (vlp / "model.safetensors").write_bytes(b"")
    asking = FeedbackConfig((vlp,), segment_steps=8, every=250, questions=6, hidden=(8,), steps=3, batch=4, frames=3, abstain=0.5)
    whole, killed = (
        settings(
            tmp_path / name, env="metaworld/drawer-close", switch=SwitchConfig(), reward="vlp", feedback=asking, warmup=100,
            frames=600, policy=replace(TINY, envs=1, steps=100), seeds=(0, 3),
        )
        for name in ("whole", "killed")
    )  # fmt: skip
    onpolicy.run(whole)
    metrics = pd.read_csv(whole.out / "metrics.csv")
    assert metrics["feedback/answers"].dropna().tolist() == [3, 6, 9]
    assert metrics["losses/policy"].notna().all(), "the first session comes before the first lesson"
    assert metrics["step"][metrics["feedback/answers"].notna()].tolist() == [100, 400, 600]

    run_killed(monkeypatch, killed)
    onpolicy.run(killed)
    for name in ("model.safetensors", "episodes.csv"):
        assert (killed.out / name).read_bytes() == (whole.out / name).read_bytes()

    # What VLPs are shown is what happened: the first picture is the episode's first, whatever part of it a segment is of.
    env = make_control("metaworld/drawer-close")
    seed = np.random.default_rng([0, 0, 0]).integers(2**31)
    env.reset(seed=int(seed))
    with Renderer(env, 32, "corner2-zoom") as renderer:
        opening = renderer.frame()
    assert any(np.array_equal(clip[0], opening) for clip in shown)


def test_rewards_that_are_code(tmp_path: Path) -> None:
    names = [f"x{number}" for number in range(11)]
    (tmp_path / "columns.json").write_text(json.dumps({"obs": names, "act": ["hip", "knee", "foot"]}))
    (tmp_path / "reward.py").write_text(
        "def reward(obs, act, next_obs):\n    return next_obs[:, x0] - obs[:, x0] - act[:, knee]\n"
    )
    config = settings(tmp_path / "run", reward=str(tmp_path / "reward.py"))
    with closing(Run(config)) as state, state.fleet:
        met = state.act()
        expected = met.next_obs[..., 0] - met.obs[..., 0] - met.acted[..., 1]
        np.testing.assert_allclose(state.rewarded(met), expected, rtol=1e-4, atol=1e-5)
    onpolicy.run(config)


def test_a_member_learns_what_it_would_alone(tmp_path: Path) -> None:
    both, alone = settings(tmp_path / "both"), settings(tmp_path / "alone", seeds=(3,))
    for config in (both, alone):
        onpolicy.run(config)
    a, b = (pd.read_csv(config.out / "episodes.csv").query("seed == 3").reset_index(drop=True) for config in (both, alone))
    pd.testing.assert_frame_equal(a, b, rtol=1e-3)


def test_it_learns(tmp_path: Path) -> None:
    config = settings(
        tmp_path / "run",
        env="mujoco/InvertedPendulum-v5",
        switch=SwitchConfig(),
        seeds=(0, 1),
        frames=12_000,
        policy=GTRConfig(envs=4, learning_rate=1e-3),
    )
    onpolicy.run(config)
    episodes = pd.read_csv(config.out / "episodes.csv")
    first, last = (
        episodes[part].groupby("seed")["decisions"].mean() for part in (episodes["frame"] < 3000, episodes["frame"] > 9000)
    )
    assert (last > 5 * first).all(), f"{first.tolist()} {last.tolist()}"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seeds": (1, 1)}, r"seeds=\[1, 1\]: give different numbers"),
        ({"frames": 0}, "frames=0: must be at least 1"),
        ({"policy": replace(TINY, minibatch=0)}, "policy.minibatch=0: must be at least 1"),
        ({"policy": replace(TINY, anchor_every=0)}, "policy.anchor_every=0: must be at least 1"),
        ({"reward": "vlp"}, r"reward=vlp is for env=metaworld/TASK with action_repeat=1, not mujoco/Hopper-v5 with 1"),
        ({"reward": "nowhere"}, "reward=nowhere: no such folder"),
    ],
)
def test_settings_that_cannot_work_are_told(changes: dict[str, object], told: str, tmp_path: Path) -> None:
    with pytest.raises(RoboprefError, match=told):
        onpolicy.run(settings(tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_the_command_knows_its_policies() -> None:
    assert kind_of(["policy=gtr"]) == kind_of(["policy=ppo,c_chain", "-m"]) == "train_onpolicy"
    assert kind_of(["policy=cir"]) == "train_online" and kind_of(["policy=piql"]) == kind_of([]) == "train"
    with pytest.raises(UsageError, match="cir, gtr: these learn in different ways"):
        kind_of(["policy=cir,gtr"])
    for name, penalty in {"gtr": "gaussian", "ppo": "none", "ppo_kl": "kl", "c_chain": "mean"}.items():
        found = to_dataclass(OnPolicyConfig, compose("train_onpolicy", [f"policy={name}", "switch=friction"]))
        clip = 1.0 if penalty in ("gaussian", "kl") else 0.2
        sigma = 1.0 if name == "gtr" else GTRConfig().sigma
        expected = GTRConfig(penalty=penalty, anchors=1 if name == "c_chain" else 5, clip=clip, sigma=sigma)
        assert found.policy == expected and found.switch == SwitchConfig("friction"), (
            "the YAML files say what the dataclass says, but for the width that the report had"
        )


def test_the_experiment_with_a_vlp_has_the_settings_that_go_with_it() -> None:
    words = ["experiment=gtr_vlp", "env=metaworld/drawer-close"]
    assert kind_of(words) == "train_onpolicy"
    found = to_dataclass(OnPolicyConfig, compose("train_onpolicy", words))
    assert (found.reward, found.frames, found.policy) == ("vlp", 200_000, GTRConfig(sigma=1.0))
    assert found.feedback == FeedbackConfig(every=20_000, tie_margin=0.2)


def test_rewards_are_scaled_by_sums_that_begin_anew_with_every_episode(tmp_path: Path) -> None:
    """Of one environment: rewards 1, 1, 1, an end after the second, discount 1/2: the sums are 1, 3/2 and 1 again."""
    policy = replace(TINY, envs=1, discount=0.5)
    with closing(Run(settings(tmp_path / "run", seeds=(0,), policy=policy))) as state, state.fleet:
        rewards, done = np.ones((3, 1, 1)), np.array([False, True, False]).reshape(3, 1, 1)
        deviation = np.std([1, 1.5, 1])
        np.testing.assert_allclose(state.scaled(rewards, done), rewards / deviation)
        # The episode goes on in the next iteration: 1 + 1 / 2, and the deviation is that of all four sums.
        np.testing.assert_allclose(state.scaled(rewards[:1], done[:1]), rewards[:1] / np.std([1, 1.5, 1, 1.5]))
        assert state.scaled(1e9 * rewards, done).max() <= onpolicy.LARGEST


@pytest.mark.filterwarnings("error")
def test_a_run_that_diverges_ends_with_one_error_and_no_model(tmp_path: Path) -> None:
    config = settings(tmp_path / "run", policy=replace(TINY, learning_rate=1e30))
    with pytest.raises(RoboprefError, match="run: its weights became NaN or infinite; train again with a lower learning rate"):
        onpolicy.run(config)
    assert not list(config.out.glob("model.safetensors"))


def test_a_checkpoint_knows_how_wide_the_kernel_has_become(tmp_path: Path) -> None:
    config = settings(tmp_path / "run", policy=replace(TINY, adapt=1.5))
    with closing(Run(config)) as state, state.fleet:
        for _ in range(3):
            state.iterate()
        widths = state.agent.sigma.copy()
        assert (widths != np.float32(TINY.sigma)).all()
        (config.out).mkdir()
        state.save(config.out / "checkpoint.safetensors")
        after = state.iterate()
    with closing(Run(config)) as resumed, resumed.fleet:
        resumed.load(config.out / "checkpoint.safetensors")
        assert np.array_equal(resumed.agent.sigma, widths)
        assert resumed.iterate() == after


def test_an_end_for_good_is_worth_nothing_more_and_a_time_out_what_its_last_state_promised() -> None:
    """Discount 1/2, lambda 1/2, by hand, backwards.  Three columns: an episode that goes on, one that ends, one cut by time."""
    rewards, values = np.ones((2, 3)), np.zeros((2, 3))
    next_values = np.full((2, 3), 4.0)
    terminated = np.array([[False, True, False], [False, False, False]])
    done = np.array([[False, True, True], [False, False, False]])
    last = 1 + 0.5 * 4
    expected = [[3 + 0.25 * last, 1.0, 3.0], [last] * 3]
    np.testing.assert_allclose(gae(rewards, values, next_values, terminated, done, 0.5, 0.5), expected)
