"""Pairs that somebody listed: a CSV or Parquet file, of segments or of videos.

Read instead of drawing pairs (preference/pairs.py), and the form in which people hand in labels
(preference/labellers.py).
"""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from robopref.configs.errors import RoboprefError, nearest, one_line
from robopref.configs.rows import read_parquet
from robopref.datasets.clips import Segment
from robopref.datasets.episodes import EpisodeStore
from robopref.datasets.videos import place_of

SEGMENT_COLUMNS = tuple(f"{name}_{side}" for side in "ab" for name in ("episode", "start", "stop"))
VIDEO_COLUMNS = ("video_a", "video_b")
LARGEST = 2**53  # no larger whole number is one as a float, which columns with empty cells are
LONGEST = 60  # letters of a cell in an error
YES, NO = ("true", "t", "yes", "y", "1", "1.0"), ("false", "f", "no", "n", "0", "0.0", "")


def read_pairs(path: Path) -> pd.DataFrame:
    """A pairs file, CSV or Parquet: episode_a, start_a, stop_a, episode_b, start_b, stop_b, or video_a, video_b.

    A preferences file will do.  Other columns are kept, and so are rows that list a pair again: several people may have
    labelled it.  Raises `RoboprefError` for an unreadable file, missing columns, an empty table, a cell without a value or a
    clip that is paired with itself.
    """
    path = Path(path)
    try:
        table = read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    except FileNotFoundError:
        raise RoboprefError(f"{path}: there is no such pairs file.") from None
    except UnicodeDecodeError as error:
        raise RoboprefError(f"{path}: its text is not UTF-8; save it as CSV in UTF-8.") from error
    except pd.errors.ParserWarning as error:
        raise RoboprefError(
            f"{path}: a row has more cells than there are columns; write names with a comma in quotes."
        ) from error
    except RoboprefError:
        raise
    except Exception as error:  # what pandas and Arrow raise for damaged bytes is of every kind
        raise RoboprefError(f"{path}: neither CSV nor Parquet ({one_line(error)}).") from error
    if table.empty:
        raise RoboprefError(f"{path}: holds no pair; list at least one.")
    of_videos = set(VIDEO_COLUMNS) <= set(table.columns) and table[list(VIDEO_COLUMNS)].notna().to_numpy().any()
    wanted = VIDEO_COLUMNS if of_videos else SEGMENT_COLUMNS
    missing = [name for name in wanted if name not in table.columns]
    if missing:
        hint = nearest(missing[0], map(str, table.columns))
        raise RoboprefError(f"{path}: column {missing[0]!r} is missing; it needs {', '.join(wanted)}.{hint}")
    for name in wanted:
        values = as_numbers(table[name])
        wrong = ~table[name].map(lambda name: isinstance(name, str)).to_numpy(bool) if of_videos else ~whole(values)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise RoboprefError(
                f"{path}: {name} in row {row + 1} is {quoted(table[name].iloc[row])}; it needs {', '.join(wanted)}."
            )
        if not of_videos:
            table[name] = values.astype(np.int64)
    for row, (a, b) in enumerate(zip(clips_of(table, "a"), clips_of(table, "b"), strict=True), 1):
        if a == b:
            raise RoboprefError(f"{path}: row {row} pairs a clip with itself; leave it out.")
    return table


def quoted(cell: object) -> str:
    """A cell in quotes, in an error; of a long one its beginning."""
    return one_line(ValueError(repr(str(cell)[:LONGEST])))


def as_numbers(column: pd.Series) -> np.ndarray:
    """A column as numbers (N,) float64, NaN for what is none."""
    known = column.astype(object).map(lambda cell: cell if isinstance(cell, str | numbers.Number) else None)
    return pd.to_numeric(known, errors="coerce").to_numpy(np.float64, na_value=np.nan)


def whole(values: np.ndarray) -> np.ndarray:
    """Which of the values (N,) are whole numbers that a float holds exactly."""
    return (np.abs(values) < LARGEST) & (values == np.trunc(values))


