"""Whether a training is still one: losses and weights that are not finite end it, and are never read back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from .errors import RoboprefError


def check_losses(metrics: Mapping[str, float | Tensor], where: str | Path) -> None:
    """RoboprefError naming the run `where` and the first metric that is not finite; an accuracy of nothing is NaN, and none."""
    for name, value in metrics.items():
        if not name.endswith("accuracy") and not torch.isfinite(found := torch.as_tensor(value)).all():
            raise RoboprefError(f"{where}: {name} became {found.tolist()}; train again with a lower learning rate")


def check_weights(weights: Mapping[str, Tensor], where: str | Path) -> None:
    """RoboprefError naming `where` the weights are or would be, and the first tensor that is not finite."""
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise RoboprefError(f"{where}: its weights hold NaN or infinity ({name}); train again with a lower learning rate")
