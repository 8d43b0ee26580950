"""Pairs that somebody listed: a CSV or Parquet file, of segments or of videos.

Read instead of drawing pairs (preference/pairs.py), and the form in which people hand in labels
(preference/labellers.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from robopref.configs.errors import RoboprefError, nearest
from robopref.datasets.clips import Segment
from robopref.datasets.episodes import EpisodeStore
from robopref.datasets.videos import place_of

SEGMENT_COLUMNS = tuple(f"{name}_{side}" for side in "ab" for name in ("episode", "start", "stop"))
VIDEO_COLUMNS = ("video_a", "video_b")


def read_pairs(path: Path) -> pd.DataFrame:
    """A pairs file, CSV or Parquet: episode_a, start_a, stop_a, episode_b, start_b, stop_b, or video_a, video_b.

    A preferences file will do.  Other columns are kept.  Raises `RoboprefError` for an unreadable file, missing
    columns, an empty table or a cell without a value.
    """
    path = Path(path)
    try:
        words = dict.fromkeys(VIDEO_COLUMNS, str)  # a video called 007 is no number
        table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, dtype=words)
    except FileNotFoundError:
        raise RoboprefError(f"{path}: there is no such pairs file.") from None
    except (OSError, ValueError, pa.ArrowException, pd.errors.ParserError) as error:
        raise RoboprefError(f"{path}: neither CSV nor Parquet ({str(error).splitlines()[0]}).") from error
    if table.empty:
        raise RoboprefError(f"{path}: holds no pair; list at least one.")
    of_videos = set(VIDEO_COLUMNS) <= set(table.columns) and table[list(VIDEO_COLUMNS)].notna().to_numpy().any()
    wanted = VIDEO_COLUMNS if of_videos else SEGMENT_COLUMNS
    missing = [name for name in wanted if name not in table.columns]
    if missing:
        hint = nearest(missing[0], table.columns)
        raise RoboprefError(f"{path}: column {missing[0]!r} is missing; it needs {', '.join(wanted)}.{hint}")
    for name in wanted:
        values = table[name] if of_videos else pd.to_numeric(table[name], errors="coerce").astype("float64")
        wrong = values.isna() if of_videos else ~(values % 1 == 0)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            found = str(table[name].iloc[row])
            raise RoboprefError(f"{path}: {name} in row {row + 1} is {found!r}; it needs {', '.join(wanted)}.")
        if not of_videos:
            table[name] = values.astype("int64")
    return table


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
