"""A reward that is learnt while acting: what is asked, what is learnt, and that a kill changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from robopref.configs.checkpoint import load_model
from robopref.configs.errors import RoboprefError
from robopref.configs.files import write_json
from robopref.configs.policy import CIRConfig, FeedbackConfig, OnlineConfig
from robopref.embodied.control import make_control
from robopref.embodied.fields import described
from robopref.embodied.render import Renderer
from robopref.policies import feedback, online
from robopref.policies.experience import ROWS, ExperienceMemory
from robopref.preference.members import member_rngs
from robopref.preference.prof.written import check_columns
from robopref.preference.reward import BradleyTerryReward, save_reward

ENV = "metaworld/drawer-close"


class Teacher:
    """Likes clips by what is in the upper left of their last frame; remembers what it was shown."""

    members = (SimpleNamespace(camera="corner2-zoom", frame_size=32),)

    def __init__(self) -> None:
        self.shown: list[np.ndarray] = []

    def score(self, clips: np.ndarray, instructions: list[str]) -> np.ndarray:
        self.shown += list(clips)
        assert set(instructions) == {"close the drawer"}
        return clips[:, -1, :16, :16].astype(np.float64).mean((1, 2, 3))[:, None]


@pytest.fixture
def teacher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Teacher]:
    asked = Teacher()
    monkeypatch.setattr(feedback, "load_members", lambda folders, frames: [])
    monkeypatch.setattr(feedback, "by_view", lambda members: [asked])
    yield asked


def settings(folder: Path, **changes: object) -> OnlineConfig:
    vlp = folder.parent / "vlp"
    vlp.mkdir(exist_ok=True)
    (vlp / "model.safetensors").write_bytes(b"")
    asking = FeedbackConfig(
        (vlp,), segment_steps=8, every=25, questions=3, candidates=4, hidden=(8,), steps=4, batch=4, frames=3, most=7, abstain=0.0
    )  # fmt: skip
    config = OnlineConfig(
        folder, ENV, CIRConfig(width=8, batch=8), reward="vlp", feedback=asking, frames=110, action_repeat=1, warmup=30,
        capacity=200, eval_every=60, eval_episodes=1, checkpoint_every=20, device="cpu", hold=3.0,
    )  # fmt: skip
    return replace(config, **changes)


def state_after(config: OnlineConfig, decisions: int) -> online.Run:
    state = online.Run(config, torch.device("cpu"))
    for number in range(decisions):
        state.decide(number)
    return state


def test_what_is_asked_about_is_what_happened(tmp_path: Path, teacher: Teacher) -> None:
    config = settings(tmp_path / "run", warmup=100)
    state = state_after(config, 40)
    assert state.feedback is not None
    env = make_control(ENV)
    online.start(env, config.seed, 0)
    with Renderer(env, 32, "corner2-zoom") as renderer:
        film = [renderer.frame()]
        for action in state.actions:
            env.step(action)
            film.append(renderer.frame())
    score_a, score_b = state.feedback.score(np.array([[20, 3], [3, 20]]))
    assert len(teacher.shown) == 2, "a segment is drawn once, however often it is asked about"
    for clip, start in zip(teacher.shown, (3, 20), strict=True):
        assert clip.shape == (4, 32, 32, 3)
        for picture, step in zip(clip, (0, start, start + 4, start + 7), strict=True):  # 3 frames over 8 steps: 3.5 is even
            assert np.array_equal(picture, film[step]), (start, step)
    assert score_a.shape == (2, 1) and np.array_equal(score_a, score_b[::-1])
    expected = [film[step][:16, :16].mean() for step in (10, 27)]
    np.testing.assert_allclose(score_b[:, 0], expected)


def test_a_session_asks_learns_and_relabels(tmp_path: Path, teacher: Teacher) -> None:
    state = state_after(settings(tmp_path / "run"), 30)
    assert state.feedback is not None
    before = state.memory.sample(np.random.default_rng(0), 500)
    metrics = state.feedback.ask()
    assert metrics["feedback/answers"] == len(state.feedback) == 3
    after = state.memory.sample(np.random.default_rng(0), 500)
    torch.testing.assert_close(after.obs, before.obs)
    expected = state.feedback(after.obs.numpy(), after.actions.numpy(), after.next_obs.numpy())
    np.testing.assert_allclose(after.rewards.numpy(), expected, rtol=1e-4, atol=1e-5)
    assert not torch.equal(after.rewards, before.rewards)
    state.feedback.ask()
    metrics = state.feedback.ask()
    assert metrics["feedback/answers"] == 7 and not state.feedback.due(55, 30), "never more than feedback.most"
    # the true returns that answers are compared with
    rewards = []
    env = make_control(ENV)
    online.start(env, 0, 0)
    for action in state.actions:
        rewards.append(env.step(action)[1])
    found = state.feedback.true_returns(np.array([[2, 9]]))
    np.testing.assert_allclose(found, [[sum(rewards[2:10]), sum(rewards[9:17])]])


@pytest.mark.parametrize("hard", [True, False])
def test_what_the_teacher_is_not_sure_of_is_not_learnt_from(tmp_path: Path, teacher: Teacher, hard: bool) -> None:
    config = settings(tmp_path / "run")
    asking = replace(config.feedback, questions=4, abstain=0.5, hard=hard)
    state = state_after(replace(config, feedback=asking), 40)
    assert state.feedback is not None
    surely = np.array([0.3, -2.0, 1.0, 0.5])[:, None]
    shown: list[np.ndarray] = []
    state.feedback.score = lambda pairs: shown.append(pairs) or (np.zeros((4, 1)), surely)  # type: ignore[method-assign]
    metrics = state.feedback.ask()
    expected = [0.0, 1.0] if hard else [1 / (1 + np.exp(2.0)), 1 / (1 + np.exp(-1.0))]
    np.testing.assert_allclose(state.feedback.answers["labels"], expected, rtol=1e-6)
    kept = shown[0][[1, 2]]
    np.testing.assert_array_equal(state.feedback.answers["obs"][:, 0], state.memory.segments(kept[:, 0], 8)[0])
    returns = state.feedback.true_returns(shown[0])
    right = (returns[:, 1] > returns[:, 0]) == (surely[:, 0] > 0)
    assert metrics["feedback/label_accuracy"] == right[[1, 2]].mean()
    assert metrics["feedback/left_out_accuracy"] == right[[0, 3]].mean()
    assert metrics["feedback/answers"] == 2


def test_who_is_indifferent_stays_so(tmp_path: Path, teacher: Teacher) -> None:
    config = settings(tmp_path / "run")
    asking = replace(config.feedback, questions=4, tie_margin=0.5)
    surely = np.array([0.3, -2.0, 1.0, 0.5])[:, None]
    state = state_after(replace(config, feedback=asking), 40)
    assert state.feedback is not None
    state.feedback.score = lambda pairs: (np.zeros((4, 1)), surely)  # type: ignore[method-assign]
    metrics = state.feedback.ask()
    assert state.feedback.answers["labels"].tolist() == [0.5, 0.0, 1.0, 0.5] and metrics["feedback/ties"] == 0.5
    assert np.isnan(state.feedback.accuracy(np.array([[3, 20]]), np.array([0.5]))), "a tie is neither right nor wrong"

    whole = state_after(replace(config, out=tmp_path / "ties", feedback=replace(asking, tie_margin=9.0, steps=150)), 40)
    assert whole.feedback is not None
    whole.feedback.score = state.feedback.score  # type: ignore[method-assign]
    assert whole.feedback.ask()["feedback/ties"] == 1
    obs, actions = (whole.feedback.answers[name].swapaxes(0, 1) for name in ("obs", "actions"))
    rewards = [whole.feedback(obs[side][:, 0], actions[side][:, 0], obs[side][:, 0]).mean() for side in range(2)]
    assert abs(rewards[0] - rewards[1]) < 0.05, "ties alone prefer nothing"


def test_segments_stay_within_an_episode_and_within_what_is_remembered(tmp_path: Path, teacher: Teacher) -> None:
    config = settings(tmp_path / "run", capacity=50, checkpoint_every=10)
    state = state_after(replace(config, warmup=100), 70)
    assert state.feedback is not None
    state.feedback.episodes["first"] = [0, 5, 40]
    assert state.feedback.starts().tolist() == [*range(20, 33), *range(40, 63)]


def test_the_pairs_that_are_asked_are_those_of_most_disagreement(
    tmp_path: Path, teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = state_after(settings(tmp_path / "run"), 60)
    assert state.feedback is not None
    state.feedback.ask()
    seen: list[np.ndarray] = []
    monkeypatch.setattr(state.feedback, "disagreement", lambda pairs: seen.append(pairs) or np.arange(len(pairs)) % 7)
    state.feedback.ask()
    (candidates,) = seen
    assert len(candidates) == 3 * 4
    asked = [state.memory.segments(candidates[n], 8)[0] for n in (6, 5, 4)]
    np.testing.assert_array_equal(state.feedback.answers["obs"][3:], np.stack(asked)[..., :])


def test_the_reward_learns_what_was_answered(tmp_path: Path, teacher: Teacher) -> None:
    state = state_after(settings(tmp_path / "run"), 40)
    asking = state.feedback
    assert asking is not None
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(64, 2, 8, 39)).astype(np.float32)
    actions = rng.uniform(-1, 1, (64, 2, 8, 4)).astype(np.float32)
    better = actions[..., 0].sum(-1)
    asking.answers = {"obs": obs, "actions": actions, "labels": (better[:, 1] > better[:, 0]).astype(np.float32)}
    for group in asking.optimizer.param_groups:
        group["lr"] = 1e-2
    for _ in range(300):
        asking.learn()
    said = asking(obs.reshape(-1, 39), actions.reshape(-1, 4), obs.reshape(-1, 39))
    assert np.corrcoef(said, actions[..., 0].ravel())[0, 1] > 0.5
    assert np.abs(said).max() <= 1


def test_the_exponent_is_the_mean_reward_times_the_sharpness(tmp_path: Path) -> None:
    reward = feedback.BoundedReward(member_rngs([0, 1], "reward"), 3, 2, (8,), sharpness=5.0)
    obs, actions = torch.randn(2, 4, 6, 3), torch.randn(2, 4, 6, 2)
    steps = torch.stack([reward(obs[:, :, step], actions[:, :, step]) for step in range(6)])
    torch.testing.assert_close(reward.scores(obs, actions), 5 * steps.mean(0))


def test_a_session_forgets_what_the_reward_had_come_to(tmp_path: Path, teacher: Teacher) -> None:
    state = state_after(settings(tmp_path / "run"), 40)
    assert state.feedback is not None
    state.feedback.ask()
    with torch.no_grad():
        for parameter in state.feedback.reward.parameters():
            parameter.fill_(100.0)  # as saturated as can be
        state.feedback.reward.mean.fill_(1e3)
    state.feedback.ask()
    batch = state.memory.sample(np.random.default_rng(0), 200)
    assert batch.rewards.abs().max() < 0.9
    obs = state.memory.segments(np.arange(40), 1)[0][:, 0]
    np.testing.assert_allclose(state.feedback.reward.mean, obs.mean(0), atol=1e-5)
    taught = {int(entry["step"]) for entry in state.feedback.optimizer.state.values()}
    assert taught == {4}, "the optimiser is a new one too"


@pytest.mark.parametrize("torn", [False, True])
def test_killed_and_continued_is_the_same_as_uninterrupted(
    tmp_path: Path, teacher: Teacher, monkeypatch: pytest.MonkeyPatch, torn: bool
) -> None:
    """torn: the kill comes between a session's relabelling and the checkpoint that follows it."""
    whole = online.run(settings(tmp_path / "whole"))
    save, saves = online.Run.save, []

    def killed(state: online.Run, path: Path, decided: int) -> None:
        saves.append(decided)
        if torn and decided == 55 and saves.count(55) == 1:
            raise KeyboardInterrupt
        save(state, path, decided)
        if decided in (40, 55) and saves.count(decided) == 1:
            for _ in range(7):
                state.decide(decided)
            raise KeyboardInterrupt

    monkeypatch.setattr(online.Run, "save", killed)
    config = settings(tmp_path / "parts")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            online.run(config)
    parts = online.run(config)
    assert {30, 55, 80} <= set(saves), "a checkpoint follows every session"
    models = [load_model(folder, "policy")[0] for folder in (whole, parts)]
    for key, tensor in models[0].items():
        assert torch.equal(tensor, models[1][key]), key
    tables = [pd.read_csv(folder / "metrics.csv").filter(like="feedback") for folder in (whole, parts)]
    pd.testing.assert_frame_equal(*tables)
    rows = [np.load(folder / ROWS)[:110] for folder in (whole, parts)]
    in_use = 39 + 4 + 1  # three sessions: the second of the two rewards
    np.testing.assert_array_equal(rows[0][:, in_use], rows[1][:, in_use])
    assert tables[0]["feedback/answers"].dropna().tolist() == [3, 6, 7]


