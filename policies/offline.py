"""`robopref train` from rewards: what data, experts and reward of its settings come to, as Transitions.

Comes from datasets.d4rl (files of D4RL's form, Minari folders, names of D4RL; robopref's own episodes are Minari's too), from
preference/imitation, from rewards that were learnt from preferences and from reward code that runs in its sandbox; goes to bc.py,
iql.py and td3bc.py by way of train.py.
Everything here is the same for the same files and settings, so that an interrupted run makes it anew.

In this order: actions are brought to [-1, 1]; expert episodes are chosen, by the data's own reward, and added where they are
from elsewhere, so that all rewards and learners of a comparison have the same data; transitions are labelled; rewards are scaled.
With seabo, otr, uds, learned rewards and code the data's reward decides on nothing else.

A learned reward (reward=FOLDER: `reward/` of policy=piql, or what `robopref push` made of it) is the mean of its members, one of
which was learnt for each seed of that run.  Its data must be of the environment that it was learnt in.

Policies act in [-1, 1], which make_control stretches to the box of the world; actions come from that box, are scaled by it and
clipped to it, as environments do: human demonstrations hold more.  IQL's code clips to 1 - 1e-5, which squashed Gaussians need;
ours is a plain one around a tanh, and has a density everywhere.

Axes: M transitions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from minari.dataset.minari_storage import MinariStorage

from robopref.configs.errors import RoboprefError, UsageError, nearest
from robopref.configs.files import plain
from robopref.configs.imitation import RewardScale
from robopref.configs.policy import (
    BCConfig,
    CPLConfig,
    IPLConfig,
    IQLConfig,
    PIQLConfig,
    PolicyConfig,
    TD3BCConfig,
    TrainConfig,
)
from robopref.datasets.d4rl import FOLDER, clipped, load_offline
from robopref.datasets.d4rl_names import PATHS, task_of
from robopref.datasets.episodes import EpisodeStore
from robopref.datasets.offline import OfflineData
from robopref.policies.replay import Normaliser, Transitions, fit_normaliser, load_transitions
from robopref.preference.hub import PREFIX, WEIGHTS, find_model
from robopref.preference.imitation.experts import antmaze_worth, best_episodes, with_experts
from robopref.preference.imitation.otr import otr_rewards
from robopref.preference.imitation.scaling import scale_rewards
from robopref.preference.imitation.seabo import seabo_rewards
from robopref.preference.imitation.uds import uds_rewards
from robopref.preference.prof.written import WrittenReward, check_columns, files_of
from robopref.preference.reward import RewardFunction, reward_of

Labeller = Callable[[OfflineData, OfflineData, TrainConfig], np.ndarray]
LABELLERS: dict[str, Labeller] = {
    "seabo": lambda data, experts, config: seabo_rewards(data, experts, config.seabo),
    "otr": lambda data, experts, config: otr_rewards(data, experts, config.otr),
    "uds": lambda data, experts, config: uds_rewards(data, experts, config.uds),
}
TRUE = "true"
CODE = ".py"
RESCALED = ("halfcheetah", "hopper", "walker2d")  # by IQL's code, and OTR's
STD_OFFSET = 1e-3  # added to the deviations that observations are divided by: TD3+BC's code
CHUNK = 2**17  # transitions that a reward is asked about at a time: the sandbox of code has limits of time and memory


@dataclass(frozen=True)
class Loaded:
    """What a learner is given, and what a model says of where it came from."""

    transitions: Transitions
    about: dict[str, Any]


def check(config: TrainConfig) -> None:
    """UsageError for settings that do not go together, or that this policy would not look at."""
    policy, name = config.policy, config.policy.name
    from_reward = learns_from_reward(policy)
    known = [TRUE, *LABELLERS]
    if config.reward not in known and Path(config.reward).suffix != CODE and not is_learned(config.reward):
        hint = " `robopref prof` writes such a file." if config.reward == "prof" else nearest(config.reward, known)
        raise UsageError(
            f"reward={config.reward} is not one of {', '.join(known)}, nor code, FILE.py, nor a learned reward, the folder "
            f"RUN/reward of policy=piql or {PREFIX}OWNER/NAME.{hint}"
        )
    if config.reward != TRUE and not from_reward:
        why = "copies actions" if isinstance(policy, BCConfig) else "learns its reward from labels"
        raise UsageError(
            f"policy={name} {why}, so reward={config.reward} would change nothing: leave it out, or take iql or td3bc"
        )
    if config.labels is not None and not isinstance(policy, PIQLConfig | IPLConfig | CPLConfig):
        what = "copies actions" if isinstance(policy, BCConfig) else "learns from rewards"
        raise UsageError(
            f"policy={name} {what}, so labels={config.labels} would change nothing: leave it out, or take piql, ipl or cpl"
        )
    if config.reward_scale != "auto" and not from_reward:
        raise UsageError(f"policy={name} learns from no reward in the data: leave reward_scale={config.reward_scale} out")
    if isinstance(policy, IQLConfig) and policy.reward_std > 0 and config.reward_scale not in ("auto", "none"):
        raise UsageError(
            f"policy.reward_std={policy.reward_std} would undo reward_scale={config.reward_scale}: "
            "give policy.reward_std=0, as policy=iql_d4rl has it"
        )
    if config.survival < 0:
        raise UsageError(f"survival={config.survival}: what a step is worth more, 0 or above; below it, ending would be sought")
    if config.survival and config.reward == TRUE:
        raise UsageError(
            f"survival={config.survival} is added to rewards that were not given (code, learned ones, {', '.join(LABELLERS)}): "
            f"leave it out with reward={TRUE}"
        )
    if config.experts < 1:
        raise UsageError(f"experts={config.experts}: at least one expert episode")
    if config.expert_data is not None and not (from_reward or isinstance(policy, BCConfig)):
        raise UsageError(f"policy={name} learns from labelled pairs of its data: leave expert_data={config.expert_data} out")
    if not 0 < config.top <= 1:
        raise UsageError(f"top={config.top}: the share of the episodes to keep, above 0 and up to 1")
    if config.top < 1 and not isinstance(policy, BCConfig):
        raise UsageError(f"top={config.top} is for policy=bc; {name} learns from good and bad")


def is_learned(reward: str) -> bool:
    """Whether a setting `reward` names one that was learnt from preferences: a folder, or one in the hub."""
    return reward.startswith(PREFIX) or (reward not in (TRUE, *LABELLERS) and Path(reward).is_dir())


def learns_from_reward(policy: PolicyConfig) -> bool:
    """Whether it learns from a reward of every transition."""
    return isinstance(policy, IQLConfig | TD3BCConfig) and not isinstance(policy, PIQLConfig)


def check_learned(config: TrainConfig) -> None:
    """RoboprefError where a learned reward or code is not of the data's environment; for before anything is overwritten."""
    if Path(config.reward).suffix == CODE:
        check_columns(Path(config.reward), load_offline(config.data).env_id)
    elif is_learned(config.reward):
        data = load_offline(config.data)
        reward_of(config.reward, None, str(config.data), data.env_id, data.dims)


