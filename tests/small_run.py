"""A small but complete run folder, as `robopref pipeline` leaves it, with invented numbers."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd

from robopref.configs.files import write_json
from robopref.configs.run import write_manifest
from robopref.datasets.preferences import write_preferences
from robopref.embodied.video import grid, overlay, write_video

SUCCESS = {
    "random": 0.1,
    "bc": 0.5,
    "piql-vlp": 0.7,
    "piql-scripted": 0.75,
    "cpl-vlp": 0.8,
    "cpl-scripted": 0.82,
    "expert": 1.0,
}
TRAINED = [name for name in SUCCESS if name not in ("random", "expert")]


def make_run(folder: Path, instruction: str = "close the drawer") -> Path:
    started = time.time()
    rng = np.random.default_rng(0)
    config = {"task": "drawer-close", "instruction": instruction, "scale": "quick"}
    steps = np.arange(10, 401, 10)

    for stage in ("episodes", "offline", "clips", "backbone"):
        (folder / stage).mkdir(parents=True)
        (folder / stage / "data.bin").write_bytes(bytes(1000))
        write_manifest(folder / stage, stage, config, {}, 0, started)
    (folder / "vlp").mkdir()
    falling = 0.7 * np.exp(-steps / 150) + 0.01 * rng.normal(size=len(steps))
    pd.DataFrame(
        {
            "step": steps,
            "losses/loss": falling,
            "losses/itp": falling * 0.8,
            "losses/ilp": 0.69 + 0.2 * np.exp(-steps / 80),
            "losses/itp_accuracy": 1 - falling / 1.4,
            "charts/tuples_per_second": 900.0,
        }
    ).to_csv(folder / "vlp" / "metrics.csv", index=False)
    orders = {"itp_accuracy": 0.91, "ivp_accuracy": 0.77, "ilp_loss": 0.702, "tuples": 256.0}
    unseen = {"task": "drawer-close", "wordings": {"train": orders, "heldout": orders}}
    write_json(folder / "vlp" / "generalisation.json", unseen)
    write_manifest(folder / "vlp", "train-vlp", config, {"clips": folder / "clips"}, 0, started)

    figures = {
        "accuracy": 0.81,
        "balanced_accuracy": 0.8,
        "auc": 0.88,
        "kendall_tau": 0.61,
        "constant_accuracy": 0.53,
        "n": 100,
        "near_ties": 9,
    }
    for labeller in ("vlp", "scripted"):
        write_preferences(folder / "labels" / f"{labeller}.parquet", labelled_pairs(instruction, labeller, rng))
        write_json(folder / "labels" / f"{labeller}.run" / "agreement.json", figures)
        write_manifest(folder / "labels" / labeller, "annotate", config, {"model": folder / "vlp"}, 0, started)

    for name in TRAINED:
        (folder / "policies" / name).mkdir(parents=True)
        loss = "losses/clone" if name == "bc" else "losses/reward" if "piql" in name else "losses/contrast"
        table = {
            "step": steps,
            loss: np.exp(-steps / 100) + 0.02 * rng.normal(size=len(steps)),
            "losses/actor": falling,
        }
        pd.DataFrame(table).to_csv(folder / "policies" / name / "metrics.csv", index=False)
        write_manifest(folder / "policies" / name, "train", config, {}, [0, 1, 2], started)

    trials = pd.DataFrame(
        [(p, m, g, rng.random() < s, 40, 1.5, 41) for p, s in SUCCESS.items() for m in range(3) for g in range(10)],
        columns=["policy", "member", "goal", "success", "success_step", "ret", "steps"],
    )
    (folder / "evaluation").mkdir()
    trials.to_csv(folder / "evaluation" / "success.csv", index=False)
    summary = {p: {"iqm": s, "low": max(0, s - 0.12), "high": min(1, s + 0.1), "mean": s, "n": 30} for p, s in SUCCESS.items()}
    write_json(folder / "evaluation" / "summary.json", summary)
    write_manifest(folder / "evaluation", "evaluate", config, {}, range(10), started)

    films = {name: film(name, instruction) for name in ("bc", "cpl-vlp")}
    for name, pictures in films.items():
        write_video(folder / "videos" / f"{name}.mp4", pictures)
        write_video(folder / "videos" / f"{name}-goal-0.mp4", pictures)
    write_video(folder / "videos" / "grid.mp4", grid(list(films.values())))
    episode = {"goal": 0, "success": True, "success_step": 31, "steps": 51, "return": 12.5}
    write_json(
        folder / "videos" / "films.json",
        {"instruction": instruction, "env": "metaworld/drawer-close", "episodes": {name: [episode] for name in films}},
    )
    write_manifest(folder / "videos", "video", config, {}, 0, started)
    write_manifest(folder, "pipeline", config, {}, 0, started)
    return folder


def labelled_pairs(instruction: str, labeller: str, rng: np.random.Generator, count: int = 20) -> pd.DataFrame:
    start = rng.integers(0, 100, count)
    return pd.DataFrame(
        {
            "pair_id": np.arange(count),
            "kind": "segment",
            "task": "drawer-close",
            "instruction": instruction,
            "episode_a": rng.integers(0, 9, count),
            "start_a": start,
            "stop_a": start + 50,
            "video_a": None,
            "episode_b": rng.integers(0, 9, count),
            "start_b": start,
            "stop_b": start + 50,
            "video_b": None,
            "label": rng.integers(0, 2, count).astype(float),
            "score_a": rng.normal(size=count),
            "score_b": rng.normal(size=count),
            "labeller": labeller,
            "split": "train",
        }
    )


def film(title: str, instruction: str, count: int = 30, size: int = 224) -> list[np.ndarray]:
    pictures = []
    for step in range(count):
        picture = np.full((size, size, 3), 70, np.uint8)
        picture[size // 2 : size // 2 + 30, 4 * step : 4 * step + 40] = (230, 160, 40)
        pictures.append(overlay(picture, instruction, step, step / 10, step > 20, title=f"{title}, goal 0"))
    return pictures
