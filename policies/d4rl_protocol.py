"""`robopref collect protocol=d4rl`: an agent learns; what it and its earlier selves do becomes the five sets of D4RL.

Stands in for a download: needs nothing but the environment, and leaves what datasets.d4rl reads.  The recipe is that of Fu et al.
2020 (arXiv 2004.07219), with soft actor-critic:

    random         a policy with random weights: the agent before its first update
    medium         a policy at about a third of the expert's return
    medium-replay  all that the agent had met when it became that policy
    medium-expert  medium, then expert
    expert         the best policy that the agent has been

Policies draw their actions, as D4RL's do.  What the paper leaves open is ours.  The policies to choose from are snapshots, taken
whenever the agent is evaluated, and evaluated as the sets are made, with drawn actions; the expert is the best of them (D4RL: an
agent that has learnt to the end).  Returns are measured on the scale from the random policy (0) to the expert (1), where a third
means something for negative returns too; medium is the earliest snapshot there or above.  Sets end with a whole episode, but for
the replay, which ends with its snapshot.

There are two scores: by D4RL's reference returns, where it knows the environment, so that numbers of papers can be laid beside;
and by the mean returns of our own random policy and expert, which are in every file's metadata.  Gymnasium's environments (v5,
today's MuJoCo) are not those of D4RL (v2, mujoco_py): bodies and tasks are the same, dynamics and details of the rewards are not,
so a score here is like one there, and no more.
"""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from robopref.configs.arrays import read_array
from robopref.configs.checkpoint import load_strict, load_tensors, save_tensors
from robopref.configs.d4rl_protocol import SETS, D4RLProtocolConfig
from robopref.configs.digests import check_digests
from robopref.configs.errors import RoboprefError
from robopref.configs.files import MANIFEST, atomic_file, plain, read_json, write_json
from robopref.configs.parallel import in_processes
from robopref.configs.policy import OnlineConfig
from robopref.configs.progress import tell_end
from robopref.configs.rows import read_csv
from robopref.configs.run import is_complete, write_manifest
from robopref.configs.run_folder import run_folder
from robopref.datasets.d4rl import read_d4rl, reference_score, write_d4rl, write_minari
from robopref.datasets.episodes import FILES
from robopref.datasets.offline import OfflineData, ReferenceScore
from robopref.embodied.control import ControlEnv, full_name, make_control
from robopref.policies import online
from robopref.policies.cir import CIR
from robopref.policies.experience import ROWS

PLAYED = ("random", "medium", "expert")  # sets of episodes that one policy plays
MEDIUM = 1 / 3  # of the way from the random policy to the expert
TRAINING, LEVELS, SUMMARY = "training", "levels/levels.json", "summary.csv"
SNAPSHOT, SNAPSHOTS = "policy-snapshot", "snapshots"
# Episode numbers, from which starts and actions are drawn; those of learning and of evaluation are lower (online.py).
FIRST_EPISODE = {"reference": 2_000_000, "random": 10_000_000, "medium": 20_000_000, "expert": 30_000_000}
NO_MATTER = ("out", "overwrite", "processes", "threads", "device", "checkpoint_every")  # to what a set holds
DYNAMICS = "of gymnasium's environment, not of D4RL's (v2, mujoco_py): scores are alike in kind, and not the same measure"


class Episode(NamedTuple):
    """What a policy did from one start on; T actions lie between T + 1 observations."""

    observations: np.ndarray  # (T + 1, do) float32
    actions: np.ndarray  # (T, da) float32, as the environment takes them
    rewards: np.ndarray  # (T,) float32
    terminated: bool


class SnapshotRun(online.Run):
    """An agent that keeps what it was at every evaluation, and is evaluated as the sets are made: with drawn actions."""

    def tested(self, frame: int) -> Callable[[np.ndarray], np.ndarray]:
        """The policy of this frame, put down and taken up again: its noise is its own, so that learning is not disturbed."""
        names = ["actor"] + (["normaliser"] if self.config.policy.standardise else [])
        tensors = {f"{name}/{key}": value for name in names for key, value in self.modules[name].state_dict().items()}
        save_tensors(snapshot_path(self.config.out, frame), tensors, {"kind": SNAPSHOT, "frame": frame})
        agent = snapshot(self.config, self.env.sizes, frame)
        reseed(agent, self.config.seed, frame)
        return agent.act