def inputs(config: TrainConfig) -> dict[str, Path]:
    """Every file or folder that is read, by what it is.  Sets of D4RL that are not here yet are downloaded."""
    found = {"data": file_of(config.data)}
    if config.labels is not None:
        found["labels"] = config.labels
    if config.expert_data is not None:
        found["expert_data"] = file_of(config.expert_data)
    if is_learned(config.reward):
        return found | {"reward": find_model(config.reward, "reward") / WEIGHTS}
    return found | (files_of(Path(config.reward)) if Path(config.reward).suffix == CODE else {})


def identity(config: TrainConfig) -> dict[str, Any]:
    """What decides the transitions beside the inputs; a checkpoint of anything else cannot be continued."""
    if is_plain(config) and is_own(config.data):
        return {}
    decide = {name: getattr(config, name) for name in ("reward_scale", "experts", "top")}
    if config.survival:
        decide["survival"] = config.survival
    if config.reward in LABELLERS:
        decide[config.reward] = plain(getattr(config, config.reward))
    if config.reward in (TRUE, *LABELLERS):
        decide["reward"] = config.reward  # code and learned rewards are known by their digest
    return decide


def load(config: TrainConfig, device: torch.device | str = "cpu") -> Loaded:
    """The transitions that the settings ask for; RoboprefError where data, experts or reward do not fit together."""
    own = is_own(config.data)
    if (own and is_plain(config)) or config.labels is not None:
        transitions = load_transitions(config.data, config.policy.normalise, device)
        return Loaded(transitions, {"env": EpisodeStore(config.data).env_id})
    data = clipped(load_offline(config.data))
    experts = chosen_experts(config, data)
    if config.expert_data is not None:
        data, _ = with_experts(data, experts)
    if config.top < 1:
        data = best_episodes(data, max(1, int(config.top * data.episodes)))
    rewards = data.rewards
    if config.reward in LABELLERS:
        rewards = LABELLERS[config.reward](data, experts, config)
    elif is_learned(config.reward):
        rewards = in_pieces(reward_of(config.reward, None, str(config.data), data.env_id, data.dims), data)
    elif config.reward != TRUE:
        rewards = in_pieces(WrittenReward(config.reward), data)
    if config.survival:
        rewards = survived(rewards, data, config.survival)
    scale = scale_of(config, data)
    about = {"set": data.name, "env": data.env_id, "reward": config.reward, "reward_scale": scale, "reference": plain(data.score)}
    about |= {"survival": config.survival} if config.survival else {}
    rewards = scale_rewards(rewards, data, scale)
    return Loaded(transitions_of(data, rewards, config.policy.normalise, own, device), about)


