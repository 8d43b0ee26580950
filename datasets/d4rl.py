"""D4RL's data sets and others of their form <-> OfflineData, and `python -m robopref.datasets.d4rl info | convert`.

Comes from HDF5 files or Minari folders, on the disk or by D4RL's name from the web; goes to rewards that label them and to
learners of policies.  `load_offline` takes whatever a user may name.

The files are flat: N rows of observations, actions, rewards, terminals, and, depending on their age and environment, timeouts,
next_observations, infos/*, metadata/*.  What a row's successor is must be found out, and not every row has one:

* An episode ends where `terminals` or `timeouts` says so.  Without `timeouts` (files of the first version) also after D4RL's
  number of steps, as `d4rl` has it.  The AntMaze files of the first version have timeouts at wrong places: there it ends where
  infos/goal changes (if it does).  Where a row's next observation is not the row that follows, an episode ends too (ours).
* Flags that contradict the limit of steps, the next observations or the rows are repaired, which is said on stderr and in
  `facts`, or refused (ours; datasets/episode_ends.py).  Nothing is learnt from a step that leads from one episode into the next.
* With next_observations every row is a transition, but for ends where they are the next episode's first.
* Without, the last row of an episode that was cut, or that the file ends in, has no next observation: it is dropped, as
  `d4rl.qlearning_dataset` does; its reward counts in the episode's return, and `facts` says how many and how much.  After a
  terminal nothing of the next observation is used by a learner of values: it is the row's own once more (ours), and the
  transition is kept.

Actions are as recorded.  Learners, rewards that label and reward code are given them in [-1, 1], where policies act (`clipped`).
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import h5py
import numpy as np
import tyro

from robopref.configs.cli import guarded
from robopref.configs.d4rl_protocol import SETS
from robopref.configs.digests import check_digests
from robopref.configs.errors import RoboprefError, UsageError, nearest, one_line, warn
from robopref.configs.files import absent, atomic_file, check_space, parse_json, skips_digests
from robopref.configs.flags import from_flags
from robopref.configs.web import shown
from robopref.datasets.d4rl_names import PATHS, env_of, name_of, reference_score, step_limit, task_of, url_of
from robopref.datasets.download import DownloadError, download, recorded, verify
from robopref.datasets.episode_ends import BLOCK, SAME, Rows, find_ends, read_flags
from robopref.datasets.hdf5 import found, reading
from robopref.datasets.minari_sets import read_minari, write_minari
from robopref.datasets.offline import (
    LOST,
    LOST_REWARD,
    REPAIRED,
    OfflineData,
    ReferenceScore,
    check_finite,
    check_words,
    said,
    scale_of,
)

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
OURS = "robopref"  # of metadata/: name, env_id, facts and what else only we say of what write_d4rl has written, as JSON
LOW, HIGH = "metadata/action_low", "metadata/action_high"  # (da,) the box of actions, which D4RL's form has no place for
OF_OURS = (LOST, LOST_REWARD, REPAIRED)
"""Facts that only we tell."""
ROUNDING = 1e-5  # by which a scaled action may leave [-1, 1]
NUMBERS = "fiub"  # kinds of types that are read as numbers
REMEDY = "Download it again, or point to another file."
TOLD, LONGEST = 12, 60  # names in an error, and letters of one


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
        if recorded(path) is not None and not skips_digests():
            verify(path)
        return read_d4rl(path)
    mirror = mirror or os.environ.get(MIRROR)
    is_path = path.suffix in ENDINGS or path.name != str(where)
    if is_path or name not in PATHS:
        if name in PATHS:
            raise RoboprefError(f"{path} is not there: get it from {shown(url_of(name, mirror))}, or give its name, {name}")
        if is_path:
            raise RoboprefError(absent(path) + _made_by(path))
        raise RoboprefError(f"{where}: neither an HDF5 file, nor a Minari folder, nor a set of D4RL.{nearest(str(where), PATHS)}")
    url, target = url_of(name, mirror), folder / f"{name}.hdf5"
    as_hosted = folder / Path(PATHS[name]).name
    if as_hosted.is_file() and not target.is_file():
        target = as_hosted
    try:
        download(url, target, sha256, is_right=_opens)
    except DownloadError as error:
        raise RoboprefError(
            f"{error}. {name} belongs in {folder} as {target.name}: get it elsewhere, or name a mirror with {MIRROR}=URL"
        ) from error
    return read_d4rl(target, name)


def _opens(path: Path) -> bool:
    """Whether a file is whole HDF5, and no page or message that a server sends in its place."""
    try:
        with h5py.File(path, "r", locking=False):  # it is locked by whoever fetches it
            return True
    except OSError:
        return False


def _made_by(path: Path) -> str:
    """The command that makes a file called SUITE/ENV/SET.hdf5, as `robopref collect protocol=d4rl` does; empty for others."""
    if path.suffix != ".hdf5" or path.stem not in SETS or len(path.parts) < 2:
        return ""
    from robopref.embodied.control import SUITES

    suite, env = ("", *path.parts)[-3:-1]
    asked = f"env={suite if suite in SUITES else 'SUITE'}/{env}"
    return f" `robopref collect {shlex.join(['protocol=d4rl', asked, f'out={path.parent}'])}` makes it"


def read_d4rl(path: str | Path, name: str | None = None, env_id: str | None = None, limit: int | None = None) -> OfflineData:
    """A flat HDF5 file of D4RL's form, in float32; actions as recorded, in their world's units (`clipped`).

    name: of the set, if the file is not called by it; decides on reference scores, environment and episodes of old files.
    env_id: for files of other origin, `adroit/door`.  limit: steps after which episodes were cut, for files without `timeouts`
    or with some that are never true; default: D4RL's of the set, then the environment's.  Peak memory is about twice the
    observations.  What was repaired is said in one line on stderr.  Raises RoboprefError naming the file for what is missing,
    damaged, of different lengths or not finite, and where flags leave open where episodes end.
    """
    path = Path(path)
    if not path.exists():
        raise RoboprefError(f"{path} is not there; correct the path, or give a name of D4RL to `load_offline`")
    check_digests(path.parent, path, remedy=REMEDY)  # of the folder of `robopref collect protocol=d4rl`
    with reading(path, REMEDY), h5py.File(path, "r") as file:
        read = _recorded(file, path, name)
    try:
        return _data(read, path, name, env_id, limit)
    except RoboprefError as error:
        if str(path) in str(error):
            raise
        raise RoboprefError(f"{path}: {error}") from error


def write_d4rl(path: str | Path, data: OfflineData) -> Path:
    """Write a set as flat HDF5 that D4RL's tools read; `read_d4rl` gives back the same.

    Every episode that is not terminated has its timeout at its last row; next_observations are complete.  The box of actions,
    where it is known, is metadata/action_low and metadata/action_high.
    """
    path = Path(path)
    flags = {"terminals": data.terminals, "timeouts": np.zeros(len(data), bool)}
    flags["timeouts"][data.first[1:] - 1] = ~data.terminated
    ours: dict[str, Any] = {"name": data.name, "env_id": data.env_id, "facts": data.facts}
    ends = data.first[1:-1] - 1
    alike = np.isclose(data.observations[data.rows[ends] + 1], data.observations[data.rows[ends + 1]], rtol=SAME, atol=SAME)
    if alike.all(1).any():
        ours["joined"] = ends[alike.all(1)].tolist()
    if data.last_rewards is not None:
        ours["last_rewards"] = data.last_rewards.tolist()
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
            if data.box is not None:
                file[LOW], file[HIGH] = data.box
            if data.score is not None:
                file["metadata/ref_min_score"], file["metadata/ref_max_score"] = data.score.minimum, data.score.maximum
    return path


def clipped(data: OfflineData) -> OfflineData:
    """Return the set with actions in [-1, 1], as policies act: scaled from their world's box, and clipped to it as worlds clip.

    That they leave the box, as human demonstrations do, and that nothing tells the box, is said in one line on stderr.
    RoboprefError where actions could be in any units.
    """
    box = box_of(data)
    if box is None:
        reach = np.abs(data.actions).max()
        if data.box is not None or reach > 1 + ROUNDING:
            told = "not told" if data.box is None else said(data.box)
            raise RoboprefError(
                f"{data.name}: the box of its actions is {told}, and they reach {reach:.3g}: they cannot be scaled to [-1, 1], "
                f"where policies act; give a space with finite bounds (Minari), {LOW} and {HIGH} (HDF5), or the env_id"
            )
        warn(f"{data.name}: neither a box of actions nor an environment of robopref's is told: they are taken as of [-1, 1]")
        box = -np.ones(data.dims[1]), np.ones(data.dims[1])
    elif data.box is not None and not np.isfinite(data.box).all():
        warn(f"{data.name}: the box of its actions is {said(data.box)}: taken as that of {data.env_id or data.name}, {said(box)}")
    actions, (low, high) = data.actions, box
    if not (low == -1).all() or not (high == 1).all():
        actions = ((actions.astype(np.float64) - low) / (high - low) * 2 - 1).astype(np.float32)
    beyond = (np.abs(actions) > 1 + ROUNDING).any(1).mean()
    if beyond:
        warn(f"{data.name}: {100 * beyond:.1f} % of the steps have actions beyond {said(box)}, clipped as the environment does")
    ones = np.ones(data.dims[1])
    return replace(data, actions=np.clip(actions, -1.0, 1.0), box=(-ones, ones))


def box_of(data: OfflineData) -> tuple[np.ndarray, np.ndarray] | None:
    """Lowest and highest action (da,) of the world that a set was recorded in: as the set says, else as the environment does.

    None where neither gives finite bounds.
    """
    if data.box is not None and np.isfinite(data.box).all():
        return data.box
    if task_of(data.name) or task_of(data.env_id or ""):  # the box of all of D4RL's
        return -np.ones(data.dims[1]), np.ones(data.dims[1])
    if data.env_id is None:
        return None
    from robopref.embodied.control import world_box  # the environments are heavy, and seldom needed to read a set

    box = world_box(data.env_id)
    return box if box is not None and box[0].shape == data.actions.shape[1:] else None


@dataclass
class _Recorded:
    """Return the content of a file, unchanged."""

    observations: np.ndarray  # (N, do) float32
    actions: np.ndarray  # (N, da) float32
    rewards: np.ndarray  # (N,) float32
    terminals: np.ndarray  # (N,) bool
    timeouts: np.ndarray | None  # (N,) bool
    following: np.ndarray | None  # (N, do) float32
    goals: np.ndarray | None  # (N, dg) float32, of antmaze's first version
    ours: dict[str, Any]
    told: dict[str, str]
    score: ReferenceScore | None
    box: tuple[np.ndarray, np.ndarray] | None
    notes: list[str]


def _recorded(file: h5py.File, path: Path, name: str | None) -> _Recorded:
    """Read a file; RoboprefError for what is missing or is no numbers."""
    missing = [
        key for key in ("observations", "actions", "rewards", "terminals") if not isinstance(found(file, key), h5py.Dataset)
    ]
    if missing:
        raise RoboprefError(f"{path}: no {', '.join(missing)} in it; it holds {shortened(file)}. {REMEDY}")
    ours, told = _ours(file, path), _facts(file)
    name = name or ours.get("name") or name_of(path)
    notes: list[str] = []
    observations, actions = _rows(file, "observations", path), _rows(file, "actions", path)
    rewards = _numbers(file, "rewards", path)
    check_finite(rewards, f"{path}: rewards")
    in_goals = name.startswith("antmaze") and name.endswith("-v0")
    return _Recorded(
        observations=observations,
        actions=actions,
        rewards=rewards,
        terminals=_flags(file, "terminals", path, notes),
        timeouts=_flags(file, "timeouts", path, notes) if "timeouts" in file else None,
        following=_rows(file, "next_observations", path) if "next_observations" in file else None,
        goals=_rows(file, "infos/goal", path) if in_goals and "infos/goal" in file else None,
        ours=ours,
        told=told,
        score=_score(file, path),
        box=_box(file, path, actions.shape[1]),
        notes=notes,
    )


def _data(read: _Recorded, path: Path, name: str | None, env_id: str | None, limit: int | None) -> OfflineData:
    ours, told, notes = read.ours, read.told, read.notes
    name = name or ours.get("name") or name_of(path)
    env_id = env_id or (ours["env_id"] if ours else env_of(name) or _env_of(told))
    observations, actions, rewards, terminals = read.observations, read.actions, read.rewards, read.terminals
    lengths = {"observations": len(observations), "actions": len(actions), "rewards": len(rewards), "terminals": len(terminals)}
    if len(set(lengths.values())) > 1:
        raise RoboprefError(f"{path}: {', '.join(f'{n} {key}' for key, n in lengths.items())}: not one a step. {REMEDY}")
    if not len(rewards):
        raise RoboprefError(f"{path}: holds no step. {REMEDY}")

    timeouts, joined = _timeouts(read, path)
    following, read.following = read.following, None
    if following is not None and following.shape != observations.shape:
        raise RoboprefError(f"{path}: next_observations {following.shape}, observations {observations.shape}. {REMEDY}")
    if ours and following is not None and (terminals[-1] or (timeouts is not None and timeouts[-1])):
        joined = ours["joined"]  # as write_d4rl leaves a file, which may have been changed since
        if any(not 0 <= row < len(rewards) for row in ours["joined"]):
            raise RoboprefError(f"{path}: metadata/{OURS} is damaged (joined names rows that are not there). {REMEDY}")
    limit = limit or step_limit(name)
    if limit is None and joined is None and env_id is not None:
        limit = _limit_of(env_id)
    rows = Rows(path, observations, following, limit, joined)
    split = find_ends(rows, terminals, timeouts)
    notes += split.notes
    ends, kept = split.ends, split.paired
    after = observations[ends]
    if following is not None:
        after[~split.own[ends]] = following[ends & ~split.own]
    del following, rows  # as large as the observations
    stops = np.flatnonzero(ends) + 1
    recorded = np.diff(stops, prepend=0)  # (E,) rows
    steps = recorded - ~kept[ends]  # (E,) transitions
    if not steps.any():
        raise RoboprefError(f"{path}: no step in it has a next observation. {REMEDY}")
    held = steps > 0  # an episode of one row without a next one is gone
    facts, last_rewards = ours["facts"] if ours else told, None
    if ours and len(ours["last_rewards"] or ()) == held.sum():
        last_rewards = np.array(ours["last_rewards"], np.float32)
    if not kept.all():
        facts |= {LOST: str(int((~kept).sum())), LOST_REWARD: repr(float(rewards[~kept].sum(dtype=np.float64)))}
        last_rewards = np.where(kept, np.float32(0), rewards)[ends][held]
        actions, rewards = actions[kept], rewards[kept]
    if notes:
        facts |= {REPAIRED: "; ".join(notes)}
        warn(f"{path}: {facts[REPAIRED]}")
    return OfflineData(
        observations=_joined(observations, after, recorded, steps),
        actions=actions,
        rewards=rewards,
        first=np.concatenate([[0], np.cumsum(steps[held])]).astype(np.int64),
        terminated=split.terminals[ends][held],
        name=name,
        env_id=env_id,
        score=read.score if ours else read.score or reference_score(name) or reference_score(env_id or ""),
        facts=facts,
        box=read.box,
        last_rewards=last_rewards,
    )


def _timeouts(read: _Recorded, path: Path) -> tuple[np.ndarray | None, Sequence[int] | None]:
    """(N,) bool, where episodes ended although nothing was terminal; None: not told.  With them () where they need no witness."""
    steps = len(read.terminals)
    if read.goals is not None:
        goals, changed = read.goals, np.zeros(steps, bool)
        if len(goals) != steps:
            raise RoboprefError(f"{path}: {len(goals)} infos/goal for {steps} steps. {REMEDY}")
        changed[:-1] = (goals[1:] != goals[:-1]).any(1)
        if changed.any():
            return changed, ()
    if read.timeouts is not None and len(read.timeouts) != steps:
        raise RoboprefError(f"{path}: {len(read.timeouts)} timeouts for {steps} steps. {REMEDY}")
    return read.timeouts, None


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


def _rows(file: h5py.File, key: str, path: Path) -> np.ndarray:
    """(N, d) float32, finite, from numbers of any type."""
    values = _there(file, key, path)
    if not isinstance(values, h5py.Dataset):
        raise RoboprefError(f"{path}: /{key} has the parts {shortened(values)}; one array (N, d) is read here. {REMEDY}")
    if values.shape is None or values.ndim != 2 or values.dtype.kind not in NUMBERS or not values.shape[1]:
        kind = "pictures" if values.ndim > 3 else "numbers" if values.dtype.kind in NUMBERS else "no numbers"
        advice = "Write one number a row as (N, 1)." if values.ndim == 1 else REMEDY
        raise RoboprefError(
            f"{path}: /{key} are {kind}, {values.shape} of {values.dtype}; numbers in rows (N, d) are read here. {advice}"
        )
    rows: np.ndarray = (values if values.dtype.kind != "b" else values[()]).astype(np.float32)[
        ()
    ]  # HDF5 converts no truth values
    check_finite(rows, f"{path}: {key}")
    return rows


def _there(file: h5py.File, key: str, path: Path) -> Any:
    values = found(file, key)
    if values is None:
        raise RoboprefError(f"{path}: {key} is a link that leads to nothing. {REMEDY}")
    return values


def shortened(group: h5py.Group) -> str:
    """The names in a group, the first of many."""
    names = [name[:LONGEST].encode("unicode_escape").decode() for name in islice(group, TOLD + 1)]
    return ", ".join(names[:TOLD]) + (", ..." if len(names) > TOLD else "") if names else "nothing"


def _column(file: h5py.File, key: str, path: Path) -> np.ndarray:
    """(N,) of what is (N,) or (N, 1)."""
    values = _there(file, key, path)
    if not isinstance(values, h5py.Dataset) or not values.shape or values.size != len(values):
        raise RoboprefError(f"{path}: /{key} are {getattr(values, 'shape', 'a group')}, not one number a step. {REMEDY}")
    column: np.ndarray = values[()].reshape(-1)
    return column


def _numbers(file: h5py.File, key: str, path: Path, dtype: type = np.float32) -> np.ndarray:
    """(N,) of `dtype`."""
    column = _column(file, key, path)
    if column.dtype.kind not in NUMBERS:
        raise RoboprefError(f"{path}: /{key} are of type {column.dtype}, not numbers. {REMEDY}")
    return column.astype(dtype)


def _flags(file: h5py.File, key: str, path: Path, notes: list[str]) -> np.ndarray:
    """(N,) bool; what was odd about them goes to notes."""
    flags, worded = read_flags(_column(file, key, path), f"{path}: {key}")
    notes += [f"{key} are words, read as true and false"] * worded
    return flags


def _box(file: h5py.File, path: Path, size: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Lowest and highest action (da,), where the file says so."""
    if LOW not in file or HIGH not in file:
        return None
    low, high = (_numbers(file, key, path, np.float64) for key in (LOW, HIGH))
    if low.shape != (size,) or high.shape != (size,):
        raise RoboprefError(f"{path}: {LOW} and {HIGH} hold {len(low)} and {len(high)} numbers, an action {size}. {REMEDY}")
    return low, high


