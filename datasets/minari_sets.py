"""Minari data sets of flat observations <-> OfflineData; any set of Minari 0.4.3 to 0.5, robopref's own episodes among them.

Read straight from their HDF5, with no environment to make and no spaces to rebuild, so that sets of environments that are not
installed here can be read too; sets in Minari's other format go through its storage.

Sets of the namespace D4RL carry reference scores, those of mujoco do not: they are new data of today's environments.

An episode that terminates or is truncated before its last step ends there, and what follows is another one (ours): Minari's
collector goes on in a world that says it has ended, as long as nobody resets it.  Where observations jump there, the world was
reset, and which of the steps leads across is not told: such a set is refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import minari
import numpy as np
from gymnasium.spaces import Box
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_dataset import DATASET_ID_RE
from minari.dataset.minari_storage import METADATA_FILE_NAME, MinariStorage
from minari.serialization import deserialize_space

from robopref.configs.digests import check_digests
from robopref.configs.errors import RoboprefError, one_line, warn
from robopref.configs.files import atomic_folder, check_space, parse_json, read_json
from robopref.datasets.episode_ends import STANDS_OUT, change_sizes, read_flags
from robopref.datasets.hdf5 import found
from robopref.datasets.offline import (
    REPAIRED,
    OfflineData,
    ReferenceScore,
    check_finite,
    check_words,
    refuse_parent,
    scale_of,
    shorten,
)

TOLD = ("dataset_id", "description", "algorithm_name", "code_permalink", "author", "minari_version")  # becomes `facts`
DATA = "main_data.hdf5"
REMEDY = "Download it again, or point to another set."


@dataclass(frozen=True)
class Recorded:
    """An episode as it lies in a set."""

    observations: np.ndarray  # (T + 1, do) float32
    actions: np.ndarray  # (T, da) float32
    rewards: np.ndarray  # (T,) float32
    terminations: np.ndarray  # (T,) bool
    truncations: np.ndarray  # (T,) bool

    @property
    def inside(self) -> np.ndarray:
        """Numbers of the steps, but the last, that ended an episode."""
        return np.flatnonzero((self.terminations | self.truncations)[:-1])


def read_minari(path: Path) -> OfflineData:
    """All episodes of a set: its folder, or the one above `data`, as Minari keeps it.

    float32; rewards, actions and ends as recorded.  Observations of goals ({observation, desired_goal, achieved_goal}) become the
    observation and the desired goal, one after the other (ours).  What was repaired is said in one line on stderr.  Raises
    RoboprefError naming the folder for what is no set, is damaged, or has pictures or several parts for observations.
    """
    folder = path if (path / METADATA_FILE_NAME).exists() or not (path / "data").is_dir() else path / "data"
    if not (folder / METADATA_FILE_NAME).exists():
        refuse_parent(path, "*.hdf5")
        raise RoboprefError(f"{path}: no Minari set: it has no {METADATA_FILE_NAME}")
    check_digests(folder, folder / DATA, folder / METADATA_FILE_NAME, remedy=REMEDY)
    metadata = read_json(folder / METADATA_FILE_NAME, any_text=True, any_number=True)
    if not isinstance(metadata, dict):
        raise RoboprefError(f"{folder}: {METADATA_FILE_NAME} holds no names and values. {REMEDY}")
    episodes: list[Recorded] = []
    notes: list[str] = []
    try:
        for episode in _episodes(folder, metadata):
            episodes.append(_recorded(episode, f"{folder}, episode {len(episodes)}", notes))
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, ArithmeticError, MemoryError) as error:
        raise RoboprefError(f"{folder}: damaged, after {len(episodes)} whole episodes ({one_line(error)}). {REMEDY}") from error
    if not episodes:
        raise RoboprefError(f"{folder}: holds no episode. {REMEDY}")
    shapes = [(episode.observations.shape[1:], episode.actions.shape[1:]) for episode in episodes]
    if other := next((number for number, shape in enumerate(shapes) if shape != shapes[0]), None):
        raise RoboprefError(
            f"{folder}, episode {other}: observations and actions of {shapes[other]} numbers, the first has {shapes[0]}. {REMEDY}"
        )
    steps = sum(len(episode.rewards) for episode in episodes)
    if metadata.get("total_steps", steps) != steps:
        notes.append(
            f"{METADATA_FILE_NAME} tells of {shorten(metadata['total_steps'])} steps, the episodes hold {steps}: these were read"
        )
    if unsaid := sum(not (episode.terminations[-1] or episode.truncations[-1]) for episode in episodes):
        notes.append(f"{unsaid} of {len(episodes)} episodes end without a flag: taken as cut by time")
    if earlier := [(number, episode.inside[0]) for number, episode in enumerate(episodes) if len(episode.inside)]:
        number, step = earlier[0]
        check_continuous(folder, episodes)
        notes.append(
            f"{len(earlier)} episodes end before their last step (episode {number} at {step}): the rest is another episode"
        )
        episodes = [part for episode in episodes for part in _split(episode)]
    facts, last_rewards, score = _told(metadata, folder)
    if notes:
        facts |= {REPAIRED: "; ".join(notes)}
        warn(f"{folder}: {facts[REPAIRED]}")
    return _whole(
        folder,
        observations=np.concatenate([episode.observations for episode in episodes]),
        actions=np.concatenate([episode.actions for episode in episodes]),
        rewards=np.concatenate([episode.rewards for episode in episodes]),
        first=np.cumsum([0, *(len(episode.rewards) for episode in episodes)], dtype=np.int64),
        terminated=np.array([episode.terminations[-1] for episode in episodes], bool),
        name=str(metadata.get("name") or metadata.get("dataset_id") or path.name),
        env_id=_environment(metadata),
        score=score,
        facts=facts,
        box=_box(metadata, folder),
        last_rewards=last_rewards,
    )


def _told(metadata: dict[str, Any], folder: Path) -> tuple[dict[str, str], np.ndarray | None, ReferenceScore | None]:
    """Facts, rewards of last steps (E,) and reference scores of a set; RoboprefError where they are of another kind."""
    low, high = metadata.get("ref_min_score"), metadata.get("ref_max_score")
    score = None if low is None or high is None else scale_of(low, high, folder)
    if "facts" not in metadata:
        return {key: str(metadata[key]) for key in TOLD if key in metadata}, None, score
    try:
        check_words(metadata)
    except ValueError as error:
        raise RoboprefError(f"{folder}: {METADATA_FILE_NAME} is damaged ({one_line(error)}). {REMEDY}") from error
    rewards = metadata.get("last_rewards")
    return dict(metadata["facts"]), None if rewards is None else np.array(rewards, np.float32), score


def _whole(folder: Path, **parts: Any) -> OfflineData:
    """OfflineData whose errors name the folder."""
    try:
        return OfflineData(**parts)
    except RoboprefError as error:
        raise RoboprefError(f"{folder}: {error}") from error


def check_continuous(folder: Path, episodes: Sequence[Recorded]) -> None:
    """RoboprefError where an episode that ended before its last step jumps there as it does nowhere else: the world was reset."""
    sizes = change_sizes(np.concatenate([episode.observations for episode in episodes]))
    starts = np.cumsum([0, *(len(episode.observations) for episode in episodes)])
    usual = np.ones(len(sizes), bool)
    usual[starts[1:-1] - 1] = False  # from one episode to the next
    ends = [(number, int(step)) for number, episode in enumerate(episodes) for step in episode.inside]
    # a world is reset in the step that ends an episode, or in the next one, which does nothing else
    changes = {end: slice(starts[end[0]] + end[1], min(starts[end[0]] + end[1] + 2, starts[end[0] + 1] - 1)) for end in ends}
    for change in changes.values():
        usual[change] = False
    most = STANDS_OUT * sizes[usual].max(initial=0.0)
    for (number, step), change in changes.items():
        if usual.any() and sizes[change].max() > most:
            raise RoboprefError(
                f"{folder}, episode {number}: it ends at step {step}, goes on, and jumps as at a reset: which step leads from "
                "one episode into the next is not told; write it as two episodes"
            )


def _recorded(episode: Any, where: str, notes: list[str]) -> Recorded:
    """An episode, whole and finite; what is odd about its flags goes to notes.

    ValueError for what is missing, RoboprefError that begins with `where` for the rest.
    """
    if not isinstance(episode, h5py.Group | dict) and not hasattr(episode, "__dict__"):
        raise ValueError("the next one is not there")
    missing = [key for key in ("observations", "actions", "rewards", "terminations") if key not in _keys(episode)]
    if missing:
        raise ValueError(f"no {', '.join(missing)} in the next one")
    rewards = np.asarray(_part(episode, "rewards"), np.float32).reshape(-1)
    flags = {"terminations": np.zeros(0, bool), "truncations": np.zeros(len(rewards), bool)}
    for key in (key for key in flags if key in _keys(episode)):
        flags[key], worded = read_flags(np.asarray(_part(episode, key)[()]).reshape(-1), f"{where}: {key}")
        if worded and (note := f"{key} are words, read as true and false") not in notes:
            notes.append(note)
    read = Recorded(
        _flat(_part(episode, "observations"), where, "observations"),
        _flat(_part(episode, "actions"), where, "actions"),
        rewards,
        **flags,
    )
    steps = len(rewards)
    lengths = {name: len(values) for name, values in vars(read).items() if len(values) != steps + (name == "observations")}
    if lengths or not steps:
        found = ", ".join(f"{length} {name}" for name, length in lengths.items()) or "nothing"
        raise RoboprefError(f"{where}: {found} for {steps} steps, where there is one a step and one more observation. {REMEDY}")
    for name in ("observations", "actions", "rewards"):
        check_finite(getattr(read, name), f"{where}: {name}")
    return read


def _split(episode: Recorded) -> Iterator[Recorded]:
    """An episode as the several that its flags say it is."""
    stops = [*(episode.inside + 1).tolist(), len(episode.rewards)]
    for start, stop in zip([0, *stops], stops, strict=False):
        steps = slice(start, stop)
        yield Recorded(
            episode.observations[start : stop + 1],
            episode.actions[steps],
            episode.rewards[steps],
            episode.terminations[steps],
            episode.truncations[steps],
        )


def write_minari(path: Path, data: OfflineData) -> Path:
    """Write a set as the folder `path`, which the library `minari` reads too; what was there is replaced when it is whole."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    bound = max(1.0, float(np.abs(data.actions).max()))  # human demonstrations leave [-1, 1]
    low, high = np.full(data.dims[1], -bound), np.full(data.dims[1], bound)
    if data.box is not None:
        low, high = np.minimum(data.box[0], data.actions.min(0)), np.maximum(data.box[1], data.actions.max(0))

    def buffers() -> Iterator[EpisodeBuffer]:
        for number, (start, end) in enumerate(zip(data.first, data.first[1:], strict=False)):
            ends = np.arange(start, end) == end - 1
            observations = data.observations[start + number : end + number + 1]
            check_space(aside, 2 * observations.nbytes)
            yield EpisodeBuffer(
                observations=observations,
                actions=data.actions[start:end],
                rewards=data.rewards[start:end],
                terminations=ends & data.terminated[number],
                truncations=ends & ~data.terminated[number],
                infos={},  # with None Minari writes a set that it cannot read
            )

    with atomic_folder(path) as aside:
        storage = MinariStorage.new(
            aside.resolve(),  # Minari 0.5 joins a relative path to itself when it asks for the file's size
            observation_space=Box(-np.inf, np.inf, (data.dims[0],), np.float32),
            action_space=Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32),
        )
        storage.update_episodes(buffers())
        metadata: dict[str, Any] = {
            "dataset_id": _identity(data.name),
            "name": data.name,
            "facts": data.facts,
            "minari_version": minari.__version__,
        }
        if data.env_id is not None:
            metadata["env_id"] = data.env_id
        if data.score is not None:  # Minari itself drops these of a set without an environment
            metadata |= {"ref_min_score": data.score.minimum, "ref_max_score": data.score.maximum}
        if data.box is not None:  # the space above has room for what was recorded beyond it
            metadata["action_box"] = [bounds.tolist() for bounds in data.box]
        if data.last_rewards is not None:
            metadata["last_rewards"] = data.last_rewards.tolist()
        storage.update_metadata(metadata)
    return path