def test_a_learned_reward_takes_the_place_of_the_environments(tmp_path: Path) -> None:
    reward = BradleyTerryReward(member_rngs([0, 1], "reward"), 4, 1, (8,))
    save_reward(tmp_path / "reward", reward, torch.zeros(4), torch.ones(4), {"seeds": [0, 1], "hidden": (8,), "action_dim": 1})
    config = OnlineConfig(
        tmp_path / "run", "mujoco/InvertedPendulum-v5", CIRConfig(width=8, batch=8), reward=str(tmp_path / "reward"),
        reward_member=1, frames=40, action_repeat=1, warmup=20, eval_every=20, eval_episodes=1, device="cpu", capacity=50,
    )  # fmt: skip
    state = state_after(config, 30)
    batch = state.memory.sample(np.random.default_rng(0), 200)
    with torch.no_grad():
        expected = reward(batch.obs.expand(2, -1, -1), batch.actions.expand(2, -1, -1))[1]
    torch.testing.assert_close(batch.rewards, expected, rtol=1e-4, atol=1e-5)
    assert state.ret > 0, "what is shown as the return is the environment's"
    online.run(replace(config, out=tmp_path / "whole"))
    with pytest.raises(RoboprefError, match=r"is of 4 numbers .* has 11 and 3"):
        online.Run(replace(config, env="mujoco/Hopper-v5", out=tmp_path / "other"), torch.device("cpu"))
    about = {"seeds": [0, 1], "hidden": (8,), "action_dim": 1, "env": "mujoco/InvertedPendulum-v4"}
    save_reward(tmp_path / "elsewhere", reward, torch.zeros(4), torch.ones(4), about)
    with pytest.raises(
        RoboprefError, match=r"was learnt in mujoco/InvertedPendulum-v4, and mujoco/InvertedPendulum-v5 is another environment"
    ):
        online.Run(replace(config, reward=str(tmp_path / "elsewhere"), out=tmp_path / "other"), torch.device("cpu"))
    with pytest.raises(RoboprefError, match=r"reward=.*nothing: no such folder"):
        online.run(replace(config, reward=str(tmp_path / "nothing"), out=tmp_path / "other"))