def main(config: D4RLProtocolConfig) -> None:
    """`robopref collect protocol=d4rl`."""
    began = time.time()
    out = run(replace(config, env=full_name(config.env)))
    report(out)
    tell_end(out, began, "D4RL's five sets", "robopref", "train", "policy=iql_d4rl", f"data={out / 'medium-replay.hdf5'}")


def report(out: Path) -> None:
    """What was made, for a reader."""
    levels = read_json(out / LEVELS)
    for name, level in levels.items():
        print(f"{name}: policy after {level['frame']} steps, return {level['return']:.1f} in {level['episodes']} episodes")
    if levels["medium"]["frame"] == levels["expert"]["frame"]:
        print("medium and expert are one policy: it learnt too fast, or not enough, for eval_every to tell them apart")
    print(read_csv(out / SUMMARY).to_string(index=False, float_format="%.1f"))


def run(config: D4RLProtocolConfig) -> Path:
    """Learn, choose, play, write; return `config.out`.  What is done is kept, what was interrupted goes on."""
    check(config)
    writes = (LEVELS, SUMMARY, "minari/*", *(f"{name}.hdf5" for name in SETS))
    with run_folder(config.out, "collect", config, {}, overwrite=config.overwrite, by_part=True, writes=writes) as complete:
        if not complete:
            make_sets(config)
    return config.out


def make_sets(config: D4RLProtocolConfig) -> None:
    """The agent, the sets, and their summary."""
    started = time.time()
    learn(config)
    alone = [name for name in SETS if name != "medium-expert"]
    for _ in in_processes(write_set, [(config, name) for name in alone], config.processes):
        pass
    write_set(config, "medium-expert")
    rows = summary(config)
    with atomic_file(config.out / SUMMARY) as temp:
        rows.to_csv(temp, index=False, float_format="%.4f", lineterminator="\n")
    outputs = [LEVELS, SUMMARY, "minari", *(f"{name}.hdf5" for name in SETS)]  # not training/, which may go when all is done
    write_manifest(config.out, "collect", config, {}, config.seed, started, outputs=outputs)


def check(config: D4RLProtocolConfig) -> None:
    """RoboprefError for settings from which no sets can come."""
    for key in ("steps", "eval_every", "eval_episodes", "reference_episodes", "checkpoint_every", "processes", "threads"):
        if getattr(config, key) < 1:
            raise RoboprefError(f"{key}={getattr(config, key)}: give a number from 1 on")
    if config.seed < 0 or config.warmup < 0:
        raise RoboprefError(f"seed={config.seed}, warmup={config.warmup}: give numbers from 0 on")
    if config.frames < config.eval_every or config.frames <= config.warmup:
        raise RoboprefError(
            f"frames={config.frames}: the agent acts at random for warmup={config.warmup} of them and is first looked at after "
            f"eval_every={config.eval_every}; give more frames, or lower those two"
        )
    make_control(config.env).close()  # an unknown name is an error before any file is written


def training(config: D4RLProtocolConfig) -> OnlineConfig:
    """How the agent learns; it forgets nothing, since what it meets is a set."""
    return OnlineConfig(
        out=config.out / TRAINING,
        env=config.env,
        policy=config.policy,
        seed=config.seed,
        frames=config.frames,
        action_repeat=1,
        warmup=config.warmup,
        capacity=config.frames,
        eval_every=config.eval_every,
        eval_episodes=config.eval_episodes,
        checkpoint_every=config.checkpoint_every,
        device=config.device,
        threads=config.threads,
    )


def snapshot_path(folder: Path, frame: int) -> Path:
    """Where a run in `folder` keeps its policy of a frame."""
    return folder / SNAPSHOTS / f"{frame}.safetensors"


