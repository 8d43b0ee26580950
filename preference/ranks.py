"""The processes that train one VLP together, over Lightning Fabric: on several GPUs, several machines, or several cores.

Every rank draws the same batch from the same generators and keeps each of its `size` tuples to itself; gradients are
averaged.  So a run on n ranks is the run on one, up to rounding and dropout masks (a test compares the loss curves).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from robopref.configs.errors import RoboprefError
from robopref.configs.run import choose_device


def starts_first() -> bool:
    """Whether this process will be the first rank, before any is started: launchers tell the others by their environment."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))


class Ranks:
    """This process among those that train together; without companions it costs nothing."""

    def __init__(self, device: str, devices: int = 1, num_nodes: int = 1, strategy: str = "ddp") -> None:
        """Start the companions (Fabric runs this command once more for each) and wait for them.

        device: auto, cpu, cuda or cuda:N.  devices: processes on this machine.  num_nodes: machines, whose launcher
        (torchrun, Slurm) starts one process a device.  strategy: ddp.  RoboprefError where there are not so many GPUs.
        """
        self.device = choose_device(device)
        self.rank, self.size = 0, 1
        self._fabric: Any = None
        if min(devices, num_nodes) < 1:
            raise RoboprefError(f"devices={devices} num_nodes={num_nodes}: both must be at least 1")
        if devices * num_nodes == 1:
            return
        if self.device.type == "cuda" and torch.cuda.device_count() < devices:
            raise RoboprefError(f"devices={devices}, but torch sees {torch.cuda.device_count()} GPUs here: ask for fewer")
        from lightning.fabric import Fabric  # seconds, and nobody else needs it

        self._fabric = Fabric(accelerator=self.device.type, devices=devices, num_nodes=num_nodes, strategy=strategy)
        self._fabric.launch()
        self.device = self._fabric.device
        self.rank, self.size = self._fabric.global_rank, self._fabric.world_size

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def wait(self) -> None:
        """Go on when all have come here."""
        if self._fabric is not None:
            self._fabric.barrier()

    @property
    def share(self) -> slice:
        """This process's part of a list or array that all have drawn alike: every `size`-th item."""
        return slice(self.rank, None, self.size)

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its mean over the processes, in one message."""
        if self._fabric is None:
            return
        parts = list(tensors)
        flat = self._fabric.all_reduce(torch.cat([part.detach().reshape(-1) for part in parts]), reduce_op="mean")
        for part, mean in zip(parts, flat.split([part.numel() for part in parts]), strict=True):
            part.copy_(mean.view_as(part))
