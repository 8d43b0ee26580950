"""Episodes on disk: one Minari dataset (HDF5) a task, holding states instead of pixels.

Comes from embodied.rollout; goes to clips (drawn from `sim_state`), annotation and policy learning.  A dataset is written
aside and renamed when whole, and read a slice at a time, so memory does not grow with the number of episodes.

Layout of an episode, beyond Minari's own keys: infos/{success, near_object} (T + 1,), infos/sim_state (T + 1, S); attributes
env_id, level, policy, seed, ret, succeeded and sim_static (K,).  Any Minari tool reads these files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import minari
import numpy as np
import pandas as pd
from gymnasium.spaces import Box
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import METADATA_FILE_NAME, MinariStorage

from robopref.configs.digests import check_digests
from robopref.configs.errors import RoboprefError, one_line
from robopref.configs.files import absent, atomic_folder, check_space, parse_json
from robopref.datasets.hdf5 import found, reading
from robopref.datasets.offline import refuse_parent
from robopref.embodied.rollout import Episode

FORMAT_VERSION = 1
DATA = "main_data.hdf5"
FILES = (DATA, METADATA_FILE_NAME)
"""Of a dataset, beside its manifest."""
CHANGED = "Collect it anew (`robopref collect --overwrite`), or point to another dataset."
REMEDY = "Collect it again (`robopref collect`), or point to another dataset."


def write_episodes(
    path: Path,
    env_id: str,
    episodes: Iterable[Episode],
    provenance: dict[str, Any],
    last: Callable[[Path], object] = lambda folder: None,
) -> int:
    """Write `episodes` as the Minari dataset `path`, streaming; return how many.  Nothing is left at `path` on failure.

    provenance: JSON-able facts about how they were made, kept in the dataset's metadata.  last: adds to the folder, before it
    gets its name, what has to be there with it.
    """
    metadata: list[dict[str, Any]] = []

    def buffers() -> Iterator[EpisodeBuffer]:
        for episode in episodes:
            check_episode(episode, f"a new episode of {env_id}")
            check_space(aside, 2 * sum(value.nbytes for value in vars(episode).values() if isinstance(value, np.ndarray)))
            metadata.append(_attributes(episode))
            yield _buffer(episode)

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(path) as aside:
        storage = MinariStorage.new(
            aside.resolve(),  # Minari 0.5 joins a relative path to itself when it asks for the file's size
            observation_space=Box(-np.inf, np.inf, (39,), np.float64),
            action_space=Box(-1.0, 1.0, (4,), np.float32),
        )
        storage.update_episodes(buffers())
        if not metadata:
            raise RoboprefError(f"{path}: no episode was given to write; ask for at least one episode a level.")
        storage.update_episode_metadata(metadata)
        suite, name = env_id.split("/")
        storage.update_metadata(
            {
                "dataset_id": f"robopref/{suite}-{name}-v0",
                "env_id": env_id,
                "format_version": FORMAT_VERSION,
                "provenance": provenance,
                "minari_version": minari.__version__,
                "algorithm_name": "scripted policies of the suite",
            }
        )
        last(aside)
    return len(metadata)


def check_episode(episode: Episode, where: str) -> None:
    """Raise `RoboprefError` naming `where` when lengths disagree or observations, actions or rewards are not finite."""
    steps = len(episode.actions)
    lengths = {
        "observations": len(episode.observations) - 1,
        "rewards": len(episode.rewards),
        "success": len(episode.success),
        "sim_state": len(episode.sim_dynamic) - 1,
    }
    wrong = {name: length for name, length in lengths.items() if length != steps}
    if wrong or steps == 0:
        raise RoboprefError(f"{where}: {steps} actions, but {wrong or 'no step at all'}; the episode is damaged. {REMEDY}")
    for name in (
        "observations",
        "actions",
        "rewards",
    ):  # simstate.py checks the physics; an unset attribute is NaN there
        if not np.isfinite(getattr(episode, name)).all():
            raise RoboprefError(f"{where}: {name} holds NaN or infinity. {REMEDY}")


class EpisodeStore:
    """Reads one dataset written by `write_episodes`; opens the file for each request, so it may be shared by processes."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise RoboprefError(f"{absent(self.path)} `robopref collect` makes episode datasets")
        if not (self.path / METADATA_FILE_NAME).exists():
            refuse_parent(self.path)
        self._file = self.path / DATA
        check_digests(self.path, self._file, self.path / METADATA_FILE_NAME, remedy=CHANGED)
        try:
            self.metadata = parse_json((self.path / METADATA_FILE_NAME).read_text(encoding="utf-8"), any_number=True)
        except (ValueError, OSError) as error:
            raise RoboprefError(f"{self.path}: not a readable episode dataset ({one_line(error)}). {REMEDY}") from error
        if not isinstance(self.metadata, dict):
            raise RoboprefError(f"{self.path}: not a readable episode dataset (metadata.json holds no settings). {REMEDY}")
        if self.metadata.get("format_version") != FORMAT_VERSION:
            raise RoboprefError(f"{self.path}: no simulator states in this Minari dataset, so no pixels. {REMEDY}")
        env_id, total = self.metadata.get("env_id"), self.metadata.get("total_episodes")
        if not isinstance(env_id, str) or "/" not in env_id or not isinstance(total, int):
            raise RoboprefError(
                f"{self.path}: metadata.json does not say of which environment its episodes are, or how many "
                f"(env_id {env_id!r}, total_episodes {total!r}). {REMEDY}"
            )
        self.env_id: str = env_id
        self.task: str = self.env_id.split("/")[1]
        with self._open() as file:
            if len(file) != total:
                raise RoboprefError(f"{self._file}: {len(file)} episodes where {total} were written. {REMEDY}")
            rows = self._rows(file)
        if not rows:
            raise RoboprefError(f"{self._file}: holds no episode. {REMEDY}")
        self.index = pd.DataFrame(rows)
        """One row an episode: episode, level, seed, policy, length (steps), ret (sum of rewards), success_step (-1: never)."""

    def __len__(self) -> int:
        return len(self.index)

    def _rows(self, file: h5py.File) -> list[dict[str, Any]]:
        """Of `index`."""
        return [
            {
                "episode": i,
                "level": _word(group, "level"),
                "seed": int(group.attrs["seed"]),
                "policy": _word(group, "policy"),
                "length": int(group.attrs["total_steps"]),
                "ret": float(group.attrs["ret"]),
                "success_step": int(group.attrs["success_step"]),
            }
            for i, group in ((i, file[f"episode_{i}"]) for i in range(len(file)))
        ]

    @contextmanager
    def _open(self) -> Iterator[h5py.File]:
        """The file, for a block that only reads; RoboprefError where what is read is not there, or not of its form."""
        with reading(self._file, REMEDY), h5py.File(self._file, "r") as file:
            yield file

    def _group(self, file: h5py.File, episode: int) -> h5py.Group:
        name = f"episode_{episode}"
        if name not in file:
            raise RoboprefError(f"{self._file}: no episode {episode}; it holds 0 to {len(self) - 1}.")
        return file[name]

    def _numbers(self, group: h5py.Group, name: str) -> h5py.Dataset:
        """A data set with a number or a row of them a step."""
        values = found(group, name)
        if not isinstance(values, h5py.Dataset) or not values.shape or values.dtype.kind not in "fiub":
            raise RoboprefError(f"{self._file}: {group.name.removeprefix('/')} has no numbers called {name}. {REMEDY}")
        return values

    def episode(self, episode: int) -> Episode:
        """One whole episode, checked."""
        with self._open() as file:
            group = self._group(file, episode)
            read = Episode(
                observations=self._numbers(group, "observations")[:],
                actions=self._numbers(group, "actions")[:],
                rewards=self._numbers(group, "rewards")[:],
                success=self._numbers(group, "infos/success")[1:].astype(bool),
                near_object=self._numbers(group, "infos/near_object")[1:],
                sim_dynamic=self._numbers(group, "infos/sim_state")[:],
                sim_static=_static(group),
                env_id=self.env_id,
                level=_word(group, "level"),
                seed=int(group.attrs["seed"]),
                policy=_word(group, "policy"),
            )
        check_episode(read, f"{self._file}, episode {episode}")
        return read

    def states(self, episode: int, steps: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Simulator states to draw: static (K,) and dynamic (n, S) of the given steps, in the given order."""
        wanted, order = np.unique(np.asarray(steps, dtype=int), return_inverse=True)  # h5py reads increasing indices only
        with self._open() as file:
            group = self._group(file, episode)
            dynamic = self._numbers(group, "infos/sim_state")[wanted][order]
            static = _static(group)
        return static, dynamic

    def rewards(self, episode: int) -> np.ndarray:
        """The true reward of every step, (T,)."""
        with self._open() as file:
            rewards: np.ndarray = self._numbers(self._group(file, episode), "rewards")[:]
        if rewards.shape != (steps := (self.index["length"].iloc[episode],)):
            raise RoboprefError(f"{self._file}, episode {episode}: rewards {rewards.shape} for steps {steps}. {REMEDY}")
        return rewards


def _word(group: h5py.Group, name: str) -> str:
    """An attribute that is text."""
    if not isinstance(word := group.attrs[name], str):
        raise TypeError(f"{name} of {group.name.removeprefix('/')} is {word!r}, no word")
    return word


def _static(group: h5py.Group) -> np.ndarray:
    """What does not change in an episode's states, (K,)."""
    static = group.attrs["sim_static"]
    if not isinstance(static, np.ndarray) or static.ndim != 1 or static.dtype.kind != "f":
        raise TypeError(f"sim_static of {group.name.removeprefix('/')} are no numbers")
    return static


def _buffer(episode: Episode) -> EpisodeBuffer:
    steps = len(episode)
    truncations = np.zeros(steps, dtype=bool)
    truncations[-1] = True  # Meta-World never terminates
    return EpisodeBuffer(
        seed=episode.seed,
        observations=episode.observations,
        actions=episode.actions,
        rewards=episode.rewards,
        terminations=np.zeros(steps, dtype=bool),
        truncations=truncations,
        infos={
            "success": np.concatenate([[False], episode.success]),
            "near_object": np.concatenate([[0.0], episode.near_object]),
            "sim_state": episode.sim_dynamic,
        },
    )


def _attributes(episode: Episode) -> dict[str, Any]:
    return {
        "env_id": episode.env_id,
        "level": episode.level,
        "policy": episode.policy,
        "ret": float(episode.rewards.sum()),
        "success_step": int(episode.success.argmax()) if episode.success.any() else -1,
        "sim_static": episode.sim_static,
    }