def snapshot(config: OnlineConfig, sizes: tuple[int, int], frame: int) -> CIR:
    """The agent as it acts after `frame` steps, on the processor; at 0 it is as it was made."""
    agent = CIR(config.policy, *sizes, config.seed)
    if frame:
        path = snapshot_path(config.out, frame)
        tensors, _ = load_tensors(path, SNAPSHOT)
        for name in {key.partition("/")[0] for key in tensors}:
            prefix = f"{name}/"
            part = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            load_strict(agent.modules[name], part, path)
    return agent


def reseed(agent: CIR, seed: int, number: int) -> None:
    """Make the actions that follow a function of run seed and number."""
    agent.noise.manual_seed(int(np.random.default_rng([seed, number, 1]).integers(2**63 - 1)))  # online.start draws without the 1


def learn(config: D4RLProtocolConfig) -> None:
    """Let the agent learn, and write levels.json: which snapshots are random, medium and expert, and what each returned."""
    path, folder = config.out / LEVELS, config.out / TRAINING
    asked = {key: value for key, value in matter(config).items() if key != "steps"}
    files = {"evaluation": folder / online.EVALUATION, "snapshots": folder / SNAPSHOTS}  # and no manifest, which has times
    if is_complete(path.parent, asked, files):
        return
    started = time.time()
    (path.parent / MANIFEST).unlink(missing_ok=True)
    learning = training(config)
    if config.overwrite and not is_complete(learning.out, learning, online.inputs(learning)):  # hours, kept if they can be
        learning = replace(learning, overwrite=True)
    curve = read_csv(online.run(learning, SnapshotRun) / online.EVALUATION)
    frames, returns = curve["frame"].tolist(), curve["return"].tolist()
    # Measured again, from other starts: the best of many noisy means is too high.
    lowest, highest = in_processes(measure, [(config, 0), (config, best(frames, returns))], config.processes)
    if highest["return"] <= lowest["return"]:
        raise RoboprefError(
            f"{config.env}: the agent's best policy, after {highest['frame']} steps, returns {highest['return']:.1f}, the random "
            f"one {lowest['return']:.1f}: it has not learnt yet, give more than frames={config.frames} and another out="
        )
    middle = curve[curve["frame"] == medium(frames, returns, lowest["return"], highest["return"])].iloc[0]
    level = {"frame": int(middle["frame"]), "return": float(middle["return"]), "sd": float(middle["sd"])}
    write_json(path, {"random": lowest, "medium": level | {"episodes": config.eval_episodes}, "expert": highest})
    write_manifest(path.parent, "collect", asked, files, config.seed, started, outputs=[path.name])


def best(frames: Sequence[int], returns: Sequence[float]) -> int:
    """The frame of the highest return, the last one if there are several: the agent that has learnt for longer."""
    return max(zip(returns, frames, strict=True))[1]


def medium(frames: Sequence[int], returns: Sequence[float], lowest: float, highest: float) -> int:
    """The earliest frame whose return is at least a third of the way from `lowest` to `highest`; the best one if none is.

    frames: rising.  lowest, highest: returns of the random policy and of the expert, lowest < highest.
    """
    enough = lowest + MEDIUM * (highest - lowest)
    return next((frame for frame, found in zip(frames, returns, strict=True) if found >= enough), best(frames, returns))


def measure(config: D4RLProtocolConfig, frame: int) -> dict[str, Any]:
    """Return of a snapshot and its standard deviation over `reference_episodes` episodes of their own."""
    played = episodes(config, frame, FIRST_EPISODE["reference"])
    returns = [next(played).rewards.sum(dtype=np.float64) for _ in range(config.reference_episodes)]
    return {"frame": frame, "return": np.mean(returns), "sd": np.std(returns), "episodes": config.reference_episodes}


