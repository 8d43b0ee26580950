"""`python -m robopref.policies.summary RUN [RUN ...] --out docs/results/quick`: what the documents quote, from pipeline runs.

Writes labels.csv and success.csv, a row a run and labeller or policy, outcomes.csv, a row an episode of evaluation, which
success.csv's intervals are of, and rollout.png, frames of the first run's grid video.
Beside VLP stand the labellers that see neither pixels nor words: a constant, and how the hand moved; what knowing the better
cluster is worth is in the columns cluster_accuracy and over_cluster.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import tyro
from PIL import Image

from robopref.configs.cli import guarded
from robopref.configs.errors import RoboprefError
from robopref.configs.files import MANIFEST, as_written, atomic_file, read_json, read_record
from robopref.configs.flags import from_flags
from robopref.configs.rows import read_named
from robopref.datasets.preferences import AGREEMENT, side_folder
from robopref.embodied.video import read_video
from robopref.preference.baselines.motion import MOTIONS

PICTURES = 3
LABELLERS = ("vlp", "constant", *MOTIONS)


@dataclass(frozen=True)
class SummaryConfig:
    """Run folders of `robopref pipeline`, each finished."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    out: Path = Path("docs/results/quick")


def main(argv: list[str]) -> None:
    """Command line."""
    config = from_flags(SummaryConfig, argv, "python -m robopref.policies.summary", __doc__)
    labels, success = tables(config.runs)
    for name, table in (("labels", labels), ("success", success)):
        with atomic_file(config.out / f"{name}.csv") as temp:
            table.to_csv(temp, index=False, float_format="%.4f")
        print(table.to_string(index=False, float_format="%.3f"))
    with atomic_file(config.out / "outcomes.csv") as temp:
        outcomes(config.runs).to_csv(temp, index=False)
    with atomic_file(config.out / "rollout.png") as temp:
        film_strip(config.runs[0] / "videos" / "grid.mp4").save(temp)


def tables(runs: tuple[Path, ...]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Label quality, one row a run and labeller, with its order of whole episodes; success, one row a run and policy."""
    labels, success = [], []
    for run in runs:
        if not (run / MANIFEST).exists():
            raise RoboprefError(f"{run} is not a finished run of `robopref pipeline`: run it, or name another folder")
        manifest = read_record(run / MANIFEST)
        with as_written(run / MANIFEST, "run `robopref pipeline` again"):
            which = {"task": manifest["config"]["task"], "seed": manifest["config"]["seed"]}
        orders = read_json(path := run / "vlp" / "generalisation.json")
        with as_written(path, "train VLP again"):
            ordered = {"vlp": dict(orders["wordings"]["train"]), **orders.get("without_pixels", {})}
        for labeller in LABELLERS:
            measured = side_folder(run / "labels" / f"{labeller}.parquet") / AGREEMENT
            if not measured.exists() and labeller != "vlp":
                continue  # a run of the first edition
            agreement = read_json(measured)
            with as_written(measured, "label again"):
                agreement.pop("left_out", None)
                row = which | {"labeller": labeller} | agreement
            with as_written(path, "train VLP again"):
                shown = ("itp_accuracy", "ivp_accuracy", "ilp_loss") if labeller == "vlp" else ("itp_accuracy",)
                whole = {f"episodes_{name}": ordered[labeller][name] for name in shown if labeller in ordered}
            labels.append(row | whole)
        summary = read_json(path := run / "evaluation" / "summary.json")
        with as_written(path, "run `robopref evaluate` again"):
            success += [which | {"policy": name} | row for name, row in summary.items()]
    return pd.DataFrame(labels), pd.DataFrame(success)


def outcomes(runs: tuple[Path, ...]) -> pd.DataFrame:
    """Every episode of evaluation: task and seed of the run, policy, member, goal, success, ret, steps."""
    parts = []
    for run in runs:
        settings = read_record(run / MANIFEST)["config"]
        with as_written(path := run / "evaluation" / "success.csv", "run `robopref evaluate` again"):
            episodes = read_named(path).drop(columns="success_step")
        with as_written(run / MANIFEST, "run `robopref pipeline` again"):
            episodes.insert(0, "seed", settings["seed"])
            episodes.insert(0, "task", settings["task"])
        parts.append(episodes)
    return pd.concat(parts, ignore_index=True)


def film_strip(film: Path) -> Image.Image:
    """A few pictures of a video at half size, the first and last among them, one below the other."""
    pictures = list(read_video(film))
    chosen = np.linspace(0, len(pictures) - 1, PICTURES).round().astype(int)
    strip = Image.fromarray(np.concatenate([pictures[number] for number in chosen]))
    return strip.reduce(2)


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