def chosen_experts(config: TrainConfig, data: OfflineData) -> OfflineData:
    """The `experts` episodes of highest return, in AntMaze by its authors' measure, of `expert_data` or else of `data`."""
    source = data if config.expert_data is None else clipped(load_offline(config.expert_data))
    return best_episodes(source, config.experts, antmaze_worth(source) if task(source) == "antmaze" else None)


def in_pieces(reward: RewardFunction, data: OfflineData) -> np.ndarray:
    """(M,): what reward code or a learned reward says, piece by piece."""
    pieces = []
    for start in range(0, len(data), CHUNK):
        rows = data.rows[start : start + CHUNK]
        pieces.append(reward(data.observations[rows], data.actions[start : start + CHUNK], data.observations[rows + 1]))
    return np.concatenate(pieces)


def survived(rewards: np.ndarray, data: OfflineData, deviations: float) -> np.ndarray:
    """(M,) float64: rewards (M,) and, where an episode can end for good, so many of their deviations for every step (ours).

    How a ranking finds the expert above noisy copies is the same whatever is added to a reward; but where episodes end, what is
    added decides what an end costs, about 1 / (1 - discount) steps of it.  Where none ends it would change no policy.
    """
    return rewards + deviations * rewards.std() if data.terminated.any() else rewards


def scale_of(config: TrainConfig, data: OfflineData) -> RewardScale:
    """How rewards are scaled; what `auto` means.

    AntMaze: minus 1, with OTR's rewards as its code does.  Halfcheetah, hopper and walker2d: returns that span 1000 for IQL, but
    not of SEABO's rewards; its code leaves these as they are.  TD3+BC's code scales none, since the actor's loss does.  Reward
    code and learned rewards are scaled as the true reward is (ours).  Elsewhere, and where policy.reward_std scales them, rewards
    stay.
    """
    if config.reward_scale != "auto":
        return config.reward_scale
    if isinstance(config.policy, BCConfig) or (isinstance(config.policy, IQLConfig) and config.policy.reward_std > 0):
        return "none"
    if task(data) == "antmaze":
        return "otr_antmaze" if config.reward == "otr" else "antmaze"
    if task(data) in RESCALED and isinstance(config.policy, IQLConfig) and config.reward != "seabo":
        return "return_range"
    return "none"


def task(data: OfflineData) -> str | None:
    """D4RL's word for what the data are about."""
    return task_of(data.name) or task_of(data.env_id or "")


def transitions_of(
    data: OfflineData, rewards: np.ndarray, normalise: bool, own: bool = False, device: torch.device | str = "cpu"
) -> Transitions:
    """Transitions with these rewards (M,); own: observations are normalised as those of robopref's own episodes are."""
    observations = torch.tensor(data.observations, device=device)
    first = observations[0]
    normaliser = Normaliser(torch.zeros_like(first), torch.ones_like(first))
    if normalise and own:
        normaliser = fit_normaliser(observations)
    elif normalise:
        acted_on = observations[torch.tensor(data.rows, device=device)]
        normaliser = Normaliser(acted_on.mean(0), acted_on.std(0, correction=0) + STD_OFFSET)
    return Transitions(
        obs=normaliser(observations) if normalise else observations,
        actions=torch.tensor(data.actions, device=device),
        rewards=torch.tensor(rewards, dtype=torch.float32, device=device),
        rows=torch.tensor(data.rows, device=device),
        first=data.first,
        normaliser=normaliser,
        terminals=torch.tensor(data.terminals, dtype=torch.float32, device=device) if data.terminated.any() else None,
    )


def is_plain(config: TrainConfig) -> bool:
    """Whether the data are taken as they are."""
    return (
        config.reward == TRUE
        and config.reward_scale in ("auto", "none")
        and config.expert_data is None
        and config.top == 1  # auto is none for robopref's own episodes
    )


def is_own(path: Path) -> bool:
    """Whether it is a folder of robopref's own episodes, which hold the simulator's states."""
    try:
        return path.is_dir() and "format_version" in dict(MinariStorage.read_raw_metadata(path))
    except (TypeError, ValueError, OSError):
        return False


def file_of(where: Path) -> Path:
    """The file or folder that settings mean; a set of D4RL that is not here yet is downloaded."""
    if where.exists():
        return where
    if str(where) not in PATHS:
        load_offline(where)
        raise RoboprefError(f"{where} is not there")
    places = [FOLDER / f"{where}.hdf5", FOLDER / Path(PATHS[str(where)]).name]
    if not any(place.is_file() for place in places):
        load_offline(where)
    return next(place for place in places if place.is_file())