def _episodes(folder: Path, metadata: dict[str, Any]) -> Iterator[Any]:
    name = metadata.get("dataset_id", "ID")
    alone = f"{folder}: {METADATA_FILE_NAME} is there, the episodes are not: get them with `minari download {name}`"
    if metadata.get("data_format", "hdf5") != "hdf5":
        if not {"observation_space", "action_space"} <= metadata.keys():  # Minari would make the environment to learn of them
            raise RoboprefError(f"{folder}: {METADATA_FILE_NAME} has no spaces. {REMEDY}")
        if metadata.get("total_episodes") and not (folder / "0").exists():  # a folder an episode
            raise RoboprefError(alone)
        storage = MinariStorage.read(folder)
        yield from storage.get_episodes(range(storage.total_episodes))
        return
    if not (folder / DATA).exists():
        raise RoboprefError(alone)
    with h5py.File(folder / DATA, "r") as file:
        held, told = sum(key.startswith("episode_") for key in file), int(metadata["total_episodes"])
        if held > told:
            raise RoboprefError(
                f"{folder}: {held} episodes where {METADATA_FILE_NAME} tells of {told}: a writing was cut. {REMEDY}"
            )
        for number in range(told):
            yield found(file, f"episode_{number}")


def _keys(episode: Any) -> Collection[str]:
    """Names of an episode's arrays, in either of Minari's formats."""
    return episode.keys() if isinstance(episode, h5py.Group | dict) else vars(episode).keys()


