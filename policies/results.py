"""What a run folder holds, read for the report.  A part that is missing or damaged is a sentence, not an error.

Comes after all stages of the pipeline; goes to policies/report.py.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from robopref.configs.errors import RoboprefError
from robopref.configs.files import MANIFEST, as_written, read_json, read_record
from robopref.configs.rows import read_csv, read_named
from robopref.datasets.clips import BANK_STAGE
from robopref.datasets.preferences import AGREEMENT, labelled, read_preferences, side_folder
from robopref.policies.figures import ORDER, curves, in_order, success_chart
from robopref.preference.agreement import SHOWN

PARTS = {  # what `robopref pipeline` leaves in a run folder, in the order of its stages
    "episodes": "episodes of the train tasks (Minari datasets)",
    "offline": "episodes of the task that VLP never saw (Minari dataset)",
    "clips": "pictures drawn from the episodes",
    "backbone": "the small vision backbone",
    "vlp": "the vision-language preference model",
    "labels": "labelled pairs and how far they agree with the true return",
    "policies": "trained policies",
    "evaluation": "success over goals and seeds",
    "videos": "videos",
}
PARTED = ("wordings", "without_pixels")
DRAWN = 1e30  # numbers beyond it overflow in figures
MEASURES = ("n", *SHOWN, "over_cluster", "near_ties")  # always shown together


def gather(folder: Path) -> dict[str, Any]:
    """Everything that the page shows, read from `folder`; parts that are missing or damaged are named in `problems`."""
    problems: list[str] = []

    def tried(read: Callable[[Path], Any], *where: str) -> Any:
        path = folder.joinpath(*where)
        if not path.exists():
            problems.append(f"{path.relative_to(folder)} is not there.")
            return None
        try:
            with as_written(path, "run its stage again"):
                return read(path)
        except (RoboprefError, OSError) as error:
            problems.append(f"{path.relative_to(folder)} cannot be read: {error}")
            return None

    manifests = []
    for path in sorted(folder.rglob(MANIFEST)):
        found = tried(read_record, str(path.relative_to(folder)))
        if found is not None:
            manifests.append(found | {"folder": path.parent.relative_to(folder).as_posix()})
    manifests.sort(key=lambda manifest: (manifest["folder"] == ".", manifest.get("created", "")))
    stages = top_stages(manifests)
    if not manifests:
        problems.append("There is no manifest, so nothing says with which settings and code this was made.")

    summary = tried(read_summary, "evaluation", "summary.json") or {}
    trials = tried(read_success, "evaluation", "success.csv")
    labels = tried(read_preferences, "labels", "vlp.parquet")
    labellers = sorted((path.stem for path in (folder / "labels").glob("*.parquet")), key=lambda name: (name != "vlp", name))
    labellers = labellers or ["vlp"]
    measured = {name: tried(read_measures, "labels", side_folder(Path(f"{name}.parquet")).name, AGREEMENT) for name in labellers}
    agreement = {name: {key: row.get(key) for key in MEASURES} for name, row in measured.items() if row is not None}
    vlp = tried(read_metrics, "vlp", "metrics.csv")
    learned = sorted(path.name for path in (folder / "policies").glob("*") if path.is_dir())
    progress = {name: tried(read_metrics, "policies", name, "metrics.csv") for name in learned}
    films = tried(read_films, "videos", "films.json") or {}
    config = manifests[-1].get("config", {}) if manifests else {}
    instruction = films.get("instruction") or (None if labels is None else str(labels["instruction"].iloc[0]))
    videos = read_videos(folder / "videos", films)
    if not videos:
        problems.append("There are no videos.")
    return {
        "name": folder.resolve().name,
        "folder": str(folder),
        "problems": problems,
        "manifests": manifests,
        "stages": stages,
        "stages_s": sum(manifest.get("wall_s") or 0.0 for manifest in stages),
        "config": config,
        "instruction": instruction,
        "task": next(iter(labels["task"].unique()), None) if labels is not None else films.get("env"),
        "pairs": None if labels is None else pair_facts(labels),
        "agreement": agreement,
        "unseen_task": tried(read_orders, "vlp", "generalisation.json"),
        "vlp_curves": panels({} if vlp is None else {"vlp": vlp}),
        "policy_curves": panels({name: table for name, table in progress.items() if table is not None}),
        "results": beside_references(summary),
        "absent": [name for name in ORDER if name not in summary],
        "trials": trials or {},
        "chart": success_chart(summary) if summary else None,
        "videos": videos,
        "commands": list(dict.fromkeys(m["command"] for m in manifests if m.get("command"))),
        "files": list_files(folder),
    }


def read_mapping(path: Path) -> dict[str, Any]:
    """A JSON file that holds names and values; ValueError for anything else."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise ValueError("it holds no names and values")
    return found