def test_code_takes_the_place_of_the_environments_reward(tmp_path: Path) -> None:
    (tmp_path / "reward.py").write_text("def reward(obs, act, next_obs):\n    return np.abs(next_obs[:, angle]) - act[:, push]\n")
    (tmp_path / "columns.json").write_text('{"obs": ["place", "angle", "speed", "turning"], "act": ["push"]}')
    config = OnlineConfig(
        tmp_path / "run", "mujoco/InvertedPendulum-v5", CIRConfig(width=8, batch=8), reward=str(tmp_path / "reward.py"),
        frames=40, action_repeat=1, warmup=20, eval_every=20, eval_episodes=1, device="cpu", capacity=50,
    )  # fmt: skip
    with closing(state_after(config, 30)) as state:
        batch = state.memory.sample(np.random.default_rng(0), 200)
    torch.testing.assert_close(batch.rewards, batch.next_obs[:, 1].abs() - batch.actions[:, 0], rtol=1e-5, atol=1e-6)
    online.run(replace(config, out=tmp_path / "whole"))
    with pytest.raises(RoboprefError, match=r"is of 4 numbers .* has 11 and 3"):
        online.Run(replace(config, env="mujoco/Hopper-v5", out=tmp_path / "other"), torch.device("cpu"))
    (tmp_path / "reward.py").write_text("def reward(obs, act, next_obs):\n    return np.log(obs[:, angle] * 0)\n")
    with pytest.raises(RoboprefError, match=r"InvertedPendulum-v5, decision 0: .*reward.py: .* is worth"):
        online.run(replace(config, out=tmp_path / "third"))
    (tmp_path / "columns.json").write_text('{"obs": 4, "act": ["push"]}')
    with pytest.raises(RoboprefError, match=r"columns.json: it must name the columns"):
        online.run(replace(config, out=tmp_path / "third"))
    (tmp_path / "columns.json").unlink()
    with pytest.raises(RoboprefError, match=r"columns.json is not there"):
        online.run(replace(config, out=tmp_path / "third"))