def _part(episode: Any, key: str) -> Any:
    values = found(episode, key) if isinstance(episode, h5py.Group) else episode[key]
    if values is None:
        raise ValueError(f"{key} of the next one is a link that leads to nothing")
    return values


def _flat(values: Any, where: str, what: str) -> np.ndarray:
    """(T, d) float32."""
    if isinstance(values, h5py.Group | dict):
        parts = [_part(values, name) for name in ("observation", "desired_goal") if name in values]
        parts = [part for part in parts if not isinstance(part, h5py.Group | dict)]  # the kitchen's goals are of several parts
        if not parts or what != "observations":
            raise RoboprefError(f"{where}: {what} have the parts {', '.join(values)}, none of which is `observation`")
        return np.concatenate([_flat(part, where, what) for part in parts], axis=1)
    if values.shape is None or values.ndim != 2 or values.dtype.kind not in "fiub":
        kind = "pictures" if values.ndim > 3 else "arrays"
        raise RoboprefError(
            f"{where}: {what} are {kind} of shape {values.shape[1:]} and {values.dtype}; numbers in rows are read here"
        )
    return np.asarray(values[()], np.float32)


def _box(metadata: dict[str, Any], folder: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Lowest and highest action (da,) of the set's space, None where it is not told; RoboprefError for a space that is no box."""
    if "facts" in metadata:  # ours: its space has room for more
        box = metadata.get("action_box")
        try:
            low, high = (None, None) if box is None else (np.array(bound, np.float64) for bound in box)
        except (ValueError, TypeError) as error:
            raise RoboprefError(f"{folder}: its action_box is damaged ({one_line(error)}). {REMEDY}") from error
        return None if low is None or high is None else (low, high)
    if "action_space" not in metadata:
        return None
    try:
        space = deserialize_space(metadata["action_space"])
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, NotImplementedError, AssertionError) as error:
        raise RoboprefError(
            f"{folder}: its action_space is of no kind that Minari reads ({one_line(error)}). {REMEDY}"
        ) from error
    if not isinstance(space, Box):
        raise RoboprefError(f"{folder}: its actions are {space}; those of a Box are learnt from here")
    return space.low.astype(np.float64), space.high.astype(np.float64)


def _environment(metadata: dict[str, Any]) -> str | None:
    """robopref's name of the environment that made a set."""
    if "env_id" in metadata:
        return str(metadata["env_id"])
    try:
        spec = parse_json(metadata.get("env_spec") or "{}", any_text=True, any_number=True)
    except (TypeError, ValueError):  # it only helps to find an environment to act in
        spec = {}
    spec = spec if isinstance(spec, dict) else {}
    made, name = str(spec.get("entry_point")), str(spec.get("id"))
    if made.startswith("gymnasium.envs.mujoco"):
        return f"mujoco/{name}"
    adroit = re.fullmatch(r"AdroitHand(Door|Hammer|Pen|Relocate)-v\d+", name)
    return f"adroit/{adroit[1].lower()}" if adroit else None


def _identity(name: str) -> str:
    """An identity that Minari takes: [namespace/]name-vN."""
    found = DATASET_ID_RE.fullmatch(name)
    if found and found["version"] is not None:
        return name
    return f"robopref/{re.sub(r'[^-_A-Za-z0-9]', '-', name)}-v0"