def read_measures(path: Path) -> dict[str, float | None]:
    """agreement.json: measure -> number, those that the page shows; ValueError for what is none."""
    row = read_mapping(path)
    return {key: number_or_none(row.get(key), key) for key in MEASURES}


def read_orders(path: Path) -> dict[str, Any]:
    """generalisation.json: the task, and of each wording and each motion its measures; ValueError for anything else."""
    found = read_mapping(path)
    rows = {part: {name: as_mapping(row, name) for name, row in as_mapping(found.get(part, {}), part).items()} for part in PARTED}
    for row in (row for part in rows.values() for row in part.values()):
        for key in ("itp_accuracy", "ivp_accuracy", "ilp_loss"):
            row[key] = number_or_none(row.get(key), key)
        row["tuples"] = number(row.get("tuples"), "tuples")
    if not rows["wordings"]:
        raise ValueError("no 'wordings' in it")
    return {"task": word_or_none(found.get("task"), "task"), **rows}


def read_films(path: Path) -> dict[str, Any]:
    """films.json: instruction, environment and the episodes of each film; ValueError for values of another kind."""
    found = read_mapping(path)
    told = {key: word_or_none(found.get(key), key) for key in ("instruction", "env")}
    episodes = {
        name: [as_mapping(one, name) for one in many] for name, many in as_mapping(found.get("episodes", {}), "episodes").items()
    }
    for one in (one for many in episodes.values() for one in many):
        for key in ("goal", "steps", "success_step"):
            one[key] = int(number(one.get(key), key))
        one["success"] = bool(one["success"])
    return told | {"episodes": episodes}


def as_mapping(value: object, name: str) -> dict[str, Any]:
    """A copy of a value that holds names and values; ValueError for another."""
    if not isinstance(value, dict):
        raise ValueError(f"{name} holds no names and values")
    return dict(value)