def episodes(config: D4RLProtocolConfig, frame: int, first: int) -> Iterator[Episode]:
    """Episodes number `first`, `first + 1`, ... of a snapshot, without end; each is a function of seed and number alone."""
    torch.set_num_threads(config.threads)  # of this process, which may be a worker
    env = make_control(config.env)
    agent = snapshot(training(config), env.sizes, frame)
    number = first
    while True:
        reseed(agent, config.seed, number)
        yield play(agent, env, online.start(env, config.seed, number))
        number += 1


def play(agent: CIR, env: ControlEnv, obs: np.ndarray) -> Episode:
    """One episode from the first observation `obs` (do,) on, with drawn actions."""
    observations, actions, rewards, done, terminated = [obs], [], [], False, False
    while not done:
        action = agent.act(obs)
        obs, reward, terminated, truncated, _ = env.step(action)
        observations.append(obs)
        actions.append(env.forces(action.astype(np.float64)))
        rewards.append(reward)
        done = terminated or truncated
    observed, acted, rewarded = (np.asarray(values, np.float32) for values in (observations, actions, rewards))
    return Episode(observed, acted, rewarded, terminated)


def gather(played: Iterable[Episode], steps: int) -> list[Episode]:
    """Episodes until there are at least `steps` steps."""
    found: list[Episode] = []
    missing = steps
    for episode in played:
        found.append(episode)
        missing -= len(episode.rewards)
        if missing <= 0:
            break
    return found


def replayed(config: D4RLProtocolConfig, frame: int) -> list[Episode]:
    """What the agent met in its first `frame` steps; the last episode may be cut there."""
    path = config.out / TRAINING / ROWS
    if not path.is_file():
        raise RoboprefError(f"{path} is gone, which medium-replay is made of: delete {path.parent} and learn again")
    env = make_control(config.env)
    check_digests(path.parent, path, remedy=f"Delete {path.parent} and learn again.")
    try:
        rows = read_array(path, "r")
    except ValueError as error:
        raise RoboprefError(f"{path} is damaged ({error}): delete {path.parent} and learn again") from error
    return split(rows[:frame], *env.sizes, env.forces)


def split(rows: np.ndarray, obs_dim: int, action_dim: int, forces: Callable[[np.ndarray], np.ndarray]) -> list[Episode]:
    """Rows of experience.py, oldest first, as episodes.  forces: actions of the agent -> those of the environment.

    An episode ends where it terminated, and where time ran out: there the next row begins elsewhere than this one led to.  In an
    episode the two are one observation, bit for bit.
    """
    obs, next_obs = rows[:, :obs_dim], rows[:, -obs_dim:]
    actions = forces(rows[:, obs_dim : obs_dim + action_dim].astype(np.float64))
    rewards, terminated = rows[:, -obs_dim - 3], rows[:, -obs_dim - 1].astype(bool)
    ends = terminated | np.append((next_obs[:-1] != obs[1:]).any(1), True)
    found, first = [], 0
    for last in np.flatnonzero(ends).tolist():
        whole = slice(first, last + 1)
        observations = np.concatenate([obs[whole], next_obs[last : last + 1]])
        found.append(Episode(observations, actions[whole].astype(np.float32), rewards[whole], bool(terminated[last])))
        first = last + 1
    return found


def write_set(config: D4RLProtocolConfig, name: str) -> None:
    """Write one set in both forms; a finished one is kept.  medium-expert comes after the two."""
    folder, file = config.out / "minari" / name, config.out / f"{name}.hdf5"
    asked, files = matter(config) | {"set": name}, {"levels": config.out / LEVELS}
    parts = [config.out / f"{part}.hdf5" for part in ("medium", "expert")]
    if name == "medium-expert":
        files |= {part.stem: part for part in parts}
    if is_complete(folder, asked, files):
        return
    started = time.time()
    (folder / MANIFEST).unlink(missing_ok=True)
    levels = read_json(config.out / LEVELS)
    if name == "medium-expert":
        found = [episode for part in parts for episode in apart(read_d4rl(part))]
    elif name == "medium-replay":
        found = replayed(config, levels["medium"]["frame"])
    else:
        found = gather(episodes(config, levels[name]["frame"], FIRST_EPISODE[name]), config.steps)
    data = join(found, config, name, levels)
    write_d4rl(file, data)
    write_minari(folder, data)
    write_manifest(folder, "collect", asked, files, config.seed, started, outputs=[f"../../{file.name}", *FILES])


