"""Reward code on disk as a reward of transitions: FILE.py, and beside it columns.json, {"obs": [names], "act": [names]}."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robopref.configs.errors import RoboprefError
from robopref.configs.files import as_written, is_words, read_json
from robopref.configs.prof import SandboxConfig
from robopref.embodied.fields import mistaken
from robopref.preference.prof.code import Fields
from robopref.preference.prof.sandbox import Conversation, FailedCode, Rows, Sandbox

COLUMNS = "columns.json"


class WrittenReward:
    """A RewardFunction whose code runs in the sandbox: a process a call, or one that stays, for acting; then to be closed."""

    def __init__(self, path: str | Path, config: SandboxConfig | None = None, *, stays: bool = False) -> None:
        """path: the code, with columns.json beside it.  RoboprefError when one of them is not there."""
        self.path = Path(path)
        self.fields, self.source = read_columns(self.path), read_code(self.path)
        self.sandbox, self.stays = Sandbox(config or SandboxConfig()), stays
        self.conversation: Conversation | None = None

    def __call__(self, obs: np.ndarray, actions: np.ndarray, next_obs: np.ndarray) -> np.ndarray:
        """r (N,) float64 for obs (N, do), actions (N, da) and next_obs (N, do), all raw; RoboprefError where it gives none."""
        widths = obs.shape[1], actions.shape[1]
        if widths != (len(self.fields.obs), len(self.fields.act)):
            raise RoboprefError(
                f"{self.path} was written for {len(self.fields.obs)} numbers an observation and {len(self.fields.act)} an "
                f"action, these data have {widths[0]} and {widths[1]}: give the reward of this environment"
            )
        if self.stays:
            self.conversation = self.conversation or Conversation(self.sandbox, self.source, self.fields)
            said = self.conversation(obs, actions, next_obs)
        else:
            with Rows(obs, actions, next_obs) as rows:
                said = self.sandbox.run(self.source, self.fields, rows)
        if said.row is not None:
            raise FailedCode(f"{self.path}: what it says of row {said.row} depends on other rows; mend it and rank it again")
        if not np.isfinite(said.values).all():
            bad = int(np.flatnonzero(~np.isfinite(said.values))[0])
            raise FailedCode(f"{self.path}: transition {bad} is worth {said.values[bad]}; mend it and rank it again")
        return said.values

    def close(self) -> None:
        """End the process that stays."""
        if self.conversation is not None:
            self.conversation.close()


def read_code(path: Path) -> str:
    """Reward code from a file, with or without a byte order mark; RoboprefError naming the file where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RoboprefError(f"{path} is no text in UTF-8 (byte {error.start}): save it as UTF-8") from None
    except (FileNotFoundError, IsADirectoryError) as error:
        raise RoboprefError(f"{path} is no reward code ({error.strerror}): give a file of Python code, FILE.py") from None


def read_columns(path: Path) -> Fields:
    """The columns that the code at `path` knows by name; RoboprefError where it is not there, or they are not."""
    columns = files_of(path)["columns"]
    names = read_json(columns)
    if not isinstance(names, dict) or any(not is_words(names.get(key)) for key in ("obs", "act")):
        raise RoboprefError(
            f'{columns}: it must name the columns of observations and actions, {{"obs": ["height", ...], "act": ["torque", ...]}}'
        )
    with as_written(columns, "correct it"):
        return Fields(tuple(names["obs"]), tuple(names["act"]))


def check_columns(path: Path, env_id: str | None) -> None:
    """RoboprefError where the columns of the code at `path` are those of another environment than `env_id` (None: not known)."""
    fields = read_columns(path)
    if env_id is not None and (told := mistaken(fields.obs, fields.act, env_id)):
        raise RoboprefError(f"{path.with_name(COLUMNS)}: {told}; give the reward of this environment")


def files_of(path: Path) -> dict[str, Path]:
    """The code and its columns by name; RoboprefError when one of them is not there."""
    files = {"reward": path, "columns": path.with_name(COLUMNS)}
    for file in files.values():
        if not file.is_file():
            raise RoboprefError(f"{file} is not there: a reward that is code is FILE.py, and {COLUMNS} beside it")
    return files
