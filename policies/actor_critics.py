"""Actors and critics of policies/gtr.py, S members side by side, their gradients written down, and Adam; all of it in numpy.

The networks are so small that calls, not arithmetic, take the time, and a call of numpy costs a fraction of torch's.

Axes: S members, B rows, h width, do and da numbers in an observation and an action, o outputs of an actor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from robopref.configs.policy import GTRConfig
from robopref.preference.members import member_rngs

BETAS = (0.9, 0.999)  # Adam's


class ActorCritics:
    """S actors and S critics, 2S networks of one shape, and the actors' log standard deviations.

    Row m of `values` (2S, P) is network m, actors first, so that one product, one clipping and one optimiser serve all.  Of a
    critic only the first output counts; behind an actor's layers lies its log_std (da,).
    """

    def __init__(self, seeds: Sequence[int], obs_dim: int, outputs: int, action_dim: int, config: GTRConfig) -> None:
        self.members, self.config = len(seeds), config
        sizes = [obs_dim, *config.hidden, outputs]
        rows = [
            np.concatenate([orthogonal(rng, sizes, last), np.full(action_dim, config.log_std)])
            for kind, last in (("actor", 0.01), ("critic", 1.0))
            for rng in member_rngs(seeds, kind)
        ]
        self.shapes = list(pairwise(sizes))
        self.values = np.stack(rows).astype(np.float32)
        self.gradient = np.zeros_like(self.values)
        self.weights, self.biases, self.log_std = self.split(self.values)
        self.of_weights, self.of_biases, self.of_log_std = self.split(self.gradient)

    def split(self, rows: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
        """Views of `rows` (M, P): weights (M, i, o) and biases (M, 1, o) of every layer, log_std (S, 1, da) of the first S."""
        weights, biases, first = [], [], 0
        for i, o in self.shapes:
            weights.append(rows[:, first : first + i * o].reshape(len(rows), i, o))
            biases.append(rows[:, None, first + i * o : first + i * o + o])
            first += i * o + o
        return weights, biases, rows[: self.members, None, first:]

    def act(self, obs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Outputs of the actors (S, B, o), and their log_std (S, 1, da), for obs (S, B, do)."""
        return self.outputs_of(self.values[: self.members], obs)

    def outputs_of(self, rows: np.ndarray, obs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same of other actors, `rows` (S, P), such as anchors."""
        weights, biases, log_std = self.split(rows)
        return self.through(obs, weights, biases, None), log_std

    def both(self, obs: np.ndarray, tape: list[np.ndarray] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Outputs of the actors (S, B, o) and values (S, B) for obs (S, B, do); layers' inputs go onto the tape."""
        x = self.through(np.concatenate([obs, obs]), self.weights, self.biases, tape)
        return x[: self.members], x[self.members :, :, 0]

    def through(
        self, x: np.ndarray, weights: Sequence[np.ndarray], biases: Sequence[np.ndarray], tape: list[np.ndarray] | None
    ) -> np.ndarray:
        """(M, B, i) -> (M, B, o) through all layers."""
        for number, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            if tape is not None:
                tape.append(x)
            x = x @ weight
            x += bias
            if number < len(weights) - 1:
                x = np.tanh(x, out=x) if self.config.activation == "tanh" else np.maximum(x, 0, out=x)
        return x

    def backward(self, of_outputs: np.ndarray, of_log_std: np.ndarray, of_values: np.ndarray, tape: list[np.ndarray]) -> None:
        """`gradient` from dL/doutputs (S, B, o), dL/dlog_std (S, 1, da) and dL/dV (S, B)."""
        g = np.zeros((2 * self.members, *of_outputs.shape[1:]), np.float32)
        g[: self.members], g[self.members :, :, 0] = of_outputs, of_values
        self.of_log_std[:] = of_log_std
        for number in range(len(self.shapes) - 1, -1, -1):
            x = tape[number]
            np.matmul(x.swapaxes(1, 2), g, out=self.of_weights[number])
            np.sum(g, 1, keepdims=True, out=self.of_biases[number])
            if number > 0:
                g = g @ self.weights[number].swapaxes(1, 2)
                if self.config.activation == "tanh":
                    g -= g * np.square(x)
                else:
                    g *= x > 0

    def clip(self, largest: float) -> None:
        """Scale the gradient of every member, actor and critic together, to at most this norm."""
        squares = np.einsum("mp,mp->m", self.gradient, self.gradient)
        norms = np.sqrt(squares[: self.members] + squares[self.members :])
        scale = np.minimum(largest / (norms + 1e-6), 1).astype(np.float32)
        self.gradient *= np.concatenate([scale, scale])[:, None]


def orthogonal(rng: np.random.Generator, sizes: Sequence[int], last: float) -> np.ndarray:
    """Orthogonal weights, scaled by sqrt 2 and in the last layer by `last`, and biases of 0, one layer after the other (P,)."""
    parts, gains = [], [math.sqrt(2)] * (len(sizes) - 2) + [last]
    for (i, o), gain in zip(pairwise(sizes), gains, strict=True):
        q, r = np.linalg.qr(rng.standard_normal((max(i, o), min(i, o))))
        q *= np.sign(np.diag(r))
        parts += [(gain * (q if i >= o else q.T)).ravel(), np.zeros(o)]
    return np.concatenate(parts)


class Adam:
    """Kingma and Ba's optimiser on one array; at this size a step of torch's costs as much as the gradient.

    `first`, `second` and `count` are all that it remembers.
    """

    def __init__(self, shape: tuple[int, ...], learning_rate: float, eps: float = 1e-5) -> None:
        """eps: PPO's implementations have 1e-5."""
        self.first, self.second = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self.learning_rate, self.eps, self.count = learning_rate, eps, 0

    def step(self, values: np.ndarray, gradient: np.ndarray) -> None:
        """Move `values`."""
        self.count += 1
        self.first += (gradient - self.first) * (1 - BETAS[0])
        self.second += (np.square(gradient) - self.second) * (1 - BETAS[1])
        below = np.sqrt(self.second)
        below *= 1 / math.sqrt(1 - BETAS[1] ** self.count)
        below += self.eps
        values -= self.first / below * (self.learning_rate / (1 - BETAS[0] ** self.count))