def number(value: object, name: str) -> float:
    """A number; ValueError for another value."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is no number")
    return value


def number_or_none(value: object, name: str) -> float | None:
    """A number or nothing; ValueError for another value."""
    return None if value is None else number(value, name)


def word_or_none(value: object, name: str) -> str | None:
    """Text or nothing; ValueError for another value."""
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} is no text")
    return value


def read_metrics(path: Path) -> pd.DataFrame:
    """metrics.csv of a training run; ValueError without a step column of numbers."""
    table = read_csv(path)
    if "step" not in table or table.empty or not pd.api.types.is_numeric_dtype(table["step"]):
        raise ValueError("no column called step, or no row yet; let the training finish")
    columns = table.select_dtypes("number")
    if (columns.abs() > DRAWN).any(axis=None):
        raise ValueError(f"a number above {DRAWN:g}")
    return table


def read_summary(path: Path) -> dict[str, dict[str, float]]:
    """summary.json: policy -> {iqm, low, high, mean, n}; ValueError when a figure is missing."""
    summary = read_mapping(path)
    for name, figures in summary.items():
        missing = [
            key for key in ("iqm", "low", "high", "mean", "n") if not isinstance(figures, dict) or figures.get(key) is None
        ]
        if missing:
            raise ValueError(f"{name} has no {', '.join(missing)}; run `robopref evaluate` again")
        for key in ("iqm", "low", "high", "mean", "n"):
            if abs(number(figures[key], f"{name}.{key}")) > DRAWN:
                raise ValueError(f"{name}.{key} is above {DRAWN:g}")
    return summary


def read_success(path: Path) -> dict[str, dict[str, int]]:
    """success.csv -> policy -> how many members and goals were tried."""
    table = read_named(path)
    missing = {"policy", "member", "goal"} - set(table.columns)
    if missing:
        raise ValueError(f"no column called {', '.join(sorted(missing))}")
    counts = table.groupby("policy")[["member", "goal"]].nunique()
    return {str(name): {"members": int(row["member"]), "goals": int(row["goal"])} for name, row in counts.iterrows()}


def pair_facts(labels: pd.DataFrame) -> dict[str, Any]:
    """How many pairs have a label and how many none, and which share prefers the second."""
    kept = labelled(labels)
    return {
        "n": len(kept),
        "abstained": len(labels) - len(kept),
        "second": float((kept["label"] > 0.5).mean()),
        "ties": int((kept["label"] == 0.5).sum()),
    }


def panels(tables: Mapping[str, pd.DataFrame]) -> list[Markup]:
    """One small figure a metric, a line in it for each run that has it; `charts/...` (speeds) are for TensorBoard."""
    columns = dict.fromkeys(column for table in tables.values() for column in table.columns)
    shown = [column for column in columns if column != "step" and not column.startswith("charts/")]
    figures = []
    for column in shown:
        lines: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for name, table in tables.items():
            if column in table and pd.api.types.is_numeric_dtype(table[column]):
                there = table[["step", column]].dropna()
                if len(there):
                    lines[name] = there["step"].to_numpy(), there[column].to_numpy(float)
        if lines:
            figures.append(curves(column, lines))
    return figures


def top_stages(manifests: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The manifests of whole stages, in order: but for parts, such as a task of a collection and its frame bank."""
    folders = {manifest["folder"] for manifest in manifests} - {"."}
    stages = [
        manifest
        for manifest in manifests
        if manifest["folder"] != "."
        and manifest.get("stage") != BANK_STAGE
        and not any(p.as_posix() in folders for p in Path(manifest["folder"]).parents)
    ]
    order = list(PARTS)

    def place(manifest: Mapping[str, Any]) -> tuple[int, str]:
        part = manifest["folder"].partition("/")[0]
        return order.index(part) if part in order else len(order), manifest["folder"]

    return sorted(stages, key=place)


def beside_references(summary: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """The summary's rows in order, with how each interval lies beside those of `random` and `bc`.

    "above" or "below" when the intervals do not touch, "overlap" when they do, None where there is nothing to compare.
    """

    def beside(name: str, other: str) -> str | None:
        if name == other or other not in summary:
            return None
        mine, theirs = summary[name], summary[other]
        return "above" if mine["low"] > theirs["high"] else "below" if mine["high"] < theirs["low"] else "overlap"

    return [
        {"policy": name, **summary[name], "random": beside(name, "random"), "bc": beside(name, "bc")}
        for name in in_order(summary)
    ]


def read_videos(folder: Path, films: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The videos to embed: the grid and one a policy; those of single goals only if there is nothing else."""
    paths = {path.stem: path for path in folder.glob("*.mp4")}
    whole = [name for name in paths if "-goal-" not in name] or list(paths)
    episodes = films.get("episodes", {})
    videos = []
    for name in in_order(whole):
        data = base64.b64encode(paths[name].read_bytes()).decode("ascii")
        videos.append({"name": name, "uri": f"data:video/mp4;base64,{data}", "episodes": episodes.get(name, [])})
    return videos


def list_files(folder: Path) -> list[dict[str, Any]]:
    """One row for each thing in the run folder: path, what it is, files and bytes."""
    rows = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name == "report.html":
            continue
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        size = sum(file.stat().st_size for file in files)
        rows.append({"path": path.name, "what": PARTS.get(path.name, ""), "files": len(files), "bytes": size})
    return rows
