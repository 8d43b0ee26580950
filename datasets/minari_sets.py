"""Minari data sets of flat observations <-> OfflineData; any set of Minari 0.4.3 to 0.5, robopref's own episodes among them.

Read straight from their HDF5, with no environment to make and no spaces to rebuild, so that sets of environments that are not
installed here can be read too; sets in Minari's other format go through its storage.

Sets of the namespace D4RL carry reference scores, those of mujoco do not: they are new data of today's environments.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import minari
import numpy as np
from gymnasium.spaces import Box
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_dataset import DATASET_ID_RE
from minari.dataset.minari_storage import METADATA_FILE_NAME, MinariStorage

from robopref.configs.errors import RoboprefError
from robopref.configs.files import atomic_folder, check_space, read_json
from robopref.datasets.offline import OfflineData, ReferenceScore

TOLD = ("dataset_id", "description", "algorithm_name", "code_permalink", "author", "minari_version")  # becomes `facts`
REMEDY = "Download it again, or point to another set."


def read_minari(path: Path) -> OfflineData:
    """All episodes of a set: its folder, or the one above `data`, as Minari keeps it.

    float32; rewards and ends as recorded.  Observations of goals ({observation, desired_goal, achieved_goal}) become the
    observation and the desired goal, one after the other (ours).  Raises RoboprefError naming the folder for what is no set,
    is damaged, or has pictures or several parts for observations.
    """
    folder = path if (path / METADATA_FILE_NAME).exists() or not (path / "data").is_dir() else path / "data"
    if not (folder / METADATA_FILE_NAME).exists():
        raise RoboprefError(f"{path}: no Minari set: it has no {METADATA_FILE_NAME}")
    metadata = read_json(folder / METADATA_FILE_NAME)
    observations, actions, rewards, lengths, terminated = [], [], [], [], []
    try:
        for episode in _episodes(folder, metadata):
            observations.append(_flat(episode["observations"], folder))
            actions.append(_flat(episode["actions"], folder))
            rewards.append(np.asarray(episode["rewards"], np.float32).reshape(-1))
            lengths.append(len(rewards[-1]))
            terminated.append(bool(np.asarray(episode["terminations"])[-1]))
            if len(observations[-1]) != lengths[-1] + 1:
                found = f"{len(observations[-1])} observations for {lengths[-1]} steps"
                raise RoboprefError(f"{folder}, episode {len(lengths) - 1}: {found}. {REMEDY}")
    except (OSError, KeyError, ValueError, IndexError) as error:
        raise RoboprefError(f"{folder}: damaged, after {len(lengths)} whole episodes ({error}). {REMEDY}") from error
    if not lengths:
        raise RoboprefError(f"{folder}: holds no episode. {REMEDY}")
    low, high = metadata.get("ref_min_score"), metadata.get("ref_max_score")
    return OfflineData(
        observations=np.concatenate(observations),
        actions=np.concatenate(actions),
        rewards=np.concatenate(rewards),
        first=np.cumsum([0, *lengths], dtype=np.int64),
        terminated=np.array(terminated, bool),
        name=str(metadata.get("name") or metadata.get("dataset_id") or path.name),
        env_id=_environment(metadata),
        score=None if low is None or high is None else ReferenceScore(float(low), float(high)),
        facts=metadata["facts"] if "facts" in metadata else {key: str(metadata[key]) for key in TOLD if key in metadata},
    )


def write_minari(path: Path, data: OfflineData) -> Path:
    """Write a set as the folder `path`, which the library `minari` reads too; what was there is replaced when it is whole."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    bound = max(1.0, float(np.abs(data.actions).max()))  # human demonstrations leave [-1, 1]

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
            action_space=Box(-bound, bound, (data.dims[1],), np.float32),
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
        storage.update_metadata(metadata)
    return path


def _episodes(folder: Path, metadata: dict[str, Any]) -> Iterator[Any]:
    if metadata.get("data_format", "hdf5") != "hdf5":
        if not {"observation_space", "action_space"} <= metadata.keys():  # Minari would make the environment to learn of them
            raise RoboprefError(f"{folder}: {METADATA_FILE_NAME} has no spaces. {REMEDY}")
        storage = MinariStorage.read(folder)
        yield from storage.get_episodes(range(storage.total_episodes))
        return
    with h5py.File(folder / "main_data.hdf5", "r") as file:
        for number in range(int(metadata["total_episodes"])):
            yield file[f"episode_{number}"]


def _flat(values: Any, folder: Path) -> np.ndarray:
    """(T, d) float32."""
    if isinstance(values, h5py.Group | dict):
        parts = [values[name] for name in ("observation", "desired_goal") if name in values]
        parts = [part for part in parts if not isinstance(part, h5py.Group | dict)]  # the kitchen's goals are of several parts
        if not parts:
            raise RoboprefError(f"{folder}: observations have the parts {', '.join(values)}, none of which is `observation`")
        return np.concatenate([_flat(part, folder) for part in parts], axis=1)
    if values.ndim != 2:
        raise RoboprefError(f"{folder}: numbers in rows are read here, not arrays of shape {values.shape[1:]}")
    return np.asarray(values[()], np.float32)


def _environment(metadata: dict[str, Any]) -> str | None:
    """robopref's name of the environment that made a set."""
    if "env_id" in metadata:
        return str(metadata["env_id"])
    spec = json.loads(metadata.get("env_spec") or "{}")
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