def as_flags(column: pd.Series, where: Path) -> np.ndarray:
    """A column of yes and no, in the usual words, (N,) bool; an empty cell is no.  RoboprefError naming `where` for another."""
    words = column.astype(object).where(column.notna(), "").map(lambda cell: str(cell).strip().lower())
    wrong = ~words.isin([*YES, *NO])
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise RoboprefError(f"{where}: {column.name} in row {row + 1} is {quoted(column.iloc[row])}; write true or false.")
    return words.isin(YES).to_numpy(bool)


def clips_of(table: pd.DataFrame, side: str) -> list[object]:
    """What identifies the clip of one side in every row: (episode, start, stop) or the video's path, however it is spelt."""
    if f"video_{side}" in table and table[f"video_{side}"].notna().all():
        return [place_of(Path(name)) for name in table[f"video_{side}"]]
    columns = (table[f"{name}_{side}"].astype("int64") for name in ("episode", "start", "stop"))
    return [tuple(int(value) for value in row) for row in zip(*columns, strict=True)]


def _read_csv(path: Path) -> pd.DataFrame:
    """A table whose names are text: a video may be called 007 or NA."""
    plain = {"encoding": "utf-8-sig", "keep_default_na": False, "na_values": [""]}
    header = pd.read_csv(path, header=None, nrows=1, dtype=str, **plain).iloc[0].dropna()
    for separator, called in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and separator in header.iloc[0]:
            raise RoboprefError(f"{path}: its columns are separated by {called}; save it with commas.")
    twice = header[header.duplicated()]
    if len(twice):
        raise RoboprefError(f"{path}: two columns are called {twice.iloc[0]!r}; keep one.")
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        # Without index_col=False a comma at the end of each row would shift all cells by one.
        return pd.read_csv(path, dtype=dict.fromkeys(VIDEO_COLUMNS, str), index_col=False, **plain)


def listed_segments(table: pd.DataFrame, store: EpisodeStore, where: Path) -> tuple[list[Segment], np.ndarray]:
    """The segments of a pairs table, each once, sorted, and the pairs (P, 2) as listed; one not in `store` raises."""
    if not set(SEGMENT_COLUMNS) <= set(table.columns) or table[list(SEGMENT_COLUMNS)].isna().to_numpy().any():
        raise RoboprefError(f"{where}: it lists videos; give --videos instead of --episodes.")
    rows = table[list(SEGMENT_COLUMNS)].to_numpy(np.int64).reshape(-1, 3)  # a, b, a, b, ...
    lengths = store.index["length"].to_numpy()
    for episode, start, stop in rows:
        if not 0 <= episode < len(lengths):
            raise RoboprefError(f"{where}: episode {episode} is not in {store.path}, which holds 0 to {len(lengths) - 1}.")
        if not 0 <= start < stop <= lengths[episode]:
            raise RoboprefError(
                f"{where}: steps {start} to {stop} are not in episode {episode} of {store.path}, which has {lengths[episode]}."
            )
    unique, inverse = np.unique(rows, axis=0, return_inverse=True)
    return [Segment(*map(int, row)) for row in unique], inverse.reshape(-1, 2)


def listed_videos(table: pd.DataFrame, videos: Sequence[Path], where: Path) -> np.ndarray:
    """The pairs (P, 2) of a pairs table as numbers of `videos`; a name among none of them raises."""
    if not set(VIDEO_COLUMNS) <= set(table.columns) or table[list(VIDEO_COLUMNS)].isna().to_numpy().any():
        raise RoboprefError(f"{where}: it lists episodes; give --episodes instead of --videos.")
    # By where a link leads to only if not by its own name: two links may lead to one file.
    numbers = {path.resolve(): number for number, path in enumerate(videos)}
    numbers |= {place_of(path): number for number, path in enumerate(videos)}
    names = table[list(VIDEO_COLUMNS)].to_numpy().ravel()
    found = [numbers.get(place_of(Path(name)), numbers.get(Path(name).resolve())) for name in names]
    unknown = [name for name, number in zip(names, found, strict=True) if number is None]
    if unknown:
        hint = nearest(str(unknown[0]), [str(path) for path in videos])
        raise RoboprefError(f"{where}: {unknown[0]} is not among the {len(videos)} videos given.{hint}")
    return np.array(found).reshape(-1, 2)