def test_code_of_another_environment_is_refused_by_its_columns(tmp_path: Path) -> None:
    (tmp_path / "reward.py").write_text("def reward(obs, act, next_obs):\n    return next_obs[:, 8]\n")
    for env, other in (("halfcheetah", "walker2d"), ("walker2d", "halfcheetah")):
        fields = described(f"mujoco/{env}")
        names = {"obs": [field.name for field in fields.observations], "act": [field.name for field in fields.actions]}
        write_json(tmp_path / "columns.json", names)
        check_columns(tmp_path / "reward.py", f"mujoco/{env.title()}-v4")
        for elsewhere in (f"mujoco/{other}", f"{other}-v5"):
            with pytest.raises(
                RoboprefError, match=rf"columns.json: its columns are those of mujoco/{env}, whose \w+ is \w+ in {elsewhere}"
            ):
                check_columns(tmp_path / "reward.py", elsewhere)
        check_columns(tmp_path / "reward.py", None)
    write_json(tmp_path / "columns.json", names | {"act": [f"own_{name}" for name in names["act"]]})
    check_columns(tmp_path / "reward.py", "mujoco/halfcheetah")
    config = OnlineConfig(
        tmp_path / "run", "mujoco/HalfCheetah-v5", CIRConfig(width=8, batch=8), reward=str(tmp_path / "reward.py")
    )
    write_json(tmp_path / "columns.json", names)
    with pytest.raises(RoboprefError, match="give the reward of this environment"):
        online.run(config)
    assert not config.out.exists()


