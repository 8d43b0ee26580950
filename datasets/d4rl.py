"""D4RL's data sets and others of their form <-> OfflineData, and `python -m robopref.datasets.d4rl info | convert`.

Comes from HDF5 files or Minari folders, on the disk or by D4RL's name from the web; goes to rewards that label them and to
learners of policies.  `load_offline` takes whatever a user may name.

The files are flat: N rows of observations, actions, rewards, terminals, and, depending on their age and environment, timeouts,
next_observations, infos/*, metadata/*.  What a row's successor is must be found out, and not every row has one:

* An episode ends where `terminals` or `timeouts` says so.  Without `timeouts` (files of the first version) also after D4RL's
  number of steps, as `d4rl` has it.  The AntMaze files of the first version have timeouts at wrong places: there it ends where
  infos/goal changes (if it does).  Where a row's next observation is not the row that follows, an episode ends too (ours).
* With next_observations every row is a transition.
* Without, the last row of an episode that was cut, or that the file ends in, has no next observation: it is dropped, as
  `d4rl.qlearning_dataset` does, with its reward, and `facts` says how many and how much.  After a terminal nothing of the next
  observation is used by a learner of values: it is the row's own once more (ours), and the transition is kept.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import h5py
import numpy as np
import tyro

from robopref.configs.cli import guarded
from robopref.configs.errors import RoboprefError, UsageError, nearest
from robopref.configs.files import atomic_file, check_space
from robopref.datasets.d4rl_names import PATHS, env_of, name_of, reference_score, step_limit, url_of
from robopref.datasets.download import DownloadError, download
from robopref.datasets.minari_sets import read_minari, write_minari
from robopref.datasets.offline import OfflineData, ReferenceScore

__all__ = [
    "clipped",
    "env_of",
    "load_offline",
    "read_d4rl",
    "read_minari",
    "reference_score",
    "write_d4rl",
    "write_minari",
]

FOLDER = Path("data/d4rl")
MIRROR = "ROBOPREF_D4RL_URL"  # environment variable
ENDINGS = (".hdf5", ".h5")
LOST, LOST_REWARD = "dropped_steps", "dropped_reward"  # in `facts`
OURS = "robopref"  # of metadata/: name, env_id and facts of what write_d4rl has written, as JSON
SAME = 1e-4  # relative or absolute, by which an observation may differ from the one announced by the row before
BLOCK = 65_536  # rows looked at together
REMEDY = "Download it again, or point to another file."


def load_offline(where: str | Path, folder: Path = FOLDER, mirror: str | None = None, sha256: str | None = None) -> OfflineData:
    """The data set that `where` means: an HDF5 file, the folder of a Minari set, or a name of D4RL (hopper-medium-v2).

    A name is looked for in `folder`, as NAME.hdf5 or as D4RL's host calls the file, and else downloaded to there, from `mirror`
    (see url_of; default: the environment variable ROBOPREF_D4RL_URL, then D4RL's host).  Its bytes are compared with `sha256`
    or with those of the first download.  Raises RoboprefError naming file, folder and address for what is not there.
    """
    path, name = Path(where), name_of(Path(where))
    if path.is_dir():
        return read_minari(path)
    if path.is_file():
        return read_d4rl(path)
    mirror = mirror or os.environ.get(MIRROR)
    if path.suffix in ENDINGS or path.name != str(where) or name not in PATHS:
        if name in PATHS:
            raise RoboprefError(f"{path} is not there: get it from {url_of(name, mirror)}, or give its name, {name}")
        raise RoboprefError(f"{where}: neither an HDF5 file, nor a Minari folder, nor a set of D4RL.{nearest(str(where), PATHS)}")
    url, target = url_of(name, mirror), folder / f"{name}.hdf5"
    as_hosted = folder / Path(PATHS[name]).name
    if as_hosted.is_file() and not target.is_file():
        target = as_hosted
    try:
        download(url, target, sha256)
    except DownloadError as error:
        raise RoboprefError(
            f"{error}. {name} belongs in {folder} as {target.name}: get it elsewhere, or name a mirror with {MIRROR}=URL"
        ) from error
    return read_d4rl(target, name)


def read_d4rl(path: str | Path, name: str | None = None, env_id: str | None = None, limit: int | None = None) -> OfflineData:
    """A flat HDF5 file of D4RL's form, in float32; actions as recorded, even beyond [-1, 1] (`clipped`).

    name: of the set, if the file is not called by it; decides on reference scores, environment and episodes of old files.
    env_id: for files of other origin, `adroit/door`.  limit: steps after which episodes were cut, for files without
    `timeouts`; default: D4RL's of the set.  Peak memory is about twice the observations.  Raises RoboprefError naming the file
    for what is missing, damaged, of different lengths or not finite.
    """
    path = Path(path)
    try:
        with h5py.File(path, "r") as file:
            return _read(file, path, name, env_id, limit)
    except FileNotFoundError:
        raise RoboprefError(f"{path} is not there; correct the path, or give a name of D4RL to `load_offline`") from None
    except OSError as error:
        raise RoboprefError(f"{path}: truncated or not HDF5 ({error}). {REMEDY}") from error


def write_d4rl(path: str | Path, data: OfflineData) -> Path:
    """Write a set as flat HDF5 that D4RL's tools read; `read_d4rl` gives back the same.

    Every episode that is not terminated has its timeout at its last row; next_observations are complete.
    """
    path = Path(path)
    flags = {"terminals": data.terminals, "timeouts": np.zeros(len(data), bool)}
    flags["timeouts"][data.first[1:] - 1] = ~data.terminated
    ours = {"name": data.name, "env_id": data.env_id, "facts": data.facts}
    with atomic_file(path) as aside:
        check_space(aside.parent, 2 * data.observations.nbytes + data.actions.nbytes + data.rewards.nbytes)
        with h5py.File(aside, "w") as file:
            shape = (len(data), *data.observations.shape[1:])
            for key, step in (("observations", 0), ("next_observations", 1)):
                rows = file.create_dataset(key, shape, np.float32)
                for start in range(0, len(data), BLOCK):  # not all at once: `data.obs` is a copy
                    rows[start : start + BLOCK] = data.observations[data.rows[start : start + BLOCK] + step]
            file["actions"], file["rewards"] = data.actions, data.rewards
            for key, values in flags.items():
                file[key] = values
            file[f"metadata/{OURS}"] = json.dumps(ours)
            if data.env_id is not None:
                file["metadata/env_id"] = data.env_id
            if data.score is not None:
                file["metadata/ref_min_score"], file["metadata/ref_max_score"] = data.score.minimum, data.score.maximum
    return path


def clipped(data: OfflineData, low: float = -1.0, high: float = 1.0) -> OfflineData:
    """The same with every action within [low, high]: human demonstrations have more, environments clip them."""
    return replace(data, actions=np.clip(data.actions, low, high))


def _read(file: h5py.File, path: Path, name: str | None, env_id: str | None, limit: int | None) -> OfflineData:
    missing = [key for key in ("observations", "actions", "rewards", "terminals") if not isinstance(file.get(key), h5py.Dataset)]
    if missing:
        raise RoboprefError(f"{path}: no {', '.join(missing)} in it; it holds {', '.join(file) or 'nothing'}. {REMEDY}")
    ours = _ours(file, path)
    name = name or ours.get("name") or name_of(path)
    observations, actions = _rows(file["observations"], path), _rows(file["actions"], path)
    rewards, terminals = _column(file["rewards"], path).astype(np.float32), _column(file["terminals"], path) != 0
    lengths = {"observations": len(observations), "actions": len(actions), "rewards": len(rewards), "terminals": len(terminals)}
    if len(set(lengths.values())) > 1 or not len(rewards):
        raise RoboprefError(f"{path}: {', '.join(f'{n} {key}' for key, n in lengths.items())}: not one a step. {REMEDY}")

    ends = terminals | _cuts(file, path, name, terminals, limit or step_limit(name))
    ends[-1] = True  # also where the last episode is incomplete
    if "next_observations" in file:
        following = _rows(file["next_observations"], path)
        if following.shape != observations.shape:
            raise RoboprefError(f"{path}: next_observations {following.shape}, observations {observations.shape}. {REMEDY}")
        ends |= _breaks(observations, following)
        after = following[ends]
        del following  # as large as the observations
        kept = np.ones(len(ends), bool)
    else:
        after = observations[ends]
        kept = ~ends | terminals
    stops = np.flatnonzero(ends) + 1
    recorded = np.diff(stops, prepend=0)  # (E,) rows
    steps = recorded - ~kept[ends]  # (E,) transitions
    if not steps.any():
        raise RoboprefError(f"{path}: no step in it has a next observation. {REMEDY}")
    facts = ours["facts"] if ours else _facts(file)
    if not kept.all():
        facts |= {LOST: str(int((~kept).sum())), LOST_REWARD: repr(float(rewards[~kept].sum(dtype=np.float64)))}
        actions, rewards = actions[kept], rewards[kept]
    held = steps > 0  # an episode of one row without a next one is gone
    return OfflineData(
        observations=_joined(observations, after, recorded, steps),
        actions=actions,
        rewards=rewards,
        first=np.concatenate([[0], np.cumsum(steps[held])]).astype(np.int64),
        terminated=terminals[ends][held],
        name=name,
        env_id=env_id or (ours["env_id"] if ours else env_of(name)),
        score=_score(file) if ours else _score(file) or reference_score(name) or reference_score(env_id or ""),
        facts=facts,
    )


def _cuts(file: h5py.File, path: Path, name: str, terminals: np.ndarray, limit: int | None) -> np.ndarray:
    """(N,) bool, where an episode ended although nothing was terminal."""
    cuts = np.zeros(len(terminals), bool)
    if name.startswith("antmaze") and name.endswith("-v0") and "infos/goal" in file:
        goals = _rows(file["infos/goal"], path)
        if len(goals) != len(cuts):
            raise RoboprefError(f"{path}: {len(goals)} infos/goal for {len(cuts)} steps. {REMEDY}")
        cuts[:-1] = (goals[1:] != goals[:-1]).any(1)
        if cuts.any():
            return cuts
    if "timeouts" in file:
        timeouts = _column(file["timeouts"], path) != 0
        if len(timeouts) != len(cuts):
            raise RoboprefError(f"{path}: {len(timeouts)} timeouts for {len(cuts)} steps. {REMEDY}")
        return timeouts
    if limit is not None:
        number = np.arange(len(cuts))
        begins = np.concatenate([[0], np.flatnonzero(terminals[:-1]) + 1])  # rows after a terminal
        step = number - begins[np.searchsorted(begins, number, side="right") - 1]
        return step % limit == limit - 1
    if not terminals.any() and "next_observations" not in file:
        raise RoboprefError(
            f"{path}: nothing in it says where episodes end: no terminal, no timeouts, no next_observations, and {name} is no "
            "name of D4RL; give the name, or the steps of an episode as `limit`"
        )
    return cuts


def _breaks(observations: np.ndarray, following: np.ndarray) -> np.ndarray:
    """(N,) bool, where the observation announced by a row is not the one of the row after it."""
    breaks = np.zeros(len(observations), bool)
    for start in range(0, len(observations) - 1, BLOCK):
        next_row = observations[start + 1 : start + 1 + BLOCK]
        announced = following[start : start + len(next_row)]
        breaks[start : start + len(next_row)] = ~np.isclose(announced, next_row, rtol=SAME, atol=SAME).all(1)
    return breaks


def _joined(observations: np.ndarray, after: np.ndarray, recorded: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """(R, do): an episode's recorded rows (N, do) and, where each of them is a transition, what came after the last (E, do)."""
    held = steps > 0
    rows = np.where(held, steps + 1, 0)  # (E,)
    begins = np.cumsum(rows) - rows
    out = np.empty((rows.sum(), observations.shape[1]), np.float32)
    where = np.arange(len(observations)) + np.repeat(begins - (np.cumsum(recorded) - recorded), recorded)
    if held.all():
        out[where] = observations
    else:
        here = np.repeat(held, recorded)
        out[where[here]] = observations[here]
    more = steps == recorded
    out[(begins + steps)[more]] = after[more]
    return out


def _rows(values: h5py.Dataset, path: Path) -> np.ndarray:
    """(N, d) float32."""
    if values.ndim != 2:
        raise RoboprefError(f"{path}: {values.name} are {values.shape}; numbers in rows (N, d) are read here. {REMEDY}")
    rows: np.ndarray = values.astype(np.float32)[()]
    return rows


def _column(values: h5py.Dataset, path: Path) -> np.ndarray:
    """(N,) of what is (N,) or (N, 1)."""
    if values.ndim == 0 or values.size != len(values):
        raise RoboprefError(f"{path}: {values.name} are {values.shape}, not one number a step. {REMEDY}")
    column: np.ndarray = values[()].reshape(-1)
    return column


def _ours(file: h5py.File, path: Path) -> dict[str, Any]:
    """What `write_d4rl` has said of the set; empty for files of others."""
    said = file.get(f"metadata/{OURS}")
    if said is None:
        return {}
    try:
        found = json.loads(said[()])
        return {"name": str(found["name"]), "env_id": found["env_id"], "facts": dict(found["facts"])}
    except (ValueError, KeyError, TypeError) as error:
        raise RoboprefError(f"{path}: metadata/{OURS} is damaged ({error}). {REMEDY}") from error


def _facts(file: h5py.File) -> dict[str, str]:
    """Single numbers and words below metadata/, with their path; not the weights of policies, which are there too."""
    found: dict[str, str] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.size == 1:
            value = item[()] if item.ndim == 0 else item[()].reshape(-1)[0]
            found[name] = value.decode(errors="replace") if isinstance(value, bytes) else str(value)

    if isinstance(file.get("metadata"), h5py.Group):
        file["metadata"].visititems(visit)
    return found


def _score(file: h5py.File) -> ReferenceScore | None:
    low, high = file.get("metadata/ref_min_score"), file.get("metadata/ref_max_score")
    return None if low is None or high is None else ReferenceScore(float(low[()]), float(high[()]))


@dataclass(frozen=True)
class Info:
    """Show what sets hold: episodes, steps, returns, normalised score."""

    where: Annotated[tuple[str, ...], tyro.conf.Positional]
    """HDF5 files, Minari folders, names of D4RL."""
    folder: Path = FOLDER
    """Where files called by name lie, or are downloaded to."""


@dataclass(frozen=True)
class Convert:
    """Write a set in the other form."""

    where: Annotated[str, tyro.conf.Positional]
    """HDF5 file, Minari folder, or name of D4RL."""
    out: Annotated[Path, tyro.conf.Positional]
    """FILE.hdf5, or a folder for Minari."""
    folder: Path = FOLDER
    """Where files called by name lie, or are downloaded to."""


def main(argv: list[str]) -> None:
    """Command line."""
    command = tyro.cli(Info | Convert, args=argv, prog="python -m robopref.datasets.d4rl", description=__doc__)
    if isinstance(command, Info):
        for where in command.where:
            for name, value in describe(load_offline(where, command.folder)).items():
                print(f"{name:<20}{value}")
            print()
        return
    if command.out.exists():
        raise UsageError(f"{command.out} is there already: choose another place")
    data = load_offline(command.where, command.folder)
    (write_d4rl if command.out.suffix in ENDINGS else write_minari)(command.out, data)
    print(f"{command.out}: {data.episodes} episodes, {len(data)} steps of {data.name}")


def describe(data: OfflineData) -> Mapping[str, str]:
    """What a set holds, in lines for the eye."""
    returns, lengths = data.returns, data.lengths
    whole = float(returns.sum() + float(data.facts.get(LOST_REWARD, 0.0))) / data.episodes
    beyond = (np.abs(data.actions) > 1).any(1).mean()
    lines = {
        "set": data.name,
        "environment": data.env_id or "none of robopref's",
        "episodes": f"{data.episodes}, {int(data.terminated.sum())} terminated, of {lengths.min()} to {lengths.max()} steps",
        "steps": f"{len(data)}, observations of {data.dims[0]} numbers, actions of {data.dims[1]}",
        "return": f"mean {returns.mean():.2f}, from {returns.min():.2f} to {returns.max():.2f}",
    }
    if LOST_REWARD in data.facts:
        lines["return as recorded"] = f"mean {whole:.2f}, with the {data.facts[LOST]} last steps that have no next observation"
    if data.score is not None:
        lines["normalised score"] = f"{100 * float(data.score(np.array(whole))):.2f}, times 100, of the mean return as recorded"
    if beyond:
        lines["actions"] = f"{100 * beyond:.1f} % of the steps beyond [-1, 1], the largest {np.abs(data.actions).max():.3f}"
    return lines | {f"  {name}": value for name, value in data.facts.items()}


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
