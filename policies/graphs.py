"""A learner's step as one CUDA graph: hundreds of small kernels, started at once instead of one by one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

EAGER = 3  # calls before the capture, on a side stream, in which libraries choose kernels and make their workspaces


class Graphed:
    """`compute` with the same results, replayed from a graph after the first calls.

    compute: from tensors on a GPU, of the same shapes in every call, to metrics; without a look at its numbers from Python.  What
    else it reads it finds where it was at the capture.  noise: the one generator that it may draw from.
    """

    def __init__(self, compute: Callable[..., dict[str, Tensor]], noise: torch.Generator | None = None) -> None:
        self.compute, self.noise, self.calls = compute, noise, 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, *inputs: Tensor) -> dict[str, Tensor]:
        """One step; metrics that the next call leaves alone."""
        if self.calls < EAGER:
            self.calls += 1
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                metrics = self.compute(*inputs)
            torch.cuda.current_stream().wait_stream(stream)
            return metrics
        if self.graph is None:
            self.inputs = [value.clone() for value in inputs]
            graph = torch.cuda.CUDAGraph()
            if self.noise is not None:
                graph.register_generator_state(self.noise)
            with torch.cuda.graph(graph):  # records, computes nothing
                self.metrics = self.compute(*self.inputs)
            self.graph = graph
        for held, new in zip(self.inputs, inputs, strict=True):
            held.copy_(new)
        self.graph.replay()
        return {name: value.clone() for name, value in self.metrics.items()}
