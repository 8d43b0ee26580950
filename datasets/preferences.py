"""Preferences on disk: one Parquet file, one row a labelled pair of clips a and b.

Written by annotation; read by policy learning and by the report.  A clip is a segment of an episode (episode, start,
stop) or a video file (video); the other columns are null.  label = P(b preferred) in [0, 1], 0.5 is a tie.

The file says what its labels are about (`Origin`), in the metadata of its Parquet schema: a file that somebody else made says
nothing, and is taken for what its column `task` says.

Three columns are there only where they say something: `disagreement` of an ensemble of labellers (the share of its members
against their majority); `abstained`, true for pairs without a label, which hold 0.5, but are no ties: `labelled` leaves them
out; and `unusual`, how far the less usual of both clips is from the pictures that a VLP was trained on (preference/unusual.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from robopref.configs.digests import check_digests
from robopref.configs.errors import RoboprefError, one_line
from robopref.configs.files import absent, atomic_file, digest, parse_json, plain

KINDS = ("itp", "ilp", "ivp", "segment")
"""The orders of VLP, and segments (or whole videos) labelled for policy learning."""

SCHEMA = pa.schema(
    [("pair_id", pa.int64()), ("kind", pa.string()), ("task", pa.string()), ("instruction", pa.string())]
    + [
        (f"{name}_{side}", kind)
        for side in "ab"
        for name, kind in {"episode": pa.int64(), "start": pa.int64(), "stop": pa.int64(), "video": pa.string()}.items()
    ]
    + [
        ("label", pa.float64()),
        ("score_a", pa.float64()),
        ("score_b", pa.float64()),
        ("labeller", pa.string()),
        ("split", pa.string()),
    ]
)
COLUMNS: tuple[str, ...] = tuple(SCHEMA.names)
OPTIONAL = pa.schema([("disagreement", pa.float64()), ("abstained", pa.bool_()), ("unusual", pa.float64())])
UNUSUAL = 3.0
"""Limit of the column `unusual`: a clip above it is unlike all training.

