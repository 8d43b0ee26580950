"""An agent's update as one CUDA graph: hundreds of small kernels, started at once instead of one by one."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from robopref.policies.experience import Experience

EAGER = 3  # calls before the capture, on a side stream, in which libraries choose kernels and make their workspaces


class Agent(Protocol):
    """What can be captured: an update without a look at its numbers from Python, drawing from `noise` alone."""

    noise: torch.Generator

    def update(self, batch: Experience) -> dict[str, Tensor]:
        """One step; metrics by name."""


class GraphedUpdate:
    """`agent.update` with the same results, replayed from a graph after the first calls; minibatches of one size."""

    def __init__(self, agent: Agent) -> None:
        self.agent, self.calls = agent, 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, batch: Experience) -> dict[str, Tensor]:
        """One step on `batch`; metrics that the next call leaves alone."""
        if self.calls < EAGER:
            self.calls += 1
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                metrics = self.agent.update(batch)
            torch.cuda.current_stream().wait_stream(stream)
            return metrics
        if self.graph is None:
            self.batch = Experience(*(value.clone() for value in batch))
            graph = torch.cuda.CUDAGraph()
            graph.register_generator_state(self.agent.noise)
            with torch.cuda.graph(graph):  # records, computes nothing
                self.metrics = self.agent.update(self.batch)
            self.graph = graph
        for held, new in zip(self.batch, batch, strict=True):
            held.copy_(new)
        self.graph.replay()
        return {name: value.clone() for name, value in self.metrics.items()}
