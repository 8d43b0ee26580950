"""What the numbers of an environment's observations and actions mean: what whoever writes a reward is told, person or model.

Read from fields.yaml, or from a file of the same form; no environment is made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from robopref.configs.errors import RoboprefError, nearest, one_line
from robopref.configs.files import read_yaml

FORM = "{task: TEXT, step: SECONDS, observations: [[name, meaning, unit], ...], actions: [[name, meaning, unit], ...]}"


@dataclass(frozen=True)
class Field:
    """One column."""

    name: str
    meaning: str
    unit: str  # "1" where there is none


@dataclass(frozen=True)
class Described:
    """An environment in words."""

    env_id: str
    task: str
    step: float  # seconds between two observations
    observations: tuple[Field, ...]
    actions: tuple[Field, ...]


def described(env_id: str, path: Path | None = None) -> Described:
    """The environment `env_id`, SUITE/NAME, as fields.yaml or the file `path` describes it; RoboprefError where neither does."""
    where = "fields.yaml" if path is None else str(path)
    if path is not None and not path.exists():
        raise RoboprefError(f"{path} does not exist: write a file `{env_id}: {FORM}`")
    tree = yaml.safe_load(built_in()) if path is None else read_yaml(path, f"write `{env_id}: {FORM}`")
    key = without_version(env_id)
    known = tree if isinstance(tree, dict) else {}
    entry = known.get(env_id, known.get(key))
    if entry is None:
        raise RoboprefError(
            f"{where} does not say what the numbers of {env_id} mean.{nearest(env_id, map(str, known))} "
            f"Give fields=FILE.yaml with `{env_id}: {FORM}`"
        )
    try:
        return Described(
            env_id=env_id,
            task=wording(entry["task"], "task"),
            step=seconds(entry["step"]),
            observations=columns(entry["observations"]),
            actions=columns(entry["actions"]),
        )
    except KeyError as error:
        raise RoboprefError(f"{where}, {env_id}: it has no {error.args[0]}; the form is {FORM}") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise RoboprefError(f"{where}, {env_id}: {one_line(error)}; the form is {FORM}") from error


def mistaken(observations: Sequence[str], actions: Sequence[str], env_id: str) -> str:
    """How names of columns are those of another environment that fields.yaml describes; empty where nothing says so.

    Names that it does not know are somebody's own, and may be of any environment.  env_id: with its suite, or as Minari's
    sets and gymnasium have it, without.
    """
    key = without_version(env_id)
    names = {
        known: (names_of(entry["observations"]), names_of(entry["actions"]))
        for known, entry in yaml.safe_load(built_in()).items()
    }
    own = next((found for known, found in names.items() if key in (known, known.partition("/")[2])), None)
    other = next((known for known, found in names.items() if found == (tuple(observations), tuple(actions))), None)
    if own is None or other is None or own == names[other]:
        return ""
    pairs = zip((*observations, *actions), (*own[0], *own[1]), strict=False)  # of environments of different sizes, those in both
    first = next(((theirs, ours) for theirs, ours in pairs if theirs != ours), None)
    told = "" if first is None else f", whose {first[0]} is {first[1]} in {env_id}"
    return f"its columns are those of {other}{told}"


def built_in() -> str:
    """The text of fields.yaml."""
    return files("robopref.embodied").joinpath("fields.yaml").read_text("utf-8")


def without_version(env_id: str) -> str:
    """D4RL and gymnasium add a version to a name (mujoco/Hopper-v5)."""
    return env_id.lower().rpartition("-v")[0] or env_id.lower()


def names_of(rows: Any) -> tuple[str, ...]:
    """The names of `columns(rows)`."""
    return tuple(field.name for field in columns(rows))


def columns(rows: Any) -> tuple[Field, ...]:
    """The columns of `rows`; ValueError where one is not name, meaning and unit, or two have the same name."""
    found = []
    for row in rows:
        if not isinstance(row, list) or len(row) != 3:
            raise ValueError(f"{row!r} is not name, meaning and unit")
        unit = "1" if row[2] == 1 else wording(row[2], f"the unit of {row[0]}")
        found.append(Field(wording(row[0], "a name"), wording(row[1], f"the meaning of {row[0]}"), unit))
    names = [field.name for field in found]
    if len(set(names)) < len(names):
        raise ValueError(f"a name comes twice among {names}")
    return tuple(found)


def wording(value: Any, what: str) -> str:
    """A value that YAML takes for text; ValueError for another, such as `on`, which is true to it, and for none."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{what} is {value!r}, not text: put it in quotes")
    return value


def seconds(value: Any) -> float:
    """A time above 0; ValueError for anything else."""
    found = float("nan") if isinstance(value, bool) or value is None else float(value)
    if not 0 < found < math.inf:
        raise ValueError(f"step is {value!r}, not a time above 0 in seconds")
    return found