def _env_of(facts: Mapping[str, str]) -> str | None:
    """robopref's name of the environment that another's file names in its metadata: SUITE/NAME, or gymnasium's of MuJoCo."""
    told = facts.get("env_id")
    return told if told is None or "/" in told else f"mujoco/{told}" if _limit_of(f"mujoco/{told}") else None


def _limit_of(env_id: str) -> int | None:
    """Steps after which an environment of robopref's cuts its episodes."""
    from robopref.embodied.control import step_limit as limit_of  # the environments are heavy, and seldom needed to read a set

    return limit_of(env_id)


def _ours(file: h5py.File, path: Path) -> dict[str, Any]:
    """Read the facts that `write_d4rl` stored; empty for files of others.  joined: ends after which the next row goes on."""
    said = found(file, f"metadata/{OURS}")
    if said is None:
        return {}
    try:
        words = parse_json(said.asstr()[()], any_text=True)
        ours = {"name": words["name"], "env_id": words["env_id"], "facts": dict(words["facts"])}
        ours |= {"joined": list(words.get("joined", ())), "last_rewards": words.get("last_rewards")}
        check_words(ours)
        return ours
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RoboprefError(f"{path}: metadata/{OURS} is damaged ({one_line(error)}). {REMEDY}") from error


def _facts(file: h5py.File) -> dict[str, str]:
    """Single numbers and words below metadata/, with their path; not the weights of policies, which are there too."""
    facts: dict[str, str] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.size == 1 and item.name.removeprefix("/") not in (LOW, HIGH):
            value = item[()] if item.ndim == 0 else item[()].reshape(-1)[0]
            facts[name] = value.decode(errors="replace") if isinstance(value, bytes) else str(value)

    if isinstance(metadata := found(file, "metadata"), h5py.Group):
        metadata.visititems(visit)
    return {name: value for name, value in facts.items() if name not in OF_OURS}


def _score(file: h5py.File, path: Path) -> ReferenceScore | None:
    low, high = found(file, "metadata/ref_min_score"), found(file, "metadata/ref_max_score")
    return None if low is None or high is None else scale_of(low[()], high[()], path)


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
    command = from_flags(Info | Convert, argv, "python -m robopref.datasets.d4rl", __doc__)  # type: ignore[arg-type]
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
    returns, lengths = data.returns_of(data.rewards), data.lengths
    whole = float(returns.sum() + float(data.facts.get(LOST_REWARD, 0.0))) / data.episodes
    box = box_of(data) or (-np.ones(1), np.ones(1))
    beyond = ((data.actions < box[0]) | (data.actions > box[1])).any(1).mean()
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
        lines["actions"] = f"{100 * beyond:.1f} % of the steps beyond {said(box)}, the largest {np.abs(data.actions).max():.3f}"
    elif said(box) != "[-1, 1]":
        lines["actions"] = f"in {said(box)}, which policies act in as [-1, 1]"
    return lines | {f"  {name}": value for name, value in data.facts.items()}


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
