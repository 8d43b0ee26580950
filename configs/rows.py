"""CSVs of studies: a row a run, appended as it is done, with a fingerprint of what it was made with in the column `settings`.

So a second call does what is missing, and rows of other settings or inputs under the same name are refused, not kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from .errors import RoboprefError, one_line
from .files import absent, plain
from .files import without as left_out

SETTINGS = "settings"
NAMES = ("task", "data", "env", "world", "model", "labels", "labeller", "policy", "variant", "candidate", "made_from", SETTINGS)
"""Columns of our tables that hold names, which users choose: one may be called NA, null or 001."""


def read_named(path: str | Path) -> pd.DataFrame:
    """A CSV of ours, in which names (NAMES) are words whatever they look like, and only an empty cell is nothing.

    RoboprefError naming the file where it is none.
    """
    return read_csv(path, dtype=dict.fromkeys(NAMES, str), keep_default_na=False, na_values=[""])


def read_csv(path: str | Path, **how: Any) -> pd.DataFrame:
    """pandas.read_csv; RoboprefError naming the file, on one line, where that is missing, damaged or no CSV."""
    try:
        return pd.read_csv(path, **how)
    except FileNotFoundError:
        raise RoboprefError(absent(path)) from None
    except Exception as error:  # what pandas raises for damaged bytes is of every kind
        raise RoboprefError(f"{path}: not a readable table ({one_line(error)}): restore it, or make it again") from error


def read_parquet(path: Path) -> pd.DataFrame:
    """A table in Parquet, its text and checksums verified; ValueError of one line for a damaged one, OSError without one."""
    import pyarrow.parquet as pq

    with path.open("rb") as file:  # Arrow itself takes no name that is not UTF-8
        try:
            pq.read_table(file, partitioning=None, page_checksum_verification=True).validate(full=True)
            return pd.read_parquet(file)
        except Exception as error:  # what pandas and Arrow raise for damaged bytes is of every kind, with several lines
            raise ValueError(f"no whole Parquet file: {one_line(error)}") from error


def fingerprint(decides: Any, without: Collection[str] = ()) -> str:
    """A short name for settings, digests of files and other plain values; keys in `without` do not count, at any depth."""
    return hashlib.sha256(json.dumps(left_out(plain(decides), without), sort_keys=True).encode()).hexdigest()[:8]


def read_rows(path: Path, key: list[str]) -> pd.DataFrame:
    """The CSV so far, empty when there is none; RoboprefError when it is another kind of table.

    One of the older form, without the column `settings`, is read all the same: it can be summed up, not gone on with.
    """
    if not path.exists():
        return pd.DataFrame(columns=[*key, SETTINGS])
    table = read_named(path)
    if missing := set(key) - set(table.columns):
        raise RoboprefError(f"{path}: it has no column {', '.join(sorted(missing))}; it is of another command, name another file")
    return table


def to_do(path: Path, done: pd.DataFrame, key: list[str], wanted: Mapping[Any, str]) -> list[tuple[Any, ...]]:
    """The keys of `wanted` that `done`, read from `path`, has no row of.

    wanted: key, a tuple -> fingerprint.  RoboprefError when a row was made with other settings, or `done` is of the older form.
    """
    if SETTINGS not in done.columns:
        raise RoboprefError(
            f"{path}: an older table without the column `{SETTINGS}`, so nothing tells what its rows were made with; it can be "
            "read with --summary, not gone on with: choose another --out"
        )
    had = {tuple(row[:-1]): row[-1] for row in done[[*key, SETTINGS]].itertuples(index=False, name=None)}
    for where, mark in wanted.items():
        if had.get(where, mark) != mark:
            raise RoboprefError(
                f"{path}: the rows of {', '.join(f'{name} {value}' for name, value in zip(key, where, strict=True))} were made "
                "with other settings or inputs; choose another --out, or give the settings that they were made with"
            )
    return [where for where in wanted if where not in had]
