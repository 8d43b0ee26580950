"""How unusual pictures are to a VLP: their distance from those that it was trained on.

A score is only worth something where the model looks at what it knows.  It gives noise, or a kitchen, a number too, and not a
low one.  So training keeps mean and covariance of its pictures, averaged to GRID x GRID coloured cells, beside the weights
(`pictures.safetensors`), and annotation says how far its clips are from them, whatever the backbone.

The distance is Mahalanobis'.  Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples", NeurIPS 2018,
take that of a network's features; ours is of pixels, because features hide what they were not trained to see (docs/vlp.md).
Its unit is the farthest of the training's own tasks, had that been left out: a VLP is made for tasks that it never saw.

Axes: N clips, T frames after the opening, M frames, D = 3 GRID^2.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from robopref.configs.checkpoint import load_tensors, save_tensors
from robopref.configs.files import as_written
from robopref.configs.run_folder import refuse_outside
from robopref.datasets.clips import FrameBank
from robopref.preference.hub import PICTURES
from robopref.preference.labellers import Scorer

KIND = "pictures"
GRID = 8
MOST = 10_000  # frames that statistics are taken of: 50 for each of their numbers


class TrainingPictures:
    """Mean, precision and unit of a model's training pictures."""

    def __init__(self, mean: Tensor, factor: Tensor, unit: float) -> None:
        """mean (D,) float64; factor (D, D), whose square factor @ factor.T is the inverse of the covariance; unit: see above."""
        self.mean, self.factor, self.unit = mean, factor, unit

    @classmethod
    def of(cls, bank: FrameBank) -> TrainingPictures:
        """Statistics of the frames of a bank of two tasks or more, evenly spread.

        The covariance is shrunk as Ledoit and Wolf say, "A well-conditioned estimator for large-dimensional covariance matrices",
        2004: where a camera stands still, some cells never change.
        """
        from sklearn.covariance import ledoit_wolf_shrinkage  # 1 s to import

        numbers = np.unique(np.linspace(0, len(bank) - 1, min(len(bank), MOST)).round().astype(int))
        seen = torch.cat([cells(bank.frames(chunk)) for chunk in np.array_split(numbers, -(-len(numbers) // 1024))])
        shrinkage = float(ledoit_wolf_shrinkage(seen.numpy()))
        tasks = [seen[torch.from_numpy(rows)] for rows in bank.index.iloc[numbers].groupby("task").indices.values()]
        apart = []
        for number, task in enumerate(tasks):
            mean, factor = moments(torch.cat(tasks[:number] + tasks[number + 1 :]), shrinkage)
            apart.append(float(far(task, mean, factor).mean()))
        return cls(*moments(seen, shrinkage), max(apart))

    @classmethod
    def load(cls, folder: Path) -> TrainingPictures | None:
        """What `save` wrote into a model's folder; None where there is nothing, as of models of version 0.1."""
        if not (folder / PICTURES).exists():
            return None
        refuse_outside(folder, (PICTURES,))
        tensors, _ = load_tensors(folder / PICTURES, KIND)
        with as_written(folder / PICTURES, "train VLP again"):
            mean, factor, size = tensors["mean"], tensors["factor"], 3 * GRID**2
            if (mean.shape, factor.shape, mean.dtype, factor.dtype) != ((size,), (size, size), torch.float64, torch.float64):
                raise ValueError(f"mean and factor of shapes {tuple(mean.shape)} and {tuple(factor.shape)}")
            return cls(mean, factor, float(tensors["unit"]))

    def save(self, folder: Path) -> None:
        """Write them into a model's folder."""
        tensors = {"mean": self.mean, "factor": self.factor, "unit": torch.tensor(self.unit, dtype=torch.float64)}
        save_tensors(folder / PICTURES, tensors, {"kind": KIND, "grid": GRID})

    def distance(self, clips: np.ndarray) -> np.ndarray:
        """clips (N, 1 + T, H, W, 3) uint8 -> mean squared distance of their frames, (N,), in units."""
        frames = cells(clips.reshape(-1, *clips.shape[2:]))
        return far(frames, self.mean, self.factor).view(len(clips), -1).mean(1).numpy() / self.unit


class Watched:
    """A scorer that also says how unusual its clips are: one column more, the last; NaN where no statistics are known."""

    def __init__(self, scorer: Scorer, known: Sequence[TrainingPictures]) -> None:
        self.scorer, self.known = scorer, known

    def score(self, clips: np.ndarray, instructions: list[str]) -> np.ndarray:
        """Scores (N, M) and the largest distance from the training of any model, together (N, M + 1)."""
        scores = self.scorer.score(clips, instructions).reshape(len(clips), -1)
        far = [pictures.distance(clips) for pictures in self.known]
        return np.column_stack([scores, np.max(far, axis=0) if far else np.full(len(clips), np.nan)])


def cells(frames: np.ndarray) -> Tensor:
    """frames (M, H, W, 3) uint8 -> mean colours of GRID x GRID cells, (M, D) float64, from 0 to 255."""
    images = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()
    return F.adaptive_avg_pool2d(images, GRID).flatten(1).double()


def moments(seen: Tensor, shrinkage: float) -> tuple[Tensor, Tensor]:
    """Mean (D,) of rows (M, D), and a factor of the inverse of their covariance, shrunk towards its mean variance."""
    covariance = torch.cov(seen.T, correction=0)
    floor = covariance.diagonal().mean() * torch.eye(len(covariance), dtype=torch.float64)
    inverse = torch.linalg.inv((1 - shrinkage) * covariance + shrinkage * floor)
    return seen.mean(0), torch.linalg.cholesky(inverse)


def far(rows: Tensor, mean: Tensor, factor: Tensor) -> Tensor:
    """Squared distance of rows (M, D) from a mean (D,) over D, (M,)."""
    return ((rows - mean) @ factor).square().mean(1)