def test_a_scripted_teacher_knows_the_true_return_of_any_world(tmp_path: Path) -> None:
    config = settings(tmp_path / "run", env="mujoco/HalfCheetah-v5", reward="bradley_terry", action_repeat=2, frames=220)
    asking = replace(config.feedback, model=(), steps=100)
    state = state_after(replace(config, feedback=asking), 60)
    assert state.feedback is not None and state.feedback.states.shape[1] == 1, "no simulator state is kept"
    metrics = state.feedback.ask()
    assert metrics["feedback/label_accuracy"] == 1 and metrics["feedback/answers"] == 3
    obs, actions, labels = (state.feedback.answers[name] for name in ("obs", "actions", "labels"))
    said = [state.feedback(obs[:, side].reshape(24, -1), actions[:, side].reshape(24, -1), obs[:, 0]) for side in range(2)]
    means = np.stack(said).reshape(2, 3, 8).mean(-1)
    np.testing.assert_array_equal(means[1] > means[0], labels > 0.5)
    pairs = np.array([[3, 20]])
    np.testing.assert_allclose(np.stack(state.feedback.score(pairs))[..., 0].T, state.feedback.true_returns(pairs))
    online.run(replace(config, out=tmp_path / "whole", feedback=replace(asking, steps=4)))
    assert pd.read_csv(tmp_path / "whole" / "metrics.csv")["feedback/answers"].dropna().tolist() == [3, 6, 7]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"env": "mujoco/InvertedPendulum-v5"}, "reward=vlp is for env=metaworld/TASK"),
        ({"action_repeat": 2}, "action_repeat=1"),
        ({"feedback": FeedbackConfig()}, r"give feedback.model=\[RUN\]"),
        ({"feedback": FeedbackConfig((Path("."),), questions=0)}, "feedback.questions=0"),
        ({"feedback": FeedbackConfig((Path("."),), sharpness=0.0)}, "feedback.sharpness=0.0"),
        ({"feedback": FeedbackConfig((Path("."),), tie_margin=-1.0)}, "feedback.tie_margin=-1.0"),
    ],
)
def test_questions_that_cannot_be_asked(tmp_path: Path, teacher: Teacher, changes: dict[str, object], said: str) -> None:
    with pytest.raises(RoboprefError, match=said):
        online.Run(settings(tmp_path / "run", **changes), torch.device("cpu"))


def test_the_reward_in_use_changes_only_when_all_are_written(tmp_path: Path) -> None:
    memory = ExperienceMemory(tmp_path, "mujoco/x", 2, 1, capacity=4, spare=2)
    for number in range(6):
        memory.add(np.full(2, number), np.array([0.5]), float(number), False, np.full(2, number + 1))
    memory.relabel(lambda obs, actions, next_obs: -obs[:, 0])
    assert set(memory.sample(np.random.default_rng(0), 100).rewards.tolist()) == {-2.0, -3.0, -4.0, -5.0}
    memory.in_use = 0
    assert set(memory.sample(np.random.default_rng(0), 100).rewards.tolist()) == {2.0, 3.0, 4.0, 5.0}
    with pytest.raises(RoboprefError, match="reward is not finite"):
        memory.relabel(lambda obs, actions, next_obs: obs[:, 0] * np.nan)
    assert memory.in_use == 0