def apart(data: OfflineData) -> Iterator[Episode]:
    """The episodes of a set, one by one."""
    for number, (first, end) in enumerate(zip(data.first, data.first[1:], strict=False)):
        observations = data.observations[first + number : end + number + 1]
        yield Episode(observations, data.actions[first:end], data.rewards[first:end], bool(data.terminated[number]))


def join(found: Sequence[Episode], config: D4RLProtocolConfig, name: str, levels: dict[str, dict[str, Any]]) -> OfflineData:
    """Episodes as a set, with what its file shall say of how it was made."""
    return OfflineData(
        observations=np.concatenate([episode.observations for episode in found]),
        actions=np.concatenate([episode.actions for episode in found]),
        rewards=np.concatenate([episode.rewards for episode in found]),
        first=np.cumsum([0, *(len(episode.rewards) for episode in found)], dtype=np.int64),
        terminated=np.array([episode.terminated for episode in found]),
        name=f"{config.env.partition('/')[2]}-{name}",
        env_id=config.env,
        score=reference_score(config.env) or own_score(levels),
        facts=facts(config, name, levels),
    )


def facts(config: D4RLProtocolConfig, name: str, levels: dict[str, dict[str, Any]]) -> dict[str, str]:
    """How a set was made."""
    spec = make_control(config.env).spec
    medium_frame = levels["medium"]["frame"]
    holds = {
        "medium-replay": f"what the agent met in its first {medium_frame} steps, the last episode cut there",
        "medium-expert": "the sets medium and expert, one after the other",
    } | {level: f"drawn actions of the policy after {levels[level]['frame']} steps" for level in PLAYED}
    known = reference_score(config.env) is not None
    said = {
        "made_by": f"robopref {importlib.metadata.version('robopref')}, collect protocol=d4rl",
        "holds": holds[name],
        "algorithm": f"soft actor-critic, {config.policy.critic} critics of width {config.policy.width}",
        "environment": spec.id if spec is not None else config.env,
        "gymnasium": importlib.metadata.version("gymnasium"),
        "mujoco": importlib.metadata.version("mujoco"),
        "reference": "D4RL's, of its own environments" if known else "own_random_return and own_expert_return",
        "own_random_return": f"{levels['random']['return']:.4f}",
        "own_expert_return": f"{levels['expert']['return']:.4f}",
        "seed": str(config.seed),
        "frames": str(config.frames),
    }
    return said | ({"dynamics": DYNAMICS} if known else {})


def own_score(levels: dict[str, dict[str, Any]]) -> ReferenceScore:
    """0 for our random policy, 1 for our expert."""
    return ReferenceScore(levels["random"]["return"], levels["expert"]["return"])


def summary(config: D4RLProtocolConfig) -> pd.DataFrame:
    """A row a set: what its file holds, its mean return, and that by both scales, times 100."""
    own, official = own_score(read_json(config.out / LEVELS)), reference_score(config.env)
    rows = []
    for name in SETS:
        data = read_d4rl(config.out / f"{name}.hdf5")
        mean = data.returns.mean()
        rows.append(
            {
                "set": name,
                "episodes": data.episodes,
                "steps": len(data),
                "terminated": int(data.terminated.sum()),
                "return": mean,
                "sd": data.returns.std(),
                "d4rl_score": np.nan if official is None else 100 * float(official(mean)),
                "own_score": 100 * float(own(mean)),
            }
        )
    return pd.DataFrame(rows)


def matter(config: D4RLProtocolConfig) -> dict[str, Any]:
    """The settings that decide what a set holds."""
    return {key: value for key, value in plain(config).items() if key not in NO_MATTER}