The unit is the strangest training task, had it been left out; single clips of such tasks stay below 2, those of test tasks
below .1.  Films of people and of real robots, other cameras, and pictures that are upside down, mirrored, black or noise are
above 11 (docs/results/unusual).
"""
AGREEMENT = "agreement.json"
"""How far labels agree with the true return, in the side folder."""
_ORIGIN = "robopref"
REMEDY = "Annotate again (`robopref annotate`), or give another file."


@dataclass(frozen=True)
class Origin:
    """What labels are about and who gave them."""

    labeller: str
    instruction: str
    models: Mapping[str, str] = field(default_factory=dict)  # what the labeller looked through: name -> sha256 of its weights
    dataset: str | None = None  # sha256 of the episode dataset (files.digest); None: the clips are videos
    env_id: str | None = None  # of the dataset


def side_folder(path: Path) -> Path:
    """Where the manifest, the agreement and the unfinished scores of a preferences file live: NAME.run beside NAME.parquet."""
    return path.with_suffix(".run")


def write_preferences(path: Path, preferences: pd.DataFrame, origin: Origin | None = None) -> None:
    """Write the pairs (columns COLUMNS, and OPTIONAL ones) to `path`, atomically; equal pairs of one origin give equal bytes.

    Raises `RoboprefError` naming `path` when a column is missing or of the wrong type, or a row makes no sense.
    """
    _require_columns(list(preferences.columns), path)
    schema = _schema(preferences.columns)
    try:
        table = pa.Table.from_pandas(preferences[schema.names], schema, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise RoboprefError(f"{path}: not written, a column is of the wrong type ({error}).") from error
    check_preferences(_frame(table), path)
    about = None if origin is None else {_ORIGIN: json.dumps(plain(origin), sort_keys=True)}
    with atomic_file(path) as aside, aside.open("wb") as file:  # Arrow itself takes no name that is not UTF-8
        pq.write_table(table.replace_schema_metadata(about), file, compression="zstd", write_page_checksum=True)


def read_preferences(path: Path) -> pd.DataFrame:
    """The pairs of `path`, checked: episode, start and stop as nullable Int64, scores NaN where there are none; of the
    OPTIONAL columns those that are in the file.

    Raises `RoboprefError` naming `path` for a missing, truncated or foreign file, a missing or mistyped column, an
    empty table, a label outside [0, 1], or a clip that is neither a segment nor a video.
    """
    path = Path(path)
    _require_file(path)
    try:
        with path.open("rb") as file:
            # page checksums are verified where there are any
            table = pq.read_table(file, partitioning=None, page_checksum_verification=True)
        table.validate(full=True)  # of text that it is UTF-8
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError, ArithmeticError, MemoryError) as error:
        raise RoboprefError(f"{path}: not a whole Parquet file ({_first_line(error)}). {REMEDY}") from error
    _require_columns(table.column_names, path)
    columns = []
    schema = _schema(table.column_names)
    for wanted in schema:
        try:
            columns.append(table[wanted.name].cast(wanted.type))
        except (pa.ArrowException, ValueError, TypeError, LookupError) as error:
            found = table[wanted.name].type
            raise RoboprefError(f"{path}: column {wanted.name!r} is {found}, expected {wanted.type}. {REMEDY}") from error
    if columns[0].null_count:
        raise RoboprefError(f"{path}: a pair has no number in pair_id ({columns[0].null_count} such). {REMEDY}")
    preferences = _frame(pa.Table.from_arrays(columns, schema=schema))
    check_preferences(preferences, path)
    return preferences


def read_origin(path: Path) -> Origin | None:
    """What the labels of a preferences file are about; None where the file does not say."""
    _require_file(Path(path))
    try:
        with Path(path).open("rb") as file:
            about = (pq.read_schema(file).metadata or {}).get(_ORIGIN.encode())
        return None if about is None else _origin(parse_json(about.decode(), any_text=True))
    except (pa.ArrowException, OSError, ValueError, TypeError, LookupError, ArithmeticError, MemoryError) as error:
        raise RoboprefError(f"{path}: not a whole Parquet file of labels ({_first_line(error)}). {REMEDY}") from error


def _origin(said: Any) -> Origin:
    """What the metadata of a file say; TypeError or ValueError where it is of another kind."""
    origin = Origin(**said)
    words = [origin.labeller, origin.instruction, *(word for word in (origin.dataset, origin.env_id) if word is not None)]
    if not isinstance(origin.models, dict) or not all(isinstance(word, str) for word in (*words, *origin.models.values())):
        raise TypeError("its origin is of another kind")
    return origin


def check_origin(path: Path, dataset: Path, env_id: str) -> None:
    """Raise `RoboprefError` when the labels of a preferences file are about another dataset than this one of `env_id`.

    A file that does not say which dataset it is about is held to the task in its rows.
    """
    origin = read_origin(path)
    about = None
    if origin is None:
        tasks = [str(task) for task in read_preferences(path)["task"].dropna().unique() if task]
        if any(task != env_id.rpartition("/")[2] for task in tasks):
            about = f"episodes of {', '.join(tasks)}"
    elif origin.dataset is not None and origin.dataset != digest(dataset):
        about = f"another dataset, of {origin.env_id}" + (", with other episodes" if origin.env_id == env_id else "")
    if about:
        raise RoboprefError(
            f"{path}: its labels are about {about}, and {dataset} is of {env_id}: give the dataset that was annotated, or "
            "annotate this one (`robopref annotate`)"
        )


def labelled(preferences: pd.DataFrame) -> pd.DataFrame:
    """The pairs that have a label: all but those on which the labeller abstained."""
    return preferences[~preferences["abstained"]] if "abstained" in preferences else preferences


def check_preferences(preferences: pd.DataFrame, where: str | Path) -> None:
    """Raise `RoboprefError` naming `where` and the first pair that makes no sense."""
    if preferences.empty:
        raise RoboprefError(f"{where}: holds no pair. {REMEDY}")
    problems = {
        "has a label outside [0, 1]": ~preferences["label"].between(0.0, 1.0),  # NaN is not between either
        f"is of a kind other than {', '.join(KINDS)}": ~preferences["kind"].isin(KINDS),
        "has no instruction": preferences["instruction"].isna() | (preferences["instruction"] == ""),
        "has the number of another pair": preferences["pair_id"].duplicated(),
    }
    if "abstained" in preferences:
        problems["does not say whether it was abstained on"] = preferences["abstained"].isna()
        problems["was abstained on, yet has a label"] = preferences["abstained"].eq(True) & (preferences["label"] != 0.5)
    if "disagreement" in preferences:
        spread = preferences["disagreement"]
        problems["has a disagreement outside [0, 0.5]"] = spread.notna() & ~spread.between(0.0, 0.5)
    for side in "ab":
        episode, start, stop = (preferences[f"{name}_{side}"] for name in ("episode", "start", "stop"))
        video = preferences[f"video_{side}"]
        whole = (episode >= 0) & (start >= 0) & (start < stop)
        problems[f"has a clip {side} that is neither a segment (0 <= start < stop) nor a video"] = ~(
            (whole.fillna(False) & video.isna()) | (episode.isna() & video.notna())
        )
    for problem, rows in problems.items():
        if rows.any():
            bad = preferences.loc[rows.to_numpy(bool), "pair_id"]
            raise RoboprefError(f"{where}: pair {bad.iloc[0]} {problem} ({len(bad)} such). {REMEDY}")


def _require_file(path: Path) -> None:
    if path.is_dir():
        raise RoboprefError(f"{path} is a folder, not a preferences file. {REMEDY}")
    if not path.exists():
        raise RoboprefError(f"{absent(path)} `robopref annotate` makes files of labels")
    check_digests(side_folder(path), path, remedy=f"Restore it, or give it another name if you have changed it. {REMEDY}")


def _schema(found: Iterable[str]) -> pa.Schema:
    """SCHEMA and those OPTIONAL columns that are among the `found` ones."""
    return pa.schema([*SCHEMA, *(field for field in OPTIONAL if field.name in set(found))])


def _require_columns(found: list[str], path: str | Path) -> None:
    twice = next((name for name in SCHEMA.names + OPTIONAL.names if found.count(name) > 1), None)
    if twice is not None:
        raise RoboprefError(f"{path}: two columns are called {twice!r}. {REMEDY}")
    missing = [name for name in COLUMNS if name not in found]
    if missing:
        raise RoboprefError(f"{path}: column {missing[0]!r} is missing ({len(missing)} such). {REMEDY}")


def _frame(table: pa.Table) -> pd.DataFrame:
    """Arrow to pandas; integers stay integers where some are null."""
    frame = table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    return frame.assign(pair_id=frame["pair_id"].astype("int64"))


def _first_line(error: Exception) -> str:
    return one_line(ValueError(str(error).split("\n")[0]))
